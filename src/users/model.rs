//! What a user is, which values one may hold, and how a patch changes it.
//!
//! The password is not part of a [`User`]: it stays in the store's document and is looked at by signing in alone. A user has
//! other secrets, which messages are sent with, so its written form is for the store and the cache only and no `Serialize`
//! of the type exists outside of this room.

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use super::devices::{ENDPOINTS_MAX, Endpoint, PUSH_TOKENS_MAX, PushKind, PushToken};
use super::{check, preferences::Preferences};
use crate::base::{clock::Timestamp, error::FieldError, id::UserId, secret::Secret, zone::Zones};

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// What ordinary people do, and nothing with other people's data.
    #[default]
    User,
}

impl Role {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
        }
    }
}

/// Somebody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct User {
    /// Names the user; ordered as users were made.
    pub id: UserId,
    /// In lower case; nobody else has it.
    pub email: String,
    /// How to address the user.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// Whether the user is shut out.
    pub disabled: bool,
    /// Language tag (BCP 47).
    pub locale: String,
    /// Name of the time zone (IANA).
    pub time_zone: String,
    /// How the user wants to be told things.
    pub preferences: Preferences,
    /// Devices and browsers.
    pub push_tokens: Vec<PushToken>,
    /// The user's own servers.
    pub endpoints: Vec<Endpoint>,
    /// Tokens that were made before the last change of the password have another number, and end with it.
    pub session: u64,
    /// When the user was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// 1 at first, one more with each change.
    pub version: u64,
}

/// A user as it is written to the store and the cache.
#[derive(Clone, Debug)]
pub(super) struct Kept(pub(super) User);

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        User::serialize(&self.0, s)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        User::deserialize(d).map(Self)
    }
}

impl User {
    /// The user's time zone; UTC if its rules are not known any more.
    #[must_use]
    pub fn zone(&self, zones: &Zones) -> TimeZone {
        zones.get(&self.time_zone).unwrap_or(TimeZone::UTC)
    }

    /// The end of the quiet period that `now` lies in; none if it lies in none.
    #[must_use]
    pub fn quiet_until(&self, now: Timestamp, zones: &Zones) -> Option<Timestamp> {
        self.preferences.quiet_until(now, &self.zone(zones))
    }
}

/// What is said to make a user.
#[derive(Clone, Debug, Default)]
pub struct NewUser {
    /// See [`User::email`]; in any case.
    pub email: String,
    /// See [`User::name`].
    pub name: String,
    /// Without one the user cannot log in.
    pub password: Option<Secret>,
    /// See [`User::role`].
    pub role: Role,
    /// See [`User::locale`]; `en` if none.
    pub locale: Option<String>,
    /// See [`User::time_zone`]; `UTC` if none.
    pub time_zone: Option<String>,
    /// A merge patch on the preferences that hold if nothing is said.
    pub preferences: Option<Map<String, Value>>,
}

/// A change to a user with the meaning of RFC 7396: what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct UserPatch {
    /// The new address.
    pub email: Option<String>,
    /// The new name.
    pub name: Option<String>,
    /// The new language; `Some(None)` is the default.
    pub locale: Option<Option<String>>,
    /// The new time zone; `Some(None)` is the default.
    pub time_zone: Option<Option<String>>,
    /// Merged into the preferences; `Some(None)` brings back the default.
    pub preferences: Option<Option<Map<String, Value>>>,
    /// What the user may do from now on.
    pub role: Option<Role>,
    /// Whether the user is shut out from now on.
    pub disabled: Option<bool>,
}

impl UserPatch {
    /// Whether it changes what only administrators may.
    #[must_use]
    pub const fn is_privileged(&self) -> bool {
        self.role.is_some() || self.disabled.is_some()
    }

    /// Changes `user` in place.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub(super) fn apply(&self, user: &mut User, zones: &Zones) -> Result<(), Vec<FieldError>> {
        let mut faults = Vec::new();
        if let Some(email) = &self.email {
            set(&mut user.email, check::email(email), "email", &mut faults);
        }
        if let Some(name) = &self.name {
            set(&mut user.name, check::name(name).map(|()| name.clone()), "name", &mut faults);
        }
        if let Some(locale) = &self.locale {
            let locale = locale.as_deref().unwrap_or(DEFAULT_LOCALE);
            set(&mut user.locale, check::locale(locale), "locale", &mut faults);
        }
        if let Some(zone) = &self.time_zone {
            let zone = zone.as_deref().unwrap_or(DEFAULT_ZONE);
            set(&mut user.time_zone, check::time_zone(zone, zones), "time_zone", &mut faults);
        }
        match &self.preferences {
            None => {}
            Some(None) => user.preferences = Preferences::default(),
            Some(Some(patch)) => match user.preferences.patched(patch) {
                Ok(patched) => user.preferences = patched,
                Err(fault) => faults.push(fault.under("preferences")),
            },
        }
        user.role = self.role.unwrap_or(user.role);
        user.disabled = self.disabled.unwrap_or(user.disabled);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

const DEFAULT_LOCALE: &str = "en";
const DEFAULT_ZONE: &str = "UTC";

fn set(field: &mut String, checked: Result<String, String>, name: &str, faults: &mut Vec<FieldError>) {
    match checked {
        Ok(value) => *field = value,
        Err(message) => faults.push(FieldError::new(name, message)),
    }
}

impl NewUser {
    /// The user that this makes.
    ///
    /// # Errors
    /// Every field that is wrong; the password is not looked at.
    pub(super) fn build(&self, id: Uuid, now: Timestamp, zones: &Zones) -> Result<User, Vec<FieldError>> {
        let mut user = User {
            id: UserId(id),
            email: String::new(),
            name: String::new(),
            role: self.role,
            disabled: false,
            locale: String::new(),
            time_zone: String::new(),
            preferences: Preferences::default(),
            push_tokens: Vec::new(),
            endpoints: Vec::new(),
            session: 1,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let all = UserPatch {
            email: Some(self.email.clone()),
            name: Some(self.name.clone()),
            locale: Some(self.locale.clone()),
            time_zone: Some(self.time_zone.clone()),
            preferences: self.preferences.clone().map(Some),
            role: None,
            disabled: None,
        };
        all.apply(&mut user, zones).map(|()| user)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde_json::json;

    use super::*;
    use crate::base::id::ContactId;

    fn ada() -> User {
        let new = NewUser { email: "Ada@Example.com".to_owned(), name: "Ada".to_owned(), ..NewUser::default() };
        new.build(Uuid::from_u128(7), Timestamp::from_millis(5), &Zones::bundled()).unwrap()
    }

    #[test]
    fn a_user_is_kept_whole_and_shown_without_secrets() {
        let mut user = ada();
        assert_eq!(
            (user.email.as_str(), user.locale.as_str(), user.time_zone.as_str()),
            ("ada@example.com", "en", "UTC")
        );
        let secret = Endpoint::new_secret().unwrap();
        let at = Timestamp::from_millis(1);
        let mut endpoint = Endpoint {
            id: ContactId(Uuid::from_u128(1)),
            url: "https://h/".to_owned(),
            secrets: vec![secret.clone()],
            disabled: false,
            created_at: at,
        };
        for _ in 0..3 {
            endpoint.rotate(Endpoint::new_secret().unwrap());
        }
        assert!(endpoint.secrets.len() == 2 && !endpoint.secrets.contains(&secret));
        endpoint.rotate(secret.clone());
        assert_eq!(endpoint.secrets.first(), Some(&secret));
        user.endpoints.push(endpoint);
        let auth = BASE64_STANDARD.encode([0; 16]);
        let fcm = PushKind::Fcm { token: Secret::new("hunter2") };
        let web = PushKind::WebPush {
            endpoint: "https://push/".to_owned(),
            p256dh: "k".to_owned(),
            auth: Secret::new(auth.clone()),
        };
        for kind in [fcm, web] {
            user.push_tokens.push(PushToken { id: ContactId(Uuid::from_u128(2)), kind, label: None, created_at: at });
        }
        let text = serde_json::to_string(&Kept(user.clone())).unwrap();
        assert!(text.contains("hunter2") && text.contains(r#""kind":"web_push""#), "{text}");
        let Kept(again) = serde_json::from_str(&text).unwrap();
        assert_eq!(again, user);
        let shown = format!("{user:?}");
        for hidden in ["hunter2", secret.reveal(), &auth] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }

    #[test]
    fn every_fault_of_a_new_user_is_told_at_once() {
        let new = NewUser {
            email: "x".to_owned(),
            name: " ".to_owned(),
            locale: Some("english".repeat(9)),
            time_zone: Some("Moon".to_owned()),
            preferences: json!({"fax": true}).as_object().cloned(),
            ..NewUser::default()
        };
        let faults = new.build(Uuid::nil(), Timestamp::default(), &Zones::bundled()).unwrap_err();
        let fields: Vec<_> = faults.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["email", "name", "locale", "time_zone", "preferences.fax"], "{faults:?}");
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let mut user = ada();
        let patch = UserPatch { time_zone: Some(Some("europe/berlin".to_owned())), ..UserPatch::default() };
        patch.apply(&mut user, &Zones::bundled()).unwrap();
        assert_eq!(user, User { time_zone: "Europe/Berlin".to_owned(), ..ada() });
        assert!(!patch.is_privileged() && UserPatch { disabled: Some(false), ..UserPatch::default() }.is_privileged());
        UserPatch { time_zone: Some(None), ..UserPatch::default() }.apply(&mut user, &Zones::bundled()).unwrap();
        assert_eq!(user, ada());
    }
}
