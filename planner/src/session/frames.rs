//! Statements over frames: plans that the client made, which the text names as tables. Next: `../frames.rs`.

use std::sync::Arc;

use datafusion::error::DataFusionError;
use windrow_core::Result;

use super::{ClusterShape, Inner, Planned, PlannerSession, on_planning_stack};
use crate::describe::{Description, describe};
use crate::diagnose::diagnose;
use crate::frames::{Frames, check_statement};
use crate::sql;

impl PlannerSession {
    /// As [`Self::plan`], for a statement that may name `frames` as tables, before those of the catalog.
    ///
    /// # Errors
    /// As [`Self::plan`]; `Unsupported` for a statement that would keep a frame's name.
    pub async fn plan_over(&self, text: &str, frames: &Frames, shape: ClusterShape) -> Result<Planned> {
        let (inner, text, frames) = (Arc::clone(&self.inner), text.to_owned(), frames.clone());
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            inner.plan_over(&text, frames, shape).await.map_err(|error| diagnose(error, &inner.names()))
        })
        .await?
    }

    /// As [`Self::describe`], for a statement that may name `frames` as tables.
    ///
    /// # Errors
    /// As [`Self::plan_over`].
    pub async fn describe_over(&self, text: &str, frames: &Frames) -> Result<Description> {
        let (inner, text, frames) = (Arc::clone(&self.inner), text.to_owned(), frames.clone());
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            inner.describe_over(&text, frames).await.map_err(|error| diagnose(error, &inner.names()))
        })
        .await?
    }
}

impl Inner {
    async fn plan_over(&self, text: &str, frames: Frames, shape: ClusterShape) -> Result<Planned, DataFusionError> {
        check_statement(&sql::parse(text)?)?;
        let query = self.query();
        let scope = self.scope(&query).over(frames)?;
        let mut planned = self.plan_in(&scope.state(), text, None, query, shape).await?;
        if let Planned::Job(job) | Planned::Analyze(job) | Planned::Write { job, .. } = &mut planned {
            job.reads = scope.read();
        }
        Ok(planned)
    }

    async fn describe_over(&self, text: &str, frames: Frames) -> Result<Description, DataFusionError> {
        check_statement(&sql::parse(text)?)?;
        let query = self.query();
        let state = self.scope(&query).over(frames)?.state();
        describe(text, None, &self.context, &state, (&self.access, &query.directory)).await
    }
}
