use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{Request, StatusCode};
use outrigger_proto::model::{Attest, Authority as Settings, SpiffeId, TrustDomain};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::api::{keep_token, router};
use crate::attest;
use crate::ca::Authority;
use crate::plane::{Change, Keys, Plane};
use crate::store::file::File;

const TOKEN: &str = "outrigger_test";
/// What is asked without a token.
const OPEN: [&str; 4] = ["live", "ready", "openapi", "bundle"];

/// What is asked, as `post /v1/tokens`, and how that is described.
fn all(reads: Reads) -> Vec<(String, String, Value)> {
    let described = serde_json::to_value(described(reads)).unwrap();
    let paths = described["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let of = item.as_object().unwrap();
        of.iter().map(|(method, operation)| (method.clone(), path.clone(), operation.clone()))
    });
    all.collect()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The names in the braces of a path.
fn named(path: &str) -> BTreeSet<&str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
}

#[test]
fn whoever_reads_it_knows_what_to_ask_and_what_comes() {
    let all = all(Reads::Token);
    let mut ids = BTreeSet::new();
    for (method, path, of) in &all {
        let at = format!("{method} {path}");
        let id = of["operationId"].as_str().expect(&at);
        assert!(ids.insert(id), "{at}: two are called `{id}`");
        assert!(of["summary"].is_string() || of["description"].is_string(), "{at}");
        assert!(list(of, "tags").iter().any(|tag| tag != "super"), "{at}");
        let parameters: Vec<_> = list(of, "parameters")
            .iter()
            .map(|of| (of["in"].as_str().unwrap(), of["name"].as_str().unwrap()))
            .collect();
        let in_path: BTreeSet<_> = parameters.iter().filter(|of| of.0 == "path").map(|of| of.1).collect();
        assert_eq!(in_path, named(path), "{at}");
        assert_eq!(parameters.contains(&("query", "dry_run")), method != "get", "{at}");
        let answers = of["responses"].as_object().unwrap();
        for (status, answer) in answers {
            assert!(!answer["description"].as_str().unwrap_or_default().is_empty(), "{at}: {status}");
            let is_good = status.starts_with('2');
            let content = answer["content"].as_object().into_iter().flatten();
            for (kind, content) in content.filter(|_| !is_good) {
                let of = content["schema"]["$ref"].as_str();
                assert_eq!(
                    (kind.as_str(), of),
                    ("application/json", Some("#/components/schemas/Problem")),
                    "{at}"
                );
            }
        }
        let is_open = OPEN.contains(&id);
        assert_eq!(of["security"] == json!([{ "token": [] }]), !is_open, "{at}");
        assert_eq!(answers.contains_key("401"), !is_open, "{at}");
    }
    assert!(OPEN.iter().all(|id| ids.contains(id)));
}

/// Schemas that are spoken of are there, and so is the way to show a token.
#[test]
fn what_it_refers_to_is_in_it() {
    fn refs<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
        match value {
            Value::Object(of) => {
                found.extend(of.get("$ref").and_then(Value::as_str));
                of.values().for_each(|value| refs(value, found));
            }
            Value::Array(of) => of.iter().for_each(|value| refs(value, found)),
            _ => {}
        }
    }
    let described = serde_json::to_value(described(Reads::Open)).unwrap();
    let mut found = BTreeSet::new();
    refs(&described, &mut found);
    assert!(found.len() > 10);
    for of in found {
        assert!(described.pointer(&of[1..]).is_some(), "{of}");
    }
    let scheme = &described["components"]["securitySchemes"]["token"];
    assert_eq!((&scheme["type"], &scheme["scheme"]), (&json!("http"), &json!("bearer")));
}

/// A control plane, gone when it is dropped.
struct Kept {
    plane: Arc<Plane>,
    directory: PathBuf,
}

impl Kept {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("outrigger-api-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let trust_domain = TrustDomain::new("mesh.test").unwrap();
        let settings =
            Settings { trust_domain, root: None, lifetime: Settings::LIFETIME, attest: Attest::default() };
        let authority = Authority::open(&settings, &directory).unwrap();
        let store = Arc::new(File::open(&directory.join("store.redb")).unwrap());
        let plane = Plane::open(store, Keys { authority: Some(authority), ..Keys::default() }, None).unwrap();
        keep_token(plane.store(), "me", TOKEN).unwrap();
        Self { plane, directory }
    }

    /// The status, and what is said as JSON, if it is.
    async fn ask(&self, reads: Reads, request: Request<Body>) -> (StatusCode, Value) {
        let answer = router(self.plane.clone(), reads).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// The same by the right of a token, with this body.
    async fn change(&self, how: &str, body: Option<&str>) -> (StatusCode, Value) {
        let (method, uri) = how.split_once(' ').unwrap();
        let request =
            Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {TOKEN}"));
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_owned().into()),
            None => request.body(Body::empty()),
        };
        self.ask(Reads::Token, request.unwrap()).await
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn what_needs_a_token_is_refused_without_one_and_all_of_it_is_there() {
    let kept = Kept::new("refused");
    for reads in [Reads::Token, Reads::Open] {
        for (method, path, of) in all(reads) {
            let uri = path.replace("{number}", "1").replace("{name}", "me").replace("{id}", "x");
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(uri);
            let (status, said) = kept.ask(reads, request.body(Body::empty()).unwrap()).await;
            let needs_one = !list(&of, "security").contains(&json!({})) && of["security"] != Value::Null;
            assert_eq!(status == StatusCode::UNAUTHORIZED, needs_one, "{method} {path}: {status} {said}");
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert!(!said["error"].as_str().unwrap_or_default().contains("there is nothing here"), "{path}");
            assert!(
                of["responses"].as_object().unwrap().contains_key(status.as_str()),
                "{method} {path}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_understood_is_answered_as_all_that_is_wrong() {
    let kept = Kept::new("misread");
    let asks = [
        ("POST /v1/rollback", Some("{"), 400),
        ("POST /v1/rollback", Some(r#"{ "to": "x" }"#), 422),
        ("POST /v1/rollback", Some(r#"{ "to": 1, "too": 1 }"#), 422),
        ("POST /v1/rollback", None, 415),
        ("POST /v1/rollback?dry=true", Some(r#"{ "to": 1 }"#), 400),
        ("GET /v1/revisions/first", None, 400),
        ("GET /v1/revisions?most=all", None, 400),
        ("PUT /v1/status", None, 405),
        ("GET /v2", None, 404),
    ];
    for (how, body, status) in asks {
        let (answered, said) = kept.change(how, body).await;
        assert_eq!(answered.as_u16(), status, "{how} {body:?}: {said}");
        assert!(said["error"].as_str().is_some_and(|error| !error.is_empty()), "{how} {body:?}: {said}");
    }
}

/// All that is kept, but for what nobody has written yet.
fn state(kept: &Kept) -> Value {
    let store = kept.plane.store();
    json!({
        "course": format!("{:?}", store.course().unwrap()),
        "history": store.history(100).unwrap(),
        "tokens": store.tokens().unwrap(),
        "joins": store.joins().unwrap(),
        "roots": kept.plane.authority.as_ref().unwrap().bundle_pem(),
        "files": std::fs::read_dir(kept.directory.join("ca")).unwrap().count(),
        "events": store.last_event().unwrap(),
    })
}

/// Whatever can be changed, there is a dry run of it, and it is one.
#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let kept = Kept::new("dry");
    let change = |cluster: &str, shadow: bool| {
        let text = format!("clusters: {{ {cluster}: {{ endpoints: [127.0.0.1:1] }} }}\n");
        let documents = [("a.yaml".to_owned(), Some(text))].into();
        kept.plane.change(Change { documents, shadow, ..Change::default() }).unwrap();
    };
    change("a", false);
    change("b", false);
    change("c", true);
    let id = SpiffeId::new("spiffe://mesh.test/a").unwrap();
    let (join, _) =
        attest::create(&kept.plane, (&id, "me".to_owned()), Duration::from_secs(60), false).unwrap();
    let bodies: BTreeMap<_, _> = [
        ("apply", json!({ "documents": { "a.yaml": null } })),
        ("rollback", json!({ "to": 1 })),
        ("promote_shadow", json!({})),
        ("new_token", json!({ "name": "you" })),
        ("new_join", json!({ "spiffe_id": "spiffe://mesh.test/b", "lifetime_seconds": 60 })),
    ]
    .into();
    // What is noted so far is written, and nothing after it but by a change itself.
    written(&kept.plane, 4).await;
    let before = state(&kept);
    let changes = all(Reads::Token).into_iter().filter(|(method, ..)| method != "get");
    let mut dry = 0;
    for (method, path, of) in changes {
        let id = of["operationId"].as_str().unwrap();
        let has_body = !of["requestBody"].is_null();
        assert_eq!(bodies.contains_key(id), has_body, "{id}: say here what it is asked with");
        let uri = path.replace("{name}", "me").replace("{id}", &join);
        let how = format!("{} {uri}", method.to_uppercase());
        let mut bodies = vec![(format!("{how}?dry_run=true"), bodies.get(id).cloned())];
        // Or the body says so.
        if let Some(mut body) = bodies[0].1.clone() {
            body["dry_run"] = true.into();
            bodies.push((how.clone(), Some(body)));
            let mut body = bodies[0].1.clone().unwrap();
            body["dry_run"] = false.into();
            bodies.push((format!("{how}?dry_run=true"), Some(body)));
        }
        for (how, body) in bodies {
            let (status, said) = kept.change(&how, body.map(|body| body.to_string()).as_deref()).await;
            assert_eq!(status, StatusCode::OK, "{how}: {said}");
            assert!(said["would"].is_string() || said["diff"].is_string(), "{how}: {said}");
            assert!(said["token"].is_null(), "{how}: {said}");
            dry += 1;
        }
    }
    assert_eq!(dry, 4 + 3 * 5);
    kept.plane.close().await;
    assert_eq!(state(&kept), before);
}

/// Waits until so many events are kept.
async fn written(plane: &Plane, events: u64) {
    plane.last_event().wait_for(|last| *last >= events).await.unwrap();
}
