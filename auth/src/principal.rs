//! Who calls: a client with a role, or an executor of the cluster. Next: `authorize.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windrow_core::error::{Error, ErrorKind, Result, nearest};

/// The longest name of a user, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What [`Principal::name`] says of executors; no client may have it.
const EXECUTOR: &str = "executor";

/// What a client may do; each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Run queries.
    Reader,
    /// Change tables and files.
    Writer,
    /// See and stop what others run, and change the cluster.
    Admin,
}

impl Role {
    /// All roles, the least first.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Writer, Self::Admin];

    /// Its name, as in files and claims.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            let suggestion = nearest(text, Self::ALL.iter().map(|role| role.as_str()));
            Error::new(ErrorKind::InvalidConfig, format!("'{}' is not a role", text.escape_debug()))
                .with_suggestion(suggestion)
                .with_help("the roles are reader, writer and admin")
        })
    }
}

/// Whoever a call is made for, once a credential has proven it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Principal {
    /// Somebody who runs queries.
    Client {
        /// Their name; what they own is owned by the name, whatever the role of the day.
        name: Arc<str>,
        /// What they may do.
        role: Role,
    },
    /// A process of the cluster itself.
    Executor,
}

impl Principal {
    /// A client. Names from outside are checked before, by [`check_name`].
    pub fn client(name: impl Into<Arc<str>>, role: Role) -> Self {
        Self::Client { name: name.into(), role }
    }

    /// The client's name, or `executor`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Client { name, .. } => name,
            Self::Executor => EXECUTOR,
        }
    }

    /// The client's role; executors have none.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Client { role, .. } => Some(*role),
            Self::Executor => None,
        }
    }

    /// Whether this is a client who may do everything that clients may.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role() == Some(Role::Admin)
    }

    /// Whether both are the same client. A client whose role was changed still owns what it made before.
    pub(crate) fn is_same_client(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Client { name, .. }, Self::Client { name: other, .. }) => name == other,
            _ => false,
        }
    }
}

/// As messages name it: `alice (reader)`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { name, role } => write!(f, "{name} ({role})"),
            Self::Executor => f.write_str("an executor"),
        }
    }
}

/// Checks that `name` can be a user's: 1 to 64 of letters and digits of ASCII, `_`, `.`, `@` and `-`, and not `executor`.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] with what names are made of.
pub fn check_name(name: &str) -> Result<()> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
    let problem = if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_known) {
        "is not a name of a user"
    } else if name == EXECUTOR {
        "is what the processes of the cluster are called"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    Err(Error::new(ErrorKind::InvalidConfig, format!("'{}' {problem}", shown.escape_debug()))
        .with_help("names have 1 to 64 letters, digits, and any of _ . @ -"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_read_as_written() {
        assert!(Role::Reader < Role::Writer && Role::Writer < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse::<Role>().unwrap(), role);
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        let error = "raeder".parse::<Role>().unwrap_err();
        assert_eq!((error.kind, error.context.suggestion.as_deref()), (ErrorKind::InvalidConfig, Some("reader")));
        assert!("Admin".parse::<Role>().is_err() && "".parse::<Role>().is_err());
    }

    #[test]
    fn principals_say_who_they_are() {
        let alice = Principal::client("alice", Role::Writer);
        assert_eq!((alice.name(), alice.role(), alice.is_admin()), ("alice", Some(Role::Writer), false));
        assert!(Principal::client("root", Role::Admin).is_admin());
        assert_eq!(
            (Principal::Executor.name(), Principal::Executor.role(), Principal::Executor.is_admin()),
            ("executor", None, false)
        );
        for principal in [alice, Principal::Executor] {
            let bytes = postcard::to_stdvec(&principal).unwrap();
            assert_eq!(postcard::from_bytes::<Principal>(&bytes).unwrap(), principal);
        }
    }

    #[test]
    fn names_of_users_have_one_alphabet() {
        for name in ["a", "alice", "Alice.B-c_9@example.org", &"x".repeat(64)] {
            check_name(name).unwrap();
        }
        for name in ["", "a b", "a:b", "a\n", "ä", "a/b", "a|b", "\u{1b}[31m", "executor", &"x".repeat(65)] {
            let error = check_name(name).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{name:?}");
            assert!(!error.message.contains(['\u{1b}', '\n']), "{name:?}");
        }
    }
}
