//! What travels through a broker: small, versioned messages without payload.

use serde::{Deserialize, Serialize};

use crate::base::id::{JobId, Priority, QueueName, WorkerId};

/// Says that a job may be claimed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeUp {
    /// The job.
    pub job: JobId,
    /// The queue it waits in.
    pub queue: QueueName,
    /// Its place in the queue.
    pub priority: Priority,
}

/// Something every worker should know at once. The store holds the truth; this only makes it quick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Control {
    /// The running job was asked to stop.
    Cancel {
        /// The job.
        job: JobId,
    },
    /// A queue was paused or resumed.
    QueuesChanged,
    /// Every worker should report its presence now.
    Ping,
    /// A worker reported, in answer to a ping.
    Pong {
        /// Which worker.
        worker: WorkerId,
    },
}
