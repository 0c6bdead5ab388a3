//! Accepting jobs: several at once, or with an idempotency key, in one transaction.

use std::time::Duration;

use ::mongodb::{
    ClientSession,
    bson::{Binary, Bson, DateTime, doc, spec::BinarySubtype},
};
use serde::{Deserialize, Serialize};

use super::{
    Ready,
    doc::{JobDoc, date},
    durable,
    fault::{Fault, corrupt},
};
use crate::{
    base::{backoff::Backoff, clock::Timestamp},
    jobs::store::{Idempotency, Inserted},
};

/// Between attempts at a transaction that met another one.
const AGAIN: Backoff = Backoff { base_ms: 4, cap_ms: 250 };

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
        if !self.transactions {
            return Err(Fault::Unfit(
                "MongoDB runs without a replica set, so it cannot store several jobs, or a job and its Idempotency-Key, at \
                 once: start it with --replSet, or submit jobs one by one and without a key"
                    .to_owned(),
            ));
        }
        let mut session = self.durable.client().start_session().await?;
        let mut attempt = 0;
        loop {
            match self.try_insert(&mut session, jobs, key, now).await {
                Err(e) if e.is_transient() => {
                    tracing::debug!(error = %e, attempt, "transaction met another one");
                    tokio::time::sleep(AGAIN.delay(attempt).max(Duration::from_millis(1))).await;
                    attempt = attempt.saturating_add(1);
                }
                done => return done,
            }
        }
    }

    async fn try_insert(
        &self,
        session: &mut ClientSession,
        jobs: &[JobDoc],
        key: Option<&Idempotency>,
        now: Timestamp,
    ) -> Result<Inserted, Fault> {
        session.start_transaction().write_concern(durable()).await?;
        let written = self.write_in(session, jobs, key, now).await;
        match written {
            Ok(Inserted::New) => {
                commit(session).await?;
                Ok(Inserted::New)
            }
            other => {
                // The server ends it by itself if this does not reach it.
                if let Err(e) = session.abort_transaction().await {
                    tracing::debug!(error = %e, "transaction not aborted");
                }
                other
            }
        }
    }

    async fn write_in(
        &self,
        session: &mut ClientSession,
        jobs: &[JobDoc],
        key: Option<&Idempotency>,
        now: Timestamp,
    ) -> Result<Inserted, Fault> {
        let keys = self.durable.collection::<KeyDoc>("idempotency_keys");
        if let Some(k) = key {
            let id = key_id(&k.scope, &k.key);
            if let Some(used) = keys.find_one(doc! { "_id": id.clone() }).session(&mut *session).await? {
                if used.expires > date(now) {
                    let (request, answer) = recalled(used)?;
                    return Ok(if request == k.request { Inserted::Replay(answer) } else { Inserted::KeyReused });
                }
                keys.delete_one(doc! { "_id": id }).session(&mut *session).await?;
            }
        }
        self.jobs().insert_many(jobs).ordered(false).session(&mut *session).await?;
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
        Ok(Inserted::New)
    }
}

/// Commits; a commit whose answer was lost is asked for again, which the server understands.
async fn commit(session: &mut ClientSession) -> Result<(), Fault> {
    for attempt in 0_u32..5 {
        match session.commit_transaction().await {
            Ok(()) => return Ok(()),
            Err(e) => {
                let e = Fault::from(e);
                if e.is_transient() || !e.is_unknown() {
                    return Err(e);
                }
                tokio::time::sleep(AGAIN.delay(attempt).max(Duration::from_millis(1))).await;
            }
        }
    }
    Ok(session.commit_transaction().await?)
}

fn recalled(k: KeyDoc) -> Result<Recalled, Fault> {
    let request =
        k.request.bytes.try_into().map_err(|_bytes| corrupt("idempotency key", "its fingerprint is not 32 bytes"))?;
    Ok((request, k.answer.bytes))
}
