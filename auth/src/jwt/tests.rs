//! Tokens as an identity provider makes them, and as somebody else might.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self as ring_signature, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use serde_json::json;
use windrow_core::clock::unix_nanos;

use super::*;

/// Made for these tests.
const RSA: &[u8] = include_bytes!("../../testdata/rsa-2048.pkcs8.der");
const RSA_PUBLIC: &str = include_str!("../../testdata/rsa-2048.pub.pem");
const RSA_SHORT: &str = include_str!("../../testdata/rsa-1024.pub.pem");

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// Signs as a provider does.
struct Issuer {
    algorithm: &'static str,
    public: String,
    sign: Box<Sign>,
}

impl Issuer {
    fn rsa(algorithm: &'static str) -> Self {
        let key = RsaKeyPair::from_pkcs8(RSA).unwrap();
        let padding: &'static dyn ring_signature::RsaEncoding = match algorithm {
            "RS256" => &ring_signature::RSA_PKCS1_SHA256,
            "RS384" => &ring_signature::RSA_PKCS1_SHA384,
            "RS512" => &ring_signature::RSA_PKCS1_SHA512,
            _ => &ring_signature::RSA_PSS_SHA256,
        };
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        };
        Self { algorithm, public: RSA_PUBLIC.to_owned(), sign: Box::new(sign) }
    }

    fn ec(algorithm: &'static str) -> Self {
        let (made_for, signing) = match algorithm {
            "ES256" => (&rcgen::PKCS_ECDSA_P256_SHA256, &ring_signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            _ => (&rcgen::PKCS_ECDSA_P384_SHA384, &ring_signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        };
        let pair = rcgen::KeyPair::generate_for(made_for).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(signing, pair.serialized_der(), &SystemRandom::new()).unwrap();
        let sign = move |message: &[u8]| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        Self { algorithm, public: pair.public_key_pem(), sign: Box::new(sign) }
    }

    fn ed() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pair.serialized_der()).unwrap();
        let sign = move |message: &[u8]| key.sign(message).as_ref().to_vec();
        Self { algorithm: "EdDSA", public: pair.public_key_pem(), sign: Box::new(sign) }
    }

    fn all() -> Vec<Self> {
        vec![Self::rsa("RS256"), Self::rsa("RS384"), Self::rsa("RS512"), Self::ec("ES256"), Self::ec("ES384"), Self::ed()]
    }

    fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "typ": "JWT", "alg": self.algorithm }), claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = URL_SAFE_NO_PAD.encode((self.sign)(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn jwt(&self) -> Jwt {
        self.jwt_for(None)
    }

    fn jwt_for(&self, issuer: Option<&str>) -> Jwt {
        jwt(&self.public, issuer).unwrap()
    }
}

fn jwt(public: &str, issuer: Option<&str>) -> Result<Jwt> {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key.pem");
    std::fs::write(&key_file, public).unwrap();
    Jwt::new(&JwtOptions {
        key_file,
        audience: "windrow".to_owned(),
        issuer: issuer.map(str::to_owned),
        role_claim: "windrow_role".to_owned(),
    })
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn now() -> u64 {
    unix_nanos() / 1_000_000_000
}

fn claims() -> Value {
    json!({ "sub": "alice", "aud": "windrow", "exp": now() + 300, "windrow_role": "writer" })
}

/// The claims with one replaced, or without it.
fn claims_but(name: &str, value: Option<Value>) -> Value {
    let mut claims = claims();
    match value {
        Some(value) => claims[name] = value,
        None => drop(claims.as_object_mut().unwrap().remove(name)),
    }
    claims
}

#[test]
fn a_token_signed_with_the_key_is_its_subjects() {
    for issuer in Issuer::all() {
        let token = issuer.token(&claims());
        assert_eq!(issuer.jwt().verify(&token), Some(Principal::client("alice", Role::Writer)), "{}", issuer.algorithm);
    }
}

#[test]
fn a_role_is_what_the_claim_says_or_reader() {
    let issuer = Issuer::ed();
    let jwt = issuer.jwt();
    let role = |value| jwt.verify(&issuer.token(&claims_but("windrow_role", value))).and_then(|principal| principal.role());
    assert_eq!(role(None), Some(Role::Reader));
    assert_eq!(role(Some(json!("admin"))), Some(Role::Admin));
    for strange in [json!("king"), json!("Admin"), json!(["admin"]), json!(2), Value::Null, json!(true)] {
        assert_eq!(role(Some(strange.clone())), None, "{strange}");
    }
}

#[test]
fn times_count_with_a_minute_of_leeway() {
    let issuer = Issuer::ed();
    let jwt = issuer.jwt();
    let is_valid = |name: &str, value: Option<Value>| jwt.verify(&issuer.token(&claims_but(name, value))).is_some();
    assert!(is_valid("exp", Some(json!(now() - 30))), "within the leeway");
    assert!(!is_valid("exp", Some(json!(now() - 90))), "expired");
    assert!(!is_valid("exp", None), "endless");
    assert!(!is_valid("exp", Some(json!((now() + 300).to_string()))), "a text");
    assert!(!is_valid("exp", Some(Value::Null)) && !is_valid("exp", Some(json!(-1))) && !is_valid("exp", Some(json!(1e300))));
    assert!(is_valid("nbf", Some(json!(now() + 30))), "within the leeway");
    assert!(!is_valid("nbf", Some(json!(now() + 90))), "in the future");
    assert!(!is_valid("nbf", Some(json!("0"))), "a text");
}

#[test]
fn audience_issuer_and_subject_are_required() {
    let issuer = Issuer::ed();
    let jwt = issuer.jwt();
    let is_valid = |name: &str, value: Option<Value>| jwt.verify(&issuer.token(&claims_but(name, value))).is_some();
    assert!(is_valid("aud", Some(json!(["other", "windrow"]))));
    for audience in
        [None, Some(json!("other")), Some(json!("")), Some(json!([])), Some(json!(["other"])), Some(json!(7)), Some(json!({}))]
    {
        assert!(!is_valid("aud", audience.clone()), "{audience:?}");
    }
    for subject in [None, Some(json!("")), Some(json!("a b")), Some(json!("executor")), Some(json!(7)), Some(json!("a\nb"))] {
        assert!(!is_valid("sub", subject.clone()), "{subject:?}");
    }
    let jwt = issuer.jwt_for(Some("https://login.example.org"));
    let from = |value| jwt.verify(&issuer.token(&claims_but("iss", value))).is_some();
    assert!(from(Some(json!("https://login.example.org"))));
    assert!(!from(None) && !from(Some(json!("https://evil.example.org"))) && !from(Some(json!(7))));
}

#[test]
fn a_token_without_a_signature_is_nobodys() {
    for issuer in Issuer::all() {
        let jwt = issuer.jwt();
        for algorithm in ["none", "None", "NONE", ""] {
            let message = message(&json!({ "typ": "JWT", "alg": algorithm }), &claims());
            let signature = URL_SAFE_NO_PAD.encode((issuer.sign)(message.as_bytes()));
            for token in [format!("{message}."), message.clone(), format!("{message}.{signature}")] {
                assert_eq!(jwt.verify(&token), None, "{token}");
            }
        }
        let message = message(&json!({ "alg": issuer.algorithm }), &claims());
        assert_eq!(jwt.verify(&format!("{message}.")), None);
    }
}

#[test]
fn the_public_key_is_no_secret_to_sign_with() {
    for issuer in Issuer::all() {
        let jwt = issuer.jwt();
        let message = message(&json!({ "typ": "JWT", "alg": "HS256" }), &claims());
        let body: String = issuer.public.lines().filter(|line| !line.starts_with("--")).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(&body).unwrap();
        for secret in [
            issuer.public.as_bytes(),
            issuer.public.trim().as_bytes(),
            body.as_bytes(),
            &der,
            jwt.key.try_get_as_bytes().unwrap(),
        ] {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let signature = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes()));
            assert_eq!(jwt.verify(&format!("{message}.{signature}")), None);
        }
    }
}

#[test]
fn the_key_decides_the_algorithm_and_not_the_token() {
    let issuers = Issuer::all();
    for (checker, jwt) in issuers.iter().map(|issuer| (issuer, issuer.jwt())) {
        for issuer in &issuers {
            let same = checker.public == issuer.public;
            for algorithm in ["RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA", "PS256", "HS256"] {
                let token = issuer.token_with(&json!({ "alg": algorithm }), &claims());
                assert_eq!(
                    jwt.verify(&token).is_some(),
                    same && algorithm == issuer.algorithm,
                    "{} {algorithm}",
                    issuer.algorithm
                );
            }
        }
    }
    let pss = Issuer::rsa("PS256");
    assert_eq!(pss.jwt().verify(&pss.token(&claims())), None, "not one of ours, whatever the key");
}

#[test]
fn keys_that_a_token_brings_along_are_not_its_keys() {
    let (issuer, thief) = (Issuer::ec("ES256"), Issuer::ec("ES256"));
    let header =
        json!({ "alg": "ES256", "jku": "https://evil.example.org/jwks", "x5u": "https://evil.example.org", "kid": "../../key" });
    assert_eq!(issuer.jwt().verify(&thief.token_with(&header, &claims())), None);
    let critical = json!({ "alg": "ES256", "crit": ["exp"], "exp": 1 });
    assert_eq!(issuer.jwt().verify(&issuer.token_with(&critical, &claims())), None);
}

#[test]
fn a_changed_token_is_nobodys() {
    for issuer in [Issuer::ed(), Issuer::ec("ES256")] {
        let (jwt, token) = (issuer.jwt(), issuer.token(&claims()));
        for index in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(jwt.verify(std::str::from_utf8(&forged).unwrap()), None, "byte {index}");
        }
        let other = issuer.token(&claims_but("sub", Some(json!("root"))));
        let (message, signature) = (other.rsplit_once('.').unwrap().0, token.rsplit_once('.').unwrap().1);
        let long = "A".repeat(20_000);
        for text in
            [format!("{message}.{signature}"), format!("{token}."), format!("{token}.x"), String::new(), "..".into(), long]
        {
            assert_eq!(jwt.verify(&text), None);
        }
    }
}

#[test]
fn keys_that_cannot_be_are_refused() {
    let private = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    let p521 = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    for (pem, problem) in [
        ("", "no public key"),
        ("secret", "no public key"),
        (&private, "private key"),
        (&format!("{RSA_PUBLIC}{private}"), "private key"),
        (&certificate, "no public key"),
        (p521, "unknown kind"),
        (RSA_SHORT, "a size that is not supported"),
    ] {
        let error = jwt(pem, None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfig, "{pem}");
        assert!(error.message.contains(problem), "{problem}: {error}");
    }
    let options = JwtOptions {
        key_file: "/nowhere/key.pem".into(),
        audience: "windrow".to_owned(),
        issuer: None,
        role_claim: "role".to_owned(),
    };
    assert_eq!(Jwt::new(&options).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(Jwt::new(&JwtOptions { audience: String::new(), ..options }).unwrap_err().kind, ErrorKind::InvalidConfig);
}
