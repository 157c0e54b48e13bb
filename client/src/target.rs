//! What the url of a scheduler says: where it is, whether the way is encrypted, and as whom to go. Next: `login.rs`.

use std::net::IpAddr;

use url::Url;
use windrow_core::{Error, ErrorKind, Result};

/// Where a scheduler listens unless told otherwise.
pub(crate) const DEFAULT_PORT: u16 = 8815;

/// A scheduler as an url names it: `grpc[+tls]://[user@]host[:port][/schema]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// As in the url: an IPv6 address is in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) encrypts: bool,
    /// The schema that unqualified names are looked up in.
    pub(crate) schema: Option<String>,
}

impl Target {
    /// Reads an url.
    ///
    /// # Errors
    /// `InvalidConfig` with an example; also for a password, which others would see in the list of processes and in the shell's
    /// history.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let parsed = Url::parse(url).map_err(|source| not_ours(url).with_source(source))?;
        let encrypts = match parsed.scheme() {
            "grpc" => false,
            "grpc+tls" => true,
            _ => return Err(not_ours(url)),
        };
        if parsed.password().is_some() {
            return Err(Error::new(ErrorKind::InvalidConfig, "an url with a password, which others could read")
                .with_help("write grpc+tls://USER@HOST:PORT; the password is asked for, or taken from WINDROW_PASSWORD"));
        }
        let path = parsed.path().trim_start_matches('/').trim_end_matches('/');
        let is_bare = !path.contains('/') && parsed.query().is_none() && parsed.fragment().is_none();
        let decoded = |text: &str| {
            let pair = format!("x={}", text.replace('+', "%2B"));
            let decoded = url::form_urlencoded::parse(pair.as_bytes()).next();
            decoded.map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
        };
        match parsed.host_str() {
            Some(host) if is_bare && !host.is_empty() => Ok(Self {
                host: host.to_owned(),
                port: parsed.port().unwrap_or(DEFAULT_PORT),
                user: decoded(parsed.username()),
                encrypts,
                schema: decoded(path),
            }),
            _ => Err(not_ours(url)),
        }
    }

    /// The url without a user and a schema, as messages show it.
    pub(crate) fn address(&self) -> String {
        format!("{}://{}:{}", if self.encrypts { "grpc+tls" } else { "grpc" }, self.host, self.port)
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

fn not_ours(url: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("'{url}' is not the url of a scheduler"))
        .with_help(format!("write grpc://HOST:PORT or grpc+tls://USER@HOST:PORT, such as grpc://127.0.0.1:{DEFAULT_PORT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_is_a_host_and_a_port() {
        for (url, host, port) in [
            ("grpc://127.0.0.1:9000", "127.0.0.1", 9000),
            ("grpc://localhost", "localhost", 8815),
            ("grpc+tls://host.example:1/", "host.example", 1),
            ("grpc://[::1]:7", "[::1]", 7),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{url}");
            assert_eq!((target.user, target.schema), (None, None), "{url}");
            assert_eq!(target.encrypts, url.starts_with("grpc+tls"), "{url}");
        }
        let target = Target::parse("grpc+tls://ann%40x.org@host:1/sales%20eu").unwrap();
        assert_eq!((target.user.as_deref(), target.schema.as_deref()), (Some("ann@x.org"), Some("sales eu")));
        assert_eq!(target.address(), "grpc+tls://host:1");
    }

    #[test]
    fn other_urls_are_refused_with_an_example() {
        for url in
            ["", "127.0.0.1:8815", "localhost:8815", "http://host:1", "grpc://", "grpc://host/catalog/schema", "grpc://host?a=b"]
        {
            let error = Target::parse(url).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{url}");
            assert!(error.context.help.is_some_and(|help| help.contains("grpc://127.0.0.1:8815")), "{url}");
        }
    }

    #[test]
    fn a_password_in_an_url_is_refused_and_not_repeated() {
        let error = Target::parse("grpc://user:hunter2@host").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
        assert!(error.context.help.is_some_and(|help| help.contains("WINDROW_PASSWORD")));
    }

    #[test]
    fn loopback_is_this_machine() {
        let is_loopback = |host: &str| Target::parse(&format!("grpc://{host}")).unwrap().is_loopback();
        assert!(["localhost", "127.0.0.1", "127.1.2.3", "[::1]"].into_iter().all(is_loopback));
        assert!(!["10.0.0.1", "host", "[fe80::1]"].into_iter().any(is_loopback));
    }
}
