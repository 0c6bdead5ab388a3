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

/// First byte of a wake-up in a server; another one is another layout.
const VERSION: u8 = 1;
/// Length of a wake-up in a server.
pub(super) const WAKE_UP_LEN: usize = 17;

/// What of a wake-up is stored in a server: version and job id. Queue and priority are where it is stored.
pub(super) fn encode(job: JobId) -> [u8; WAKE_UP_LEN] {
    let mut bytes = [VERSION; WAKE_UP_LEN];
    let (_, id) = bytes.split_at_mut(1);
    id.copy_from_slice(job.0.as_bytes());
    bytes
}

/// None if it was written by somebody else, or in a layout that this version does not know.
pub(super) fn decode(bytes: &[u8]) -> Option<JobId> {
    let (version, id) = bytes.split_first()?;
    (*version == VERSION).then(|| uuid::Uuid::from_slice(id).ok().map(JobId)).flatten()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_keep_their_layout() {
        let job: JobId = "0192f0c1-2345-7abc-8def-0123456789ab".parse().unwrap();
        let bytes = encode(job);
        assert_eq!(bytes[..4], [1, 0x01, 0x92, 0xf0]);
        assert_eq!(decode(&bytes), Some(job));
        for other in [&bytes[..16], &[2; 17], &[], &[1; 18]] {
            assert_eq!(decode(other), None, "{other:?}");
        }
    }

    #[test]
    fn controls_keep_their_names() {
        let job: JobId = "0192f0c1-2345-7abc-8def-0123456789ab".parse().unwrap();
        let text = r#"{"type":"cancel","job":"0192f0c1-2345-7abc-8def-0123456789ab"}"#;
        assert_eq!(serde_json::from_str::<Control>(text).unwrap(), Control::Cancel { job });
        for (text, control) in [("queues_changed", Control::QueuesChanged), ("ping", Control::Ping)] {
            let text = format!("{{\"type\":\"{text}\"}}");
            assert_eq!(serde_json::from_str::<Control>(&text).unwrap(), control);
            assert_eq!(serde_json::to_string(&control).unwrap(), text);
        }
    }
}
