//! Whose certificate a client has shown: the user that its subject's common name names or, where it has none, its first DNS name. That
//! the certificate holds, TLS has verified before. Next: `credentials.rs`.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use windrow_auth::check_name;

/// Tags of DER: an object identifier, and the three forms in which names are written.
const IDENTIFIER: u8 = 0x06;
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// The identifier of a common name: 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The user that a verified certificate names, if that may be a user's name.
pub(crate) fn user_of(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let name = match common_names(certificate.subject())?.as_slice() {
        [] => certificate.valid_dns_names().next()?.to_owned(),
        [one] => one.clone(),
        // Which of them is meant, nobody knows.
        _ => return None,
    };
    check_name(&name).ok().map(|()| Arc::from(name))
}

/// All common names of a subject; `None` if it cannot be read. A subject is a sequence of sets of pairs.
fn common_names(mut subject: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while !subject.is_empty() {
        let (_, mut set, rest) = element(subject)?;
        subject = rest;
        while !set.is_empty() {
            let (_, pair, rest) = element(set)?;
            set = rest;
            let (tag, identifier, value) = element(pair)?;
            let (form, text, _) = element(value)?;
            if tag == IDENTIFIER && identifier == COMMON_NAME {
                names.push(TEXTS.contains(&form).then(|| String::from_utf8(text.to_vec()).ok())??);
            }
        }
    }
    Some(names)
}

/// The tag and the content of the first element of DER, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk::<2>().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn user(names: &[(DnType, &str)], hosts: &[&str]) -> Option<String> {
        let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        user_of(certificate.der()).map(|name| name.to_string())
    }

    #[test]
    fn a_certificate_names_one_user() {
        let common = |name: &'static str| (DnType::CommonName, name);
        let of = |name: &'static str| (DnType::OrganizationName, name);
        let long: &'static str = "x".repeat(200).leak();
        for (names, hosts, expected) in [
            (vec![common("ann")], vec![], Some("ann")),
            (vec![of("Example"), common("ann")], vec!["bob"], Some("ann")),
            (vec![of("Example")], vec!["robot", "other"], Some("robot")),
            (vec![of(long), common("ann")], vec![], Some("ann")),
            (vec![of("Example")], vec!["192.0.2.1"], None),
            (vec![common("Ann Example")], vec!["ann"], None),
            (vec![common("executor")], vec![], None),
            (vec![common("")], vec!["ann"], None),
            (vec![common(long)], vec![], None),
            (vec![], vec![], None),
        ] {
            assert_eq!(user(&names, &hosts).as_deref(), expected, "{names:?} {hosts:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        let params = CertificateParams::new(vec!["ann".to_owned()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let der = certificate.der();
        for end in 0..der.len() {
            assert_eq!(user_of(&CertificateDer::from(&der[..end])), None, "{end} bytes");
        }
        for bytes in [&[0x31, 0x82, 0xff][..], &[0x31, 0x84, 0, 0, 0, 1, 0], &[0x31], &[0x31, 3, 0x30, 1], &[0x31, 2, 0x30, 0]] {
            assert_eq!(common_names(bytes), None, "{bytes:?}");
        }
        let pair = |form: u8, name: &[u8]| {
            let value = [&[0x06, 3, 0x55, 4, 3, form, u8::try_from(name.len()).unwrap()], name].concat();
            let pair = [&[0x30, u8::try_from(value.len()).unwrap()], value.as_slice()].concat();
            [&[0x31, u8::try_from(pair.len()).unwrap()], pair.as_slice()].concat()
        };
        assert_eq!(common_names(&pair(0x0c, b"ann")), Some(vec!["ann".to_owned()]));
        assert_eq!(common_names(&[pair(0x0c, b"ann"), pair(0x13, b"bob")].concat()).map(|names| names.len()), Some(2));
        assert_eq!(common_names(&pair(0x0c, b"\xff")), None, "no text");
        assert_eq!(common_names(&pair(0x04, b"ann")), None, "no form of text");
    }
}
