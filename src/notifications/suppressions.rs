//! The suppression list: addresses that nothing is sent to, and why.
//!
//! Hard bounces, tokens that are gone and unsubscribes put them there; people take them off. An address is kept as it is for
//! mailboxes, and as a fingerprint for tokens and endpoints, which are secrets of their owners.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    channels::Address,
    error::NotificationError,
    model::{Channel, check_name},
};
use crate::{
    base::{
        clock::{Clock, Timestamp},
        page::{Page, PageRequest},
    },
    records::{Committed, Record, RecordStore, Shelf, Write},
};

/// Why nothing is sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The mailbox does not exist.
    HardBounce,
    /// The device or browser is no longer registered.
    Unregistered,
    /// The endpoint said that it is gone.
    Gone,
    /// The recipient asked for it.
    Unsubscribed,
    /// Someone put it there by hand.
    Manual,
}

impl Reason {
    /// As written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HardBounce => "hard_bounce",
            Self::Unregistered => "unregistered",
            Self::Gone => "gone",
            Self::Unsubscribed => "unsubscribed",
            Self::Manual => "manual",
        }
    }
}

/// One entry of the list. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// The channel it is for.
    pub channel: Channel,
    /// The mailbox, or the fingerprint of a token or endpoint.
    pub address: String,
    /// Only messages of this category; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Why.
    pub reason: Reason,
    /// What was said by whoever made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Which entries are meant: those that meet all of this.
#[derive(Clone, Copy, Debug)]
pub struct Meant {
    /// Put there for this reason.
    pub reason: Reason,
    /// For this channel.
    pub channel: Option<Channel>,
    /// Put there at this time or later.
    pub created_after: Option<Timestamp>,
    /// Put there before this time.
    pub created_before: Option<Timestamp>,
}

impl Meant {
    fn holds(&self, entry: &Listed) -> bool {
        entry.entry.reason == self.reason
            && self.created_after.is_none_or(|t| entry.created_at >= t)
            && self.created_before.is_none_or(|t| entry.created_at < t)
    }
}

/// What became of the wish to take many entries off the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many were meant.
    pub matched: usize,
    /// How many are off the list.
    pub removed: usize,
}

/// Entries looked at, and taken off, at a time.
const AT_ONCE: usize = 100;

/// An entry with its id and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Names it.
    pub id: Uuid,
    /// Since when.
    pub created_at: Timestamp,
    /// What it says.
    pub entry: Suppression,
}

/// The list.
#[derive(Clone)]
pub struct Suppressions {
    store: Arc<dyn RecordStore>,
    clock: Clock,
}

/// What an address is called in the list.
#[must_use]
pub fn name_of(address: &Address) -> Option<(Channel, String)> {
    Some(match address {
        Address::Email { mailbox, .. } => (Channel::Email, mailbox.to_lowercase()),
        Address::Fcm { token } => (Channel::Push, fingerprint(token.reveal())),
        Address::WebPush { endpoint, .. } => (Channel::Push, fingerprint(endpoint)),
        Address::Webhook { url, .. } => (Channel::Webhook, fingerprint(url)),
        Address::Console => return None,
    })
}

fn fingerprint(secret: &str) -> String {
    let hash = Sha256::digest(secret);
    format!("sha256:{}", hash.iter().take(16).map(|b| format!("{b:02x}")).collect::<String>())
}

fn key(channel: Channel, address: &str, category: Option<&str>) -> String {
    format!("{}:{address}:{}", channel.as_str(), category.unwrap_or("*"))
}

impl Suppressions {
    /// The list in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn RecordStore>, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// The entry that forbids a message of this category to this address.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn forbids(
        &self,
        address: &Address,
        category: Option<&str>,
    ) -> Result<Option<Suppression>, NotificationError> {
        let Some((channel, address)) = name_of(address) else { return Ok(None) };
        let for_all = key(channel, &address, None);
        let of_category = category.map(|category| key(channel, &address, Some(category)));
        let names: Vec<String> = of_category.into_iter().chain([for_all.clone()]).collect();
        let mut found = self.store.find_any(Shelf::Suppressions, &names).await?;
        // What holds for all messages says more.
        found.sort_by_key(|r| !r.names.contains(&for_all));
        Ok(found.into_iter().next().map(listed).transpose()?.map(|found| found.entry))
    }

    /// Puts an entry on the list; one that is there already stays.
    ///
    /// # Errors
    /// If the entry is wrong, or the store fails.
    pub async fn add(&self, mut entry: Suppression) -> Result<Listed, NotificationError> {
        if let Some(category) = &entry.category {
            check_name(category).map_err(|m| NotificationError::field("category", m))?;
        }
        if entry.channel == Channel::Email {
            entry.address = entry.address.to_lowercase();
        }
        if entry.address.trim().is_empty() || entry.address.len() > 320 || entry.address.chars().any(char::is_control) {
            return Err(NotificationError::field("address", "must be 1 to 320 characters without control characters"));
        }
        let name = key(entry.channel, &entry.address, entry.category.as_deref());
        let now = self.clock.now();
        let record = Record {
            shelf: Shelf::Suppressions,
            id: self.clock.new_uuid(),
            version: 1,
            names: vec![name.clone()],
            labels: vec![format!("channel:{}", entry.channel.as_str()), format!("address:{}", entry.address)],
            created_at: now,
            updated_at: now,
            expires_at: None,
            body: serde_json::to_value(&entry).map_err(super::templates::defect)?,
        };
        let new = Listed { id: record.id, created_at: now, entry };
        match self.store.commit(vec![Write::Insert(record)], &[]).await? {
            Committed::Done => Ok(new),
            Committed::Taken(_) | Committed::Stale(_) => match self.store.find(Shelf::Suppressions, &name).await? {
                Some(there) => listed(there),
                None => Err(NotificationError::Conflict("the entry was removed just now: try again".to_owned())),
            },
        }
    }

    /// Takes a URL that wants webhooks off the list, if it is there: its owner says that it works again.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn lift_webhook(&self, url: &str) -> Result<(), NotificationError> {
        let name = key(Channel::Webhook, &fingerprint(url), None);
        let Some(found) = self.store.find(Shelf::Suppressions, &name).await? else { return Ok(()) };
        // Whoever took it off in between did the same.
        let remove = Write::Remove { shelf: Shelf::Suppressions, id: found.id, expected: None };
        self.store.commit(vec![remove], &[]).await?;
        Ok(())
    }

    /// Takes an entry off the list.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn remove(&self, id: Uuid) -> Result<(), NotificationError> {
        let remove = Write::Remove { shelf: Shelf::Suppressions, id, expected: None };
        match self.store.commit(vec![remove], &[]).await? {
            Committed::Done => Ok(()),
            _ => Err(NotificationError::NotFound(format!("there is no suppression {id}"))),
        }
    }

    /// Takes all entries that are `meant` off the list, or only counts them in a dry run. Those put there meanwhile may stay.
    ///
    /// # Errors
    /// If the store fails: some may be off the list then, and asking again takes off the rest.
    pub async fn remove_all(&self, meant: &Meant, dry_run: bool) -> Result<Removed, NotificationError> {
        let mut done = Removed::default();
        let mut page = PageRequest { limit: AT_ONCE, after: None };
        loop {
            let found = self.list(meant.channel, None, page).await?;
            let all: Vec<Uuid> = found.data.iter().filter(|entry| meant.holds(entry)).map(|entry| entry.id).collect();
            done.matched += all.len();
            if !dry_run {
                // Each for itself: one that somebody else took off meanwhile must not keep the others there.
                let removed = all.into_iter().map(|id| async move {
                    let remove = Write::Remove { shelf: Shelf::Suppressions, id, expected: None };
                    self.store.commit(vec![remove], &[]).await
                });
                let removed = futures_util::future::try_join_all(removed).await?;
                done.removed += removed.iter().filter(|r| **r == Committed::Done).count();
            }
            // Newest first: what follows is older still.
            let past = |entry: &Listed| meant.created_after.is_some_and(|t| entry.created_at < t);
            match found.next {
                Some(next) if !found.data.last().is_some_and(past) => page.after = Some(next),
                _ => return Ok(done),
            }
        }
    }

    /// One page of the list, newest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn list(
        &self,
        channel: Option<Channel>,
        address: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Listed>, NotificationError> {
        let mut labels: Vec<String> = address.iter().map(|a| format!("address:{}", a.to_lowercase())).collect();
        labels.extend(channel.map(|c| format!("channel:{}", c.as_str())));
        let found = self.store.list(Shelf::Suppressions, &labels, page).await?;
        let data = found.data.into_iter().map(listed).collect::<Result<_, _>>()?;
        Ok(Page { data, next: found.next })
    }
}

fn listed(record: Record) -> Result<Listed, NotificationError> {
    let entry = serde_json::from_value(record.body).map_err(|e| super::templates::corrupt("suppression", &e))?;
    Ok(Listed { id: record.id, created_at: record.created_at, entry })
}
