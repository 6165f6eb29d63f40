//! One reading of a path (RFC 3986 section 6.2.2): what was routed is what the origin sees.

use outrigger_tests::{Client, Origin, Proxy};

/// Three prefixes and the rest, each with an origin of its own, in this order.
const AREAS: [&str; 4] = ["admin", "public", "a%20b", "rest"];

async fn start(listener: &str) -> (Vec<Origin>, Proxy) {
    let mut origins = Vec::new();
    for area in AREAS {
        origins.push(Origin::ok(area).await);
    }
    let config = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n{listener}    routes:\n\
         \x20     - {{ match: {{ path: {{ prefix: /admin }} }}, to: admin }}\n\
         \x20     - {{ match: {{ path: {{ prefix: /public }} }}, to: public }}\n\
         \x20     - {{ match: {{ path: {{ prefix: /a%20b }} }}, to: spaced }}\n\
         \x20     - {{ to: rest }}\n\
         clusters:\n  admin: {{ endpoints: [{}] }}\n  public: {{ endpoints: [{}] }}\n  spaced: {{ endpoints: [{}] }}\n  rest: {{ endpoints: [{}] }}\n",
        origins[0].address(),
        origins[1].address(),
        origins[2].address(),
        origins[3].address(),
    );
    (origins, Proxy::start(&config).await)
}

/// Sends each target; it reaches the origin of the area with this target, or gets 400.
async fn check(rows: &[(&str, Option<(&str, &str)>)], listener: &str) {
    let (origins, proxy) = start(listener).await;
    let mut wrong = Vec::new();
    for (sent, expected) in rows {
        let mut client = Client::connect(proxy.address("web")).await;
        let before: Vec<usize> = origins.iter().map(Origin::count).collect();
        let reply = client.get(sent).await;
        let reached = origins.iter().zip(&before).find(|(origin, before)| origin.count() > **before);
        let seen = reached.map(|(origin, _)| origin.last().target().to_owned());
        let seen = seen.as_deref().map(|target| (reply.text(), target.to_owned()));
        let expected = expected.map(|(area, target)| (area.to_owned(), target.to_owned()));
        if seen != expected || (expected.is_none() && reply.status != 400) {
            wrong.push(format!("{sent:?}: expected {expected:?}, got {} {seen:?}", reply.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_path_has_one_reading() {
    let rows = [
        ("/admin", Some(("admin", "/admin"))),
        ("/admin/", Some(("admin", "/admin/"))),
        ("/administrator", Some(("rest", "/administrator"))),
        ("/public/../admin", Some(("admin", "/admin"))),
        ("/public/%2e%2e/admin", Some(("admin", "/admin"))),
        ("/public/.%2E/admin/x", Some(("admin", "/admin/x"))),
        ("/public/./x", Some(("public", "/public/x"))),
        ("/%61dmin", Some(("admin", "/admin"))),
        ("//admin", Some(("admin", "/admin"))),
        ("/public//../admin", Some(("admin", "/admin"))),
        ("/./admin", Some(("admin", "/admin"))),
        ("/admin/..", Some(("rest", "/"))),
        ("/admin;x=1", Some(("rest", "/admin;x=1"))),
        ("/public/..;/admin", Some(("public", "/public/..;/admin"))),
        ("/ADMIN", Some(("rest", "/ADMIN"))),
        ("/a%20b/c", Some(("a%20b", "/a%20b/c"))),
        ("/a%2520b", Some(("rest", "/a%2520b"))),
        ("/public/%252e%252e/admin", Some(("public", "/public/%252e%252e/admin"))),
        ("/public/caf%c3%a9", Some(("public", "/public/caf%C3%A9"))),
        ("/public?x=/../admin", Some(("public", "/public?x=/../admin"))),
        ("/public?a=%2e%2F&b=%zz", Some(("public", "/public?a=%2e%2F&b=%zz"))),
        ("/public?", Some(("public", "/public?"))),
        ("/..", None),
        ("/../admin", None),
        ("/public/../../admin", None),
        ("/public%2fadmin", None),
        ("/public/..%2fadmin", None),
        ("/public/..%5cadmin", None),
        ("/public\\..\\admin", None),
        ("/public%00", None),
        ("/public%0a", None),
        ("/public%zz", None),
        ("/public%", None),
        ("/public/\u{e9}", None),
    ];
    check(&rows, "").await;
}

#[tokio::test]
async fn slashes_are_kept_where_they_mean_something() {
    let rows = [
        ("/public//x", Some(("public", "/public//x"))),
        ("//admin", Some(("rest", "//admin"))),
        ("/public//../admin", Some(("public", "/public/admin"))),
    ];
    check(&rows, "    merge_slashes: false\n").await;
}

#[tokio::test]
async fn http2_paths_are_read_alike() {
    let (origins, proxy) = start("").await;
    let h2 = outrigger_tests::h2client::H2::connect(proxy.address("web")).await;
    // The origins speak HTTP/1.1 only, and the answer to HTTP/2 is a gateway's error: what counts is where it went.
    for (path, status) in [("/public/%2e%2e/%2e%2e/admin", 400), ("/public%2fadmin", 400)] {
        let reply = h2.get(path).await;
        assert_eq!(reply.status, status, "{path}");
    }
    assert!(origins.iter().all(|origin| origin.count() == 0));
}
