//! The one leaf of ours in a serialized plan: it stands for the output of another stage. It reads through a [`StageInputSource`],
//! which the executor puts into the task's session configuration, so that no reader is ever serialized.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;

/// Which part of a stage input one partition of the leaf reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputPart {
    /// This segment of every producer partition.
    Segment(u32),
    /// Segment 0 of this producer partition.
    Producer(u32),
}

/// Opens stage inputs for one attempt. Implemented by `executor/src/shuffle/read.rs`.
pub trait StageInputSource: Debug + Send + Sync {
    /// The rows of `part` of the stage's input number `input`. Rows of one producer partition keep their order.
    ///
    /// # Errors
    /// `DataFusionError::External` holding a `windrow_core::Failed`; the stream's errors are of the same form.
    fn open(&self, input: u32, part: InputPart, schema: SchemaRef) -> Result<SendableRecordBatchStream>;
}

/// The extension of a task's `SessionConfig` that carries its source.
#[derive(Debug, Clone)]
pub struct StageInputs(pub Arc<dyn StageInputSource>);
