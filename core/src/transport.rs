//! The two ways a message travels, as traits: in process and over the network. `flight-server/src/transport/` holds both
//! implementations and one contract test suite that both pass.
//!
//! `B` is the batch type (Arrow's `RecordBatch` everywhere but in model worlds), so that this crate does not link Arrow.

use std::fmt;

use futures::stream::BoxStream;

use crate::failure::Failed;
use crate::task::{InputGroup, SegmentKey};

/// Which segments to read from one executor, all on one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Who holds them: executor, incarnation, address, and the attempt that committed them.
    pub groups: Vec<InputGroup>,
    /// Which segment of each producer partition.
    pub segment: u32,
}

impl FetchRequest {
    /// The segments asked for, in the order of the groups.
    pub fn keys(&self) -> impl Iterator<Item = SegmentKey> + '_ {
        self.groups.iter().flat_map(|group| {
            group.partitions.iter().map(|&partition| SegmentKey { attempt: group.attempt, partition, segment: self.segment })
        })
    }
}

/// Reads committed shuffle output of one executor.
pub trait ShuffleTransport<B>: fmt::Debug + Send + Sync {
    /// Streams the batches of every segment of `request`; all its groups are on one executor. Batches of a segment keep
    /// their order, segments come in the order of the request, each batch with its producer partition.
    ///
    /// The stream ends with [`Failure::LostInput`](crate::Failure::LostInput), naming the first attempt and partitions that could
    /// not be read, if the executor cannot be reached or a segment is missing, fenced or corrupt. Dropping it frees both ends.
    fn fetch(&self, request: FetchRequest) -> BoxStream<'static, Result<(u32, B), Failed>>;
}
