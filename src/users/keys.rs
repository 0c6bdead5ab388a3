//! API keys in the store: made once, found at each call of a program, listed, and revoked.

use super::{
    error::UserError,
    key::{ApiKey, NewKey},
    service::Users,
};
use crate::{
    base::{
        id::KeyId,
        page::{Page, PageRequest},
        secret::Secret,
    },
    records::{Committed, Shelf, Write},
};

impl Users {
    /// Makes a key. Its text is in this answer and nowhere else.
    ///
    /// # Errors
    /// [`UserError::Invalid`] with every field at fault, or [`UserError::Store`].
    pub async fn create_key(&self, new: NewKey) -> Result<(ApiKey, Secret), UserError> {
        let (key, text) = new.build(self.clock.new_uuid(), self.clock.now())?;
        match self.store.commit(vec![Write::Insert(key.record()?)], &[]).await? {
            Committed::Done => Ok((key, text)),
            Committed::Taken(_) | Committed::Stale(_) => Err(UserError::Contended),
        }
    }

    /// One page of the keys, newest first.
    ///
    /// # Errors
    /// [`UserError::Store`].
    pub async fn list_keys(&self, page: PageRequest) -> Result<Page<ApiKey>, UserError> {
        let found = self.store.list(Shelf::ApiKeys, &[], page).await?;
        let data = found.data.into_iter().map(|r| Ok(ApiKey::of(r)?)).collect::<Result<_, UserError>>()?;
        Ok(Page { data, next: found.next })
    }

    /// Ends a key at once.
    ///
    /// # Errors
    /// [`UserError::NotFound`] or [`UserError::Store`].
    pub async fn revoke_key(&self, id: KeyId) -> Result<(), UserError> {
        let mark = match &self.key_cache {
            Some(cache) => Some(cache.begin(&id.to_string()).await),
            None => None,
        };
        let remove = Write::Remove { shelf: Shelf::ApiKeys, id: id.0, expected: None };
        let there = self.store.commit(vec![remove], &[]).await? == Committed::Done;
        if let Some(mark) = mark {
            mark.end(None::<&ApiKey>).await;
        }
        if there { Ok(()) } else { Err(UserError::NotFound(format!("there is no API key {id}"))) }
    }

    pub(super) async fn key(&self, id: KeyId) -> Result<Option<ApiKey>, UserError> {
        let load =
            async || Ok::<_, UserError>(self.store.get(Shelf::ApiKeys, id.0).await?.map(ApiKey::of).transpose()?);
        match &self.key_cache {
            Some(cache) => cache.read(&id.to_string(), load).await,
            None => load().await,
        }
    }
}
