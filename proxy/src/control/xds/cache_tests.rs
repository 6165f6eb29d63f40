//! What is written is read again, and nothing else is.

use std::os::unix::fs::PermissionsExt;

use outrigger_proto::xds::discovery::{Any, Resource};

use super::super::delta;
use super::super::said::Said;
use super::super::speaks::ttl;
use super::super::state::State;
use super::super::written::{cluster, set};
use super::*;

fn content() -> Content {
    let resource = |kind: Kind, name: &str, value: Vec<u8>| Resource {
        version: "7".to_owned(),
        resource: Some(Any { type_url: kind.url(), value }),
        name: name.to_owned(),
        // It is kept with what it lives.
        ttl: (kind == Kind::Endpoints).then(|| Duration::from_secs(9).try_into().unwrap()),
        ..Resource::default()
    };
    Content {
        node: "a".to_owned(),
        server: "http://127.0.0.1:1".to_owned(),
        saved: 1,
        resources: vec![
            resource(Kind::Cluster, "app", cluster("app", &[])),
            resource(Kind::Endpoints, "app", set("app", &[80])),
        ],
    }
}

/// The whole file.
fn encoded(content: &Content) -> Vec<u8> {
    let mut bytes = encode(&Content { resources: Vec::new(), ..content.clone() }, |say| {
        content.resources.iter().for_each(say);
    });
    sum(&mut bytes);
    bytes
}

#[test]
fn what_is_kept_is_what_was_said() {
    let mut state = State::new(true, false);
    let content = content();
    for resource in &content.resources {
        let kind = Kind::of_url(&resource.resource.as_ref().unwrap().type_url).unwrap();
        let accepted = delta::meant(kind, resource, &[]).unwrap().unwrap();
        let name = accepted.name.clone();
        state.accept(accepted, Said::of(resource));
        state.live(kind, &name, ttl(resource), Instant::now());
    }
    let said = |holds: fn(Kind) -> bool| {
        let mut said = Vec::new();
        state.say_again(holds, |resource| said.push(resource.clone()));
        said
    };
    assert_eq!((said(holds), said(|_| false)), (content.resources, Vec::new()));
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    assert_eq!(decode(bytes, "a").unwrap_err().to_string(), why);
}

#[test]
fn what_is_not_whole_is_refused() {
    let bytes = encoded(&content());
    assert_eq!(decode(&bytes, "a").unwrap(), content());
    let head = HEAD.len() + VERSION.len();
    for length in head..bytes.len() {
        refused(&bytes[..length], "it is damaged: its checksum does not fit");
    }
    for at in head..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        refused(&bytes, "it is damaged: its checksum does not fit");
    }
    refused(b"", "it is not such a file");
    refused(b"xds: {}\n", "it is not such a file");
    let other = [HEAD.as_bytes(), b"2\x1b\n", &bytes].concat();
    refused(&other, "it is of another version, `2\\u{1b}`");
    let other = encoded(&Content { node: "b".to_owned(), ..content() });
    refused(&other, "it is that of another node, `b`");
}

#[test]
fn it_is_written_in_one_step_and_for_nobody_else() {
    let directory = std::env::temp_dir().join(format!("outrigger-cache-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (path, fresh) = (directory.join("xds"), directory.join("xds.new"));
    assert!(read(&path, "a").unwrap().is_none());
    std::fs::write(&fresh, "left behind").unwrap();
    for _ in 0..2 {
        write(&path, &encoded(&content())).unwrap();
        assert_eq!(read(&path, "a").unwrap(), Some(content()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fresh.exists());
    }
    // What cannot be written leaves what is there.
    std::fs::create_dir(&fresh).unwrap();
    assert!(write(&path, b"").is_err());
    assert_eq!(read(&path, "a").unwrap(), Some(content()));
    assert!(matches!(read(&directory, "a"), Err(Fault::Unreadable(_))));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn churn_is_written_once_in_a_while() {
    let mut cache = Cache {
        path: PathBuf::new(),
        node: String::new(),
        server: String::new(),
        due: None,
        written: None,
        writing: None,
        failed: false,
    };
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    cache.note(start);
    cache.note(at(5));
    assert_eq!(cache.due, Some(start + SETTLE), "what goes on changing is written too");
    (cache.due, cache.written) = (None, Some(at(1)));
    cache.note(at(2));
    assert_eq!(cache.due, Some(at(1) + APART));
    cache.due = None;
    cache.note(at(60));
    assert_eq!(cache.due, Some(at(60) + SETTLE));
}
