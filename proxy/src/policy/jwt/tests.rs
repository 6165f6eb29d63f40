use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256,
};
use outrigger_proto::model::{JwksSource, KeySetError};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

struct Signers {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

static SIGNERS: LazyLock<Signers> = LazyLock::new(|| Signers {
    rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
    ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    ed: Ed25519KeyPair::generate().unwrap(),
});

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn jwk_rsa() -> Value {
    // PKCS #1: a sequence of two integers, of which the first has a zero before it and 256 bytes.
    let public = SIGNERS.rsa.public_key().as_ref();
    let n = &public[public.len() - 5 - 256..][..256];
    json!({ "kty": "RSA", "kid": "r", "n": b64(n), "e": "AQAB" })
}

fn jwk_ec() -> Value {
    let point = SIGNERS.ec.public_key().as_ref();
    json!({ "kty": "EC", "crv": "P-256", "kid": "e", "x": b64(&point[1..33]), "y": b64(&point[33..]) })
}

fn jwk_ed() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "d", "use": "sig", "alg": "EdDSA", "x": b64(SIGNERS.ed.public_key()) })
}

static KEYS: LazyLock<Arc<KeySet>> = LazyLock::new(|| {
    // Others beside: a secret, a key for encryption, a kind that is not known.
    let others = [
        json!({ "kty": "oct", "kid": "o", "k": b64("secret") }),
        json!({ "kty": "RSA", "use": "enc", "n": "AQ", "e": "AQ" }),
        json!({ "kty": "EC", "crv": "secp256k1", "x": "", "y": "" }),
    ];
    let keys: Vec<_> = [jwk_rsa(), jwk_ec(), jwk_ed()].into_iter().chain(others).collect();
    Arc::new(KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap())
});

fn issuers() -> Vec<JwtIssuer> {
    let issuer = |name: &str, algorithms: &[JwtAlgorithm]| JwtIssuer {
        issuer: name.into(),
        keys: JwksSource::File("a".into()),
        audiences: ["shop".into(), "bar".into()].into(),
        required: true,
        algorithms: algorithms.into(),
        leeway: Duration::from_secs(60),
        claims_to_headers: Box::default(),
    };
    let all = JwtAlgorithm::ALL.map(|(_, algorithm)| algorithm);
    vec![issuer("https://id", &all), issuer("https://narrow", &[JwtAlgorithm::Es256])]
}

/// Signed as `alg` says, where that can be.
fn sign(header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let (rng, message) = (SystemRandom::new(), signed.as_bytes());
    let alg =
        serde_json::from_str::<Value>(header).ok().and_then(|h| Some(h.get("alg")?.as_str()?.to_owned()));
    let rsa = |encoding| {
        let mut signature = vec![0; SIGNERS.rsa.public_modulus_len()];
        SIGNERS.rsa.sign(encoding, &rng, message, &mut signature).unwrap();
        signature
    };
    let signature = match alg.as_deref() {
        Some("RS256") => rsa(&RSA_PKCS1_SHA256),
        Some("PS256") => rsa(&RSA_PSS_SHA256),
        Some("ES256") => SIGNERS.ec.sign(&rng, message).unwrap().as_ref().to_vec(),
        Some("EdDSA") => SIGNERS.ed.sign(message).as_ref().to_vec(),
        Some("HS256") => {
            // The classic: the public key as a secret.
            let key =
                aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, jwk_rsa().to_string().as_bytes());
            aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
        }
        Some(_) | None => Vec::new(),
    };
    format!("{signed}.{}", b64(signature))
}

fn claims(more: &str) -> String {
    format!("{{\"iss\":\"https://id\",\"aud\":\"shop\",\"exp\":{},\"sub\":\"alice\"{more}}}", NOW + 300)
}

fn ask(token: &str) -> Result<String, JwtError> {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let (_, Claims(claims)) = verify(token, &issuers(), |_| Some(KEYS.clone()), now)?;
    Ok(claims["sub"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn good_tokens_of_each_kind() {
    for header in [
        r#"{"alg":"RS256","kid":"r","typ":"JWT"}"#,
        r#"{"alg":"PS256","kid":"r"}"#,
        r#"{"alg":"ES256","kid":"e","typ":"at+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"d","typ":"application/at+JWT"}"#,
        // Of each kind there is one key: it need not be named.
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"RS256"}"#,
    ] {
        assert_eq!(ask(&sign(header, &claims(""))).as_deref(), Ok("alice"), "{header}");
    }
    let list = format!(
        "{{\"iss\":\"https://id\",\"aud\":[\"x\",\"bar\"],\"exp\":{}.5,\"sub\":\"bob\",\"nbf\":{},\"iat\":{}}}",
        NOW - 30,
        NOW + 30,
        NOW
    );
    assert_eq!(ask(&sign(r#"{"alg":"ES256"}"#, &list)).as_deref(), Ok("bob"), "clocks differ a little");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table")]
fn attacks_are_refused_each_for_its_reason() {
    use JwtError as E;
    let es = r#"{"alg":"ES256","kid":"e"}"#;
    let good = sign(es, &claims(""));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let with_claims = |claims: &str| sign(es, claims);
    let rows = [
        ("none", sign(r#"{"alg":"none"}"#, &claims("")), E::Algorithm),
        ("None", sign(r#"{"alg":"None"}"#, &claims("")), E::Algorithm),
        ("no algorithm", sign("{}", &claims("")), E::Algorithm),
        ("an algorithm that is no text", sign(r#"{"alg":1}"#, &claims("")), E::Algorithm),
        ("letters of another size", sign(r#"{"alg":"es256","kid":"e"}"#, &claims("")), E::Algorithm),
        ("the public key as a secret", sign(r#"{"alg":"HS256","kid":"r"}"#, &claims("")), E::Algorithm),
        ("a secret of the set", sign(r#"{"alg":"HS256","kid":"o"}"#, &claims("")), E::Algorithm),
        ("another kind's key", sign(r#"{"alg":"RS256","kid":"e"}"#, &claims("")), E::UnknownKey),
        (
            "a key that is not there",
            sign(r#"{"alg":"ES256","kid":"../../dev/null"}"#, &claims("")),
            E::UnknownKey,
        ),
        ("a key by SQL", sign(r#"{"alg":"ES256","kid":"x' OR '1'='1"}"#, &claims("")), E::UnknownKey),
        ("a key that is no text", sign(r#"{"alg":"ES256","kid":["e"]}"#, &claims("")), E::Malformed),
        (
            "an algorithm that this issuer does not use",
            sign(r#"{"alg":"RS256"}"#, &claims("").replace("//id", "//narrow")),
            E::Algorithm,
        ),
        (
            "a key that it brings along",
            sign(&format!(r#"{{"alg":"ES256","jwk":{}}}"#, jwk_ec()), &claims("").replace("//id", "//ID")),
            E::UnknownIssuer,
        ),
        ("something critical", sign(r#"{"alg":"ES256","crit":["exp"]}"#, &claims("")), E::Critical),
        ("another kind of thing", sign(r#"{"alg":"ES256","typ":"logout+jwt"}"#, &claims("")), E::Malformed),
        ("a header twice", sign(r#"{"alg":"ES256","kid":"e","alg":"ES256"}"#, &claims("")), E::Malformed),
        ("a claim twice", with_claims(&claims(",\"sub\":\"root\"")), E::Malformed),
        ("a claim twice, further in", with_claims(&claims(",\"a\":{\"b\":1,\"b\":2}")), E::Malformed),
        ("something behind", with_claims(&format!("{} {{}}", claims(""))), E::Malformed),
        ("no object", with_claims("[]"), E::Malformed),
        ("no signature", format!("{signed}."), E::BadSignature),
        ("half a signature", format!("{signed}.{}", &signature[..44]), E::BadSignature),
        ("a signature of DER", format!("{signed}.{}", b64([0x30; 70])), E::BadSignature),
        ("padding", format!("{good}="), E::Malformed),
        ("another alphabet", format!("{header}+.{payload}.{signature}"), E::Malformed),
        ("bits beyond", format!("{signed}.AB"), E::Malformed),
        ("two parts", signed.to_owned(), E::Malformed),
        ("four parts", format!("{good}.x"), E::Malformed),
        ("nothing", String::new(), E::Malformed),
        ("a huge one", "a".repeat(9000), E::TooLong),
        (
            "expired",
            with_claims(&claims("").replace(&(NOW + 300).to_string(), &(NOW - 60).to_string())),
            E::Expired,
        ),
        ("without an end", with_claims(r#"{"iss":"https://id","aud":"shop"}"#), E::Expired),
        (
            "an end that is a text",
            with_claims(r#"{"iss":"https://id","aud":"shop","exp":"9999999999"}"#),
            E::Malformed,
        ),
        ("not yet", with_claims(&claims(&format!(",\"nbf\":{}", NOW + 61))), E::NotYetValid),
        ("from the future", with_claims(&claims(&format!(",\"iat\":{}", NOW + 61))), E::NotYetValid),
        ("for another", with_claims(&claims("").replace("shop", "shopping")), E::Audience),
        ("for nobody", with_claims(&claims("").replace("\"aud\":\"shop\",", "")), E::Audience),
        ("for an object", with_claims(&claims("").replace("\"shop\"", "{\"shop\":1}")), E::Audience),
        ("of another", with_claims(&claims("").replace("//id", "//id.evil")), E::UnknownIssuer),
        ("of nobody", with_claims(&claims("").replace("\"iss\":\"https://id\",", "")), E::UnknownIssuer),
        (
            "of a list",
            with_claims(&claims("").replace("\"https://id\"", "[\"https://id\"]")),
            E::UnknownIssuer,
        ),
    ];
    for (what, token, expected) in rows {
        assert_eq!(ask(&token), Err(expected), "{what}");
    }
    let none = verify(&good, &issuers(), |_| None, UNIX_EPOCH + Duration::from_secs(NOW));
    assert_eq!(none, Err(E::NoKeys));
}

#[test]
fn sets_of_keys_are_read_or_refused() {
    let set = |keys: &[Value]| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    assert_eq!(KeySet::parse(b"<html>"), Err(KeySetError::NotASet));
    assert_eq!(KeySet::parse(b"{\"keys\":{}}"), Err(KeySetError::NotASet));
    assert_eq!(KeySet::parse(b"{\"keys\":[],\"keys\":[]}"), Err(KeySetError::NotASet));
    assert_eq!(set(&[]), Err(KeySetError::None));
    assert_eq!(set(&[json!({ "kty": "oct", "k": "AA" })]), Err(KeySetError::None));
    assert_eq!(set(&vec![jwk_ec(); 101]), Err(KeySetError::TooMany));
    let short = json!({ "kty": "RSA", "n": b64([0xff; 128]), "e": "AQAB" });
    assert!(matches!(set(&[jwk_ec(), short]), Err(KeySetError::Key(1, _))));
    let mut wrong = jwk_ec();
    wrong["alg"] = "RS256".into();
    assert!(matches!(set(&[wrong]), Err(KeySetError::Key(0, _))));
    // Two that would do, and no name: nobody says which.
    let twins =
        set(&[jwk_ec(), json!({ "kty": "EC", "crv": "P-256", "x": jwk_ec()["x"], "y": jwk_ec()["y"] })])
            .unwrap();
    assert!(twins.find(None, JwtAlgorithm::Es256).is_none());
    assert!(twins.find(Some("e"), JwtAlgorithm::Es256).is_some());
}

#[test]
fn a_key_that_says_something_odd_of_itself_is_not_taken_as_if_it_said_nothing() {
    let odd = |name: &str, value: Value| {
        let mut key = jwk_ec();
        key[name] = value;
        KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes())
    };
    for (name, value) in [
        ("kid", json!(1)),
        ("alg", json!(["RS256"])),
        ("use", json!(["enc"])),
        ("key_ops", json!("sign")),
        ("key_ops", json!({})),
    ] {
        assert!(odd(name, value.clone()).is_err(), "{name}: {value}");
    }
}

#[test]
fn a_key_that_cannot_be_used_keeps_nobody_from_those_that_can() {
    let mut odd = jwk_ec();
    odd["kid"] = json!(1);
    let unusable = KeySetError::Key(0, "`kid`, `use` and `alg` are texts");
    let both = json!({ "keys": [odd, jwk_rsa()] }).to_string();
    let good = KeySet::parse(json!({ "keys": [jwk_rsa()] }).to_string().as_bytes()).unwrap();
    assert_eq!(KeySet::published(both.as_bytes()), Ok((good, vec![unusable.clone()])));
    assert_eq!(KeySet::parse(both.as_bytes()), Err(unusable.clone()));
    let alone = json!({ "keys": [odd] }).to_string();
    assert_eq!(KeySet::published(alone.as_bytes()), Err(unusable));
}

#[test]
fn rsa_keys_that_prove_nothing_are_refused() {
    let n = jwk_rsa()["n"].as_str().unwrap().to_owned();
    let parse = |n: &str, e: &str| {
        KeySet::parse(json!({ "keys": [{ "kty": "RSA", "n": n, "e": e }] }).to_string().as_bytes())
    };
    let mut short = [0xff; 256];
    short[0] = 0x01;
    for (what, n, e) in [
        ("an exponent of one", &*n, "AQ"),
        ("an even exponent", &*n, "Ag"),
        ("no exponent", &*n, ""),
        ("2041 bits", &*b64(short), "AQAB"),
    ] {
        assert!(parse(n, e).is_err(), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_token_that_was_touched_is_not_good(place in any::<prop::sample::Index>(), flip in 1..128_u8) {
        let good = sign(r#"{"alg":"EdDSA","kid":"d"}"#, &claims(""));
        let mut bytes = good.clone().into_bytes();
        bytes[place.index(good.len())] ^= flip;
        if let Ok(token) = std::str::from_utf8(&bytes) {
            prop_assert!(ask(token).is_err());
        }
    }
}

#[test]
fn what_is_wanted_of_a_token_is_the_routes_to_say_or_the_listeners() {
    use JwtUse::{None as Nothing, Optional, Required};
    let issuer = |required| JwtIssuer {
        issuer: "i".into(),
        keys: JwksSource::File("keys.json".into()),
        audiences: ["a".into()].into(),
        required,
        algorithms: [JwtAlgorithm::Es256].into(),
        leeway: JwtIssuer::LEEWAY,
        claims_to_headers: Box::default(),
    };
    let (optional, required) = ([issuer(false)], [issuer(false), issuer(true)]);
    let rows: [(&[JwtIssuer], _, _); 10] = [
        (&[], None, Ok(Nothing)),
        (&[], Some(Optional), Ok(Nothing)),
        (&[], Some(Nothing), Ok(Nothing)),
        (&[], Some(Required), Err(JwtError::UnknownIssuer)),
        (&optional, None, Ok(Optional)),
        (&optional, Some(Required), Ok(Required)),
        (&optional, Some(Nothing), Ok(Nothing)),
        (&required, None, Ok(Required)),
        (&required, Some(Optional), Ok(Optional)),
        (&required, Some(Nothing), Ok(Nothing)),
    ];
    for (issuers, of_route, expected) in rows {
        assert_eq!(wanted(issuers, of_route), expected, "{} {of_route:?}", issuers.len());
    }
    assert_eq!([Nothing, Optional, Required].map(without), [Ok(()), Ok(()), Err(JwtError::Missing)]);
}
