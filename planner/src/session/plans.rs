//! Plans that clients make, in place of a text: what becomes of them. Next: `../substrait.rs`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use futures::FutureExt;
use windrow_core::{Error, ErrorKind, Result};

use super::{ClusterShape, Inner, Planned, PlannerSession, on_planning_stack};
use crate::describe::{Description, schema_of};
use crate::diagnose::{diagnose, ours};
use crate::parameters::{self, Values};
use crate::substrait::{self, check_accepted, substrait_versions};

impl PlannerSession {
    /// Plans a query that comes as a Substrait plan, with the values of its parameters as in [`Self::plan_with`].
    ///
    /// # Errors
    /// `Unsupported` where plans are not accepted, and for what a plan may hold and this engine does not do; `InvalidQuery` for bytes
    /// that are no plan, or one that does not fit the tables; those of [`Self::plan_with`].
    pub async fn plan_substrait(&self, plan: &Bytes, values: Option<&RecordBatch>, shape: ClusterShape) -> Result<Planned> {
        check_accepted(self.inner.accept_plans)?;
        let (inner, plan, values) = (Arc::clone(&self.inner), plan.clone(), values.cloned());
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            let planned = contained(inner.plan_substrait(&plan, values.as_ref(), shape)).await;
            planned.map_err(|error| diagnose(error, &inner.names()))
        })
        .await?
    }

    /// What a Substrait plan is, without running it; with `values`, what it is once they are bound.
    ///
    /// # Errors
    /// As [`Self::plan_substrait`].
    pub async fn describe_substrait(&self, plan: &Bytes, values: Option<&RecordBatch>) -> Result<Description> {
        check_accepted(self.inner.accept_plans)?;
        let (inner, plan, values) = (Arc::clone(&self.inner), plan.clone(), values.cloned());
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            let described = contained(inner.describe_substrait(&plan, values.as_ref())).await;
            described.map_err(|error| diagnose(error, &inner.names()))
        })
        .await?
    }

    /// Refuses where plans are not accepted, whatever the plan.
    ///
    /// # Errors
    /// `Unsupported`, saying what to do.
    pub fn check_accepts_plans(&self) -> Result<()> {
        check_accepted(self.inner.accept_plans)
    }

    /// The oldest and the newest version of Substrait whose plans this session takes; `None` if it takes none.
    #[must_use]
    pub fn substrait_versions(&self) -> Option<(String, String)> {
        substrait_versions().filter(|_range| self.inner.accept_plans)
    }
}

/// What becomes of a plan, or an error of it where that panics: DataFusion's readers expect plans that a program has made.
async fn contained<T>(planning: impl Future<Output = Result<T, DataFusionError>>) -> Result<T, DataFusionError> {
    AssertUnwindSafe(planning).catch_unwind().await.unwrap_or_else(|_panic| {
        let error = Error::new(ErrorKind::InvalidQuery, "the Substrait plan cannot be used: it contradicts itself");
        Err(ours(error))
    })
}

impl Inner {
    async fn plan_substrait(
        &self,
        plan: &[u8],
        values: Option<&RecordBatch>,
        shape: ClusterShape,
    ) -> Result<Planned, DataFusionError> {
        let query = self.query();
        let scope = self.scope(&query);
        let state = scope.state();
        let has_values = values.is_some_and(|values| values.num_columns() > 0);
        let plan = substrait::resolve(plan, &state, &self.access, Values::Rows(values)).await?;
        let mut planned = self.query_job(&plan, &state, &query, shape).await?;
        if let Planned::Job(job) = &mut planned {
            job.reads = scope.read();
        }
        Ok(if has_values { planned.with_nullable_columns() } else { planned })
    }

    async fn describe_substrait(&self, plan: &[u8], values: Option<&RecordBatch>) -> Result<Description, DataFusionError> {
        let state = self.state(&self.query());
        let values = values.filter(|values| values.num_columns() > 0);
        let bound = values.map_or(Values::Open, |values| Values::Rows(Some(values)));
        let plan = substrait::resolve(plan, &state, &self.access, bound).await?;
        // Parameters of a plan are numbers, and have no names in a text.
        let parameters = parameters::schema("", &plan)?;
        let has_parameters = values.is_some() || !parameters.fields().is_empty();
        Ok(Description { is_update: false, schema: schema_of(&plan, has_parameters, &state)?, parameters })
    }
}
