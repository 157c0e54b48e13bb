//! From text to stages: SQL becomes a logical plan, a physical plan, and a graph of stages whose plans are encoded once.
//!
//! Read in the order of a query: `session.rs` (a statement arrives), `sql.rs`, `statement.rs`, `parameters.rs`, or `substrait.rs` (a plan
//! arrives), `describe.rs`, `origin.rs`, `logical.rs`, `physical.rs`, `at_once.rs`, `exchange.rs`, `stages.rs`, `codec.rs`; then, on the
//! executor, `task_plan.rs` and `narrow.rs`.

mod access;
mod at_once;
mod budget;
pub mod catalog;
pub mod codec;
mod contain;
mod describe;
mod diagnose;
mod equivalence;
mod exchange;
mod explain;
mod files;
mod frames;
mod inventory;
mod logical;
pub mod narrow;
pub mod origin;
mod parameters;
mod permission;
mod physical;
mod plan_size;
mod push_down_semi_join;
mod python;
mod references;
mod repeats;
mod runtime_filter;
mod scan;
pub mod session;
mod sql;
pub mod stage_input;
mod stages;
pub mod statement;
mod stores;
mod substrait;
pub mod task_plan;
#[cfg(test)]
mod testing;
mod write;

pub use access::Allowed;
pub use budget::TEXT_BYTES_MAX;
pub use catalog::{Catalog, Listed, SystemSource, TablesRead, Viewer};
pub use codec::{EncodedStage, ScalarInputExpr, encode_stage};
pub use describe::Description;
pub use frames::{FileFormatOptions, Frames, ReadFiles, STEPS_DEPTH_MAX, Stub, StubTable, frames_to_bytes, plan_error, unparse};
pub use inventory::{TableEntry, TableKind};
pub use narrow::{Leaf, Narrowing, Placement, can_narrow, leaves, narrow};
pub use python::{
    PythonFormat, PythonFunction, PythonMap, PythonRunner, PythonRunners, PythonStyle, call_python, call_python_aggregate,
    create_python_function,
};
pub use references::table_references;
pub use session::{ClusterShape, Names, Planned, PlannedJob, PlannerSession, SessionOptions};
pub use stage_input::{InputPart, StageInputExec, StageInputSource, StageInputs};
pub use stores::{LocalRoot, StorePolicy, StorePrefix, Stores, denial};
pub use substrait::check_substrait_version;
pub use task_plan::{TaskPlan, decode_task};
pub use write::{
    BoundInsert, Ingest, IngestMode, IngestTarget, NewTable, Publication, Warehouse, WrittenFile, count_rows, count_schema,
    writes_files,
};
