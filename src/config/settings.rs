//! The configuration as it is written: text, numbers and switches, one struct for each section of the TOML.
//!
//! Kept apart from what the program uses, so that times, sizes, addresses and bounds are judged in one place
//! ([`super::resolve`]). What each key means stands in `config/default.toml`; here a doc would only repeat it.
#![allow(
    missing_docs,
    reason = "config/default.toml documents every key, and a test proves that both hold the same keys"
)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

macro_rules! section {
    ($name:ident { $($key:ident: $type:ty),* $(,)? }) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $(pub $key: $type,)*
        }
    };
}

section!(Settings {
    store: Store,
    broker: Broker,
    cache: Cache,
    http: Http,
    probe: Probe,
    auth: Auth,
    log: Log,
    time: Time,
    jobs: Jobs,
    queues: BTreeMap<String, Queue>,
    worker: Worker,
    scheduler: Scheduler,
    notifications: Notifications,
    email: Email,
    push: Push,
    webhook: Webhook,
});

section!(Store { url: String, sync: String });

section!(Broker { url: String, prefix: String, queue_type: String });

section!(Cache { url: String, prefix: String, ttl: String, max_entries: i64, max_bytes: String });

section!(Http {
    bind: String,
    workers: i64,
    max_body: String,
    max_bulk_body: String,
    max_bodies: String,
    body_timeout: String,
    hosts: Vec<String>,
    page_limit_max: i64,
    shutdown_timeout: String,
    keep_alive: String,
});

section!(Probe { bind: String });

section!(Auth {
    mode: String,
    issuer: String,
    audience: String,
    token_ttl: String,
    jwt_keys: Vec<String>,
    registration: String,
    login_burst: i64,
    login_every: String,
    client_header: String,
});

section!(Log { level: String, format: String, requests: String });

section!(Time { zones: String });

section!(Jobs {
    max_payload: String,
    max_result: String,
    bulk_max: i64,
    max_attempts: i64,
    backoff_base: String,
    backoff_cap: String,
    timeout: String,
    max_timeout: String,
    crash_limit: i64,
    lease: String,
    renew_every: String,
    retention: String,
    dead_retention: String,
    idempotency_ttl: String,
    max_tags: i64,
    max_queues: i64,
    max_delay: String,
    depth_limit: i64,
});

section!(Queue { depth_limit: Option<i64> });

section!(Worker {
    queues: Vec<String>,
    concurrency: i64,
    strict: bool,
    shutdown_grace: String,
    max_jobs: i64,
    heartbeat: String,
});

section!(Scheduler {
    due_every: String,
    expired_every: String,
    lost_every: String,
    lost_after: String,
    retention_every: String,
    batch: i64,
});

section!(Notifications {
    public_url: String,
    rules: Vec<String>,
    email_per_minute: i64,
    push_per_minute: i64,
    webhook_per_minute: i64,
});

section!(Email {
    host: String,
    port: i64,
    tls: String,
    ca_file: String,
    username: String,
    password: String,
    from: String,
    from_name: String,
    timeout: String,
    max_connections: i64,
    dkim_domain: String,
    dkim_selector: String,
    dkim_private_key: String,
});

section!(Push {
    fcm_credentials: String,
    fcm_url: String,
    fcm_token_url: String,
    vapid_private_key: String,
    vapid_subject: String,
    ttl: String,
    timeout: String,
});

section!(Webhook { allow_http: bool, allow_private: bool, allow_networks: Vec<String>, timeout: String });
