//! Messages are built and read with our own types here: that their numbers are the protocol's is shown by
//! `peers::ext_authz`, where others write and read them.

use http::Method;

use super::*;

fn option(key: &str, value: &str, append: Option<bool>, append_action: i32) -> HeaderOption {
    let header = Some(Field { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() });
    HeaderOption { header, append, append_action }
}

fn set(key: &str, value: &str) -> HeaderOption {
    option(key, value, None, 0)
}

fn change(name: &'static str, value: &'static str, how: How) -> Change {
    Change { name: HeaderName::from_static(name), value: HeaderValue::from_static(value), how }
}

fn ok(ok: OkResponse) -> Option<Verdict> {
    let response = CheckResponse { ok_response: Some(ok), ..CheckResponse::default() };
    by_grpc(&response.encode_to_vec())
}

fn no(code: i32, denied: Option<DeniedResponse>) -> Option<Verdict> {
    let response =
        CheckResponse { status: Some(Status { code }), denied_response: denied, ..CheckResponse::default() };
    by_grpc(&response.encode_to_vec())
}

#[test]
fn a_request_is_let_in_with_changes() {
    let verdict = ok(OkResponse {
        headers: vec![
            set("x-user", "alice"),
            option("x-tag", "a", Some(true), 0),
            option("x-a", "1", Some(false), 1),
            option("x-b", "1", None, 1),
            // What frames the request is ours to write.
            set("Content-Length", "9"),
            set("host", "elsewhere"),
        ],
        headers_to_remove: ["x-secret", "host", "no name", ":path", ""].map(str::to_owned).to_vec(),
        response_headers_to_add: vec![
            set("x-seen", "1"),
            option("x-c", "1", Some(false), 0),
            option("x-d", "1", None, 2),
            option("x-e", "1", None, 3),
            set("connection", "close"),
        ],
        query_to_set: vec![QueryParameter { key: "k".to_owned(), value: "v".to_owned() }],
        query_to_remove: vec!["token".to_owned()],
    });
    let expected = Allowed {
        request: vec![
            change("x-user", "alice", How::Set),
            change("x-tag", "a", How::Append),
            change("x-a", "1", How::Set),
            change("x-b", "1", How::Set),
        ],
        remove: vec![HeaderName::from_static("x-secret")],
        query: QueryEdit::new(vec![("k".to_owned(), "v".to_owned())], vec!["token".to_owned()]).unwrap(),
        response: vec![
            change("x-seen", "1", How::Append),
            change("x-c", "1", How::Set),
            change("x-d", "1", How::Set),
            change("x-e", "1", How::IfPresent),
        ],
    };
    assert_eq!(verdict, Some(Verdict::Allowed(expected)));
    // An empty message is OK: it is what the protocol makes of it.
    assert_eq!(by_grpc(&[]), Some(Verdict::Allowed(Allowed::default())));
}

#[test]
fn a_request_is_denied_with_an_answer() {
    let denied = |status: u16, body: &'static str| Denied {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()),
    };
    assert_eq!(no(7, None), Some(Verdict::Denied(denied(403, ""))));
    let response = |code: i32, headers: Vec<HeaderOption>, body: &str| {
        Some(DeniedResponse { status: Some(Status { code }), headers, body: body.to_owned() })
    };
    assert_eq!(no(16, response(0, Vec::new(), "")), Some(Verdict::Denied(denied(403, ""))));
    let headers = vec![
        set("location", "/login"),
        option("set-cookie", "a=1", Some(true), 0),
        set("set-cookie", "b=2"),
        set("transfer-encoding", "chunked"),
    ];
    let Some(Verdict::Denied(found)) = no(16, response(302, headers, "go")) else { panic!("denied") };
    assert_eq!((found.status.as_u16(), &found.body[..]), (302, &b"go"[..]));
    let fields: Vec<_> =
        found.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(
        fields,
        [
            ("location", "/login"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("content-type", "text/plain; charset=utf-8"),
        ]
    );
    // An answer that has no body has none.
    assert_eq!(no(7, response(304, Vec::new(), "text")), Some(Verdict::Denied(denied(304, ""))));
}

#[test]
fn what_cannot_be_carried_out_decides_nothing() {
    let bad_fields =
        [set("a b", "1"), set("", "1"), set(":path", "/"), set("x-a", "1\r\nx-b: 2"), set("x-a", "\0")];
    for bad in bad_fields {
        assert_eq!(
            ok(OkResponse { headers: vec![set("x-a", "1"), bad.clone()], ..OkResponse::default() }),
            None
        );
        assert_eq!(
            ok(OkResponse { response_headers_to_add: vec![bad.clone()], ..OkResponse::default() }),
            None
        );
        let denied = DeniedResponse { headers: vec![bad], ..DeniedResponse::default() };
        assert_eq!(no(7, Some(denied)), None);
    }
    let unknown = vec![option("x-a", "1", None, 4)];
    assert_eq!(ok(OkResponse { response_headers_to_add: unknown, ..OkResponse::default() }), None);
    let nameless = vec![HeaderOption::default()];
    assert_eq!(ok(OkResponse { headers: nameless, ..OkResponse::default() }), None);
    let query = vec![QueryParameter { key: "a&b".to_owned(), value: String::new() }];
    assert_eq!(ok(OkResponse { query_to_set: query, ..OkResponse::default() }), None);
    for code in [-1, 100, 199, 600, 65_736] {
        let denied = DeniedResponse { status: Some(Status { code }), ..DeniedResponse::default() };
        assert_eq!(no(7, Some(denied)), None, "{code}");
    }
    let failed = CheckResponse { error_response: Some(()), ..CheckResponse::default() };
    assert_eq!(by_grpc(&failed.encode_to_vec()), None);
    for message in [&[0x0a][..], &[0x0a, 5, 1], &[0xff; 20]] {
        assert_eq!(by_grpc(message), None, "{message:x?}");
    }
}

#[test]
fn by_http_a_200_lets_in_and_another_answer_is_the_clients() {
    let names =
        |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
    let headers = HeaderMap::from_iter(
        [
            ("x-user", "alice"),
            ("x-user", "bob"),
            ("x-other", "1"),
            ("set-cookie", "a=1"),
            ("content-length", "2"),
            ("x-envoy-auth-headers-to-remove", "x-secret , host,no name"),
        ]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
    );
    let (to_request, to_response) = (names(&["x-user", "x-absent"]), names(&["set-cookie"]));
    let decide = |status: u16| {
        let status = StatusCode::from_u16(status).unwrap();
        by_http((status, &headers), Bytes::from_static(b"no"), (&to_request, &to_response))
    };
    let allowed = Allowed {
        request: vec![change("x-user", "alice", How::Set), change("x-user", "bob", How::Append)],
        remove: names(&["x-secret"]),
        query: QueryEdit::default(),
        response: vec![change("set-cookie", "a=1", How::Append)],
    };
    assert_eq!(decide(200), Some(Verdict::Allowed(allowed)));
    for status in [201, 204, 302, 401, 403, 404, 429] {
        let Some(Verdict::Denied(denied)) = decide(status) else { panic!("{status}") };
        assert_eq!((denied.status.as_u16(), denied.body.is_empty()), (status, status == 204));
        assert_eq!(denied.headers.get_all("x-user").iter().count(), 2);
        assert!(!denied.headers.contains_key("content-length"));
        assert!(!denied.headers.contains_key("x-envoy-auth-headers-to-remove"));
    }
    for status in [101, 500, 503, 599, 600, 999] {
        assert_eq!(decide(status), None, "{status}");
    }
}

fn headers() -> HeaderMap {
    let fields = [
        ("host", "shop"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("content-length", "9"),
    ];
    let fields = fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    HeaderMap::from_iter(fields)
}

fn question<'a>(headers: &'a HeaderMap, identity: Option<&'a SpiffeId>) -> Question<'a> {
    Question {
        id: "7".into(),
        at: Duration::new(5, 6),
        source: Peer { address: Some("[::ffff:10.0.0.1]:80".parse().unwrap()), identity },
        destination: Peer { address: None, identity: None },
        sni: Some("shop.example"),
        head: ReqHead { host: "shop", path: "/cart", query: Some("q=1"), method: &Method::POST, headers },
        target: "/cart?q=1",
        scheme: "https",
        version: Version::HTTP_2,
        show: None,
        body: None,
    }
}

fn context(pairs: &[(&str, &str)]) -> BTreeMap<Box<str>, Box<str>> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn read(question: &Question<'_>, route: Option<&CheckUse>) -> (Attributes, HttpRequest) {
    let message = question.encode(&context(&[("a", "1"), ("b", "1")]), route);
    let attributes = CheckRequest::decode(&*message).unwrap().attributes.unwrap();
    let http = attributes.request.clone().unwrap().http.unwrap();
    (attributes, http)
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn the_question_is_the_request_as_it_is_sent_on() {
    let (headers, id) = (headers(), SpiffeId::new("spiffe://cluster.local/web").unwrap());
    let route = CheckUse::Context(context(&[("b", "2"), ("c", "2")]));
    let (attributes, http) = read(&question(&headers, Some(&id)), Some(&route));
    let source = attributes.source.unwrap();
    assert_eq!(source.principal, "spiffe://cluster.local/web");
    let address = source.address.unwrap().socket_address.unwrap();
    assert_eq!((address.address.as_str(), address.port_value), ("10.0.0.1", 80));
    assert_eq!(attributes.destination, Some(PeerAttributes::default()));
    assert_eq!(attributes.request.unwrap().time, Some(Span { seconds: 5, nanos: 6 }));
    assert_eq!(attributes.tls_session.unwrap().sni, "shop.example");
    assert_eq!(pairs(&attributes.context_extensions), [("a", "1"), ("b", "2"), ("c", "2")]);
    let texts = (http.id.as_str(), http.method.as_str(), http.path.as_str(), http.host.as_str());
    assert_eq!(texts, ("7", "POST", "/cart?q=1", "shop"));
    assert_eq!((http.scheme.as_str(), http.protocol.as_str(), http.size), ("https", "HTTP/2", 9));
    let expected = [
        (":authority", "shop"),
        (":method", "POST"),
        (":path", "/cart?q=1"),
        (":scheme", "https"),
        ("content-length", "9"),
        ("cookie", "a=1; b=2"),
        ("x-a", "1,2"),
    ];
    assert_eq!(pairs(&http.headers), expected);
}

#[test]
fn a_service_is_shown_fields_and_a_body_as_far_as_is_said() {
    // What a client says of the body is nothing.
    let mut headers = headers();
    headers.insert(PARTIAL_BODY, HeaderValue::from_static("false"));
    let show = [HeaderName::from_static("x-a"), PARTIAL_BODY];
    let whole = Beginning { bytes: Bytes::from_static(b"ab"), partial: false };
    let shown = Question { show: Some(&show), body: Some(&whole), ..question(&headers, None) };
    let (_, http) = read(&shown, None);
    assert_eq!((http.size, http.body.as_str(), http.raw_body.len()), (2, "ab", 0));
    assert_eq!(pairs(&http.headers)[4..], [("x-a", "1,2"), ("x-envoy-auth-partial-body", "false")]);
    let part = Beginning { bytes: Bytes::from_static(b"\xff"), partial: true };
    let (_, http) = read(&Question { show: Some(&[]), body: Some(&part), ..question(&headers, None) }, None);
    // A text that cannot be one is there all the same.
    assert_eq!((http.size, http.body.as_str(), &http.raw_body[..]), (9, "\u{fffd}", &[0xff][..]));
    assert_eq!(pairs(&http.headers)[4..], [("x-envoy-auth-partial-body", "true")]);
}
