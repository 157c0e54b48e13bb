//! Statements over frames: plans that the client made, which the text names as tables. Next: `../frames.rs`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::error::DataFusionError;
use futures::FutureExt;
use windrow_core::{Error, ErrorKind, Result};

use super::{ClusterShape, Inner, Planned, PlannerSession, on_planning_stack};
use crate::budget::check_plan_bytes;
use crate::describe::{Description, describe};
use crate::diagnose::{diagnose, ours};
use crate::frames::{Frames, check_statement, frames_from_bytes};
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

impl PlannerSession {
    /// As [`Self::plan_over`], for frames that a client of this version sent as bytes.
    ///
    /// # Errors
    /// As [`Self::plan_over`]; `Unsupported` where no plans are taken, `InvalidQuery` for bytes that are no frames.
    pub async fn plan_over_bytes(&self, text: &str, frames: &Bytes, shape: ClusterShape) -> Result<Planned> {
        self.check_accepts_frames()?;
        let (inner, text, frames) = (Arc::clone(&self.inner), text.to_owned(), frames.clone());
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            let planning = async { inner.plan_over(&text, inner.frames(&frames)?, shape).await };
            contained(planning).await.map_err(|error| diagnose(error, &inner.names()))
        })
        .await?
    }

    /// As [`Self::describe_over`], for frames that a client of this version sent as bytes.
    ///
    /// # Errors
    /// As [`Self::plan_over_bytes`].
    pub async fn describe_over_bytes(&self, text: &str, frames: &Bytes) -> Result<Description> {
        self.check_accepts_frames()?;
        let (inner, text, frames) = (Arc::clone(&self.inner), text.to_owned(), frames.clone());
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            let describing = async { inner.describe_over(&text, inner.frames(&frames)?).await };
            contained(describing).await.map_err(|error| diagnose(error, &inner.names()))
        })
        .await?
    }

    /// Refuses frames as bytes where no plans are taken, before anybody looks at them.
    ///
    /// # Errors
    /// `Unsupported`, which names the setting.
    pub fn check_accepts_frames(&self) -> Result<()> {
        if self.inner.accept_plans {
            return Ok(());
        }
        let error = Error::unsupported("this server takes no plans from clients, only SQL");
        Err(error.with_help(
            "an administrator sets security.accept_plans = true or starts the scheduler with --accept-plans; or send SQL",
        ))
    }
}

/// What is planned of a client's bytes; a panic over them is an error of theirs.
async fn contained<T>(planning: impl Future<Output = Result<T, DataFusionError>>) -> Result<T, DataFusionError> {
    AssertUnwindSafe(planning).catch_unwind().await.unwrap_or_else(|_panic| {
        let error = Error::new(ErrorKind::InvalidQuery, "the frames cannot be used: they contradict themselves");
        Err(ours(error))
    })
}

impl Inner {
    fn frames(&self, bytes: &Bytes) -> Result<Frames, DataFusionError> {
        check_plan_bytes(bytes.len()).map_err(ours)?;
        frames_from_bytes(bytes, &self.context.state().task_ctx())
    }

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
