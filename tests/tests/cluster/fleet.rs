//! A cluster started by hand whose every link passes a proxy, and queries on it that faults strike.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use windrow::{ExecutorState, ExecutorStatus, Query, Session};
use windrow_tests::proxy::{Proxy, Rule, free_port};
use windrow_tests::rows::Answer;
use windrow_tests::wait;

use crate::answers::{self, data};
use crate::cancel::files;
use crate::network::Network;
use crate::program::{self, LIMIT, Process};

/// Many, so that a query takes long enough to be met by a fault.
pub(crate) const PARTITIONS: u32 = 33;

/// How long a query may take that waits for silences: several of 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// An executor whose links to the scheduler and from its readers pass proxies.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) process: Process,
    pub(crate) control: Proxy,
    pub(crate) shuffle: Proxy,
    pub(crate) spill: PathBuf,
}

/// A scheduler and executors of one slot.
pub(crate) struct Fleet {
    _scheduler: Process,
    pub(crate) members: Vec<Member>,
    pub(crate) session: Session,
    /// Files of an idle executor: the mark of its process.
    pub(crate) idle_files: usize,
}

impl Fleet {
    /// All its processes have `variables` in their environment.
    pub(crate) async fn start(test: &str, executors: usize, memory: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_in(None, test, executors, memory, variables).await
    }

    /// The same with every executor in a network namespace of its own.
    pub(crate) async fn start_in(
        network: Option<&Network>,
        test: &str,
        executors: usize,
        memory: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let secret = program::scratch(&format!("{test}-secret")).join("secret");
        let secret = secret.to_string_lossy().into_owned();
        let (scheduler, url) =
            Process::listening_with(&["scheduler", "--bind", "127.0.0.1:0", "--secret-file", &secret], variables);
        let address: SocketAddr = url.trim_start_matches("grpc://").parse().unwrap();
        let mut members = Vec::new();
        for index in 0..executors {
            members.push(Member::start(network, test, index, memory, (address, &secret), variables).await);
        }
        let session = windrow::connect(Some(&url)).await.unwrap();
        let fleet = Self { _scheduler: scheduler, members, session, idle_files: 1 };
        fleet.until("all executors", |all| all.iter().filter(|one| one.state == ExecutorState::Alive).count() == executors).await;
        fleet
    }

    /// With the tables of TPC-H.
    pub(crate) async fn with_tables(test: &str, executors: usize, variables: &[(&str, &str)]) -> Self {
        Self::start(test, executors, "512MB", variables).await.prepared().await
    }

    pub(crate) async fn prepared(self) -> Self {
        answers::prepare(&self.session, &data().await.folder, PARTITIONS).await;
        self
    }

    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&[ExecutorStatus]) -> bool) {
        wait::until(what, LIMIT, async || holds(&self.session.status().await.unwrap().executors).then_some(())).await;
    }

    pub(crate) async fn becomes(&self, index: usize, state: ExecutorState) {
        wait::until("its new state", LIMIT, async || (self.status(index).await.state == state).then_some(())).await;
    }

    pub(crate) async fn status(&self, index: usize) -> ExecutorStatus {
        let status = self.session.status().await.unwrap();
        status.executors.into_iter().find(|one| one.name == self.members[index].name).unwrap()
    }

    pub(crate) async fn counter(&self, name: &str) -> u64 {
        let counters = self.session.status().await.unwrap().counters;
        counters.into_iter().find(|(known, _)| known == name).unwrap().1
    }

    /// Runs query `number` of TPC-H, lets `strike` happen once a part of it is done, and compares the answer.
    pub(crate) async fn run(&self, number: usize, strike: impl AsyncFnOnce(&Query)) {
        let data = data().await;
        let mut query = self.session.sql(data.sql(number)).await.unwrap();
        wait::until("a part of the query", LIMIT, async || {
            let progress = query.progress();
            (progress.tasks_done > progress.tasks_total / 6 || progress.state.is_over()).then_some(())
        })
        .await;
        strike(&query).await;
        let schema = query.schema();
        let answer = async {
            let mut batches = Vec::new();
            while let Some(batch) = query.next_batch().await.unwrap() {
                batches.push(batch);
            }
            Answer::new(&schema, &batches)
        };
        let answer =
            windrow_executor::timer::deadline(PATIENCE, answer).await.unwrap_or_else(|| panic!("no answer in {PATIENCE:?}"));
        if let Some(difference) = data.difference(number, &answer) {
            panic!("q{number:02}: {difference}");
        }
    }

    /// Waits until no executor that lives has a slot in use, or rows or files of a query that is over.
    pub(crate) async fn leaves_nothing(&self) {
        wait::until("nothing left behind", LIMIT, async || {
            let executors = self.session.status().await.unwrap().executors;
            let mut alive = executors.iter().filter(|one| one.state == ExecutorState::Alive);
            let is_clean = alive.all(|one| {
                let member = self.members.iter().find(|member| member.name == one.name);
                let has_files = member.is_some_and(|member| files(&member.spill).len() > self.idle_files);
                (one.slots_used, one.store_bytes, one.disk_bytes) == (0, 0, 0) && !has_files
            });
            is_clean.then_some(())
        })
        .await;
    }

    /// Runs queries until one is still running when `strike` can be let happen, a few times at most.
    pub(crate) async fn run_until_met(&self, number: usize, strike: impl AsyncFn()) {
        for _ in 0..20 {
            let mut is_met = false;
            self.run(number, async |query| {
                is_met = !query.progress().state.is_over();
                if is_met {
                    strike().await;
                }
            })
            .await;
            if is_met {
                return self.leaves_nothing().await;
            }
        }
        panic!("no fault met a running query");
    }

    /// Runs queries while others meet `rule` when they read from the first executor.
    pub(crate) async fn run_unreadable(&self, rule: Rule) {
        let shuffle = &self.members[0].shuffle;
        self.run_until_met(18, async || shuffle.set(rule)).await;
        if shuffle.fired() == 0 {
            // It came when all had been read.
            self.run(18, async |_| {}).await;
        }
        assert!(shuffle.fired() > 0, "nobody wanted to read from it");
    }
}

impl Member {
    async fn start(
        network: Option<&Network>,
        test: &str,
        index: usize,
        memory: &str,
        (scheduler, secret): (SocketAddr, &str),
        variables: &[(&str, &str)],
    ) -> Self {
        let name = format!("executor-{index}");
        let spill = program::scratch(&format!("{test}-{index}"));
        let (host, own) = match network {
            Some(network) => (network.host(), network.address(index)),
            None => (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST),
        };
        let bind = SocketAddr::from((own, free_port()));
        let (control, shuffle) = (Proxy::at(host, scheduler).await, Proxy::at(host, bind).await);
        let options = [
            ("--scheduler", control.address().to_string()),
            ("--name", name.clone()),
            ("--slots", "1".to_owned()),
            ("--memory-limit", memory.to_owned()),
            ("--bind", bind.to_string()),
            ("--advertise", shuffle.address().to_string()),
            ("--spill-dir", spill.to_string_lossy().into_owned()),
            ("--secret-file", secret.to_owned()),
        ];
        // An address of a network needs a certificate, or this.
        let mut arguments = if network.is_some() { vec!["executor", "--insecure"] } else { vec!["executor"] };
        arguments.extend(options.iter().flat_map(|(option, value)| [*option, value.as_str()]));
        let process = Process::silent_in(network.map(|network| network.namespace(index)).as_deref(), &arguments, variables);
        Self { name, process, control, shuffle, spill }
    }
}
