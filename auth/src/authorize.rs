//! Who may do what. Nothing else in Windrow decides it. Next: `password.rs`, `bearer.rs` and `jwt.rs`, which prove who somebody is.

use windrow_core::error::{Error, ErrorKind, Result};

use crate::principal::{Principal, Role};

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb<'a> {
    /// Read tables, and have tables, views and settings of the own session.
    Query,
    /// Change what others see: tables, files, the catalog.
    Write,
    /// See what others run, and change the cluster.
    Administer,
    /// Use a session, a statement, a job or a result.
    Use {
        /// Whose it is.
        owner: &'a Principal,
    },
    /// End a session, a job or a result.
    Stop {
        /// Whose it is.
        owner: &'a Principal,
    },
    /// Be an executor of this cluster.
    Join,
    /// Read what an executor wrote for other executors.
    Fetch,
}

impl Verb<'_> {
    /// As in "may not write".
    fn as_str(&self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Write => "write",
            Self::Administer => "administer the cluster",
            Self::Use { .. } => "use what clients own",
            Self::Stop { .. } => "stop what clients own",
            Self::Join => "join as an executor",
            Self::Fetch => "fetch from executors",
        }
    }
}

/// Decides whether `principal` may do it.
///
/// What belongs to somebody else is answered as what does not exist, so that nobody learns of it. Where a lookup may also find nothing,
/// [`authorize_use`] and [`authorize_stop`] answer both with the same words.
///
/// # Errors
/// [`ErrorKind::Denied`] with the role it takes, or [`unknown`] for what somebody else owns.
pub fn authorize(principal: &Principal, verb: Verb<'_>) -> Result<()> {
    let (name, role) = match (principal, verb) {
        (Principal::Executor, Verb::Join | Verb::Fetch) => return Ok(()),
        (Principal::Executor, _) | (Principal::Client { .. }, Verb::Join | Verb::Fetch) => return Err(denied(principal, verb)),
        (Principal::Client { name, role }, _) => (name, *role),
    };
    let needed = match verb {
        Verb::Query => Role::Reader,
        Verb::Write => Role::Writer,
        Verb::Administer => Role::Admin,
        Verb::Stop { owner } if owner.is_same_client(principal) || role == Role::Admin => return Ok(()),
        Verb::Use { owner } if owner.is_same_client(principal) => return Ok(()),
        Verb::Use { .. } | Verb::Stop { .. } | Verb::Join | Verb::Fetch => return Err(unknown("object")),
    };
    if role >= needed {
        return Ok(());
    }
    let verb = verb.as_str();
    Err(Error::new(ErrorKind::Denied, format!("{name} ({role}) may not {verb}; ask an administrator for the role {needed}")))
}

/// Decides whether `principal` may use a `what` (a word, as in "job") that `owner` has; without an owner there is none.
///
/// # Errors
/// As [`authorize`]; [`unknown`] alike for what is not there and what is somebody else's.
pub fn authorize_use(principal: &Principal, owner: Option<&Principal>, what: &str) -> Result<()> {
    authorize_owned(principal, owner, what, |owner| Verb::Use { owner })
}

/// Decides whether `principal` may end a `what` (a word, as in "job") that `owner` has; without an owner there is none.
///
/// # Errors
/// As [`authorize`]; [`unknown`] alike for what is not there and what is somebody else's.
pub fn authorize_stop(principal: &Principal, owner: Option<&Principal>, what: &str) -> Result<()> {
    authorize_owned(principal, owner, what, |owner| Verb::Stop { owner })
}

fn authorize_owned<'a>(
    principal: &Principal,
    owner: Option<&'a Principal>,
    what: &str,
    verb: impl FnOnce(&'a Principal) -> Verb<'a>,
) -> Result<()> {
    // An executor hears the same whether it exists or not, too: nothing belongs to it.
    let allowed = authorize(principal, verb(owner.unwrap_or(&Principal::Executor)));
    match allowed {
        Ok(()) if owner.is_some() => Ok(()),
        Err(error) if error.kind == ErrorKind::Denied => Err(error),
        Ok(()) | Err(_) => Err(unknown(what)),
    }
}

/// The answer to a name or an id that nothing has, and that nothing of the caller's has.
#[must_use]
pub fn unknown(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no such {what}"))
}

fn denied(principal: &Principal, verb: Verb<'_>) -> Error {
    Error::new(ErrorKind::Denied, format!("{principal} may not {}", verb.as_str()))
}

#[cfg(test)]
mod tests {
    use ErrorKind::{Denied, NotFound};

    use super::*;

    fn client(name: &str, role: Role) -> Principal {
        Principal::client(name, role)
    }

    /// Every verb for every kind of principal; `None` is allowed.
    #[test]
    fn every_verb_has_its_principals() {
        let alice = client("alice", Role::Reader);
        let own = |who: &Principal| if *who == Principal::Executor { alice.clone() } else { who.clone() };
        let principals = [client("r", Role::Reader), client("w", Role::Writer), client("a", Role::Admin), Principal::Executor];
        let (no, unseen, yes) = (Some(Denied), Some(NotFound), None);
        type Case = (&'static str, fn(&'static Principal, &'static Principal) -> Verb<'static>, [Option<ErrorKind>; 4]);
        let cases: [Case; 9] = [
            ("query", |_, _| Verb::Query, [yes, yes, yes, no]),
            ("write", |_, _| Verb::Write, [no, yes, yes, no]),
            ("administer", |_, _| Verb::Administer, [no, no, yes, no]),
            ("use own", |own, _| Verb::Use { owner: own }, [yes, yes, yes, no]),
            ("use other's", |_, other| Verb::Use { owner: other }, [unseen, unseen, unseen, no]),
            ("stop own", |own, _| Verb::Stop { owner: own }, [yes, yes, yes, no]),
            ("stop other's", |_, other| Verb::Stop { owner: other }, [unseen, unseen, yes, no]),
            ("join", |_, _| Verb::Join, [no, no, no, yes]),
            ("fetch", |_, _| Verb::Fetch, [no, no, no, yes]),
        ];
        let other: &'static Principal = Box::leak(Box::new(client("somebody", Role::Admin)));
        for (name, verb, expected) in cases {
            for (principal, expected) in principals.iter().zip(expected) {
                let owner: &'static Principal = Box::leak(Box::new(own(principal)));
                let answer = authorize(principal, verb(owner, other)).err().map(|error| error.kind);
                assert_eq!(answer, expected, "{principal}: {name}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_role_to_ask_for() {
        let error = authorize(&client("alice", Role::Reader), Verb::Write).unwrap_err();
        assert_eq!(error.message, "alice (reader) may not write; ask an administrator for the role writer");
        let error = authorize(&client("alice", Role::Writer), Verb::Administer).unwrap_err();
        assert_eq!(error.message, "alice (writer) may not administer the cluster; ask an administrator for the role admin");
        let error = authorize(&client("root", Role::Admin), Verb::Join).unwrap_err();
        assert_eq!(error.message, "root (admin) may not join as an executor");
        assert_eq!(authorize(&Principal::Executor, Verb::Query).unwrap_err().message, "an executor may not query");
    }

    #[test]
    fn what_is_not_there_and_what_is_anothers_are_answered_alike() {
        let (alice, bob) = (client("alice", Role::Writer), client("bob", Role::Reader));
        for decide in [authorize_use, authorize_stop] {
            decide(&alice, Some(&alice), "job").unwrap();
            for principal in [&bob, &Principal::Executor] {
                let there = decide(principal, Some(&alice), "job").unwrap_err();
                let missing = decide(principal, None, "job").unwrap_err();
                assert_eq!((there.kind, &there.message, &there.context), (missing.kind, &missing.message, &missing.context));
            }
        }
        assert_eq!(authorize_use(&bob, Some(&alice), "job").unwrap_err().message, "no such job");
        let root = client("root", Role::Admin);
        authorize_stop(&root, Some(&alice), "job").unwrap();
        assert_eq!(authorize_stop(&root, None, "job").unwrap_err().kind, NotFound);
        assert_eq!(authorize_use(&root, Some(&alice), "job").unwrap_err().kind, NotFound);
    }

    #[test]
    fn a_changed_role_leaves_the_owner_its_things() {
        let (before, after) = (client("alice", Role::Reader), client("alice", Role::Writer));
        authorize(&after, Verb::Use { owner: &before }).unwrap();
        authorize(&before, Verb::Stop { owner: &after }).unwrap();
    }

    #[test]
    fn nothing_belongs_to_an_executor() {
        assert_eq!(authorize(&Principal::Executor, Verb::Use { owner: &Principal::Executor }).unwrap_err().kind, Denied);
        assert_eq!(authorize(&client("a", Role::Reader), Verb::Use { owner: &Principal::Executor }).unwrap_err().kind, NotFound);
    }
}
