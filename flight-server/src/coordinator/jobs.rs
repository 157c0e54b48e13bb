//! Jobs as the coordinator knows them: their graphs, what their clients see of them, and what their attempts measured.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use tokio::sync::watch;
use windrow_core::clock::unix_nanos;
use windrow_core::ids::{AttemptId, JobId, StageId};
use windrow_core::stage::StageGraph;
use windrow_core::task::{InputGroup, JobStage, TaskMetrics};
use windrow_core::time_limit::TimeLimit;
use windrow_core::{Error, Result};

use super::fleet::Member;
use crate::status::{JobProgress, JobStatus};

/// Ended jobs that status still shows.
const ENDED_MAX: usize = 64;

/// What a client sees of its job, as it changes.
#[derive(Debug, Default)]
pub(crate) struct JobView {
    /// Result partitions that can be read; `None` for one that is empty.
    pub(crate) ready: BTreeMap<u32, Option<InputGroup>>,
    /// Bytes of each of them, as they are in memory, and in all.
    sizes: BTreeMap<u32, u64>,
    bytes: u64,
    /// How it ended, if it did not succeed.
    pub(crate) failed: Option<Error>,
    /// What its attempts measured, once all of them have ended; only for jobs that keep it.
    pub(crate) metrics: Option<Measured>,
}

impl JobView {
    /// Bytes of the result partitions that can be read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The stages as they ran, and what each attempt measured.
pub(crate) type Measured = (Arc<StageGraph>, Vec<(StageId, TaskMetrics)>);

/// A job on its way in.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) job: JobId,
    pub(crate) graph: Arc<StageGraph>,
    pub(crate) sql: String,
    /// Who asks.
    pub(crate) user: String,
    pub(crate) time_limit: Option<TimeLimit>,
    pub(crate) keep_metrics: bool,
    pub(crate) view: watch::Sender<JobView>,
    pub(crate) progress: watch::Sender<JobProgress>,
    /// Gone if the statement was dropped before the loop came to the submission.
    pub(crate) statement: Weak<()>,
}

/// A job that its client has not released.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) graph: Arc<StageGraph>,
    pub(crate) view: watch::Sender<JobView>,
    sql: String,
    user: String,
    time_limit: Option<TimeLimit>,
    /// When it came, in milliseconds since 1970.
    submitted: u64,
    progress: watch::Sender<JobProgress>,
    /// Measured by attempts that succeeded.
    totals: TaskMetrics,
    keep_metrics: bool,
    metrics: Vec<(StageId, TaskMetrics)>,
    succeeded: bool,
    /// Launched and not ended, with where they run.
    open: BTreeSet<(AttemptId, Member)>,
    error: Option<String>,
}

/// Every job that is not released, and the last ones that were.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: BTreeMap<JobId, Job>,
    ended: VecDeque<JobStatus>,
    /// Jobs whose progress changed since it was last published.
    changed: BTreeSet<JobId>,
}

impl Jobs {
    pub(crate) fn insert(&mut self, submission: Submission) {
        let Submission { job, graph, sql, user, time_limit, keep_metrics, view, progress, .. } = submission;
        let entry = Job {
            graph,
            view,
            sql,
            user,
            time_limit,
            submitted: unix_nanos() / 1_000_000,
            progress,
            totals: TaskMetrics::default(),
            keep_metrics,
            metrics: Vec::new(),
            succeeded: false,
            open: BTreeSet::new(),
            error: None,
        };
        self.jobs.insert(job, entry);
    }

    pub(crate) fn get(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job)
    }

    pub(crate) fn ids(&self) -> Vec<JobId> {
        self.jobs.keys().copied().collect()
    }

    /// Forgets a job; its last state stays in the status for a while.
    pub(crate) fn release(&mut self, id: JobId, last: JobProgress) -> bool {
        self.changed.remove(&id);
        let Some(job) = self.jobs.remove(&id) else { return false };
        job.progress.send_replace(last);
        self.ended.push_back(job.status(id));
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
        true
    }

    /// A stage that has not started is another one now.
    pub(crate) fn stage_replaced(&mut self, stage: JobStage) {
        if let Some(job) = self.jobs.get_mut(&stage.job) {
            Arc::make_mut(&mut job.graph).take_alternative(stage.stage);
        }
    }

    pub(crate) fn launched(&mut self, attempt: AttemptId, member: Member) {
        if let Some(job) = self.jobs.get_mut(&attempt.job) {
            job.open.insert((attempt, member));
            self.changed.insert(attempt.job);
        }
    }

    /// Takes in what an attempt measured; `metrics` is `None` if it did not succeed.
    pub(crate) fn attempt_ended(&mut self, attempt: AttemptId, member: Member, metrics: Option<TaskMetrics>) {
        let Some(job) = self.jobs.get_mut(&attempt.job) else { return };
        self.changed.insert(attempt.job);
        if let Some(metrics) = metrics {
            job.totals.rows += metrics.rows;
            job.totals.shuffle_bytes += metrics.shuffle_bytes;
            job.totals.spill_bytes += metrics.spill_bytes;
            if job.keep_metrics {
                job.metrics.push((attempt.stage, metrics));
            }
        }
        job.open.remove(&(attempt, member));
        job.publish_metrics();
    }

    /// Nothing more is heard of an executor's attempts.
    pub(crate) fn executor_lost(&mut self, member: Member) {
        for job in self.jobs.values_mut() {
            job.open.retain(|(_, at)| *at != member);
            job.publish_metrics();
        }
    }

    pub(crate) fn progressed(&mut self, job: JobId) {
        if self.jobs.contains_key(&job) {
            self.changed.insert(job);
        }
    }

    pub(crate) fn ready(&mut self, id: JobId, partition: u32, location: Option<InputGroup>, bytes: u64) {
        self.progressed(id);
        if let Some(job) = self.jobs.get(&id) {
            job.view.send_modify(|view| {
                view.ready.insert(partition, location);
                let before = view.sizes.insert(partition, bytes).unwrap_or(0);
                view.bytes = view.bytes.saturating_sub(before).saturating_add(bytes);
            });
        }
    }

    pub(crate) fn succeeded(&mut self, id: JobId, is_complete: bool) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.succeeded = is_complete;
            job.publish_metrics();
        }
    }

    /// How long a job may run.
    pub(crate) fn time_limit(&self, id: JobId) -> Option<TimeLimit> {
        self.jobs.get(&id)?.time_limit
    }

    pub(crate) fn failed(&mut self, id: JobId, error: &Error) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.error = Some(error.to_string());
            job.view.send_modify(|view| view.failed = Some(error.clone()));
        }
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The jobs to publish, once.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<JobId> {
        std::mem::take(&mut self.changed)
    }

    /// Completes `progress` with what attempts measured and publishes it.
    pub(crate) fn publish(&self, id: JobId, progress: JobProgress) {
        if let Some(job) = self.jobs.get(&id) {
            job.progress.send_replace(job.complete(progress));
        }
    }

    /// The jobs of the status: the ones that ended, then the others with their progress by `measure`.
    pub(crate) fn status(&self, measure: impl Fn(JobId) -> JobProgress) -> Vec<JobStatus> {
        let live = self.jobs.iter().map(|(&id, job)| JobStatus { progress: job.complete(measure(id)), ..job.status(id) });
        self.ended.iter().cloned().chain(live).collect()
    }

    /// Attempts that run, with where.
    pub(crate) fn running(&self) -> impl Iterator<Item = &(AttemptId, Member)> {
        self.jobs.values().flat_map(|job| &job.open)
    }

    /// What a job's attempts measured, for its last progress.
    pub(crate) fn complete(&self, id: JobId, progress: JobProgress) -> JobProgress {
        self.jobs.get(&id).map_or(progress, |job| job.complete(progress))
    }
}

impl Job {
    fn complete(&self, mut progress: JobProgress) -> JobProgress {
        progress.rows = self.totals.rows;
        progress.shuffle_bytes = self.totals.shuffle_bytes;
        progress.spill_bytes = self.totals.spill_bytes;
        progress
    }

    fn status(&self, id: JobId) -> JobStatus {
        JobStatus {
            id,
            user: self.user.clone(),
            sql: self.sql.clone(),
            submitted: self.submitted,
            progress: *self.progress.borrow(),
            error: self.error.clone(),
        }
    }

    /// Hands the metrics to the client once the job has succeeded and no attempt is left to report any.
    fn publish_metrics(&mut self) {
        if self.keep_metrics && self.succeeded && self.open.is_empty() {
            let metrics = (Arc::clone(&self.graph), self.metrics.clone());
            self.view.send_modify(|view| view.metrics = Some(metrics));
        }
    }
}

/// The sentence for a statement whose coordinator is gone.
pub(crate) fn gone() -> Error {
    Error::new(windrow_core::ErrorKind::Unavailable, "the coordinator has shut down")
}

/// The view's error, if the job failed.
pub(crate) fn check(view: &JobView) -> Result<()> {
    view.failed.clone().map_or(Ok(()), Err)
}
