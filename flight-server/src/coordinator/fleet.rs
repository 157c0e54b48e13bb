//! The executors as the coordinator knows them: who has which name, number and incarnation, how they are reached, and which
//! templates they have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use windrow_core::ids::{ExecutorId, Incarnation, JobId};
use windrow_core::message::{Command, Registration, Report, build};
use windrow_core::task::JobStage;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::Executor;

/// Deaths of a name that are kept.
const DEATHS_MAX: usize = 5;

/// One incarnation of an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) executor: ExecutorId,
    pub(crate) incarnation: Incarnation,
}

/// How commands reach an executor.
#[derive(Debug, Clone)]
pub(crate) enum Link {
    /// In this process.
    Local(Arc<Executor>),
    /// Over its control stream.
    Network(mpsc::Sender<Command>),
}

impl Link {
    /// Hands on a command without waiting; false if the executor does not take any.
    fn send(&self, command: Command) -> bool {
        match self {
            Self::Local(executor) => {
                executor.handle(command);
                true
            }
            Self::Network(commands) => commands.try_send(command).is_ok(),
        }
    }
}

/// What an executor's last heartbeat said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Vitals {
    pub(crate) memory_bytes: u64,
    pub(crate) store_bytes: u64,
    pub(crate) disk_bytes: u64,
}

/// One executor, connected or not.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) registration: Registration,
    pub(crate) incarnation: Incarnation,
    pub(crate) vitals: Vitals,
    /// `None` once its connection is lost.
    pub(crate) link: Option<Link>,
    /// Stages whose template this incarnation was sent.
    templates: BTreeSet<JobStage>,
}

/// Every executor ever seen.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    names: BTreeMap<String, ExecutorId>,
    entries: BTreeMap<ExecutorId, Entry>,
    incarnations: u64,
    /// How processes ended, by the name of their executor, as their supervisors say.
    deaths: BTreeMap<String, VecDeque<String>>,
}

impl Fleet {
    /// Gives an executor its number and a new incarnation. The link of the one before under that name is returned.
    ///
    /// # Errors
    /// `InvalidConfig` if it cannot be a member: the sentence is for its log.
    pub(crate) fn join(&mut self, registration: Registration, link: Link) -> Result<(Member, Option<(Member, Link)>)> {
        self.check(&registration, &link)?;
        let next = ExecutorId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        let executor = *self.names.entry(registration.name.clone()).or_insert(next);
        self.incarnations += 1;
        let incarnation = Incarnation(self.incarnations);
        let entry = Entry { registration, incarnation, vitals: Vitals::default(), link: Some(link), templates: BTreeSet::new() };
        let before = self.entries.insert(executor, entry);
        let before = before.and_then(|entry| Some((Member { executor, incarnation: entry.incarnation }, entry.link?)));
        Ok((Member { executor, incarnation }, before))
    }

    fn check(&self, registration: &Registration, link: &Link) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        let Registration { name, slots, build: theirs, .. } = registration;
        if theirs != build() {
            return refuse(format!(
                "executor '{name}' is '{theirs}' and the scheduler is '{}'; run the same version on both sides",
                build()
            ));
        }
        if name.is_empty() || name.len() > 256 {
            return refuse("an executor's name has 1 to 256 characters".to_owned());
        }
        if *slots == 0 || *slots > 4096 {
            return refuse(format!("executor '{name}' offers {slots} slots; give it 1 to 4096"));
        }
        let is_network = matches!(link, Link::Network(_));
        if is_network && registration.address.is_empty() {
            return refuse(format!("executor '{name}' gives no address for its shuffle data"));
        }
        if is_network && self.entries.values().any(|entry| matches!(entry.link, Some(Link::Local(_)))) {
            return refuse("this cluster runs inside one process and takes no other executors".to_owned());
        }
        Ok(())
    }

    /// Sends a command to an incarnation. False if it is not connected or does not keep up, which is the same.
    pub(crate) fn send(&mut self, member: Member, command: Command) -> bool {
        self.link(member).is_some_and(|link| link.send(command))
    }

    /// The link of exactly this incarnation.
    pub(crate) fn link(&self, member: Member) -> Option<&Link> {
        self.entries.get(&member.executor).filter(|entry| entry.incarnation == member.incarnation)?.link.as_ref()
    }

    /// The current incarnation of an executor.
    pub(crate) fn current(&self, executor: ExecutorId) -> Option<Member> {
        self.entries.get(&executor).map(|entry| Member { executor, incarnation: entry.incarnation })
    }

    /// Forgets the link of an incarnation; whether it had one.
    pub(crate) fn leave(&mut self, member: Member) -> bool {
        let entry = self.entries.get_mut(&member.executor).filter(|entry| entry.incarnation == member.incarnation);
        entry.is_some_and(|entry| {
            entry.templates.clear();
            entry.link.take().is_some()
        })
    }

    /// Notes that a template is being sent; false if this executor has it.
    pub(crate) fn note_template(&mut self, executor: ExecutorId, stage: JobStage) -> bool {
        self.entries.get_mut(&executor).is_some_and(|entry| entry.templates.insert(stage))
    }

    pub(crate) fn forget_template(&mut self, executor: ExecutorId, stage: JobStage) {
        if let Some(entry) = self.entries.get_mut(&executor) {
            entry.templates.remove(&stage);
        }
    }

    pub(crate) fn forget_job(&mut self, executor: ExecutorId, job: JobId) {
        if let Some(entry) = self.entries.get_mut(&executor) {
            entry.templates.retain(|stage| stage.job != job);
        }
    }

    /// Keeps what a heartbeat says of memory and disk.
    pub(crate) fn note_vitals(&mut self, member: Member, report: &Report) {
        let Report::Heartbeat { memory_bytes, store_bytes, disk_bytes, .. } = *report else { return };
        if let Some(entry) = self.entries.get_mut(&member.executor).filter(|entry| entry.incarnation == member.incarnation) {
            entry.vitals = Vitals { memory_bytes, store_bytes, disk_bytes };
        }
    }

    pub(crate) fn get(&self, executor: ExecutorId) -> Option<&Entry> {
        self.entries.get(&executor)
    }

    /// The executor that is to leave.
    ///
    /// # Errors
    /// `NotFound` if nobody has this name, `Unavailable` if it is gone, `Unsupported` if it lives in this process.
    pub(crate) fn to_drain(&self, name: &str) -> Result<ExecutorId> {
        let Some(executor) = self.names.get(name) else {
            let names: Vec<_> = self.names.keys().map(String::as_str).collect();
            let message = format!("no executor is named '{name}'; there are: {}", names.join(", "));
            let near = windrow_core::error::nearest(name, names.iter().copied());
            return Err(Error::new(ErrorKind::NotFound, message).with_suggestion(near));
        };
        match self.entries.get(executor).and_then(|entry| entry.link.as_ref()) {
            Some(Link::Network(_)) => Ok(*executor),
            Some(Link::Local(_)) => {
                Err(Error::unsupported(format!("executor '{name}' lives in the scheduler's process and cannot leave alone")))
            }
            None => Err(Error::new(ErrorKind::Unavailable, format!("executor '{name}' is not connected"))),
        }
    }

    /// Keeps how a process ended.
    pub(crate) fn note_death(&mut self, name: String, cause: String) {
        let deaths = self.deaths.entry(name).or_default();
        if deaths.len() == DEATHS_MAX {
            deaths.pop_front();
        }
        deaths.push_back(cause);
    }

    /// How processes under a name ended, oldest first.
    pub(crate) fn deaths_of(&self, name: &str) -> Vec<String> {
        self.deaths.get(name).into_iter().flatten().cloned().collect()
    }

    /// The last death of each name that had one, for people.
    pub(crate) fn last_deaths(&self) -> Vec<String> {
        self.deaths.iter().filter_map(|(name, deaths)| Some(format!("{name}: {}", deaths.back()?))).collect()
    }

    /// The executors that are connected.
    pub(crate) fn connected(&self) -> impl Iterator<Item = (Member, &Entry)> {
        let is_connected = |(_, entry): &(&ExecutorId, &Entry)| entry.link.is_some();
        let entries = self.entries.iter().filter(is_connected);
        entries.map(|(&executor, entry)| (Member { executor, incarnation: entry.incarnation }, entry))
    }
}
