//! Mirroring: another cluster sees a copy, and the client never notices.

use outrigger_tests::wire::post;
use outrigger_tests::{Origin, Proxy};

use crate::web_routed;

async fn mirrored(app: &Origin, copy: &Origin, percent: &str) -> Proxy {
    let route = format!("mirror: {{ to: copy, percent: {percent} }}");
    let config = web_routed(&route, "", "", [app.address()]);
    Proxy::start(&format!("{config}  copy: {{ endpoints: [\"{}\"] }}\n", copy.address())).await
}

#[tokio::test]
async fn a_copy_is_the_same_request_and_says_that_it_is_one() {
    let (app, copy) =
        (Origin::ok("app").await, Origin::answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await);
    let proxy = mirrored(&app, &copy, "100%").await;
    let mut client = proxy.client("web").await;
    let body = "b".repeat(100_000);
    client.send(post("/a?b=1", &body)).await;
    assert_eq!(client.reply().await.text(), "app");
    copy.wait_requests(1).await;
    let (one, other) = (app.last(), copy.last());
    assert_eq!((one.target(), &one.message.body), (other.target(), &other.message.body));
    assert_eq!((one.field("x-outrigger-mirror"), other.field("x-outrigger-mirror")), (None, Some("1")));
}

#[tokio::test]
async fn a_share_is_mirrored() {
    let (app, copy) = (Origin::ok("app").await, Origin::ok("copy").await);
    let proxy = mirrored(&app, &copy, "25%").await;
    let mut client = proxy.client("web").await;
    for _ in 0..400 {
        assert_eq!(client.get("/").await.text(), "app");
    }
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"copy\"}", |n| n == 0.0).await;
    let copies = copy.count();
    assert!((60..=140).contains(&copies), "{copies} of 400");
}

#[tokio::test]
async fn a_copy_that_hangs_or_cannot_be_sent_holds_up_nobody() {
    let app = Origin::ok("app").await;
    let hanging = Origin::start(async |mut conn| {
        conn.rest().await;
    })
    .await;
    let proxy = mirrored(&app, &hanging, "100%").await;
    let mut client = proxy.client("web").await;
    // More than may be under way at once: the rest is dropped, and counted.
    for _ in 0..600 {
        client.send(post("/", "body")).await;
        assert_eq!(client.reply().await.text(), "app");
    }
    let series = "outrigger_upstream_mirrors_dropped_total{cluster=\"copy\"}";
    proxy.wait_metric(series, |n| n >= 300.0).await;
}
