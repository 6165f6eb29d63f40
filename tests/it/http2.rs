//! HTTP/2 (RFC 9113): by prior knowledge and by ALPN, to origins that speak either version.

use std::sync::Arc;

use http::{HeaderMap, Request};
use outrigger_tests::h2client::{self, H2};
use outrigger_tests::peer::peer;
use outrigger_tests::tls::write_certificate;
use outrigger_tests::{Dir, Echo, Origin, Proxy, Report, until, within};

use crate::{web, web_with};

async fn start(protocol: &str) -> (Echo, Proxy) {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&web_with("", &format!("protocol: {protocol}"), [echo.address()])).await;
    (echo, proxy)
}

fn post(want: &str) -> Request<()> {
    Request::post("http://shop.test/path?q=1")
        .header("x-want", want)
        .header("te", "trailers")
        .body(())
        .unwrap()
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", "abc".parse().unwrap());
    trailers
}

/// The protocols of both sides, as the client and the origin see them.
#[tokio::test]
async fn every_pair_of_protocols() {
    for (protocol, h1_sees, h2_sees) in
        [("auto", "HTTP/1.1", "HTTP/2"), ("http1", "HTTP/1.1", "HTTP/1.1"), ("http2", "HTTP/2", "HTTP/2")]
    {
        let (_echo, proxy) = start(protocol).await;
        let h2 = H2::connect(proxy.address("web")).await;
        let reply = h2.send(post(""), vec![b'x'; 100_000], None).await.unwrap();
        let report = reply.report();
        assert_eq!((report.protocol.as_str(), report.length), (h2_sees, 100_000), "{protocol}");
        assert_eq!(
            (report.path.as_str(), report.host.as_str(), report.method.as_str()),
            ("/path?q=1", "shop.test", "POST"),
            "{protocol}"
        );
        assert_eq!(report.field("x-forwarded-for"), Some("127.0.0.1"), "{protocol}");
        for hop in ["connection", "transfer-encoding", "keep-alive", "upgrade"] {
            assert!(h2_sees == "HTTP/1.1" || report.field(hop).is_none(), "{protocol}: {hop}");
        }
        let mut h1 = proxy.client("web").await;
        h1.send("POST /path?q=1 HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
        let report = Report::parse(&h1.reply().await.body);
        assert_eq!((report.protocol.as_str(), report.length), (h1_sees, 3), "{protocol}");
        assert_eq!((report.path.as_str(), report.host.as_str()), ("/path?q=1", "shop.test"), "{protocol}");
    }
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    for protocol in ["http2", "http1"] {
        let (_echo, proxy) = start(protocol).await;
        let h2 = H2::connect(proxy.address("web")).await;
        let body: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        let mut request = post("echo");
        request.headers_mut().insert("trailer", "x-check".parse().unwrap());
        let reply = h2.send(request, body.clone(), Some(trailers())).await.unwrap();
        assert!(reply.body == body, "{protocol}: the body came back changed");
        let received = reply.trailers.unwrap_or_else(|| panic!("{protocol}: no trailers"));
        assert_eq!(received["x-check"], "abc", "{protocol}");
    }
}

#[tokio::test]
async fn an_http1_client_gets_the_trailers_of_an_http2_origin() {
    let (_echo, proxy) = start("http2").await;
    let mut client = proxy.client("web").await;
    client.send("POST / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: TE\r\nX-Want: trailers\r\nContent-Length: 3\r\n\r\nabc").await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("transfer-encoding"), Some("chunked"));
    let trailers: Vec<_> = reply.trailers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.as_str())).collect();
    assert_eq!(trailers, [("x-sum".to_owned(), "3")], "{}", reply.head);
    assert_eq!(client.get("/").await.status, 200, "the connection is in step");
}

#[tokio::test]
async fn an_answer_without_a_body_ends_with_its_head() {
    for protocol in ["http1", "http2"] {
        let (_echo, proxy) = start(protocol).await;
        let h2 = H2::connect(proxy.address("web")).await;
        let head = Request::head("http://t/").body(()).unwrap();
        let reply = h2.send(head, Vec::new(), None).await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (200, 0), "{protocol}");
        assert_eq!(h2.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn a_hundred_streams_share_few_connections() {
    let (echo, proxy) = start("http2").await;
    let h2 = Arc::new(H2::connect(proxy.address("web")).await);
    for _ in 0..3 {
        let mut asking = tokio::task::JoinSet::new();
        for i in 0..100 {
            let h2 = h2.clone();
            asking.spawn(async move {
                let reply = h2.send(post("echo"), vec![b'a' + i % 26; 3000], None).await.unwrap();
                assert_eq!(reply.body, vec![b'a' + i % 26; 3000]);
                reply.status
            });
        }
        assert_eq!(asking.join_all().await, [200; 100]);
    }
    assert!(echo.opened() <= 4, "{} connections for one client's streams", echo.opened());
    assert_eq!(echo.requests(), 300);
}

#[tokio::test]
async fn one_slow_stream_holds_up_no_other() {
    let (_echo, proxy) = start("http2").await;
    let h2 = H2::connect(proxy.address("web")).await;
    // Nobody reads this one.
    let (stuck, _stream) =
        h2.open(Request::get("http://t/").header("x-want", "size=4000000").body(()).unwrap(), true).await;
    let stuck = within("the head", stuck).await.unwrap();
    for _ in 0..50 {
        let request = Request::get("http://t/").header("x-want", "size=50000").body(()).unwrap();
        let reply = h2.send(request, Vec::new(), None).await.unwrap();
        assert_eq!(reply.body.len(), 50_000);
    }
    let stuck = within("the stuck one", h2client::collect(stuck)).await.unwrap();
    assert_eq!(stuck.body.len(), 4_000_000);
}

#[tokio::test]
async fn a_reset_of_the_client_reaches_the_origin() {
    for protocol in ["http2", "http1"] {
        let (echo, proxy) = start(protocol).await;
        let h2 = H2::connect(proxy.address("web")).await;
        let (response, mut stream) = h2.open(post("echo"), false).await;
        outrigger_tests::echo::send_h2(&mut stream, vec![b'x'; 1000].into()).await.unwrap();
        // HTTP/1.1 origins answer when they have the whole request: the head's arrival is seen by the connection.
        until("the request is there", async || (echo.opened() > 0).then_some(())).await;
        if protocol == "http2" {
            within("the head", response).await.unwrap();
        }
        stream.send_reset(h2::Reason::CANCEL);
        until("the origin sees the end", async || (echo.resets() == 1).then_some(())).await;
        assert_eq!(h2.get("/").await.status, 200, "{protocol}: the connection goes on");
    }
}

#[tokio::test]
async fn a_reset_of_the_origin_reaches_the_client() {
    let origin = Origin::start(async |mut conn| {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nnot all").await;
    })
    .await;
    let proxy = Proxy::start(&web_with("", "protocol: http1", [origin.address()])).await;
    let h2 = H2::connect(proxy.address("web")).await;
    let error = h2.send(h2client::get("/"), Vec::new(), None).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    let error = h2.send(h2client::get("/"), Vec::new(), None).await.unwrap_err();
    assert!(error.is_reset(), "the connection goes on: {error}");
}

#[tokio::test]
async fn an_origin_that_cannot_be_reached_is_an_answer() {
    let proxy = Proxy::start(&web(["127.0.0.1:1"])).await;
    let h2 = H2::connect(proxy.address("web")).await;
    let reply = h2.get("/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (503, Some("upstream_connect_refused")));
    let request =
        Request::post("http://t/a.B/C").header("content-type", "application/grpc").body(()).unwrap();
    let reply = h2.send(request, vec![0; 5], None).await.unwrap();
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("14")));
    assert!(reply.field("grpc-message").unwrap().contains("refused"));
}

/// The service is told what is left of the deadline, and does not keep it: the answer is ours.
#[tokio::test]
async fn a_grpc_callers_deadline_is_kept_whatever_the_service_does() {
    let origin = Origin::start(async |mut conn| {
        conn.request().await;
        conn.rest().await;
    })
    .await;
    let proxy = Proxy::start(&web_with("", "protocol: http1", [origin.address()])).await;
    let h2 = H2::connect(proxy.address("web")).await;
    let request = Request::post("http://t/a.B/C").header("content-type", "application/grpc");
    let request = request.header("grpc-timeout", "250m").body(()).unwrap();
    let reply = h2.send(request, vec![0; 5], None).await.unwrap();
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("4")), "DEADLINE_EXCEEDED");
    assert!(reply.field("grpc-message").unwrap().contains("timeout"));
    let left = origin.last().field("grpc-timeout").unwrap().to_owned();
    let left: u32 = left.strip_suffix('u').unwrap().parse().unwrap();
    assert!((1..=250_000).contains(&left), "{left} us");
}

/// RFC 9113 section 8.2.2 and 8.3.1: what HTTP/2 forbids must not reach an origin in another form.
#[tokio::test]
async fn cookies_are_one_field_again_for_http1() {
    let (_echo, proxy) = start("http1").await;
    let h2 = H2::connect(proxy.address("web")).await;
    let mut request = h2client::get("/");
    for crumb in ["a=1", "b=2", "c=3"] {
        request.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    let report = h2.send(request, Vec::new(), None).await.unwrap().report();
    let cookies: Vec<_> = report
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("cookie"))
        .map(|(_, v)| v.as_str())
        .collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}

#[tokio::test]
async fn the_authority_is_the_host() {
    for protocol in ["http1", "http2"] {
        let (_echo, proxy) = start(protocol).await;
        let h2 = H2::connect(proxy.address("web")).await;
        let mut request = h2client::get("/");
        request.headers_mut().insert("host", "evil.example".parse().unwrap());
        let reply = h2.send(request, Vec::new(), None).await;
        // To refuse it is right too (RFC 9113 section 8.3.1).
        if let Ok(reply) = reply.as_ref().map_err(drop)
            && reply.status == 200
        {
            let report = reply.report();
            let hosts: Vec<_> =
                report.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).collect();
            assert_eq!(report.host, "test", "{protocol}");
            assert_eq!(hosts.len(), usize::from(protocol == "http1"), "{protocol}: {hosts:?}");
        }
    }
}

/// A body that is not as long as was said is broken, and an HTTP/1.1 origin must not wait for the rest.
#[tokio::test]
async fn a_wrong_length_is_no_request() {
    for protocol in ["http1", "http2"] {
        for (said, sent) in [("10", 5), ("5", 10)] {
            let (echo, proxy) = start(protocol).await;
            let h2 = H2::connect(proxy.address("web")).await;
            let mut request = post("");
            request.headers_mut().insert("content-length", said.parse().unwrap());
            let result = h2.send(request, vec![b'x'; sent], None).await;
            assert!(
                result.as_ref().is_err_and(h2::Error::is_reset)
                    || result.is_ok_and(|reply| reply.status == 400),
                "{protocol} {said}"
            );
            assert_eq!(echo.requests(), 0, "{protocol}: {sent} bytes for {said}");
            assert_eq!(h2.get("/").await.status, 200, "{protocol}");
        }
    }
}

/// The client sends a part, the origin answers it, and so on: neither waits for an end.
#[tokio::test]
async fn both_directions_of_a_stream_are_open_at_once() {
    let (_echo, proxy) = start("http2").await;
    let h2 = H2::connect(proxy.address("web")).await;
    let (response, mut stream) = h2.open(post("echo"), false).await;
    let mut body = within("the head", response).await.unwrap().into_body();
    for i in 0..100_u8 {
        outrigger_tests::echo::send_h2(&mut stream, vec![i; 100].into()).await.unwrap();
        let data = within("the echo", body.data()).await.unwrap().unwrap();
        assert_eq!(&data[..], [i; 100]);
        let _ = body.flow_control().release_capacity(data.len());
    }
    stream.send_data(bytes::Bytes::new(), true).unwrap();
    // The end may come with an empty frame.
    while let Some(data) = within("the end", body.data()).await {
        assert!(data.unwrap().is_empty());
    }
}

#[tokio::test]
async fn rapid_resets_end_the_connection_and_nothing_else() {
    let (_echo, proxy) = start("http2").await;
    let attacker = H2::connect(proxy.address("web")).await;
    let mut streams = 0;
    while let Ok((_, mut stream)) = attacker.try_open(post(""), false).await {
        stream.send_reset(h2::Reason::CANCEL);
        tokio::task::yield_now().await;
        streams += 1;
        assert!(streams < 100_000, "nobody minds");
    }
    // ENHANCE_YOUR_CALM, unless the attack is still coming in and the socket's reset is faster than the farewell.
    let error = attacker.ended().await.unwrap_err();
    assert!(error.reason().is_none_or(|reason| reason == h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    proxy
        .wait_metric(
            "outrigger_downstream_errors_total{listener=\"web\",reason=\"h2_enhance_your_calm\"}",
            |n| n == 1.0,
        )
        .await;
    // Others are served.
    assert_eq!(proxy.get("web", "/").await.status, 200);
}

#[tokio::test]
async fn curl_by_prior_knowledge() {
    let Some(curl) = peer("curl") else { return };
    for protocol in ["http1", "http2"] {
        let (_echo, proxy) = start(protocol).await;
        let url = format!("http://{}/x", proxy.address("web"));
        let body = proxy.dir().write("body", &"b".repeat(300_000));
        let data = format!("@{}", body.display());
        let out = curl
            .run([
                "-sS",
                "--http2-prior-knowledge",
                "--data-binary",
                &data,
                &url,
                "-w",
                "\n%{http_version} %{http_code}",
            ])
            .await
            .ok();
        let (report, said) = out.rsplit_once('\n').unwrap();
        assert_eq!(said, "2 200");
        assert_eq!(Report::parse(report.as_bytes()).length, 300_000);
    }
}

#[tokio::test]
async fn nghttp_and_h2load() {
    let Some(nghttp) = peer("nghttp") else { return };
    let (_echo, proxy) = start("http2").await;
    let url = format!("http://{}/x", proxy.address("web"));
    let out = nghttp.run(["-v", "--no-dep", &url]).await.ok();
    assert!(out.contains(":status: 200"), "{out}");
    let Some(h2load) = peer("h2load") else { return };
    let out = h2load.run(["-n", "2000", "-c", "4", "-m", "50", &url]).await.ok();
    assert!(out.contains("2000 succeeded, 0 failed, 0 errored"), "{out}");
}

#[tokio::test]
async fn alpn_chooses_the_protocol() {
    let Some(curl) = peer("curl") else { return };
    let echo = Echo::start("e").await;
    let dir = Arc::new(Dir::new());
    write_certificate(&dir, &["localhost"]);
    let config = web_with("tls: { certificate: tls.crt, private_key: tls.key }", "", [echo.address()]);
    let proxy = Proxy::start_in(dir.clone(), &config).await;
    let url = format!("https://localhost:{}/x", proxy.address("web").port());
    let ca = dir.file("ca.crt");
    let rows = [
        ("--http2", "2", "HTTP/2"),
        ("--http1.1", "1.1", "HTTP/1.1"),
        ("--no-alpn", "1.1", "HTTP/1.1"),
        ("--tlsv1.3", "2", "HTTP/2"),
    ];
    for (option, number, upstream) in rows {
        let args = [
            "-sS",
            "-4",
            option,
            "--cacert",
            ca.to_str().unwrap(),
            &url,
            "-w",
            "\n%{http_version} %{ssl_verify_result}",
        ];
        let out = curl.run(args).await.ok();
        let (report, said) = out.rsplit_once('\n').unwrap();
        assert_eq!(said, format!("{number} 0"), "{option}");
        let report = Report::parse(report.as_bytes());
        assert_eq!(report.protocol, upstream, "{option}");
        assert_eq!(report.field("x-forwarded-proto"), Some("https"));
    }
    // Without TLS on a port that has it there is nothing to say, and nothing passes.
    let mut plain = proxy.client("web").await;
    plain.send(outrigger_tests::wire::get("/")).await;
    assert!(!plain.rest().await.starts_with(b"HTTP/1.1 200"));
    // TLS 1.1 is history.
    let old = curl
        .run(["-sS", "-4", "--tlsv1.1", "--tls-max", "1.1", "--cacert", ca.to_str().unwrap(), &url])
        .await;
    assert!(!old.success);
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart() {
    let Some(curl) = peer("curl") else { return };
    let echo = Echo::start("e").await;
    let dir = Arc::new(Dir::new());
    write_certificate(&dir, &["localhost"]);
    let config = web_with("tls: { certificate: tls.crt, private_key: tls.key }", "", [echo.address()]);
    let proxy = Proxy::start_in(dir.clone(), &config).await;
    let url = format!("https://localhost:{}/x", proxy.address("web").port());
    let args = || {
        ["-sS", "-4", "--cacert"]
            .map(str::to_owned)
            .into_iter()
            .chain([dir.file("ca.crt").display().to_string(), url.clone()])
    };
    curl.run(args()).await.ok();
    write_certificate(&dir, &["localhost"]);
    until("the new certificate is shown", async || curl.run(args()).await.success.then_some(())).await;
    // One that does not fit its key changes nothing.
    let good = std::fs::read_to_string(dir.file("tls.key")).unwrap();
    let before = proxy.version().await;
    dir.write("tls.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    proxy.wait_log("refused").await;
    curl.run(args()).await.ok();
    assert_eq!(proxy.version().await, before);
    assert!(!proxy.log().contains(good.lines().nth(1).unwrap()), "the key stands in the log");
}

/// RST_STREAM(NO_ERROR) behind the end of an answer is a courtesy; before it, the answer is cut.
#[tokio::test]
async fn an_answer_that_is_reset_before_its_end_is_not_passed_on_as_whole() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, half_seen) = tokio::sync::watch::channel(false);
    let origin = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            stream.send_data("half".into(), false).unwrap();
            let mut half_seen = half_seen.clone();
            tokio::spawn(async move {
                half_seen.wait_for(|seen| *seen).await.unwrap();
                stream.send_reset(h2::Reason::NO_ERROR);
            });
        }
    });
    let proxy = Proxy::start(&web_with("", "protocol: http2", [address])).await;
    let mut client = proxy.client("web").await;
    client.send("GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").await;
    let (mut stream, mut read) = client.into_parts();
    while !read.windows(4).any(|four| four == b"half") {
        assert_ne!(tokio::io::AsyncReadExt::read_buf(&mut stream, &mut read).await.unwrap(), 0);
    }
    seen.send(true).unwrap();
    // The last chunk, which says that it was all, does not come.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut read).await;
    assert!(!read.ends_with(b"0\r\n\r\n"), "{}", read.escape_ascii());
    origin.abort();
}
