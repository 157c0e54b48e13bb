//! Handshakes in memory with the certificates that were made.

use std::fs;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::*;
use crate::secret_file::tests::mode;

fn made(hosts: &[&str]) -> (tempfile::TempDir, DevelopmentCa) {
    let folder = tempfile::tempdir().unwrap();
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let files = make_development_ca(&folder.path().join("certs"), &hosts).unwrap();
    (folder, files)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(certificate: &Path, key: &Path) -> Identity {
    (vec![CertificateDer::from_pem_file(certificate).unwrap()], PrivateKeyDer::from_pem_file(key).unwrap())
}

fn roots(files: &DevelopmentCa) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    Arc::new(roots)
}

/// A handshake with `name` of a client that trusts `trusted` with a server that wants a certificate of the same authority if `is_mutual`.
fn handshake(
    name: &str,
    trusted: &DevelopmentCa,
    server: Identity,
    client: Option<Identity>,
    is_mutual: bool,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(trusted), Arc::clone(&provider)).build().unwrap();
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let config = config.with_webpki_verifier(verifier);
    let config = match client {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let config = if is_mutual {
        config.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots(trusted), provider).build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let mut server = ServerConnection::new(Arc::new(config.with_single_cert(server.0, server.1).unwrap())).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn the_server_is_trusted_by_every_name_it_was_made_for() {
    let (_folder, files) = made(&["db.example.org", "192.0.2.7", "2001:db8::7", "localhost"]);
    let server = || identity(&files.server, &files.server_key);
    for name in ["localhost", "127.0.0.1", "::1", "db.example.org", "192.0.2.7", "2001:db8::7"] {
        handshake(name, &files, server(), None, false).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for name in ["example.org", "192.0.2.8", "localhost.example.org", EXECUTOR_NAME] {
        assert!(handshake(name, &files, server(), None, false).is_err(), "{name}");
    }
}

#[test]
fn executors_are_trusted_at_both_ends_and_servers_are_no_clients() {
    let (_folder, files) = made(&[]);
    let executor = || identity(&files.executor, &files.executor_key);
    let server = || identity(&files.server, &files.server_key);
    handshake("localhost", &files, server(), Some(executor()), true).unwrap();
    handshake(EXECUTOR_NAME, &files, executor(), Some(executor()), true).unwrap();
    assert!(handshake("localhost", &files, server(), Some(server()), true).is_err(), "for servers only");
    assert!(handshake("localhost", &files, server(), None, true).is_err(), "nobody");
}

#[test]
fn another_authority_of_the_same_name_is_not_trusted() {
    let ((_one, files), (_two, others)) = (made(&[]), made(&[]));
    let (server, other) = (identity(&files.server, &files.server_key), identity(&others.server, &others.server_key));
    assert!(handshake("localhost", &files, other, None, false).is_err());
    let rogue = identity(&others.executor, &others.executor_key);
    assert!(handshake("localhost", &files, server, Some(rogue), true).is_err());
}

#[test]
fn keys_are_private_and_certificates_are_not() {
    let (_folder, files) = made(&[]);
    for key in [&files.ca_key, &files.server_key, &files.executor_key] {
        assert_eq!(mode(key), 0o600);
        assert!(fs::read_to_string(key).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
    }
    for certificate in [&files.ca, &files.server, &files.executor] {
        let text = fs::read_to_string(certificate).unwrap();
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE"));
    }
}

#[test]
fn nothing_is_overwritten() {
    let (folder, files) = made(&[]);
    let before = fs::read(&files.ca_key).unwrap();
    let error = make_development_ca(&folder.path().join("certs"), &[]).unwrap_err();
    assert!(error.kind == ErrorKind::Denied && error.message.contains("is there already"), "{error}");
    assert_eq!(fs::read(&files.ca_key).unwrap(), before);
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("executor.pem"), "mine").unwrap();
    make_development_ca(&other, &[]).unwrap_err();
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1, "not even the rest is written");
}

#[test]
fn what_is_no_host_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for host in ["", "grpc://a", "a:8815", "a b", "a..b", ".", "ä.org", "*", "a.*.b", &"x".repeat(64), &"x.".repeat(200)] {
        let error = make_development_ca(folder.path(), &[host.to_owned()]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfig, "{host}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let (_folder, files) = made(&["*.example.org"]);
    handshake("a.example.org", &files, identity(&files.server, &files.server_key), None, false).unwrap();
}
