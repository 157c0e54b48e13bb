//! Actions become commands to executors and news for clients. Nothing here decides. Next: `control/mod.rs`.

use windrow_core::failure::{CancelReason, Failed, Failure};
use windrow_core::ids::JobId;
use windrow_core::message::Command;
use windrow_core::task::{JobStage, TaskSpec};
use windrow_core::{Error, ErrorKind};
use windrow_scheduler::{Action, JobState};

use super::fleet::{Link, Member};
use super::state::State;

impl State {
    /// Performs one action, in the order given. Never waits: a command that does not fit its queue costs the connection.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Launch { executor, incarnation, spec } => self.launch(Member { executor, incarnation }, spec),
            Action::Cancel { executor, attempt, why } => self.send_current(executor, Command::Cancel { attempt, why }),
            Action::ReleaseStage { executor, stage } => {
                self.fleet.forget_template(executor, stage);
                self.send_current(executor, Command::ReleaseStage { stage });
            }
            Action::ReleaseJob { executor, job } => {
                self.fleet.forget_job(executor, job);
                self.send_current(executor, Command::ReleaseJob { job });
            }
            Action::Fence { executor, incarnation } => self.fence(Member { executor, incarnation }),
            Action::StageReplaced { stage } => self.jobs.stage_replaced(stage),
            Action::JobState { job, state } => self.job_state(job, state),
            Action::ResultReady { job, partition, location, bytes } => self.jobs.ready(job, partition, location, bytes),
            Action::WakeAt(at) => self.wake_at = Some(at),
            Action::Drained { executor } => self.send_current(executor, Command::Shutdown),
        }
    }

    fn launch(&mut self, member: Member, spec: TaskSpec) {
        let (attempt, stage) = (spec.attempt, JobStage { job: spec.attempt.job, stage: spec.attempt.stage });
        if self.fleet.link(member).is_none() {
            // Its loss is on its way to the scheduler, which launches elsewhere.
            return;
        }
        if self.fleet.note_template(member.executor, stage) {
            let Some(command) = self.template(stage) else {
                tracing::error!(%attempt, "a launch of a stage that is not in its job's graph");
                return;
            };
            self.send(member, command);
        }
        self.jobs.launched(attempt, member);
        self.send(member, Command::Launch(Box::new(spec)));
    }

    fn template(&self, stage: JobStage) -> Option<Command> {
        let graph = &self.jobs.get(stage.job)?.graph;
        let template = graph.stages.get(stage.stage.0 as usize)?.template.clone();
        Some(Command::Template { stage, template, settings: graph.settings.clone() })
    }

    fn fence(&mut self, member: Member) {
        tracing::warn!(executor = %member.executor, incarnation = %member.incarnation, "fenced");
        let is_local = matches!(self.fleet.link(member), Some(Link::Local(_)));
        self.send(member, Command::Fence { incarnation: member.incarnation });
        if is_local {
            self.rejoin.push(member);
        }
    }

    fn job_state(&mut self, job: JobId, state: JobState) {
        match &state {
            JobState::Queued | JobState::Running => self.jobs.succeeded(job, false),
            JobState::Succeeded(_) => self.jobs.succeeded(job, true),
            JobState::Failed(failed) => {
                tracing::info!(%job, error = %failed, "job failed");
                let mut error = failed.to_error();
                let deaths = self.fleet.last_deaths();
                if matches!(failed.failure, Failure::Poison | Failure::ExecutorLost { .. }) && !deaths.is_empty() {
                    error.message = format!("{} ({})", error.message, deaths.join("; "));
                }
                self.jobs.failed(job, &error);
            }
            JobState::Cancelled(CancelReason::Deadline) => {
                tracing::info!(%job, "job ran for as long as it may");
                let limit = self.jobs.time_limit(job);
                let late = limit.map_or_else(|| cancelled(CancelReason::Deadline), |limit| limit.exceeded());
                self.jobs.failed(job, &late);
            }
            JobState::Cancelled(why) => self.jobs.failed(job, &cancelled(*why)),
        }
        self.publish(job);
    }

    fn send_current(&mut self, executor: windrow_core::ids::ExecutorId, command: Command) {
        if let Some(member) = self.fleet.current(executor) {
            self.send(member, command);
        }
    }

    fn send(&mut self, member: Member, command: Command) {
        let is_connected = self.fleet.link(member).is_some();
        if is_connected && !self.fleet.send(member, command) {
            self.stuck.push(member);
        }
    }
}

fn cancelled(why: CancelReason) -> Error {
    match why {
        CancelReason::Deadline => Error::new(ErrorKind::Cancelled, "the query took longer than it may"),
        CancelReason::JobEnded => Error::new(ErrorKind::Unavailable, "the cluster is shutting down"),
        _ => Failed::cancelled(why).to_error(),
    }
}
