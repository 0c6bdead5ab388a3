//! Proving who one is: passwords for people once, then tokens; keys for programs.
//!
//! Attempts are counted by address and by client, in the cache that all processes share. A cache that is away counts
//! nothing: locking everybody out would be worse than letting somebody guess for a minute.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{
    access::Caller,
    error::{Refusal, UserError},
    key,
    model::User,
    password,
    service::Users,
    shelf::Account,
};
use crate::{
    base::{id::UserId, secret::Secret},
    cache::{Admission, Rate},
};

/// A client's address may stand for many people: it has so many times the attempts of one of them.
const CLIENT_SHARE: u32 = 4;

/// What a caller shows.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// Nothing.
    Nothing,
    /// A token or a key; which one shows by how it begins.
    Bearer(&'a str),
    /// A key.
    Key(&'a str),
}

/// A token for somebody who is logged in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// What to show from now on.
    pub token: Secret,
    /// How long it is good.
    pub expires_in: Duration,
}

impl Users {
    /// Lets somebody in who knows the password. `client` is where the request comes from.
    ///
    /// # Errors
    /// [`UserError::Unauthorized`], [`UserError::TooMany`], [`UserError::Invalid`], [`UserError::Busy`] or
    /// [`UserError::Store`].
    pub async fn login(&self, email: &str, password: &Secret, client: &str) -> Result<SignedIn, UserError> {
        password::check_length(password.reveal()).map_err(|message| UserError::field("password", message))?;
        self.admit_client(client).await?;
        let attempts = self.admit_email(email).await?;
        let account = self.account_of(email).await?;
        let hash = account.as_ref().and_then(|a| a.password.as_ref());
        let checked = self.passwords.check(password, hash).await?;
        let Some(account) = account.filter(|a| checked.right && !a.user.disabled) else {
            return Err(UserError::Unauthorized(Refusal::Credentials));
        };
        // Whoever is in has nothing left to guess.
        if let Err(e) = self.limits.delete(&[&attempts]).await {
            tracing::debug!(error = %e, "attempts to log in are still counted");
        }
        if checked.outdated {
            self.hash_again(account.user.id, password, account.password.as_ref()).await;
        }
        let token = self.tokens.issue(&account.user, self.clock.now())?;
        Ok(SignedIn { token, expires_in: self.tokens.ttl() })
    }

    /// Who shows this.
    ///
    /// # Errors
    /// [`UserError::Unauthorized`] or [`UserError::Store`].
    pub async fn authenticate(&self, proof: Proof<'_>) -> Result<Caller, UserError> {
        match proof {
            Proof::Nothing => Err(UserError::Unauthorized(Refusal::Missing)),
            Proof::Bearer(text) if !text.starts_with(key::PREFIX) => self.by_token(text).await,
            Proof::Bearer(text) | Proof::Key(text) => self.by_key(text).await,
        }
    }

    async fn by_token(&self, token: &str) -> Result<Caller, UserError> {
        let claimed = self.tokens.check(token, self.clock.now()).map_err(UserError::Unauthorized)?;
        match self.get(claimed.user).await {
            Ok(User { id, role, disabled: false, session, .. }) if session == claimed.session => {
                Ok(Caller::User { id, role })
            }
            Ok(_) | Err(UserError::NotFound(_)) => Err(UserError::Unauthorized(Refusal::Invalid)),
            Err(e) => Err(e),
        }
    }

    async fn by_key(&self, text: &str) -> Result<Caller, UserError> {
        let refused = || UserError::Unauthorized(Refusal::Invalid);
        let (id, secret) = key::parse(text).ok_or_else(refused)?;
        let key = self.key(id).await?.filter(|key| key.holds(secret, self.clock.now())).ok_or_else(refused)?;
        Ok(Caller::Key { id, scopes: key.scopes })
    }

    /// Gives a user another password; tokens that were made before end. Whoever is not an administrator must know the
    /// `present` one, if there is one.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::Invalid`], [`UserError::TooMany`], [`UserError::Contended`],
    /// [`UserError::Busy`] or [`UserError::Store`].
    pub async fn change_password(
        &self,
        id: UserId,
        present: Option<&Secret>,
        new: &Secret,
        is_administrator: bool,
    ) -> Result<User, UserError> {
        password::check(new).map_err(|message| UserError::field("new_password", message))?;
        // Also where nobody compares it: what is refused does not hang on who asks.
        present
            .map_or(Ok(()), |present| password::check_length(present.reveal()))
            .map_err(|message| UserError::field("current_password", message))?;
        let account = self.account(id).await?.ok_or_else(|| super::service::not_found(id))?;
        if let (Some(hash), false) = (&account.password, is_administrator) {
            let present = present.ok_or_else(|| UserError::field("current_password", "is required"))?;
            self.admit_email(&account.user.email).await?;
            if !self.passwords.check(present, Some(hash)).await?.right {
                return Err(UserError::field("current_password", "is wrong"));
            }
        }
        let hash = self.passwords.hash(new).await?;
        let known = account.password;
        let set = |account: &mut Account| {
            // What was proved must still hold: another change came first otherwise.
            if account.password != known && !is_administrator {
                return Err(UserError::Contended);
            }
            account.password = Some(hash.clone());
            account.user.session = account.user.session.saturating_add(1);
            Ok(())
        };
        Ok(self.change(id, set).await?.0)
    }

    /// Counts an attempt of a client that nobody knows yet.
    ///
    /// # Errors
    /// [`UserError::TooMany`].
    pub async fn admit_client(&self, client: &str) -> Result<(), UserError> {
        let (burst, every) = (self.auth.login_burst.saturating_mul(CLIENT_SHARE), self.auth.login_every / CLIENT_SHARE);
        self.admit(&format!("login:client:{client}"), Rate { burst, every: every.max(Duration::from_millis(1)) }).await
    }

    async fn admit_email(&self, email: &str) -> Result<String, UserError> {
        // The address itself need not be known to the cache.
        let digest = Sha256::digest(email.to_ascii_lowercase());
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let key = format!("login:email:{hex}");
        self.admit(&key, Rate { burst: self.auth.login_burst, every: self.auth.login_every }).await?;
        Ok(key)
    }

    async fn admit(&self, key: &str, rate: Rate) -> Result<(), UserError> {
        match self.limits.admit(key, rate).await {
            Ok(Admission::Allowed) => Ok(()),
            Ok(Admission::RetryAfter(retry_after)) => Err(UserError::TooMany { retry_after }),
            Err(e) => {
                tracing::warn!(error = %e, "the cache is away, attempts to log in are not limited");
                Ok(())
            }
        }
    }

    /// Hashes a password again at today's cost. It is right already, so failing to costs nobody anything.
    async fn hash_again(&self, id: UserId, password: &Secret, known: Option<&Secret>) {
        let again = async {
            let hash = self.passwords.hash(password).await?;
            let set = |account: &mut Account| {
                if account.password.as_ref() == known {
                    account.password = Some(hash.clone());
                }
                Ok(())
            };
            self.change(id, set).await
        };
        if let Err(e) = again.await {
            tracing::warn!(user = %id, error = %e, "a password could not be hashed at the present cost");
        }
    }
}
