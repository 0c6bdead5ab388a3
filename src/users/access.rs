//! Who may do what: the one place where roles and scopes are turned into rights.
//!
//! A route names the right that it needs, a caller knows the rights that it has, and nothing else is compared anywhere.

use serde::{Deserialize, Serialize};

use super::model::Role;
use crate::base::id::{KeyId, UserId};

/// Something that a caller may or may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Read items.
    ItemsRead,
    /// Make, change and remove items.
    ItemsWrite,
    /// Read jobs, queues, workers, kinds and dead letters.
    JobsRead,
    /// Submit, cancel and repeat jobs.
    JobsWrite,
    /// Pause and empty queues, replay and discard dead letters, ping workers.
    QueuesControl,
    /// Read anybody's notifications.
    NotificationsRead,
    /// Send notifications to anybody.
    NotificationsWrite,
    /// Read templates.
    TemplatesRead,
    /// Change templates, rules and suppressions.
    TemplatesWrite,
    /// What everybody who is known may do with what is their own: profile, notifications.
    Oneself,
    /// Read anybody's profile.
    UsersRead,
    /// Make users, change anybody's profile.
    UsersWrite,
    /// Give and take rights: roles, passwords of others, API keys; remove users.
    UsersAdmin,
}

impl Right {
    /// Every right.
    pub const ALL: [Self; 13] = [
        Self::ItemsRead,
        Self::ItemsWrite,
        Self::JobsRead,
        Self::JobsWrite,
        Self::QueuesControl,
        Self::NotificationsRead,
        Self::NotificationsWrite,
        Self::TemplatesRead,
        Self::TemplatesWrite,
        Self::Oneself,
        Self::UsersRead,
        Self::UsersWrite,
        Self::UsersAdmin,
    ];
}

/// What a route asks of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: anybody may call it.
    Open,
    /// This right.
    Of(Right),
}

impl From<Right> for Need {
    fn from(right: Right) -> Self {
        Self::Of(right)
    }
}

/// What an API key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Everything.
    #[serde(rename = "admin")]
    Admin,
    /// Reading items.
    #[serde(rename = "items:read")]
    ItemsRead,
    /// Changing items.
    #[serde(rename = "items:write")]
    ItemsWrite,
    /// Reading jobs, queues and workers.
    #[serde(rename = "jobs:read")]
    JobsRead,
    /// Submitting and cancelling jobs.
    #[serde(rename = "jobs:write")]
    JobsWrite,
    /// Pausing and emptying queues, dead letters.
    #[serde(rename = "queues:control")]
    QueuesControl,
    /// Reading notifications.
    #[serde(rename = "notifications:read")]
    NotificationsRead,
    /// Sending notifications.
    #[serde(rename = "notifications:write")]
    NotificationsWrite,
    /// Reading templates.
    #[serde(rename = "templates:read")]
    TemplatesRead,
    /// Changing templates, rules and suppressions.
    #[serde(rename = "templates:write")]
    TemplatesWrite,
    /// Reading users.
    #[serde(rename = "users:read")]
    UsersRead,
    /// Making and changing users, but not their roles and passwords.
    #[serde(rename = "users:write")]
    UsersWrite,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 12] = [
        Self::Admin,
        Self::ItemsRead,
        Self::ItemsWrite,
        Self::JobsRead,
        Self::JobsWrite,
        Self::QueuesControl,
        Self::NotificationsRead,
        Self::NotificationsWrite,
        Self::TemplatesRead,
        Self::TemplatesWrite,
        Self::UsersRead,
        Self::UsersWrite,
    ];

    /// Whether a key with this scope has this right.
    #[must_use]
    pub const fn grants(self, right: Right) -> bool {
        match self {
            Self::Admin => true,
            Self::ItemsRead => matches!(right, Right::ItemsRead),
            Self::ItemsWrite => matches!(right, Right::ItemsWrite),
            Self::JobsRead => matches!(right, Right::JobsRead),
            Self::JobsWrite => matches!(right, Right::JobsWrite),
            Self::QueuesControl => matches!(right, Right::QueuesControl),
            Self::NotificationsRead => matches!(right, Right::NotificationsRead),
            Self::NotificationsWrite => matches!(right, Right::NotificationsWrite),
            Self::TemplatesRead => matches!(right, Right::TemplatesRead),
            Self::TemplatesWrite => matches!(right, Right::TemplatesWrite),
            Self::UsersRead => matches!(right, Right::UsersRead),
            Self::UsersWrite => matches!(right, Right::UsersWrite),
        }
    }
}

impl Role {
    const fn grants(self, right: Right) -> bool {
        match self {
            Self::Admin => true,
            Self::User => match right {
                Right::ItemsRead | Right::ItemsWrite | Right::Oneself => true,
                // Jobs belong to nobody and hold what others submitted; programs get them by a key.
                Right::JobsRead
                | Right::JobsWrite
                | Right::TemplatesRead
                | Right::QueuesControl
                | Right::NotificationsRead
                | Right::NotificationsWrite
                | Right::TemplatesWrite
                | Right::UsersRead
                | Right::UsersWrite
                | Right::UsersAdmin => false,
            },
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody has to say who they are, and everybody may do everything.
    Anyone,
    /// A user that is logged in.
    User {
        /// Which.
        id: UserId,
        /// As what.
        role: Role,
    },
    /// A program with an API key.
    Key {
        /// Which key.
        id: KeyId,
        /// What it is good for.
        scopes: Vec<Scope>,
    },
}

impl Caller {
    /// Whether the caller has this right.
    #[must_use]
    pub fn may(&self, right: Right) -> bool {
        match self {
            Self::Anyone => true,
            Self::User { role, .. } => role.grants(right),
            // What a key reaches as its own is nothing, so it may ask.
            Self::Key { scopes, .. } => right == Right::Oneself || scopes.iter().any(|s| s.grants(right)),
        }
    }

    /// Whether the caller meets what a route asks.
    #[must_use]
    pub fn meets(&self, need: Need) -> bool {
        match need {
            Need::Open => true,
            Need::Of(right) => self.may(right),
        }
    }

    /// Whether the caller may do with this user's data what takes `right` with anybody's.
    #[must_use]
    pub fn may_with(&self, owner: UserId, right: Right) -> bool {
        self.may(right) || (self.user() == Some(owner) && self.may(Right::Oneself))
    }

    /// The user, if it is one.
    #[must_use]
    pub const fn user(&self) -> Option<UserId> {
        match self {
            Self::User { id, .. } => Some(*id),
            Self::Anyone | Self::Key { .. } => None,
        }
    }

    /// Keeps what callers name apart: idempotency keys of different callers never meet.
    #[must_use]
    pub fn scope(&self) -> String {
        match self {
            Self::Anyone => "anonymous".to_owned(),
            Self::User { id, .. } => format!("user:{id}"),
            Self::Key { id, .. } => format!("key:{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ALL_SCOPES: [Scope; 12] = Scope::ALL;

    fn user(n: u128, role: Role) -> Caller {
        Caller::User { id: UserId(Uuid::from_u128(n)), role }
    }

    fn key(scopes: &[Scope]) -> Caller {
        Caller::Key { id: KeyId(Uuid::from_u128(1)), scopes: scopes.to_vec() }
    }

    #[test]
    fn admins_may_everything_and_users_what_is_theirs() {
        for right in Right::ALL {
            assert!(user(1, Role::Admin).may(right) && Caller::Anyone.may(right) && key(&[Scope::Admin]).may(right));
        }
        let may: Vec<_> = Right::ALL.into_iter().filter(|r| user(1, Role::User).may(*r)).collect();
        assert_eq!(may, [Right::ItemsRead, Right::ItemsWrite, Right::Oneself]);
    }

    #[test]
    fn each_scope_but_admin_grants_one_right_and_none_gives_rights_away() {
        for scope in &ALL_SCOPES[1..] {
            let rights: Vec<_> = Right::ALL.into_iter().filter(|r| key(&[*scope]).may(*r)).collect();
            assert_eq!(rights.len(), 2, "{scope:?} grants {rights:?}, one of which every key has");
            assert!(!rights.contains(&Right::UsersAdmin), "{scope:?}");
        }
        assert!(!key(&[]).may(Right::ItemsRead));
    }

    #[test]
    fn what_is_ones_own_is_reached_without_a_right_to_everybodys() {
        let (one, two) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        assert!(user(1, Role::User).may_with(one, Right::UsersRead));
        assert!(!user(1, Role::User).may_with(two, Right::UsersRead));
        assert!(user(1, Role::Admin).may_with(two, Right::UsersRead));
        assert!(!key(&[Scope::ItemsRead]).may_with(one, Right::UsersRead), "ids of keys and users never meet");
        assert!(key(&[Scope::UsersRead]).may_with(one, Right::UsersRead));
    }

    #[test]
    fn callers_have_scopes_of_their_own() {
        let id = Uuid::from_u128(1);
        assert_eq!(Caller::Anyone.scope(), "anonymous");
        assert_eq!(user(1, Role::User).scope(), format!("user:{id}"));
        assert_eq!(key(&[]).scope(), format!("key:{id}"));
    }
}
