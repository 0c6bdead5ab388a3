//! Where a user is reached besides by mail: devices, browsers, and servers of the user's own.

use super::{
    check,
    error::UserError,
    model::{ENDPOINTS_MAX, Endpoint, PUSH_TOKENS_MAX, PushKind, PushToken, User},
    service::Users,
    shelf::Account,
};
use crate::base::{
    error::FieldError,
    id::{ContactId, UserId},
    secret::Secret,
};

/// What is said to add a device or browser.
#[derive(Clone, Debug)]
pub struct NewPushToken {
    /// How it is reached.
    pub kind: PushKind,
    /// What its owner calls it.
    pub label: Option<String>,
}

impl Users {
    /// Adds a device or browser. One that is there already stays as it is, but for its label.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::Invalid`], [`UserError::Full`], [`UserError::Contended`] or
    /// [`UserError::Store`].
    pub async fn add_push_token(&self, user: UserId, new: NewPushToken) -> Result<PushToken, UserError> {
        let mut faults = Vec::new();
        if let Some(Err(message)) = new.label.as_deref().map(check::name) {
            faults.push(FieldError::new("label", message));
        }
        let kind = new.kind.checked().map_err(|all| faults.extend(all));
        let (Ok(kind), true) = (kind, faults.is_empty()) else { return Err(UserError::Invalid(faults)) };
        let token =
            PushToken { id: ContactId(self.clock.new_uuid()), kind, label: new.label, created_at: self.clock.now() };
        let add = |account: &mut Account| {
            let tokens = &mut account.user.push_tokens;
            if let Some(there) = tokens.iter_mut().find(|t| t.kind == token.kind) {
                there.label.clone_from(&token.label);
                return Ok(there.clone());
            }
            if tokens.len() >= PUSH_TOKENS_MAX {
                return Err(UserError::Full { what: "push tokens", max: PUSH_TOKENS_MAX });
            }
            tokens.push(token.clone());
            Ok(token.clone())
        };
        Ok(self.change(user, add).await?.1)
    }

    /// Forgets a device or browser.
    ///
    /// # Errors
    /// [`UserError::NotFound`] of the user or the token, [`UserError::Contended`] or [`UserError::Store`].
    pub async fn remove_push_token(&self, user: UserId, token: ContactId) -> Result<(), UserError> {
        let (_, there) = self.change(user, |account| Ok(forget(account, token))).await?;
        if there { Ok(()) } else { Err(UserError::NotFound(format!("the user has no push token {token}"))) }
    }

    /// Forgets a device or browser that its push service does not know any more. One that is gone already is no error, nor
    /// is a user that is.
    ///
    /// # Errors
    /// [`UserError::Contended`] or [`UserError::Store`].
    pub async fn drop_push_token(&self, user: UserId, token: ContactId) -> Result<(), UserError> {
        match self.change(user, |account| Ok(forget(account, token))).await {
            Ok(_) | Err(UserError::NotFound(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Adds a server of the user's own. The answer holds its secret.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::Invalid`], [`UserError::Full`], [`UserError::Contended`] or
    /// [`UserError::Store`].
    pub async fn add_endpoint(&self, user: UserId, url: &str) -> Result<Endpoint, UserError> {
        let url = check::url(url, &["https", "http"]).map_err(|message| UserError::field("url", message))?;
        let endpoint = Endpoint {
            id: ContactId(self.clock.new_uuid()),
            url,
            secrets: vec![new_secret()?],
            disabled: false,
            created_at: self.clock.now(),
        };
        let add = |account: &mut Account| {
            let endpoints = &mut account.user.endpoints;
            if endpoints.len() >= ENDPOINTS_MAX {
                return Err(UserError::Full { what: "webhook endpoints", max: ENDPOINTS_MAX });
            }
            endpoints.push(endpoint.clone());
            Ok(())
        };
        self.change(user, add).await?;
        Ok(endpoint)
    }

    /// Forgets a server.
    ///
    /// # Errors
    /// [`UserError::NotFound`] of the user or the server, [`UserError::Contended`] or [`UserError::Store`].
    pub async fn remove_endpoint(&self, user: UserId, endpoint: ContactId) -> Result<(), UserError> {
        let remove = |account: &mut Account| {
            let endpoints = &mut account.user.endpoints;
            let before = endpoints.len();
            endpoints.retain(|e| e.id != endpoint);
            if endpoints.len() < before { Ok(()) } else { Err(no_endpoint(endpoint)) }
        };
        self.change(user, remove).await.map(|_| ())
    }

    /// Gives a server a new secret. Messages are signed with both until the next time.
    ///
    /// # Errors
    /// As [`Self::remove_endpoint`].
    pub async fn rotate_endpoint(&self, user: UserId, endpoint: ContactId) -> Result<Endpoint, UserError> {
        let newest = new_secret()?;
        self.change_endpoint(user, endpoint, |e| e.rotate(newest.clone())).await
    }

    /// Sends messages to a server again.
    ///
    /// # Errors
    /// As [`Self::remove_endpoint`].
    pub async fn enable_endpoint(&self, user: UserId, endpoint: ContactId) -> Result<Endpoint, UserError> {
        self.change_endpoint(user, endpoint, |e| e.disabled = false).await
    }

    /// Sends no more messages to a server until its owner wants them again. One that is gone already is no error.
    ///
    /// # Errors
    /// [`UserError::Contended`] or [`UserError::Store`].
    pub async fn disable_endpoint(&self, user: UserId, endpoint: ContactId) -> Result<(), UserError> {
        match self.change_endpoint(user, endpoint, |e| e.disabled = true).await {
            Ok(_) | Err(UserError::NotFound(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn change_endpoint(
        &self,
        user: UserId,
        endpoint: ContactId,
        change: impl Fn(&mut Endpoint),
    ) -> Result<Endpoint, UserError> {
        let find = |account: &mut Account| {
            let User { endpoints, .. } = &mut account.user;
            let found = endpoints.iter_mut().find(|e| e.id == endpoint).ok_or_else(|| no_endpoint(endpoint))?;
            change(found);
            Ok(found.clone())
        };
        Ok(self.change(user, find).await?.1)
    }
}

fn forget(account: &mut Account, token: ContactId) -> bool {
    let tokens = &mut account.user.push_tokens;
    let before = tokens.len();
    tokens.retain(|t| t.id != token);
    tokens.len() < before
}

fn no_endpoint(id: ContactId) -> UserError {
    UserError::NotFound(format!("the user has no webhook endpoint {id}"))
}

fn new_secret() -> Result<Secret, UserError> {
    Endpoint::new_secret().map_err(|e| UserError::Internal(format!("the system gives no random bytes: {e}")))
}
