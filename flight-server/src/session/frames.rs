//! Statements over frames, the plans that clients make step by step. Next: `planner/src/frames.rs`.

use windrow_core::Result;
use windrow_planner::{Description, Frames};

use super::{CoordinatorSession, in_time};
use crate::results::Statement;

impl CoordinatorSession {
    /// As [`Self::execute`], for a statement that may name `frames` as tables.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn execute_over(&self, sql: &str, frames: &Frames) -> Result<Statement> {
        self.planned(sql, |shape| self.planner.plan_over(sql, frames, shape)).await
    }

    /// What a statement over frames is, without running it.
    ///
    /// # Errors
    /// Those of planning.
    pub async fn describe_over(&self, sql: &str, frames: &Frames) -> Result<Description> {
        in_time(self.time_limit(), self.planner.describe_over(sql, frames)).await
    }
}
