//! Certificates for development: an authority, a server and the executors. Where there is an authority already, its certificates do as
//! well. Next: `secret_file.rs`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use windrow_core::clock::unix_nanos;
use windrow_core::error::{Error, ErrorKind, Result};

use crate::secret_file::{write_private_new, write_public_new};

/// A name that only certificates of executors have: whoever connects to an executor may ask for it, wherever the executor is, and
/// whoever is connected to may know an executor by it.
pub const EXECUTOR_NAME: &str = "executor.windrow.internal";

const DAY: Duration = Duration::from_secs(24 * 3_600);
const AUTHORITY_DAYS: u32 = 5 * 365;
const DAYS: u32 = 365;

/// Certificates are valid since before they were made, for clocks that are behind.
const EARLIER: Duration = Duration::from_secs(3_600);

/// The files that [`make_development_ca`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevelopmentCa {
    /// The authority's certificate: what clients and processes trust.
    pub ca: PathBuf,
    /// Its key, which signs more certificates. No process of a cluster needs it.
    pub ca_key: PathBuf,
    /// The server's certificate.
    pub server: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// The executors' certificate, for both ends of a connection.
    pub executor: PathBuf,
    /// Its key.
    pub executor_key: PathBuf,
}

impl DevelopmentCa {
    fn in_folder(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self {
            ca: file("ca.pem"),
            ca_key: file("ca-key.pem"),
            server: file("server.pem"),
            server_key: file("server-key.pem"),
            executor: file("executor.pem"),
            executor_key: file("executor-key.pem"),
        }
    }

    fn files(&self) -> [&Path; 6] {
        [&self.ca, &self.ca_key, &self.server, &self.server_key, &self.executor, &self.executor_key]
    }
}

/// Makes an authority, and with it a certificate for the server and one for the executors, both for `hosts` (names or addresses) and
/// for this machine as it calls itself. The folder is made if it is not there; keys are for its owner alone. Blocks.
///
/// # Errors
/// [`ErrorKind::Denied`] if one of the files is there already or cannot be written, [`ErrorKind::InvalidConfig`] if a host is none.
pub fn make_development_ca(folder: &Path, hosts: &[String]) -> Result<DevelopmentCa> {
    let files = DevelopmentCa::in_folder(folder);
    if let Some(there) = files.files().into_iter().find(|file| file.symlink_metadata().is_ok()) {
        return Err(Error::new(ErrorKind::Denied, format!("'{}' is there already", there.display()))
            .with_help("remove the old certificates, or name another folder"));
    }
    let hosts = all_hosts(hosts)?;
    let authority = authority()?;
    let server = signed("Windrow server", hosts.clone(), &[ExtendedKeyUsagePurpose::ServerAuth], &authority)?;
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let executor = signed("Windrow executor", [vec![EXECUTOR_NAME.to_owned()], hosts].concat(), &both, &authority)?;
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::new(ErrorKind::Denied, format!("the folder '{}' cannot be made", folder.display())).with_source(error)
    })?;
    write_private_new(&files.ca_key, authority.key().serialize_pem().as_bytes())?;
    write_public_new(&files.ca, authority.pem().as_bytes())?;
    for (file, key_file, (certificate, key)) in
        [(&files.server, &files.server_key, server), (&files.executor, &files.executor_key, executor)]
    {
        write_private_new(key_file, key.serialize_pem().as_bytes())?;
        write_public_new(file, certificate.as_bytes())?;
    }
    Ok(files)
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name = named("Windrow development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_DAYS);
    CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?).map_err(failed)
}

/// A certificate in PEM, and its key.
fn signed(
    name: &str,
    hosts: Vec<String>,
    usages: &[ExtendedKeyUsagePurpose],
    authority: &CertifiedIssuer<'static, KeyPair>,
) -> Result<(String, KeyPair)> {
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(hosts).map_err(failed)?;
    params.distinguished_name = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, DAYS);
    let certificate = params.signed_by(&key, authority).map_err(failed)?;
    Ok((certificate.pem(), key))
}

fn set_validity(params: &mut CertificateParams, days: u32) {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_nanos(unix_nanos());
    params.not_before = now - EARLIER;
    params.not_after = now + DAY * days;
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, "Windrow");
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The hosts with those of every machine, each once.
fn all_hosts(hosts: &[String]) -> Result<Vec<String>> {
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for host in hosts {
        let is_label = |label: &str| {
            !label.is_empty() && label.len() <= 63 && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let name = host.strip_prefix("*.").unwrap_or(host);
        if host.parse::<IpAddr>().is_err() && (host.len() > 253 || !name.split('.').all(is_label)) {
            return Err(Error::new(ErrorKind::InvalidConfig, format!("'{}' is not a host", host.escape_debug()))
                .with_help("a host is a name or an address, without a scheme and a port"));
        }
        if !all.contains(host) {
            all.push(host.clone());
        }
    }
    Ok(all)
}

fn failed(error: rcgen::Error) -> Error {
    Error::internal("a certificate cannot be made").with_source(error)
}

#[cfg(test)]
mod tests;
