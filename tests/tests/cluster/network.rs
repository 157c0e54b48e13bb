//! Executors in network namespaces, whose packets vanish: no side of a connection hears that it is over. Needs the right to make
//! namespaces; without it these tests say that they did nothing.

use std::net::Ipv4Addr;
use std::process::Command;

use windrow::ExecutorState;

use crate::faults::HASTY;
use crate::fleet::Fleet;

/// A bridge with a namespace for each executor behind it. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
    subnet: [u8; 3],
    count: usize,
}

impl Network {
    /// `None`, with a line that says why, where the machine does not allow it.
    fn new(count: usize) -> Option<Self> {
        let id = std::process::id();
        let [_, _, high, low] = id.to_be_bytes();
        let network = Self { name: format!("wr{id}"), subnet: [10, 128 | (high & 127), low], count };
        match network.make() {
            Ok(()) => Some(network),
            Err(why) => {
                eprintln!("SKIPPED: this machine does not let a test make network namespaces: {why}");
                None
            }
        }
    }

    fn make(&self) -> Result<(), String> {
        let bridge = &self.name;
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", self.host()))?;
        ip(&format!("link set {bridge} up"))?;
        for index in 0..self.count {
            let (namespace, link) = (self.namespace(index), self.link(index));
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"))?;
            ip(&format!("link set {link} master {bridge} up"))?;
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", self.address(index)))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(())
    }

    /// Where this process is for those in the namespaces.
    pub(crate) fn host(&self) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, 1)
    }

    /// Where an executor is.
    pub(crate) fn address(&self, index: usize) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, u8::try_from(index + 2).unwrap())
    }

    pub(crate) fn namespace(&self, index: usize) -> String {
        format!("{}-{index}", self.name)
    }

    fn link(&self, index: usize) -> String {
        format!("{}v{index}", self.name)
    }

    /// Lets packets of an executor pass or vanish.
    fn plug(&self, index: usize, is_in: bool) {
        ip(&format!("link set {} {}", self.link(index), if is_in { "up" } else { "down" })).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for index in 0..self.count {
            ip(&format!("netns del {}", self.namespace(index))).ok();
            ip(&format!("link del {}", self.link(index))).ok();
        }
        ip(&format!("link del {}", self.name)).ok();
    }
}

/// Runs `ip` with these arguments; what it complains about is the error.
fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {}", complaint.trim())) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_vanish_are_missed_in_time_and_nobody_else_is_blamed() {
    let Some(network) = Network::new(3) else { return };
    let fleet = Fleet::start_in(Some(&network), "netns", 3, "512MB", &HASTY).await.prepared().await;
    let before = fleet.status(1).await.incarnation;
    fleet.run_until_met(18, async || network.plug(1, false)).await;
    fleet.becomes(1, ExecutorState::Dead).await;
    assert_eq!(fleet.counter("executors_lost").await, 1);
    network.plug(1, true);
    fleet.becomes(1, ExecutorState::Alive).await;
    assert!(fleet.status(1).await.incarnation > before);
    fleet.run(18, async |_| {}).await;
    assert_eq!((fleet.status(1).await.slots_used, fleet.counter("executors_lost").await), (0, 1));
}
