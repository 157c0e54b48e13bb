//! `windrow user`, `windrow token` and `windrow secret`: the files that say who may connect. Next: `password.rs`.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use windrow_auth::{ClusterKey, Passwords, Role, TokenEntry, Tokens, check_name};
use windrow_core::clock::unix_nanos;

use crate::args::{
    SecretAction, SecretArguments, TokenAction, TokenArguments, TokenCreateArguments, TokenRemoveArguments, UserAction,
    UserAddArguments, UserArguments,
};
use crate::end::End;
use crate::password::{self, Source};
use crate::{status, terminal};

/// Runs `windrow user`.
pub(crate) fn user(arguments: UserArguments) -> Result<(), End> {
    match arguments.action {
        UserAction::Add(arguments) => {
            let source = if arguments.password_stdin { Source::Input } else { Source::Environment };
            let added = add(&arguments, |name| password::read(source, name))?;
            terminal::note(&added);
        }
        UserAction::Remove(arguments) => {
            Passwords::remove(&arguments.file.path, &arguments.name).map_err(End::starting)?;
            terminal::note(&format!("removed {} from {}", arguments.name, arguments.file.path.display()));
        }
        UserAction::List(arguments) => std::io::stdout().lock().write_all(list(&arguments.file.path)?.as_bytes())?,
    }
    Ok(())
}

/// Runs `windrow token`.
pub(crate) fn token(arguments: TokenArguments) -> Result<(), End> {
    match arguments.action {
        TokenAction::Create(arguments) => {
            let token = create(&arguments, unix_nanos() / 1_000_000)?;
            writeln!(std::io::stdout().lock(), "{token}")?;
            terminal::note(&format!(
                "{} ({}) is known by this token, which cannot be read again; {} holds its hash",
                arguments.name,
                arguments.role,
                arguments.tokens_file.display()
            ));
        }
        TokenAction::List(arguments) => {
            let listed = listed_tokens(&arguments.file.path, unix_nanos() / 1_000_000)?;
            std::io::stdout().lock().write_all(listed.as_bytes())?;
        }
        TokenAction::Remove(arguments) => {
            let TokenRemoveArguments { name, id, file } = arguments;
            let count = Tokens::remove(&file.path, &name, id.as_deref()).map_err(End::starting)?;
            let removed = terminal::plural(count as u64, "token");
            terminal::note(&format!("removed {removed} of {name} from {}", file.path.display()));
        }
    }
    Ok(())
}

/// Runs `windrow secret`.
pub(crate) fn secret(arguments: SecretArguments) -> Result<(), End> {
    match arguments.action {
        SecretAction::Create(arguments) => {
            ClusterKey::random().write_new(&arguments.output).map_err(End::starting)?;
            let file = arguments.output.display();
            terminal::note(&format!(
                "wrote {file}; a scheduler and its executors share it by WINDROW_SECURITY__SECRET_FILE={file}"
            ));
        }
    }
    Ok(())
}

/// Adds or changes a user and says which.
fn add(arguments: &UserAddArguments, password: impl FnOnce(&str) -> Result<String, End>) -> Result<String, End> {
    let (name, role, path) = (&arguments.name, arguments.role, &arguments.file.path);
    // Nobody types a password twice for a name or a file that cannot be.
    check_name(name).map_err(End::starting)?;
    let is_there = users(path)?.iter().any(|(user, _)| user == name);
    Passwords::set(path, name, role, &password(name)?).map_err(End::starting)?;
    let (done, to) = if is_there { ("changed", "in") } else { ("added", "to") };
    Ok(format!("{done} {name} ({role}) {to} {}", path.display()))
}

fn list(path: &Path) -> Result<String, End> {
    let users = Passwords::list(path).map_err(End::starting)?;
    Ok(status::columns(&["name", "role"], users.into_iter().map(|(name, role)| vec![name, role.to_string()])))
}

fn listed_tokens(path: &Path, now_unix_ms: u64) -> Result<String, End> {
    let tokens = Tokens::list(path).map_err(End::starting)?;
    let row = |token: TokenEntry| {
        let left = token.expires_at.map_or_else(|| "never".to_owned(), |at| left(at.saturating_sub(now_unix_ms)));
        vec![token.name, token.role.to_string(), token.id, left]
    };
    Ok(status::columns(&["name", "role", "id", "expires"], tokens.into_iter().map(row)))
}

/// Milliseconds from now, in the largest unit of which there is one.
fn left(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.into_iter().find(|(unit, _)| ms >= *unit) {
        Some((unit, name)) => format!("in {}{name}", ms / unit),
        None if ms > 0 => "in 1s".to_owned(),
        None => "expired".to_owned(),
    }
}

/// The users of a file; none if it is not there.
fn users(path: &Path) -> Result<Vec<(String, Role)>, End> {
    match Passwords::list(path) {
        Err(error) if error.kind == windrow::ErrorKind::NotFound => Ok(Vec::new()),
        users => users.map_err(End::starting),
    }
}

fn create(arguments: &TokenCreateArguments, now_unix_ms: u64) -> Result<String, End> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let expires = arguments.expires.map(|lasts| now_unix_ms.saturating_add(ms(lasts)));
    Tokens::create(&arguments.tokens_file, &arguments.name, arguments.role, expires).map_err(End::starting)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use windrow_auth::Principal;

    use super::*;
    use crate::args::UsersFile;

    fn adding(path: &Path, name: &str, role: Role) -> UserAddArguments {
        let file = UsersFile { path: path.to_owned() };
        UserAddArguments { name: name.to_owned(), role, file, password_stdin: false }
    }

    fn never(_: &str) -> Result<String, End> {
        panic!("the password was asked for")
    }

    #[test]
    fn users_are_added_changed_and_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let added = add(&adding(&path, "alice", Role::Writer), |_| Ok("a".to_owned())).unwrap();
        assert_eq!(added, format!("added alice (writer) to {}", path.display()));
        let changed = add(&adding(&path, "alice", Role::Reader), |_| Ok("b".to_owned())).unwrap();
        assert_eq!(changed, format!("changed alice (reader) in {}", path.display()));
        assert_eq!(list(&path).unwrap(), "name   role\nalice  reader\n");
        let passwords = Passwords::read(&path).unwrap();
        assert_eq!(passwords.verify("alice", "b"), Some(Principal::client("alice", Role::Reader)));
        assert_eq!(passwords.verify("alice", "a"), None);
    }

    #[test]
    fn what_cannot_be_written_is_said_before_the_password_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        assert!(matches!(add(&adding(&path, "a b", Role::Reader), never), Err(End::Usage(_))));
        fs::write(&path, "alice:reader:secret\n").unwrap();
        assert!(matches!(add(&adding(&path, "bob", Role::Reader), never), Err(End::Failed(_))), "others may read the file");
        assert!(matches!(list(&folder.path().join("missing")), Err(End::Failed(_))));
    }

    #[test]
    fn a_token_lasts_as_long_as_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let tokens_file = folder.path().join("tokens");
        let name = "etl".to_owned();
        let mut arguments = TokenCreateArguments { name, role: Role::Writer, tokens_file, expires: Some(Duration::from_secs(1)) };
        let short = create(&arguments, 5_000).unwrap();
        arguments.expires = Some(Duration::MAX);
        let long = create(&arguments, 5_000).unwrap();
        arguments.expires = None;
        let endless = create(&arguments, 5_000).unwrap();
        let tokens = Tokens::read(&arguments.tokens_file).unwrap();
        let etl = Some(Principal::client("etl", Role::Writer));
        assert_eq!((tokens.verify(&short, 5_999), tokens.verify(&short, 6_000)), (etl.clone(), None));
        assert_eq!((tokens.verify(&long, 1 << 60), tokens.verify(&endless, u64::MAX)), (etl.clone(), etl));
    }

    #[test]
    fn tokens_are_listed_with_the_time_that_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let token = Tokens::create(&path, "a", Role::Admin, Some(90_000)).unwrap();
        Tokens::create(&path, "b", Role::Reader, None).unwrap();
        let listed = listed_tokens(&path, 0).unwrap();
        assert!(listed.starts_with("name  role    id                expires\na     admin "), "{listed}");
        assert!(listed.contains("in 1m\n") && listed.contains("never\n"), "{listed}");
        assert!(!listed.contains(token.rsplit('.').next().unwrap()), "what it takes is not shown");
        assert!(listed_tokens(&path, 90_000).unwrap().contains("expired"));
        assert!(matches!(listed_tokens(&folder.path().join("missing"), 0), Err(End::Failed(_))));
        let times = [1, 59_999, 3 * 3_600_000, 30 * 86_400_000 + 5].map(left);
        assert_eq!(times, ["in 1s", "in 59s", "in 3h", "in 30d"]);
    }
}
