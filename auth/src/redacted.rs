//! Every public type as text: none shows a secret.

use std::fmt::Debug;
use std::time::Duration;

use windrow_core::Error;

use crate::*;

/// Notes what `value` shows.
fn show(shown: &mut Vec<String>, value: &impl Debug) {
    shown.extend([format!("{value:?}"), format!("{value:#?}")]);
}

fn show_error(shown: &mut Vec<String>, error: &Error) {
    show(shown, error);
    shown.push(error.to_string());
}

#[test]
fn no_public_type_and_no_error_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let key = ClusterKey::random();
    let password = "planted-password";
    Passwords::set(file("users"), "alice", Role::Admin, password).unwrap();
    let passwords = Passwords::read(file("users")).unwrap();
    let token = Tokens::create(file("tokens"), "alice", Role::Admin, None).unwrap();
    let tokens = Tokens::read(file("tokens")).unwrap();
    let logins = Logins::new(&key);
    let principal = Principal::client("alice", Role::Admin);
    let issued = logins.issue(&principal, 7, Duration::from_secs(60), 0).unwrap();
    let login = logins.verify(&issued, 0).unwrap();
    let sealer = Sealer::new(&key, "tickets");
    let throttle = Throttle::new();
    let attempt = throttle.admit("alice", std::net::IpAddr::from([127, 0, 0, 1]), 0).unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    std::fs::write(file("jwt.pem"), pair.public_key_pem()).unwrap();
    let options =
        JwtOptions { key_file: file("jwt.pem"), audience: "windrow".into(), issuer: None, role_claim: "windrow_role".into() };
    let jwt = Jwt::new(&options).unwrap();
    let certificates = make_development_ca(&file("certs"), &[]).unwrap();

    let mut shown = Vec::new();
    show(&mut shown, &(&key, &passwords, &tokens, &logins, &login, &sealer, &throttle, &attempt));
    show(&mut shown, &(&jwt, &options, &certificates, &principal, Role::Admin, Verb::Use { owner: &principal }));
    for error in [SealError::NotOurs, SealError::Expired] {
        show(&mut shown, &error);
        shown.push(error.to_string());
    }
    let forged = ClusterKey::from_text(&format!("{}!", key.to_text())).unwrap_err();
    std::fs::write(file("tokens"), &token).unwrap();
    std::fs::write(file("users"), format!("alice:admin:{password}")).unwrap();
    let wrong = [forged, Tokens::read(file("tokens")).unwrap_err(), Passwords::read(file("users")).unwrap_err()];
    for error in wrong.iter().chain(&[check_name("a:b").unwrap_err(), authorize(&principal, Verb::Join).unwrap_err()]) {
        show_error(&mut shown, error);
    }

    let private = std::fs::read_to_string(&certificates.ca_key).unwrap();
    let secrets = [
        key.to_text(),
        password.to_owned(),
        token.rsplit('.').next().unwrap().to_owned(),
        issued.trim_start_matches("ws1.").to_owned(),
        private.lines().nth(1).unwrap().to_owned(),
        "$argon2id$".to_owned(),
    ];
    // As bytes, which is how a derived `Debug` would show a key.
    let bytes = format!("{:?}", &key.as_bytes()[..4]);
    let bytes = bytes.trim_matches(['[', ']']);
    for text in &shown {
        assert!(!secrets.iter().any(|secret| text.contains(secret.as_str())), "{text}");
        assert!(!text.replace("\n", " ").split_whitespace().collect::<Vec<_>>().join(" ").contains(bytes), "{text}");
    }
    assert!(shown.len() > 10);
}
