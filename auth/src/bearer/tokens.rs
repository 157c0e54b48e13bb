//! Tokens that somebody made for a program, by their hashes in a file. Next: `jwt.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use windrow_core::error::{Error, ErrorKind, Result};

use crate::key::sha256;
use crate::listed::{Listed, each_line, is_remark, rewrite};
use crate::principal::{Principal, Role, check_name};

const PREFIX: &str = "wt1.";
const SECRET_BYTES: usize = 32;
const SUM_BYTES: usize = 32;

/// The tokens of a file, which is read again when it changes.
pub struct Tokens {
    tokens: Listed<BTreeMap<String, Token>>,
}

struct Token {
    principal: Principal,
    sum: [u8; SUM_BYTES],
    expires_at: Option<u64>,
}

impl Tokens {
    /// Reads the file at `path`, which only its owner may read. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Denied`] if others may read it, [`ErrorKind::InvalidConfig`] with the line that is wrong.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let tokens = Listed::read(path.as_ref(), parse).map_err(|error| match error.kind {
            ErrorKind::NotFound => error.with_help("windrow token create NAME --role ROLE --tokens-file FILE makes it"),
            _ => error,
        })?;
        Ok(Self { tokens })
    }

    /// Whom `token` was made for, if it has not expired. A random number of 256 bits needs no slow hash.
    #[must_use]
    pub fn verify(&self, token: &str, now_unix_ms: u64) -> Option<Principal> {
        let (id, secret) = token.strip_prefix(PREFIX)?.split_once('.')?;
        let tokens = self.tokens.content();
        let known = tokens.get(id);
        let sum = sha256(secret.as_bytes());
        let is_right = bool::from(sum.ct_eq(known.map_or(&[0; SUM_BYTES], |token| &token.sum)));
        let known = known.filter(|token| is_right && token.expires_at.is_none_or(|at| now_unix_ms < at))?;
        Some(known.principal.clone())
    }

    /// Makes a token and adds its hash to the file at `path`, which is made if it is not there. This is the only time that the token
    /// can be read. `expires` is in milliseconds since 1970. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the name or a line of the file is none, [`ErrorKind::Denied`] if the file cannot be written.
    pub fn create(path: impl AsRef<Path>, name: &str, role: Role, expires: Option<u64>) -> Result<String> {
        check_name(name)?;
        let (mut id, mut secret) = ([0; 8], [0; SECRET_BYTES]);
        let random = SystemRandom::new();
        random
            .fill(&mut id)
            .and_then(|()| random.fill(&mut secret))
            .map_err(|_why| Error::internal("the system gave no random numbers"))?;
        let id = format!("{:016x}", u64::from_be_bytes(id));
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let sum = STANDARD_NO_PAD.encode(sha256(secret.as_bytes()));
        let expiry = expires.map_or_else(|| "-".to_owned(), |at| at.to_string());
        rewrite(path.as_ref(), |lines| {
            parse(&lines.join("\n"))?;
            lines.push(format!("{id}:{name}:{role}:{sum}:{expiry}"));
            Ok(())
        })?;
        Ok(format!("{PREFIX}{id}.{secret}"))
    }

    /// The tokens of the file at `path`, without what opens a door. Blocks.
    ///
    /// # Errors
    /// As [`Tokens::read`].
    pub fn list(path: impl AsRef<Path>) -> Result<Vec<TokenEntry>> {
        let tokens = Self::read(path)?.tokens.content();
        let entry = |(id, token): (&String, &Token)| {
            let name = token.principal.name().to_owned();
            Some(TokenEntry { id: id.clone(), name, role: token.principal.role()?, expires_at: token.expires_at })
        };
        let mut all: Vec<_> = tokens.iter().filter_map(entry).collect();
        all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(all)
    }

    /// Removes the tokens of `name` from the file at `path`, all of them or the one with this id; returns how many. A server that has the
    /// file knows it within a second. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there are none, or no file.
    pub fn remove(path: impl AsRef<Path>, name: &str, id: Option<&str>) -> Result<usize> {
        let path = path.as_ref();
        let mut removed = 0;
        rewrite(path, |lines| {
            parse(&lines.join("\n"))?;
            let before = lines.len();
            lines.retain(|line| !is_of(line, name, id));
            removed = before - lines.len();
            if removed > 0 {
                return Ok(());
            }
            let of = id.map_or_else(String::new, |id| format!(" with the id '{}'", id.escape_debug()));
            let message = format!("'{}' has no token of '{}'{of}", path.display(), name.escape_debug());
            Err(Error::new(ErrorKind::NotFound, message).with_help("windrow token list shows them"))
        })?;
        Ok(removed)
    }
}

/// A token as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// Tells tokens of the same name apart.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What they may do with it.
    pub role: Role,
    /// When it ends, in milliseconds since 1970; `None` lasts until its line is removed.
    pub expires_at: Option<u64>,
}

/// Whether the line is a token of this name, and has this id.
fn is_of(line: &str, name: &str, id: Option<&str>) -> bool {
    let mut fields = line.trim().split(':');
    let (of, named) = (fields.next(), fields.next());
    !is_remark(line) && named == Some(name) && id.is_none_or(|id| of == Some(id))
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.tokens).finish()
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, Token>> {
    let mut tokens = BTreeMap::new();
    each_line(text, |line| {
        let fields: Vec<_> = line.trim().split(':').collect();
        let [id, name, role, sum, expiry] = fields.as_slice() else {
            return Err("it is not of the form id:name:role:hash:expiry".to_owned());
        };
        check_name(name).map_err(|error| error.message)?;
        let role: Role = role.parse().map_err(|error: Error| error.message)?;
        let sum = STANDARD_NO_PAD.decode(sum.trim_end_matches('=')).ok().and_then(|sum| <[u8; SUM_BYTES]>::try_from(sum).ok());
        let sum = sum.ok_or("its hash is not one of SHA-256 in Base64")?;
        let expires_at = match *expiry {
            "-" => None,
            at => Some(at.parse().map_err(|_why| "its expiry is neither - nor milliseconds since 1970".to_owned())?),
        };
        match tokens.insert((*id).to_owned(), Token { principal: Principal::client(*name, role), sum, expires_at }) {
            Some(_) => Err(format!("there is a second token '{}'", id.escape_debug())),
            None => Ok(()),
        }
    })?;
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::secret_file::tests::{mode, set_mode};

    #[test]
    fn a_token_is_whom_it_was_made_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let first = Tokens::create(&path, "etl", Role::Writer, None).unwrap();
        let second = Tokens::create(&path, "etl", Role::Reader, Some(1_000)).unwrap();
        let tokens = Tokens::read(&path).unwrap();
        assert_eq!(tokens.verify(&first, u64::MAX), Some(Principal::client("etl", Role::Writer)));
        assert_eq!(tokens.verify(&second, 999), Some(Principal::client("etl", Role::Reader)));
        assert_eq!(tokens.verify(&second, 1_000), None, "expired");
        let text = fs::read_to_string(&path).unwrap();
        for token in [first, second] {
            let secret = token.rsplit('.').next().unwrap();
            assert!(secret.len() == 43 && !text.contains(secret), "the file does not hold what it takes");
        }
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_changed_token_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let (token, other) =
            (Tokens::create(&path, "a", Role::Admin, None).unwrap(), Tokens::create(&path, "b", Role::Admin, None).unwrap());
        let tokens = Tokens::read(&path).unwrap();
        for index in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[index] = if forged[index] == b'0' { b'1' } else { b'0' };
            assert_eq!(tokens.verify(std::str::from_utf8(&forged).unwrap(), 0), None, "byte {index}");
            assert_eq!(tokens.verify(&token[..index], 0), None, "{index} bytes");
        }
        let (id, secret) = (token.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
        let line = fs::read_to_string(&path).unwrap();
        let sum = line.split(':').nth(3).unwrap();
        for text in [
            format!("{id}.{secret}"),
            format!("{token}x"),
            format!("{id}.{sum}"),
            format!("{id}."),
            "wt1..".to_owned(),
            String::new(),
        ] {
            assert_eq!(tokens.verify(&text, 0), None, "{text}");
        }
    }

    #[test]
    fn a_removed_line_ends_its_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let token = Tokens::create(&path, "a", Role::Admin, None).unwrap();
        fs::write(&path, "# none\n").unwrap();
        assert_eq!(Tokens::read(&path).unwrap().verify(&token, 0), None);
    }

    #[test]
    fn tokens_are_listed_and_removed_by_name_or_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        fs::write(&path, "# ours:a\n").unwrap();
        set_mode(&path, 0o600);
        let mut made = Vec::new();
        for (name, expires) in [("b", Some(7)), ("a", None), ("b", None)] {
            made.push(Tokens::create(&path, name, Role::Writer, expires).unwrap());
        }
        let live = Tokens::read(&path).unwrap();
        let listed = Tokens::list(&path).unwrap();
        assert_eq!(listed.iter().map(|token| token.name.as_str()).collect::<Vec<_>>(), ["a", "b", "b"]);
        assert!(listed.iter().all(|token| token.role == Role::Writer && made.iter().any(|made| made.contains(&token.id))));
        let with_end = listed.iter().find(|token| token.expires_at == Some(7)).unwrap();
        assert_eq!(Tokens::remove(&path, "b", Some(&with_end.id)).unwrap(), 1);
        assert_eq!(Tokens::remove(&path, "b", Some(&with_end.id)).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(Tokens::remove(&path, "a", Some(&with_end.id)).unwrap_err().kind, ErrorKind::NotFound, "somebody else's");
        assert!(Tokens::read(&path).unwrap().verify(&made[2], 0).is_some());
        assert_eq!(Tokens::remove(&path, "b", None).unwrap(), 1);
        let left = Tokens::read(&path).unwrap();
        assert!(left.verify(&made[1], 0).is_some() && left.verify(&made[2], 0).is_none());
        for nobody in ["b", "#", "# ours", "", "ours"] {
            assert_eq!(Tokens::remove(&path, nobody, None).unwrap_err().kind, ErrorKind::NotFound, "{nobody}");
        }
        assert!(fs::read_to_string(&path).unwrap().starts_with("# ours:a\n") && mode(&path) == 0o600);
        assert!(live.verify(&made[1], 0).is_some(), "who has the file open goes on with who is left");
        assert_eq!(Tokens::remove(folder.path().join("missing"), "a", None).unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn wrong_files_are_refused_with_the_line() {
        let sum = STANDARD_NO_PAD.encode([1; 32]);
        for (text, problem) in [
            ("a:b:c".to_owned(), "not of the form"),
            (format!("1:a b:reader:{sum}:-"), "not a name"),
            (format!("1:a:king:{sum}:-"), "not a role"),
            ("1:a:reader:planted:-".to_owned(), "not one of SHA-256"),
            (format!("1:a:reader:{sum}:soon"), "expiry"),
            (format!("1:a:reader:{sum}:-\n1:b:reader:{sum}:-"), "line 2: there is a second token '1'"),
        ] {
            let Err(error) = parse(&text) else { panic!("{text}") };
            assert!(error.message.contains(problem) && !error.message.contains("planted"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        assert_eq!(Tokens::read(&path).unwrap_err().kind, ErrorKind::NotFound);
        Tokens::create(&path, "a", Role::Admin, None).unwrap();
        set_mode(&path, 0o640);
        assert_eq!(Tokens::read(&path).unwrap_err().kind, ErrorKind::Denied);
        assert_eq!(Tokens::create(&path, "b", Role::Admin, None).unwrap_err().kind, ErrorKind::Denied);
        assert_eq!(Tokens::create(&path, "a:b", Role::Admin, None).unwrap_err().kind, ErrorKind::InvalidConfig);
    }
}
