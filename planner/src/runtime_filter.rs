//! Runtime filters: the keys of one side of a join, as a Bloom filter, drop rows of the other side where they are scanned.
//!
//! An exchange that moves rows which find no partner in the join above it is the dearest thing that a distributed query does. So when
//! one side of a join is reduced by a filter somewhere below it, its keys are collected in a stage of their own, and the scans of the
//! other side wait for them. The idea is that of semi-join reduction (Bernstein and Chiu, "Using Semi-Joins to Solve Relational
//! Queries", 1981) with Bloom's filter in the place of the keys, passed along all joins of a query as in Yang et al., "Predicate
//! Transfer" (CIDR 2024).
//!
//! ```text
//! HashJoin o.key = l.key                       s3  HashJoin
//!   Repartition hash o.key          cut              StageInput s0, StageInput s2
//!     Filter                        --->        s2  RuntimeFilter l.key
//!       scan orders                                    StageInput s1, whole
//!   Repartition hash l.key                             scan lineitem
//!     scan lineitem                             s1  RuntimeFilterBuild o.key
//!                                                      StageInput s0
//!                                               s0  Filter, scan orders
//! ```
//!
//! Here: `bloom.rs` is the filter, `build.rs` and `apply.rs` are the operators, `place.rs` finds where a filter may stand,
//! `push.rs` moves a selective one into the Parquet reader. `stages/reduce.rs` makes the stages.

pub(crate) mod apply;
mod bloom;
pub(crate) mod build;
pub(crate) mod place;
pub(crate) mod push;
#[cfg(test)]
mod tests;
