//! The list of job kinds this process knows: what `GET /api/v1/kinds` shows and what a worker can run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, value::RawValue};

use super::{
    authority::KindRight,
    kind::{Handler, JobKind, Typed},
    schema::Schema,
};
use crate::base::{
    backoff::Backoff,
    id::{KindName, Priority, QueueName},
};

/// What holds for jobs of any kind that does not say otherwise.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Where jobs wait.
    pub queue: QueueName,
    /// Attempts they may spend.
    pub max_attempts: u32,
    /// Delay between attempts.
    pub backoff: Backoff,
    /// Longest run.
    pub timeout: Duration,
}

/// A kind, resolved.
pub struct Kind {
    /// Its name.
    pub name: KindName,
    /// One line for people.
    pub description: String,
    /// Where its jobs wait.
    pub queue: QueueName,
    /// How urgent they are.
    pub priority: Priority,
    /// Attempts they may spend.
    pub max_attempts: u32,
    /// Delay between attempts.
    pub backoff: Backoff,
    /// Longest run.
    pub timeout: Duration,
    /// What its payload must look like.
    pub schema: Schema,
    /// A payload that works.
    pub example: Box<RawValue>,
    /// Only this program submits such jobs.
    pub internal: bool,
    /// What its jobs ask of those who act on them.
    pub right: KindRight,
    /// What runs.
    pub handler: Arc<dyn Handler>,
}

/// Every kind, by name.
pub struct Registry {
    kinds: BTreeMap<KindName, Kind>,
    defaults: Defaults,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(defaults: Defaults) -> Self {
        Self { kinds: BTreeMap::new(), defaults }
    }

    /// Adds a kind written in Rust.
    ///
    /// # Errors
    /// A sentence, if the name is taken or a constant of the kind is wrong. The process should not start then.
    pub fn add<K: JobKind>(&mut self, kind: K) -> Result<(), String> {
        let o = kind.options();
        let name = KindName::new(K::NAME)?;
        let wrong = |what: &str, e: &dyn std::fmt::Display| format!("job kind `{}`: its {what} {e}", K::NAME);
        let queue = match o.queue {
            Some(q) => QueueName::new(q).map_err(|e| wrong("queue", &e))?,
            None => self.defaults.queue.clone(),
        };
        let mut document: Value = schemars::schema_for!(K::Payload).into();
        if let Some(root) = document.as_object_mut() {
            root.remove("$schema");
        }
        let schema = Schema::new(document).map_err(|e| wrong("schema", &e))?;
        let example: Value = serde_json::from_str(o.example).map_err(|e| wrong("example is not JSON:", &e))?;
        if let Some(fault) = schema.check(&example).first() {
            return Err(wrong("example breaks its schema:", fault));
        }
        self.insert(Kind {
            name,
            description: o.description.to_owned(),
            queue,
            priority: o.priority.unwrap_or(Priority::MEDIUM),
            max_attempts: o.max_attempts.unwrap_or(self.defaults.max_attempts),
            backoff: o.backoff.unwrap_or(self.defaults.backoff),
            timeout: o.timeout.unwrap_or(self.defaults.timeout),
            schema,
            example: RawValue::from_string(o.example.to_owned()).map_err(|e| wrong("example", &e))?,
            internal: o.internal,
            right: o.right,
            handler: Arc::new(Typed(kind)),
        })
    }

    /// Adds a kind.
    ///
    /// # Errors
    /// A sentence, if the name is taken.
    pub fn insert(&mut self, kind: Kind) -> Result<(), String> {
        if self.kinds.contains_key(&kind.name) {
            return Err(format!("two job kinds are named `{}`: rename one of them", kind.name));
        }
        self.kinds.insert(kind.name.clone(), kind);
        Ok(())
    }

    /// The kind of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name)
    }

    /// Every kind, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.values()
    }
}
