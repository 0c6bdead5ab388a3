//! Accepting jobs: several at once, or with an idempotency key, in one transaction.

use ::mongodb::{
    ClientSession,
    bson::{Binary, Bson, DateTime, doc, spec::BinarySubtype},
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    Ready,
    doc::{JobDoc, date},
    fault::{Fault, corrupt},
    together::Together,
};
use crate::{
    base::clock::Timestamp,
    jobs::store::{Idempotency, Inserted},
};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct KeyId {
    scope: String,
    key: String,
}

/// A used idempotency key as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct KeyDoc {
    #[serde(rename = "_id")]
    id: KeyId,
    request: Binary,
    answer: Binary,
    expires: DateTime,
}

fn binary(bytes: &[u8]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }
}

fn key_id(scope: &str, key: &str) -> Bson {
    Bson::Document(doc! { "scope": scope, "key": key })
}

/// The fingerprint of the request that a key was used for, and what was answered.
type Recalled = ([u8; 32], Vec<u8>);

impl Ready {
    pub(super) async fn recall(&self, scope: &str, key: &str, now: Timestamp) -> Result<Option<Recalled>, Fault> {
        let keys = self.durable.collection::<KeyDoc>("idempotency_keys");
        let found = keys.find_one(doc! { "_id": key_id(scope, key), "expires": { "$gt": date(now) } }).await?;
        found.map(recalled).transpose()
    }

    /// Stores all jobs and the key, or nothing.
    pub(super) async fn insert_together(
        &self,
        jobs: &[JobDoc],
        key: Option<&Idempotency>,
        now: Timestamp,
    ) -> Result<Inserted, Fault> {
        self.together(&NewJobs { jobs, key, now }).await
    }
}

/// New jobs and the key they are submitted under.
struct NewJobs<'a> {
    jobs: &'a [JobDoc],
    key: Option<&'a Idempotency>,
    now: Timestamp,
}

#[async_trait]
impl Together for NewJobs<'_> {
    type Done = Inserted;

    async fn write(&self, ready: &Ready, session: &mut ClientSession) -> Result<(Inserted, bool), Fault> {
        let Self { jobs, key, now } = *self;
        let keys = ready.durable.collection::<KeyDoc>("idempotency_keys");
        if let Some(k) = key {
            let id = key_id(&k.scope, &k.key);
            if let Some(used) = keys.find_one(doc! { "_id": id.clone() }).session(&mut *session).await? {
                if used.expires > date(now) {
                    let (request, answer) = recalled(used)?;
                    let same = request == k.request;
                    return Ok((if same { Inserted::Replay(answer) } else { Inserted::KeyReused }, false));
                }
                keys.delete_one(doc! { "_id": id }).session(&mut *session).await?;
            }
        }
        ready.jobs().insert_many(jobs).ordered(false).session(&mut *session).await?;
        // The key last: from here to the commit nobody else gets past it, and whoever dies in between holds it up for as long
        // as the server lets a transaction live.
        if let Some(k) = key {
            let new = KeyDoc {
                id: KeyId { scope: k.scope.clone(), key: k.key.clone() },
                request: binary(&k.request),
                answer: binary(&k.answer),
                expires: date(k.expires_at),
            };
            keys.insert_one(new).session(session).await?;
        }
        Ok((Inserted::New, true))
    }
}

fn recalled(k: KeyDoc) -> Result<Recalled, Fault> {
    let request =
        k.request.bytes.try_into().map_err(|_bytes| corrupt("idempotency key", "its fingerprint is not 32 bytes"))?;
    Ok((request, k.answer.bytes))
}
