//! Who is told to read from an executor. A wrong address costs a driver long, the relay costs little: without a reason to think that
//! the client gets there, it is not told.

use std::net::{IpAddr, SocketAddr};

use tonic::Extensions;
use windrow_core::config::Fetch;
use windrow_core::message::ForClients;

use crate::security::Caller;

/// Results below this are relayed unless the setting says otherwise: another connection costs more than the relay does.
const WORTH_IT: u64 = 64 << 20;

/// What is known of a client that asks where its rows are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    address: IpAddr,
    /// It has a login, which executors can verify: they know no passwords, tokens and web tokens.
    has_login: bool,
}

impl Asker {
    /// As the layer found out; `None` where nobody is asked who they are.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        let caller = extensions.get::<Caller>()?;
        Some(Self { address: caller.peer.address.ip().to_canonical(), has_login: caller.login.is_some() })
    }
}

/// What an executor says of itself, as far as clients are concerned.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) clients: ForClients,
}

/// Whether a result of so many bytes is read from executors at all.
pub(crate) fn is_worth_it(fetch: Fetch, bytes: u64, asker: &Asker) -> bool {
    asker.has_login
        && match fetch {
            Fetch::Relay => false,
            Fetch::Direct => true,
            Fetch::Auto => bytes > WORTH_IT,
        }
}

/// The location at which `asker` reads from an executor, if it should. `is_encrypted` is the client's connection to the coordinator: what
/// it tells there in secret is told in secret only.
pub(crate) fn seen(fetch: Fetch, asker: &Asker, is_encrypted: bool, executor: &Sight) -> Option<String> {
    let ForClients { encrypts, networks } = &executor.clients;
    let is_near = || {
        let own = executor.address.parse::<SocketAddr>();
        asker.address.is_loopback() && own.is_ok_and(|own| own.ip().to_canonical().is_loopback())
    };
    let is_reached = match fetch {
        Fetch::Relay => false,
        Fetch::Direct => true,
        Fetch::Auto => is_near() || networks.iter().any(|network| network.contains(asker.address)),
    };
    let scheme = if *encrypts { "grpc+tls" } else { "grpc+tcp" };
    (is_reached && (*encrypts || !is_encrypted)).then(|| format!("{scheme}://{}", executor.address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(address: &str) -> Asker {
        Asker { address: address.parse().unwrap(), has_login: true }
    }

    fn executor(address: &str, encrypts: bool, networks: &[&str]) -> Sight {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        Sight { address: address.to_owned(), clients: ForClients { encrypts, networks } }
    }

    #[test]
    fn only_clients_that_surely_get_there_are_sent_there() {
        let near = executor("127.0.0.1:9000", false, &[]);
        let far = executor("10.1.0.7:9000", false, &["10.0.0.0/8", "fd00::/8"]);
        let named = executor("localhost:9000", false, &[]);
        for (client, executor, location) in [
            ("127.0.0.1", &near, Some("grpc+tcp://127.0.0.1:9000")),
            ("::1", &near, Some("grpc+tcp://127.0.0.1:9000")),
            ("10.2.0.1", &near, None),
            ("127.0.0.1", &far, None),
            ("127.0.0.1", &named, None),
            ("10.2.0.1", &far, Some("grpc+tcp://10.1.0.7:9000")),
            ("fd00::9", &far, Some("grpc+tcp://10.1.0.7:9000")),
            ("192.0.2.1", &far, None),
        ] {
            let asker = asker(client);
            assert_eq!(seen(Fetch::Auto, &asker, false, executor).as_deref(), location, "{client} {}", executor.address);
            assert!(seen(Fetch::Direct, &asker, false, executor).is_some());
            assert_eq!(seen(Fetch::Relay, &asker, false, executor), None);
        }
    }

    #[test]
    fn a_secret_that_was_told_encrypted_is_not_told_otherwise() {
        let (plain, secure) = (executor("10.1.0.7:1", false, &["10.0.0.0/8"]), executor("10.1.0.7:1", true, &["10.0.0.0/8"]));
        let asker = asker("10.2.0.1");
        for fetch in [Fetch::Auto, Fetch::Direct] {
            assert_eq!(seen(fetch, &asker, true, &plain), None);
            for is_encrypted in [true, false] {
                assert_eq!(seen(fetch, &asker, is_encrypted, &secure).as_deref(), Some("grpc+tls://10.1.0.7:1"));
            }
        }
    }

    #[test]
    fn small_results_and_clients_without_a_login_are_relayed() {
        let asker = asker("127.0.0.1");
        let stranger = Asker { has_login: false, ..asker };
        assert!(is_worth_it(Fetch::Auto, WORTH_IT + 1, &asker) && !is_worth_it(Fetch::Auto, WORTH_IT, &asker));
        assert!(is_worth_it(Fetch::Direct, 0, &asker) && !is_worth_it(Fetch::Relay, u64::MAX, &asker));
        assert!(!is_worth_it(Fetch::Direct, u64::MAX, &stranger) && !is_worth_it(Fetch::Auto, u64::MAX, &stranger));
    }
}
