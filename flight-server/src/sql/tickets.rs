//! What leaves the server and comes back: tickets of results, and the names of their jobs. Both are sealed, hold integers alone, and
//! say nothing of where rows are: that is looked up when a ticket is redeemed. Next: `results.rs`.

use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use windrow_auth::{ClusterKey, Sealer};
use windrow_core::Result;
use windrow_core::clock::{unix_millis, unix_nanos};
use windrow_core::ids::JobId;

/// What a ticket begins with.
const TICKET: [u8; 4] = *b"WRT1";

/// What the name of a job begins with, in `FlightInfo.app_metadata` and in the descriptors of PollFlightInfo.
const JOB: [u8; 4] = *b"WRJ1";

/// What the key for tickets is derived for.
const TICKETS: &str = "result tickets";

/// Seals do not expire by themselves: results do, and every call about one puts that off.
const NEVER: u64 = u64::MAX;

/// Partitions of a result.
#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    /// Tells the results of this server from those of one before it, whose jobs had the same numbers.
    epoch: u64,
    job: u64,
    first: u32,
    count: u32,
}

/// Knows tickets of this cluster, without knowing what they are for: for executors.
#[derive(Debug)]
pub(crate) struct Check(Sealer);

impl Check {
    pub(crate) fn new(key: &ClusterKey) -> Self {
        Self(Sealer::new(key, TICKETS))
    }

    /// Whether the cluster made it.
    pub(crate) fn is_ours(&self, ticket: &[u8]) -> bool {
        open::<Sealed>(&self.0, TICKET, ticket).is_some()
    }
}

/// Seals and opens for one server.
#[derive(Debug)]
pub(super) struct Seals {
    tickets: Sealer,
    jobs: Sealer,
    epoch: u64,
}

impl Seals {
    pub(super) fn new(key: &ClusterKey) -> Self {
        let (tickets, jobs) = (Sealer::new(key, TICKETS), Sealer::new(key, "names of jobs"));
        Self { tickets, jobs, epoch: unix_nanos() }
    }

    /// The ticket for some partitions of a result.
    pub(super) fn ticket(&self, job: JobId, partitions: &Range<u32>) -> Result<Vec<u8>> {
        let (first, count) = (partitions.start, partitions.end.saturating_sub(partitions.start));
        seal(&self.tickets, TICKET, &Sealed { epoch: self.epoch, job: job.0, first, count })
    }

    /// What a ticket is for; `None` for one that this server did not make.
    pub(super) fn open_ticket(&self, ticket: &[u8]) -> Option<(JobId, Range<u32>)> {
        let sealed: Sealed = open(&self.tickets, TICKET, ticket)?;
        let partitions = sealed.first..sealed.first.checked_add(sealed.count)?;
        (sealed.epoch == self.epoch).then_some((JobId(sealed.job), partitions))
    }

    /// The name of a job.
    pub(super) fn name(&self, job: JobId) -> Result<Vec<u8>> {
        seal(&self.jobs, JOB, &(self.epoch, job.0))
    }

    /// The job of a name; `None` for one that this server did not make.
    pub(super) fn open_name(&self, name: &[u8]) -> Option<JobId> {
        let (epoch, job): (u64, u64) = open(&self.jobs, JOB, name)?;
        (epoch == self.epoch).then_some(JobId(job))
    }
}

/// Whether bytes claim to be the name of a job.
pub(super) fn is_name(bytes: &[u8]) -> bool {
    bytes.starts_with(&JOB)
}

fn seal<T: Serialize>(sealer: &Sealer, magic: [u8; 4], value: &T) -> Result<Vec<u8>> {
    let mut bytes = magic.to_vec();
    bytes.extend(sealer.seal(value, NEVER)?);
    Ok(bytes)
}

fn open<T: DeserializeOwned>(sealer: &Sealer, magic: [u8; 4], bytes: &[u8]) -> Option<T> {
    sealer.open(bytes.strip_prefix(&magic)?, unix_millis()).ok()
}
