//! What callers do with users: make, read, list, change and remove them.
//!
//! A change reads the user, computes the new one and writes it by compare-and-set, again if another writer came first.
//! Single users are read from a cache that all processes share, if there is one; `cache::Through` keeps it from being stale,
//! so that who is shut out is out at once.

use std::sync::Arc;

use super::{
    error::UserError,
    model::{Kept, NewUser, Role, User, UserPatch},
    password::Passwords,
    shelf::Account,
    token::Tokens,
};
use crate::{
    base::{
        clock::Clock,
        id::UserId,
        page::{Page, PageRequest},
        secret::Secret,
        zone::Zones,
    },
    cache::{Cache, Mark, Through},
    config::{Auth, Registration},
    events::{Bell, Event},
    records::{Committed, RecordStore, Shelf, Write},
};

/// How often a change is tried against other writers before it is given up as contended.
const CHANGE_TRIES: u32 = 32;

/// The version of [`User`]'s shape in the cache, to be raised when its fields change.
pub const CACHED_USER: u8 = 1;
/// The version of [`super::ApiKey`]'s shape in the cache, to be raised when its fields change.
pub const CACHED_KEY: u8 = 1;

/// The users service. Keeps nothing but its ports and the means to prove things.
pub struct Users {
    pub(super) store: Arc<dyn RecordStore>,
    pub(super) cache: Option<Through>,
    pub(super) key_cache: Option<Through>,
    /// Where attempts are counted.
    pub(super) limits: Arc<dyn Cache>,
    bell: Arc<dyn Bell>,
    pub(super) passwords: Passwords,
    pub(super) tokens: Tokens,
    pub(super) auth: Auth,
    pub(super) clock: Clock,
    zones: Zones,
}

/// What [`Users::create_admin`] did.
#[derive(Clone, Debug, PartialEq)]
pub enum AdminMade {
    /// There is a new user.
    Created(User),
    /// There was a user with this address, who is an administrator with this password now.
    Changed(User),
    /// All was so already.
    Unchanged(User),
}

/// Checks what [`Users::create_admin`] is to be asked for, before there is a store to ask it of.
///
/// # Errors
/// [`UserError::Invalid`] with every field at fault.
pub fn check_admin(
    email: &str,
    name: Option<&str>,
    password: &Secret,
    clock: &Clock,
    zones: &Zones,
) -> Result<(), UserError> {
    checked(&new_admin(email, name, password.clone()), clock, zones).map(drop)
}

fn new_admin(email: &str, name: Option<&str>, password: Secret) -> NewUser {
    NewUser {
        email: email.to_owned(),
        name: name.unwrap_or("Administrator").to_owned(),
        password: Some(password),
        role: Role::Admin,
        ..NewUser::default()
    }
}

/// The user that is asked for, if every field and the password are right.
fn checked(new: &NewUser, clock: &Clock, zones: &Zones) -> Result<User, UserError> {
    let mut faults = Vec::new();
    let built = new.build(clock.new_uuid(), clock.now(), zones).map_err(|all| faults.extend(all));
    if let Some(Err(message)) = new.password.as_ref().map(super::password::check) {
        faults.push(crate::base::error::FieldError::new("password", message));
    }
    match (built, faults.is_empty()) {
        (Ok(user), true) => Ok(user),
        _ => Err(UserError::Invalid(faults)),
    }
}

impl Users {
    /// A service over `store`. Without configured keys, its tokens end with this process.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn new(
        store: Arc<dyn RecordStore>,
        limits: Arc<dyn Cache>,
        bell: Arc<dyn Bell>,
        clock: Clock,
        auth: Auth,
        zones: Zones,
    ) -> Result<Self, String> {
        let (passwords, tokens) = (Passwords::new(), Tokens::new(&auth)?);
        Ok(Self { store, cache: None, key_cache: None, limits, bell, passwords, tokens, auth, clock, zones })
    }

    /// The same service, reading single users and keys through these. Then every process that writes them must do so.
    #[must_use]
    pub fn cached(self, users: Through, keys: Through) -> Self {
        Self { cache: Some(users), key_cache: Some(keys), ..self }
    }

    /// Whether people may make users of themselves.
    #[must_use]
    pub fn registration(&self) -> Registration {
        self.auth.registration
    }

    /// Makes a user. `by` names the request that asked for it.
    ///
    /// # Errors
    /// [`UserError::Invalid`] with every field at fault, [`UserError::EmailTaken`], [`UserError::Busy`] or
    /// [`UserError::Store`].
    pub async fn create(&self, new: NewUser, by: Option<String>) -> Result<User, UserError> {
        let user = checked(&new, &self.clock, &self.zones)?;
        let password = match &new.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let account = Account { user, password };
        let data = serde_json::json!({
            "id": account.user.id, "email": account.user.email, "name": account.user.name, "locale": account.user.locale,
        });
        let id = account.user.id.to_string();
        let events = [Event::new(&self.clock, "user.registered", id, data).caused_by(by)];
        match self.store.commit(vec![Write::Insert(account.record()?)], &events).await? {
            Committed::Done => {}
            Committed::Taken(_) => return Err(UserError::EmailTaken),
            Committed::Stale(_) => return Err(UserError::Contended),
        }
        self.bell.ring(&events).await;
        Ok(account.user)
    }

    /// The user with this id.
    ///
    /// # Errors
    /// [`UserError::NotFound`] or [`UserError::Store`].
    pub async fn get(&self, id: UserId) -> Result<User, UserError> {
        let load = async || Ok::<_, UserError>(self.account(id).await?.map(|account| Kept(account.user)));
        let found = match &self.cache {
            Some(cache) => cache.read(&id.to_string(), load).await?,
            None => load().await?,
        };
        found.map(|Kept(user)| user).ok_or_else(|| not_found(id))
    }

    /// The user with this e-mail address, in any case of its letters.
    ///
    /// # Errors
    /// [`UserError::Store`].
    pub async fn by_email(&self, email: &str) -> Result<Option<User>, UserError> {
        Ok(self.account_of(email).await?.map(|account| account.user))
    }

    /// One page of the users, newest first; those of one role, if one is named.
    ///
    /// # Errors
    /// [`UserError::Store`].
    pub async fn list(&self, role: Option<Role>, page: PageRequest) -> Result<Page<User>, UserError> {
        let labels: Vec<String> = role.iter().map(|r| format!("role:{}", r.as_str())).collect();
        let found = self.store.list(Shelf::Users, &labels, page).await?;
        let data =
            found.data.into_iter().map(|record| Ok(Account::of(record)?.user)).collect::<Result<_, UserError>>()?;
        Ok(Page { data, next: found.next })
    }

    /// Changes the parts of a user that `patch` names. A patch that changes nothing writes nothing.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::Invalid`], [`UserError::EmailTaken`], [`UserError::Contended`] or
    /// [`UserError::Store`].
    pub async fn patch(&self, id: UserId, patch: &UserPatch) -> Result<User, UserError> {
        let apply = |account: &mut Account| patch.apply(&mut account.user, &self.zones).map_err(UserError::Invalid);
        Ok(self.change(id, apply).await?.0)
    }

    /// Removes a user.
    ///
    /// # Errors
    /// [`UserError::NotFound`] or [`UserError::Store`].
    pub async fn delete(&self, id: UserId) -> Result<(), UserError> {
        let mark = self.begin(id).await;
        let remove = Write::Remove { shelf: Shelf::Users, id: id.0, expected: None };
        let there = self.store.commit(vec![remove], &[]).await? == Committed::Done;
        if let Some(mark) = mark {
            mark.end(None::<&Kept>).await;
        }
        if there { Ok(()) } else { Err(not_found(id)) }
    }

    /// Sees to it that there is an administrator with this address and password. Doing it twice changes nothing.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_admin(
        &self,
        email: &str,
        name: Option<&str>,
        password: Secret,
    ) -> Result<AdminMade, UserError> {
        let Some(there) = self.account_of(email).await? else {
            return Ok(AdminMade::Created(self.create(new_admin(email, name, password), None).await?));
        };
        let same_password = self.passwords.check(&password, there.password.as_ref()).await?.right;
        let hash = if same_password { None } else { Some(self.passwords.hash(&password).await?) };
        let (user, changed) = self
            .change(there.user.id, |account| {
                let before = account.clone();
                account.user.role = Role::Admin;
                account.user.disabled = false;
                if let Some(name) = name {
                    name.clone_into(&mut account.user.name);
                }
                if let Some(hash) = &hash {
                    account.password = Some(hash.clone());
                    account.user.session = account.user.session.saturating_add(1);
                }
                Ok(*account != before)
            })
            .await?;
        Ok(if changed { AdminMade::Changed(user) } else { AdminMade::Unchanged(user) })
    }

    pub(super) async fn account(&self, id: UserId) -> Result<Option<Account>, UserError> {
        Ok(self.store.get(Shelf::Users, id.0).await?.map(Account::of).transpose()?)
    }

    pub(super) async fn account_of(&self, email: &str) -> Result<Option<Account>, UserError> {
        let name = Account::name_of(&email.to_ascii_lowercase());
        Ok(self.store.find(Shelf::Users, &name).await?.map(Account::of).transpose()?)
    }

    async fn begin(&self, id: UserId) -> Option<Mark> {
        match &self.cache {
            Some(cache) => Some(cache.begin(&id.to_string()).await),
            None => None,
        }
    }

    /// Changes an account by compare-and-set. Answers the user as it is now and what `next` found.
    pub(super) async fn change<T>(
        &self,
        id: UserId,
        next: impl Fn(&mut Account) -> Result<T, UserError>,
    ) -> Result<(User, T), UserError> {
        let mut mark = None;
        for _ in 0..CHANGE_TRIES {
            let before = self.account(id).await?.ok_or_else(|| not_found(id))?;
            let mut account = before.clone();
            let found = next(&mut account)?;
            if account == before {
                return Ok((account.user, found));
            }
            let expected = before.user.version;
            account.user.version = expected.saturating_add(1);
            account.user.updated_at = self.clock.now().max(before.user.updated_at);
            if mark.is_none() {
                mark = self.begin(id).await;
            }
            let write = Write::Replace { record: account.record()?, expected };
            match self.store.commit(vec![write], &[]).await? {
                Committed::Done => {
                    let Account { user, .. } = account;
                    let kept = Kept(user);
                    if let Some(mark) = mark {
                        mark.end(Some(&kept)).await;
                    }
                    return Ok((kept.0, found));
                }
                Committed::Taken(_) => {
                    if let Some(mark) = mark {
                        mark.end(None::<&Kept>).await;
                    }
                    return Err(UserError::EmailTaken);
                }
                Committed::Stale(_) => {}
            }
        }
        Err(UserError::Contended)
    }
}

pub(super) fn not_found(id: UserId) -> UserError {
    UserError::NotFound(format!("there is no user {id}"))
}
