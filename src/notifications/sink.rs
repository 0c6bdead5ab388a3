//! The sink: where messages go while their provider is not set up, so that the first mail is seen within a minute.
//!
//! It is a channel like the others and keeps what it is given for a day, to be read at `GET /api/v1/sink`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    channels::{Address, Channel, Content, Fault, Message, Receipt, SendError},
    error::NotificationError,
    suppressions,
};
use crate::{
    base::{
        clock::{Clock, Timestamp},
        page::{Page, PageRequest},
    },
    records::{Committed, Record, RecordStore, Shelf, Write},
};

/// How long a message is kept.
const KEPT_FOR: Duration = Duration::from_secs(86_400);

/// A message in the sink. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Caught {
    /// The notification.
    pub notification_id: Uuid,
    /// Where it would have gone: a mailbox, or the fingerprint of a token or endpoint.
    pub to: String,
    /// What it says.
    pub content: Content,
    /// The link to unsubscribe, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsubscribe: Option<String>,
    /// When it was caught.
    pub at: Timestamp,
}

/// The sink.
#[derive(Clone)]
pub struct Sink {
    store: Arc<dyn RecordStore>,
    clock: Clock,
}

impl Sink {
    /// The sink in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn RecordStore>, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// One page of what was caught, newest first; what was sent to one mailbox only, if it is named.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn list(&self, to: Option<&str>, page: PageRequest) -> Result<Page<(Uuid, Caught)>, NotificationError> {
        let labels: Vec<String> = to.iter().map(|to| label(to)).collect();
        let found = self.store.list(Shelf::Sink, &labels, page).await?;
        let read = |r: Record| {
            let caught = serde_json::from_value(r.body).map_err(|e| super::templates::corrupt("caught message", &e))?;
            Ok::<_, NotificationError>((r.id, caught))
        };
        Ok(Page { data: found.data.into_iter().map(read).collect::<Result<_, _>>()?, next: found.next })
    }
}

fn label(to: &str) -> String {
    format!("to:{}", to.to_lowercase())
}

#[async_trait]
impl Channel for Sink {
    fn provider(&self, _to: &Address) -> String {
        "sink".to_owned()
    }

    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let to = suppressions::name_of(&message.to).map_or_else(|| "console".to_owned(), |(_, name)| name);
        let now = self.clock.now();
        let caught = Caught {
            notification_id: message.id,
            to: to.clone(),
            content: message.content.clone(),
            unsubscribe: message.unsubscribe.clone(),
            at: now,
        };
        let failed = |fault, message: String| SendError {
            fault,
            code: "sink".into(),
            message,
            retry_after: None,
            refusal: None,
        };
        let record = Record {
            shelf: Shelf::Sink,
            id: self.clock.new_uuid(),
            version: 1,
            // A notification is caught once, however often it is sent.
            names: vec![format!("notification:{}", message.id)],
            labels: vec![label(&to)],
            created_at: now,
            updated_at: now,
            expires_at: Some(now.plus(KEPT_FOR)),
            body: serde_json::to_value(&caught).map_err(|e| failed(Fault::Message, e.to_string()))?,
        };
        let id = record.id;
        match self.store.commit(vec![Write::Insert(record)], &[]).await {
            Ok(Committed::Done) => Ok(Receipt { provider_id: Some(id.to_string()), answer: "kept in the sink".into() }),
            Ok(_) => Ok(Receipt { provider_id: None, answer: "was in the sink already".into() }),
            Err(e) => Err(failed(Fault::Provider, e.to_string())),
        }
    }
}
