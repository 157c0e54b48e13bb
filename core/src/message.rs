//! What travels between coordinator and executors, one enum each way. Carried by `flight-server/src/control.rs` over the network
//! and by channels in process; encoded with postcard, because both ends are of one build (checked at registration).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::failure::CancelReason;
use crate::ids::{AttemptId, Epoch, Incarnation, JobId};
use crate::network::Network;
use crate::task::{JobStage, Outcome, PartitionStat, TaskMetrics, TaskSpec};

/// What the coordinator tells an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first message after [`Report::Register`].
    Registered {
        /// The coordinator's epoch; later commands of a lower one are refused.
        epoch: Epoch,
        /// The executor's number, for reports in its log.
        executor: crate::ids::ExecutorId,
        /// The executor's incarnation from now on.
        incarnation: Incarnation,
    },
    /// The registration is refused for good; the process ends with this sentence.
    Refused {
        /// What to do about it.
        message: String,
    },
    /// Acknowledges a heartbeat.
    HeartbeatSeen {
        /// The heartbeat's number.
        seq: u64,
    },
    /// A stage's template and its job's settings; sent before the first launch of that stage on this executor.
    Template {
        /// The stage.
        stage: JobStage,
        /// The encoded plan.
        template: Bytes,
        /// The job's settings.
        settings: Vec<(String, String)>,
    },
    /// Run one attempt.
    Launch(Box<TaskSpec>),
    /// End an attempt and drop its output, wherever it is; for [`CancelReason::Enough`] what it reported done is kept. An
    /// attempt that still runs is answered by [`Report::AttemptEnded`] as ever: its slots are taken until then.
    Cancel {
        /// Which.
        attempt: AttemptId,
        /// Why.
        why: CancelReason,
    },
    /// No consumer needs these outputs any more.
    ReleaseStage {
        /// The stage, all attempts.
        stage: JobStage,
    },
    /// The job ended and its results were read: forget everything about it.
    ReleaseJob {
        /// The job.
        job: JobId,
    },
    /// The scheduler gave up on this incarnation: drop all work, delete all outputs, register again.
    Fence {
        /// The incarnation that is over.
        incarnation: Incarnation,
    },
    /// Leave now.
    Shutdown,
}

/// What an executor says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name, unique in the cluster; a second registration under a name fences the first.
    pub name: String,
    /// Partitions it computes at a time.
    pub slots: u32,
    /// Its memory limit in bytes.
    pub memory_bytes: u64,
    /// Where others fetch its shuffle data, `host:port`; empty in process.
    pub address: String,
    /// The build; all executors of a cluster are of the coordinator's.
    pub build: String,
    /// Its process, for status and tests; 0 in the coordinator's own process.
    pub pid: u32,
    /// How clients read results from it; `None` where they cannot.
    pub clients: Option<ForClients>,
}

/// How clients read results from an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForClients {
    /// Its listener has a certificate.
    pub encrypts: bool,
    /// Networks whose clients reach its address, besides those of its own machine.
    pub networks: Vec<Network>,
}

/// What an executor tells the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The first message of a connection.
    Register(Registration),
    /// Every second.
    Heartbeat {
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// Counts up from 0 in each incarnation.
        seq: u64,
        /// Attempts that run.
        running: Vec<AttemptId>,
        /// Bytes in use of the memory pool.
        memory_bytes: u64,
        /// Bytes of shuffle segments in memory.
        store_bytes: u64,
        /// Bytes on disk: evicted segments and operators' spill files.
        disk_bytes: u64,
    },
    /// A partition's output is complete and readable.
    PartitionDone {
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// The attempt.
        attempt: AttemptId,
        /// Which partition.
        partition: u32,
        /// What it measured.
        stat: PartitionStat,
    },
    /// An attempt is over; its slots are free.
    AttemptEnded {
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        outcome: Outcome,
        /// What it measured.
        metrics: Box<TaskMetrics>,
    },
    /// Somebody asked the executor to leave: it wants no new work, and [`Command::Shutdown`] once nothing is left for it.
    Leaving {
        /// The sender's incarnation.
        incarnation: Incarnation,
    },
}

/// The build that both ends of a connection must share, because plans and messages are stable only within one.
#[must_use]
pub fn build() -> &'static str {
    concat!("windrow ", env!("CARGO_PKG_VERSION"), " protocol 3")
}

/// Bytes of the CRC32C behind each message. What it would take to change a message unnoticed must not happen by chance: a number that
/// was changed on its way names other rows.
const CHECK_BYTES: usize = 4;

/// Encodes a message, with a checksum.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the message cannot be encoded, which is a bug.
pub fn encode<T: Serialize>(message: &T) -> crate::Result<Bytes> {
    let mut bytes =
        postcard::to_stdvec(message).map_err(|source| crate::Error::internal("a message does not encode").with_source(source))?;
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    Ok(bytes.into())
}

/// Decodes a message, after its checksum was verified.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data) if the bytes are not such a message, or not all that was sent.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> crate::Result<T> {
    let no_message = || {
        let what = "a message of the wire does not decode; are both ends of one version?";
        crate::Error::new(crate::ErrorKind::Data, what)
    };
    let (message, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or_else(no_message)?;
    if crc32c::crc32c(message) != u32::from_le_bytes(*check) {
        return Err(no_message());
    }
    postcard::from_bytes(message).map_err(|source| no_message().with_source(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let message = Report::Leaving { incarnation: Incarnation(77) };
        let bytes = encode(&message).unwrap();
        assert_eq!(decode::<Report>(&bytes).unwrap(), message);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Report>(&changed).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode::<Report>(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
