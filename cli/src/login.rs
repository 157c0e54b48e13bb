//! As whom the subcommands that connect go to a scheduler: `--token-file`, `WINDROW_TOKEN`, or the url's user with a password that
//! is asked for or in `WINDROW_PASSWORD`. No secret is ever an argument: others on the machine can read those.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use windrow::{Error, ErrorKind, Login, Result};

/// Flags of whoever connects.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LoginFlags {
    /// A file with a token to log in with; WINDROW_TOKEN holds one too
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) token_file: Option<PathBuf>,
    /// The certificate that signed the server's [default: those this machine trusts]
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) tls_ca: Option<PathBuf>,
}

impl LoginFlags {
    /// What proves to the scheduler at `url` who we are; asks for a password if the url names a user and somebody is there to ask.
    pub(crate) fn login(&self, url: Option<&str>) -> Result<Login> {
        let token = match &self.token_file {
            Some(path) => Some(token_in(path)?),
            None => variable("WINDROW_TOKEN")?,
        };
        let password = match url.and_then(user_in).filter(|_| token.is_none()) {
            Some(user) => password_of(&user)?,
            None => None,
        };
        Ok(Login { token, password, ca: self.tls_ca.clone() })
    }
}

fn token_in(path: &std::path::Path) -> Result<String> {
    let bytes = windrow_auth::read_private(path)?;
    let text = String::from_utf8(bytes).map(|text| text.trim().to_owned()).ok().filter(|text| !text.is_empty());
    text.ok_or_else(|| Error::new(ErrorKind::InvalidConfig, format!("'{}' holds no token", path.display())))
}

/// The user of an url, roughly: the library reads it properly and complains where it must.
fn user_in(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    authority.rsplit_once('@').map(|(user, _)| user.to_owned()).filter(|user| !user.contains(':'))
}

fn password_of(user: &str) -> Result<Option<String>> {
    if let Some(password) = variable("WINDROW_PASSWORD")? {
        return Ok(Some(password));
    }
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    rpassword::prompt_password(format!("password of {user}: "))
        .map(Some)
        .map_err(|source| Error::new(ErrorKind::InvalidConfig, "the password could not be read").with_source(source))
}

fn variable(name: &str) -> Result<Option<String>> {
    match std::env::var_os(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => {
            value.into_string().map(Some).map_err(|_not_text| Error::new(ErrorKind::InvalidConfig, format!("{name} is not text")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_an_url_is_found() {
        assert_eq!(user_in("grpc+tls://ann@host:1/s").as_deref(), Some("ann"));
        assert_eq!(user_in("grpc://host:1/a@b"), None);
        assert_eq!(user_in("grpc://ann:secret@host"), None);
    }

    #[test]
    fn a_token_comes_from_a_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        windrow_auth::write_private(&path, b"wt1.x\n").unwrap();
        let flags = LoginFlags { token_file: Some(path), tls_ca: None };
        assert_eq!(flags.login(Some("grpc://ann@host")).unwrap().token.as_deref(), Some("wt1.x"));
    }
}
