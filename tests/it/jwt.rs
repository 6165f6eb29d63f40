//! Tokens: who is let in by one, who is not, and that keys which do not come hold nobody else up.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_tests::wait::until_for;
use outrigger_tests::{Client, Dir, Echo, Origin, Proxy, Report, h2client, until};
use rcgen::{KeyPair, SigningKey as _};

/// A key that tokens are signed with, in ES256.
pub(crate) struct Signer {
    key: KeyPair,
    kid: String,
}

impl Signer {
    pub(crate) fn new(kid: &str) -> Self {
        Self { key: KeyPair::generate().unwrap(), kid: kid.to_owned() }
    }

    fn jwk(&self) -> String {
        let point = self.key.public_key_raw();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        format!("{{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"{}\",\"x\":\"{x}\",\"y\":\"{y}\"}}", self.kid)
    }

    pub(crate) fn sign(&self, claims: &str) -> String {
        let header = format!("{{\"alg\":\"ES256\",\"kid\":\"{}\",\"typ\":\"JWT\"}}", self.kid);
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.as_bytes()),
            URL_SAFE_NO_PAD.encode(claims.as_bytes())
        );
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fixed(&self.key.sign(signed.as_bytes()).unwrap())))
    }

    fn token(&self) -> String {
        self.sign(&claims("\"sub\":\"alice\""))
    }
}

/// Two integers of DER, as two of 32 bytes each.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (number, behind) = rest[2..].split_at(usize::from(rest[1]));
        let bare = number.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &number[at..]);
        out.extend(std::iter::repeat_n(0, 32 - bare.len()));
        out.extend_from_slice(bare);
        rest = behind;
    }
    out
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(more: &str) -> String {
    format!("{{\"iss\":\"https://id.test\",\"aud\":\"shop\",\"exp\":{},{more}}}", now() + 300)
}

pub(crate) fn keys(signers: &[&Signer]) -> String {
    format!("{{\"keys\":[{}]}}", signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>().join(","))
}

fn config(jwks: &str, app: &str) -> String {
    format!(
        "listeners:\n  in:\n    bind: 127.0.0.1:0\n    jwt: [{{ issuer: \"https://id.test\", jwks: \"{jwks}\", audiences: [shop], required: true, claims_to_headers: {{ sub: x-user, n: x-n, groups: x-groups }} }}]\n    \
         authorization: [{{ allow: {{ paths: [\"/groups/*\"], claims: {{ groups: [ops] }} }} }}, {{ allow: {{ paths: [/, /public, /maybe] }} }}]\n    routes:\n      \
         - {{ match: {{ path: {{ exact: /public }} }}, to: app, jwt: none }}\n      - {{ match: {{ path: {{ exact: /maybe }} }}, to: app, jwt: optional }}\n      - to: app\n\
         clusters:\n  app: {{ endpoints: [\"{app}\"] }}\n"
    )
}

/// A proxy in front of this app that takes this signer's tokens.
async fn start(signer: &Signer, app: impl Display) -> Proxy {
    let dir = Arc::new(Dir::new());
    dir.write("jwks.json", &keys(&[signer]));
    Proxy::start_in(dir, &config("jwks.json", &app.to_string())).await
}

/// What becomes of a request with these fields.
async fn ask(proxy: &Proxy, path: &str, fields: &str) -> outrigger_tests::Reply {
    let mut client = proxy.client("in").await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    client.reply().await
}

async fn with(proxy: &Proxy, token: &str) -> outrigger_tests::Reply {
    ask(proxy, "/", &format!("Authorization: Bearer {token}\r\n")).await
}

#[tokio::test]
async fn a_good_token_lets_in_and_says_who_it_is() {
    let (signer, echo) = (Signer::new("a"), Echo::start("app").await);
    let proxy = start(&signer, echo.address()).await;
    let token = signer.sign(&claims("\"sub\":\"alice\",\"n\":7,\"groups\":[\"dev\",\"ops\"]"));
    let bearer = format!("authorization: bearer  {token}\r\nX-User: root\r\nx-n: 1\r\nX-Groups: all\r\n");
    for _ in 0..2 {
        let report = Report::parse(&ask(&proxy, "/", &bearer).await.body);
        let said = ["x-user", "x-n", "x-groups"].map(|name| report.field(name));
        assert_eq!(said, [Some("alice"), Some("7"), Some("[\"dev\",\"ops\"]")]);
    }
    // Claims are what rules may be about.
    assert_eq!(ask(&proxy, "/groups/1", &bearer).await.status, 200);
    assert_eq!(
        ask(&proxy, "/groups/1", &format!("Authorization: Bearer {}\r\n", signer.token())).await.status,
        403
    );
    // Without one, by what the route says; what a stranger says of itself is gone everywhere.
    for (path, status) in [("/", 401), ("/public", 200), ("/maybe", 200)] {
        let reply = ask(&proxy, path, "X-User: root\r\nX_User: root\r\n").await;
        assert_eq!(reply.status, status, "{path}");
        if status == 200 {
            let report = Report::parse(&reply.body);
            assert_eq!((report.field("x-user"), report.field("x_user")), (None, None));
        } else {
            assert_eq!(reply.field("www-authenticate"), Some("Bearer"));
            assert_eq!(reply.field("x-outrigger-reason"), Some("jwt_missing"));
        }
    }
    assert_eq!(ask(&proxy, "/maybe", "Authorization: Bearer x\r\n").await.status, 401);
    assert_eq!(ask(&proxy, "/public", "Authorization: Bearer x\r\n").await.status, 200);
    assert_eq!(ask(&proxy, "/maybe", "Authorization: Basic x\r\n").await.status, 200);
    // gRPC has a word of its own.
    let client = h2client::H2::connect(proxy.address("in")).await;
    let mut call = h2client::get("/");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let reply = client.send(call, Vec::new(), None).await.unwrap();
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("16")));
    assert_eq!(proxy.metric("outrigger_downstream_jwt_total{listener=\"in\",result=\"good\"}").await, 4.0);
}

#[tokio::test]
async fn bad_tokens_are_refused_and_nothing_comes_through() {
    let (signer, other) = (Signer::new("a"), Signer::new("a"));
    let origin = Origin::ok("").await;
    let proxy = start(&signer, origin.address()).await;
    let good = signer.token();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let payload = signed.split_once('.').unwrap().1;
    let unsigned = |header: &str| format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(header.as_bytes()));
    let expired = claims("\"sub\":\"a\"").replace(&(now() + 300).to_string(), &(now() - 120).to_string());
    let rows = [
        (unsigned("{\"alg\":\"none\"}"), "jwt_algorithm"),
        (unsigned("{\"alg\":\"HS256\",\"kid\":\"a\"}"), "jwt_algorithm"),
        (unsigned("{\"alg\":\"ES256\",\"kid\":\"a\"}"), "jwt_bad_signature"),
        (unsigned("{\"alg\":\"ES256\",\"kid\":\"../a\"}"), "jwt_unknown_key"),
        (unsigned("{\"alg\":\"ES256\",\"crit\":[]}"), "jwt_critical"),
        (other.token(), "jwt_bad_signature"),
        (format!("{signed}.{}", &signature[1..]), "jwt_malformed"),
        (signer.sign(&expired), "jwt_expired"),
        (signer.sign(&claims("\"sub\":\"a\"").replace("shop", "bank")), "jwt_audience"),
        (signer.sign(&claims("\"sub\":\"a\"").replace("id.test", "evil.test")), "jwt_unknown_issuer"),
        (signer.sign(&claims("\"sub\":\"a\",\"sub\":\"root\"")), "jwt_malformed"),
        (signer.sign(&claims("\"sub\":\"a\\r\\nx-admin: 1\"")), "jwt_claim"),
        ("x".repeat(9000), "jwt_too_long"),
        ("\u{e9}".to_owned(), "jwt_malformed"),
    ];
    for (token, reason) in rows {
        let reply = with(&proxy, &token).await;
        assert_eq!((reply.status, reply.field("x-outrigger-reason")), (401, Some(reason)));
        assert_eq!(reply.field("www-authenticate"), Some("Bearer error=\"invalid_token\""), "{reason}");
    }
    let both = format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {}\r\n", other.token());
    assert_eq!(ask(&proxy, "/", &both).await.field("x-outrigger-reason"), Some("jwt_several"));
    assert_eq!(origin.count(), 0);
    assert_eq!(with(&proxy, &good).await.status, 200);
}

/// A server of keys that answers as it is told.
async fn server(answer: Arc<Mutex<String>>) -> Origin {
    Origin::start(move |mut conn| {
        let answer = answer.clone();
        async move {
            while conn.request().await.is_some() {
                let answer = answer.lock().unwrap().clone();
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
                conn.send(answer).await;
                conn.finish().await;
            }
        }
    })
    .await
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn keys_are_fetched_and_a_server_that_lies_changes_nothing() {
    let signer = Signer::new("a");
    let answer = Arc::new(Mutex::new(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ));
    let (issuer, origin) = (server(answer.clone()).await, Origin::ok("").await);
    let url = format!("http://{}/jwks", issuer.address());
    let proxy = Proxy::start(&config(&url, origin.address())).await;
    let lies = [
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ok("<html>"),
        ok("{\"keys\":[]}"),
        ok(&format!("{{\"keys\":[{}]}}", "1,".repeat(200_000))),
        "garbage\r\n\r\n".to_owned(),
    ];
    for lie in lies {
        let before = proxy.metric("outrigger_jwks_failures_total").await;
        *answer.lock().unwrap() = lie;
        proxy.wait_metric("outrigger_jwks_failures_total", |n| n > before).await;
        assert_eq!(with(&proxy, &signer.token()).await.field("x-outrigger-reason"), Some("jwt_no_keys"));
        assert_eq!(ask(&proxy, "/public", "").await.status, 200);
    }
    // A key that we cannot use does not keep us from the others.
    let published = keys(&[&signer]).replacen('[', "[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"},", 1);
    *answer.lock().unwrap() = ok(&published);
    // After so many failures it waits longer between two tries than others wait for anything.
    let patience = Duration::from_secs(60);
    until_for(patience, "keys", async || (with(&proxy, &signer.token()).await.status == 200).then_some(()))
        .await;
    assert!(proxy.log().contains("keys[0] cannot be used"), "{}", proxy.log());
}

#[tokio::test]
async fn a_server_of_keys_that_hangs_holds_nobody_up() {
    let (signer, other) = (Signer::new("a"), Signer::new("b"));
    let answer = Arc::new(Mutex::new(String::new()));
    let (issuer, origin) = (server(answer.clone()).await, Origin::ok("").await);
    let url = format!("http://{}/jwks", issuer.address());
    let started = tokio::time::Instant::now();
    let proxy = Proxy::start(&config(&url, origin.address())).await;
    // It was waited for, but not for long.
    assert!(started.elapsed() < Duration::from_secs(10));
    let mut client = Client::connect(proxy.address("in")).await;
    for _ in 0..50 {
        assert_eq!(client.get("/public").await.status, 200);
    }
    assert_eq!(with(&proxy, &signer.token()).await.field("x-outrigger-reason"), Some("jwt_no_keys"));
    *answer.lock().unwrap() = ok(&keys(&[&other]));
    until("keys", async || (with(&proxy, &other.token()).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn keys_in_a_file_are_replaced_while_requests_go_on() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let origin = Origin::ok("").await;
    let dir = Arc::new(Dir::new());
    dir.write("jwks.json", &keys(&[&old]));
    let proxy = Proxy::start_in(dir.clone(), &config("jwks.json", origin.address())).await;
    assert_eq!(
        (with(&proxy, &old.token()).await.status, with(&proxy, &new.token()).await.status),
        (200, 401)
    );
    dir.write("jwks.json", "{");
    proxy.wait_log("it is no set of keys").await;
    assert_eq!(with(&proxy, &old.token()).await.status, 200);
    // A token that was seen before is not taken for the sake of that.
    dir.write("jwks.json", &keys(&[&new]));
    until("the new key", async || (with(&proxy, &new.token()).await.status == 200).then_some(())).await;
    assert_eq!(with(&proxy, &old.token()).await.status, 401);
}

#[tokio::test]
async fn keys_may_stand_in_the_configuration_itself() {
    let (old, new, origin) = (Signer::new("old"), Signer::new("new"), Origin::ok("").await);
    let of = |signer: &Signer| {
        let inline = format!("jwks: {{ inline: '{}' }}", keys(&[signer]));
        config("KEYS", origin.address()).replace("jwks: \"KEYS\"", &inline)
    };
    let proxy = Proxy::start(&of(&old)).await;
    let status = async |signer: &Signer| with(&proxy, &signer.token()).await.status;
    assert_eq!((status(&old).await, status(&new).await), (200, 401));
    proxy.reload(&of(&new)).await;
    assert_eq!((status(&old).await, status(&new).await), (401, 200));
}

#[tokio::test]
async fn what_a_stranger_says_of_itself_chooses_no_route() {
    let (signer, app, admin) = (Signer::new("a"), Echo::start("app").await, Echo::start("admin").await);
    let dir = Arc::new(Dir::new());
    dir.write("jwks.json", &keys(&[&signer]));
    let config = config("jwks.json", &app.address().to_string());
    let route = "      - { match: { path: { exact: /maybe }, headers: { x-user: root } }, to: admin }\n";
    let (before, after) = config.split_once("      - { match: { path: { exact: /public } }").unwrap();
    let config = format!(
        "{before}{route}      - {{ match: {{ path: {{ exact: /public }} }}{after}  admin: {{ endpoints: [\"{}\"] }}\n",
        admin.address()
    );
    let proxy = Proxy::start_in(dir, &config).await;
    let forged = format!("Authorization: Bearer {}\r\nX-User: root\r\n", signer.token());
    let body = ask(&proxy, "/maybe", &forged).await.body;
    let body = String::from_utf8_lossy(body.as_ref());
    assert!(body.contains("\"origin\":\"app\"") && body.contains("\"alice\""), "{body}");
}

#[tokio::test]
async fn a_claim_comes_through_as_it_is_or_not_at_all() {
    let (signer, echo) = (Signer::new("a"), Echo::start("app").await);
    let proxy = start(&signer, echo.address()).await;
    for sub in ["root ", " root", "\\troot"] {
        let reply = with(&proxy, &signer.sign(&claims(&format!("\"sub\":\"{sub}\"")))).await;
        assert_eq!((reply.status, reply.field("x-outrigger-reason")), (401, Some("jwt_claim")), "{sub:?}");
    }
}

#[tokio::test]
async fn a_token_behind_another_space_is_looked_at_too() {
    let (signer, other) = (Signer::new("a"), Signer::new("a"));
    let origin = Origin::ok("").await;
    let proxy = start(&signer, origin.address()).await;
    for value in
        [format!("Bearer\t{}", other.token()), "Bearer".to_owned(), format!("Bearer\t {}", other.token())]
    {
        let reply = ask(&proxy, "/maybe", &format!("Authorization: {value}\r\n")).await;
        assert_eq!(reply.status, 401, "{value:?}");
    }
    assert_eq!(origin.count(), 0);
}
