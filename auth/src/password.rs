//! Names and passwords in a file, hashed with Argon2id. Next: `throttle.rs`, which bounds how often one is tried.
//!
//! ```text
//! alice:writer:$argon2id$v=19$m=19456,t=2,p=1$...
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params};
use ring::rand::{SecureRandom, SystemRandom};
use windrow_core::error::{Error, ErrorKind, Result};

use crate::listed::{Listed, each_line, is_remark, rewrite};
use crate::principal::{Principal, Role, check_name};

/// What a password is compared with if nobody has the name: as much work as any other, with the crate's default parameters.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$d2luZHJvdzogbm9ib2R5Lg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// The users of a file, which is read again when it changes.
pub struct Passwords {
    users: Listed<BTreeMap<String, User>>,
}

struct User {
    role: Role,
    hash: String,
}

impl Passwords {
    /// Reads the file at `path`, which only its owner may read. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Denied`] if others may read it, [`ErrorKind::InvalidConfig`] with the line that is wrong.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let users = Listed::read(path.as_ref(), parse).map_err(|error| match error.kind {
            ErrorKind::NotFound => error.with_help("windrow user add NAME --role ROLE --users-file FILE makes it"),
            _ => error,
        })?;
        Ok(Self { users })
    }

    /// Whoever has this name and password. A name that nobody has costs the same time. Blocks for some ten milliseconds of a core and
    /// takes 19 MiB: behind a [`crate::Throttle`].
    #[must_use]
    pub fn verify(&self, name: &str, password: &str) -> Option<Principal> {
        let users = self.users.content();
        let user = users.get(name);
        let hash = PasswordHash::new(user.map_or(NOBODY, |user| &user.hash)).ok()?;
        let is_right = Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
        user.filter(|_| is_right && !password.is_empty()).map(|user| Principal::client(name, user.role))
    }

    /// The user of this name, whom something else than a password has proven.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<Principal> {
        self.users.content().get(name).map(|user| Principal::client(name, user.role))
    }

    /// Whether there is no user.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.content().is_empty()
    }

    /// The users of the file at `path`, by name. Blocks.
    ///
    /// # Errors
    /// As [`Passwords::read`].
    pub fn list(path: impl AsRef<Path>) -> Result<Vec<(String, Role)>> {
        let users = Self::read(path)?.users.content();
        Ok(users.iter().map(|(name, user)| (name.clone(), user.role)).collect())
    }

    /// Adds a user to the file at `path`, or gives one another role and password. The file is made if it is not there; its other lines
    /// stay. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the name, the password or a line of the file is none, [`ErrorKind::Denied`] if the file cannot be
    /// written.
    pub fn set(path: impl AsRef<Path>, name: &str, role: Role, password: &str) -> Result<()> {
        check_name(name)?;
        let line = format!("{name}:{role}:{}", hash(password)?);
        rewrite(path.as_ref(), |lines| {
            parse(&lines.join("\n"))?;
            match lines.iter_mut().find(|line| is_of(line, name)) {
                Some(old) => *old = line,
                None => lines.push(line),
            }
            Ok(())
        })
    }

    /// Removes a user from the file at `path`. Logins that they have stay until they expire. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if nobody has the name, or there is no file.
    pub fn remove(path: impl AsRef<Path>, name: &str) -> Result<()> {
        let path = path.as_ref();
        rewrite(path, |lines| {
            let before = lines.len();
            lines.retain(|line| !is_of(line, name));
            if lines.len() < before {
                return Ok(());
            }
            let message = format!("'{}' has no user '{}'", path.display(), name.escape_debug());
            Err(Error::new(ErrorKind::NotFound, message))
        })
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Passwords").field(&self.users).finish()
    }
}

/// Whether the line is the user's.
fn is_of(line: &str, name: &str) -> bool {
    !is_remark(line) && line.trim_start().split(':').next() == Some(name)
}

fn parse(text: &str) -> Result<BTreeMap<String, User>> {
    let mut users = BTreeMap::new();
    each_line(text, |line| {
        let mut fields = line.trim().splitn(3, ':');
        let (Some(name), Some(role), Some(hash)) = (fields.next(), fields.next(), fields.next()) else {
            return Err("it is not of the form name:role:hash".to_owned());
        };
        check_name(name).map_err(|error| error.message)?;
        let role = role.parse().map_err(|error: Error| error.message)?;
        check_hash(hash)?;
        match users.insert(name.to_owned(), User { role, hash: hash.to_owned() }) {
            Some(_) => Err(format!("there is a second user '{name}'")),
            None => Ok(()),
        }
    })?;
    Ok(users)
}

fn check_hash(text: &str) -> Result<(), String> {
    let hash = PasswordHash::new(text).ok().filter(|hash| hash.hash.is_some() && hash.salt.is_some());
    let hash = hash.filter(|hash| hash.algorithm == Algorithm::Argon2id.ident() && Params::try_from(hash).is_ok());
    hash.map(|_| ()).ok_or_else(|| "its hash is not one of Argon2id".to_owned())
}

fn hash(password: &str) -> Result<String> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidConfig, format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes")));
    }
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_why| Error::internal("the system gave no random numbers"))?;
    let salt = SaltString::encode_b64(&salt).map_err(|_why| Error::internal("a password's salt has no encoding"))?;
    let hashed = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hashed.map_err(|_why| Error::internal("a password cannot be hashed"))?.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::secret_file::tests::{mode, set_mode};
    use crate::secret_file::write_private;

    const LINE: &str =
        "alice:writer:$argon2id$v=19$m=19456,t=2,p=1$d2luZHJvdzogbm9ib2R5Lg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn a_user_is_who_knows_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        Passwords::set(&path, "alice", Role::Writer, "correct horse").unwrap();
        let passwords = Passwords::read(&path).unwrap();
        assert!(!passwords.is_empty());
        assert_eq!(passwords.verify("alice", "correct horse"), Some(Principal::client("alice", Role::Writer)));
        assert_eq!(passwords.user("alice"), Some(Principal::client("alice", Role::Writer)));
        assert_eq!(passwords.user("bob"), None);
        for (name, password) in
            [("alice", "correct horsf"), ("alice", ""), ("Alice", "correct horse"), ("bob", "correct horse"), ("", "")]
        {
            assert_eq!(passwords.verify(name, password), None, "{name} {password}");
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("alice:writer:$argon2id$") && !text.contains("correct"), "{text}");
    }

    /// Time differs from run to run; what decides it does not.
    #[test]
    fn a_name_that_nobody_has_costs_the_same_work() {
        let known = hash("x").unwrap();
        let (known, nobody) = (PasswordHash::new(&known).unwrap(), PasswordHash::new(NOBODY).unwrap());
        assert_eq!((known.algorithm, known.version, &known.params), (nobody.algorithm, nobody.version, &nobody.params));
        assert_eq!(known.hash.unwrap().len(), nobody.hash.unwrap().len());
        assert_eq!(known.salt.unwrap().len(), nobody.salt.unwrap().len());
        check_hash(NOBODY).unwrap();
    }

    #[test]
    fn users_are_added_replaced_and_removed_and_the_rest_of_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        write_private(&path, format!("# ours\n{LINE}\n").as_bytes()).unwrap();
        Passwords::set(&path, "bob", Role::Reader, "b").unwrap();
        Passwords::set(&path, "alice", Role::Admin, "a").unwrap();
        assert_eq!(Passwords::list(&path).unwrap(), [("alice".to_owned(), Role::Admin), ("bob".to_owned(), Role::Reader)]);
        assert_eq!(mode(&path), 0o600);
        Passwords::remove(&path, "alice").unwrap();
        assert_eq!(Passwords::list(&path).unwrap(), [("bob".to_owned(), Role::Reader)]);
        assert!(fs::read_to_string(&path).unwrap().starts_with("# ours\nbob:reader:"));
        for name in ["alice", "#", "# ours", ""] {
            assert_eq!(Passwords::remove(&path, name).unwrap_err().kind, ErrorKind::NotFound, "{name}");
        }
        Passwords::remove(&path, "bob").unwrap();
        assert!(Passwords::read(&path).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        write_private(&path, LINE.as_bytes()).unwrap();
        set_mode(&path, 0o644);
        assert_eq!(Passwords::read(&path).unwrap_err().kind, ErrorKind::Denied);
        assert_eq!(Passwords::remove(&path, "alice").unwrap_err().kind, ErrorKind::Denied);
        let missing = Passwords::read(folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind, ErrorKind::NotFound);
        assert!(missing.context.help.unwrap().contains("windrow user add"));
    }

    #[test]
    fn wrong_lines_are_named_without_their_hashes() {
        let hash = LINE.rsplit(':').next().unwrap();
        for (line, problem) in [
            ("alice".to_owned(), "not of the form"),
            (format!("al ice:reader:{hash}"), "not a name"),
            (format!("alice:owner:{hash}"), "not a role"),
            ("alice:reader:planted".to_owned(), "not one of Argon2id"),
            (format!("alice:reader:{}", hash.replace("argon2id", "argon2i")), "not one of Argon2id"),
            ("alice:reader:$argon2id$v=19$m=19456,t=2,p=1".to_owned(), "not one of Argon2id"),
            (format!("{LINE}\n{LINE}"), "second user 'alice'"),
        ] {
            let Err(error) = parse(&line) else { panic!("{line}") };
            assert!(error.message.contains(problem), "{line}: {error}");
            assert!(!error.message.contains("planted") && !error.message.contains("AAAA"), "{error}");
        }
    }

    #[test]
    fn names_and_passwords_that_cannot_be_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        for (name, password) in
            [("a:admin", "x"), ("a\nroot", "x"), ("executor", "x"), ("alice", ""), ("alice", &"x".repeat(1025))]
        {
            assert_eq!(Passwords::set(&path, name, Role::Reader, password).unwrap_err().kind, ErrorKind::InvalidConfig);
        }
        assert!(!path.exists());
    }
}
