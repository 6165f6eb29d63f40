//! The requests, and what the origin answers.

use super::answers::answers;

/// A request, and the origin's answer to it.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) sent: Sent,
    /// Byte for byte.
    pub(super) reply: &'static str,
}

/// A request; it gets a field more, which tells the origin its case.
pub(super) enum Sent {
    /// HTTP/1, byte for byte; fields are without the last line's end.
    Raw { start: &'static str, fields: &'static str, body: &'static str },
    /// HTTP/2.
    H2 {
        method: &'static str,
        uri: &'static str,
        fields: &'static [(&'static str, &'static str)],
        body: &'static str,
        trailers: &'static [(&'static str, &'static str)],
    },
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Back: yes\r\n\r\nok";
pub(super) const TRAILERS: &str =
    "HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n";

impl Case {
    /// Whether the origin's answer is the usual one.
    pub(super) fn has_plain_answer(&self) -> bool {
        self.reply == OK
    }
}

pub(super) fn raw(name: &'static str, start: &'static str, fields: &'static str, body: &'static str) -> Case {
    Case { name: name.to_owned(), sent: Sent::Raw { start, fields, body }, reply: OK }
}

fn h2(name: &'static str, uri: &'static str, fields: &'static [(&'static str, &'static str)]) -> Case {
    Case {
        name: name.to_owned(),
        sent: Sent::H2 { method: "GET", uri, fields, body: "", trailers: &[] },
        reply: OK,
    }
}

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    [paths(), routes(), hosts(), fields(), bodies(), answers(), http2()].into_iter().flatten().collect()
}

fn paths() -> Vec<Case> {
    let path = |name, start| raw(name, start, "Host: test", "");
    vec![
        path("path: plain", "GET /a/b HTTP/1.1"),
        path("path: root", "GET / HTTP/1.1"),
        path("path: query", "GET /a?x=1&y=/../%2f//&z HTTP/1.1"),
        path("path: empty query", "GET /a? HTTP/1.1"),
        path("path: double slash", "GET //a//b/ HTTP/1.1"),
        path("path: dot", "GET /a/./b/. HTTP/1.1"),
        path("path: dots", "GET /a/b/../c/.. HTTP/1.1"),
        path("path: dots above the root", "GET /a/../../b HTTP/1.1"),
        path("path: encoded dots", "GET /a/%2e%2E/b HTTP/1.1"),
        path("path: more dots", "GET /a/.../..b HTTP/1.1"),
        path("path: encoded letter", "GET /%61%7Eb HTTP/1.1"),
        path("path: case of escapes", "GET /%c3%a9%C3%A9 HTTP/1.1"),
        path("path: encoded slash", "GET /a%2Fb HTTP/1.1"),
        path("path: encoded slash, lower case", "GET /a%2fb HTTP/1.1"),
        path("path: encoded backslash", "GET /a%5Cb HTTP/1.1"),
        path("path: backslash", "GET /a\\b HTTP/1.1"),
        path("path: encoded space", "GET /a%20b HTTP/1.1"),
        path("path: encoded percent", "GET /a%252e HTTP/1.1"),
        path("path: encoded question mark", "GET /a%3Fb HTTP/1.1"),
        path("path: bad escape", "GET /a%zz HTTP/1.1"),
        path("path: cut escape", "GET /a% HTTP/1.1"),
        path("path: encoded NUL", "GET /a%00b HTTP/1.1"),
        path("path: parameters", "GET /a;x=1/b,c:@!$&'()*+= HTTP/1.1"),
        path("path: delimiters", "GET /{a}|b HTTP/1.1"),
        path("path: quotes", "GET /a\"b<c> HTTP/1.1"),
        path("path: UTF-8", "GET /é HTTP/1.1"),
        path("path: fragment", "GET /a#b HTTP/1.1"),
        path("path: relative", "GET a HTTP/1.1"),
        path("path: absolute form", "GET http://other.test/a?b HTTP/1.1"),
        path("path: absolute form without a path", "GET http://other.test HTTP/1.1"),
        path("path: asterisk", "OPTIONS * HTTP/1.1"),
        path("path: unknown method", "BREW /pot HTTP/1.1"),
    ]
}

fn routes() -> Vec<Case> {
    let to = |name, start, fields| raw(name, start, fields, "");
    vec![
        to("route: host", "GET /exact HTTP/1.1", "Host: special.test"),
        to("route: host with port", "GET /a HTTP/1.1", "Host: special.test:8080"),
        to("route: host in upper case", "GET /a HTTP/1.1", "Host: SPECIAL.Test"),
        to("route: wildcard", "GET /a HTTP/1.1", "Host: a.b.wild.test"),
        to("route: the domain of a wildcard", "GET /a HTTP/1.1", "Host: wild.test"),
        to("route: exact", "GET /exact?q HTTP/1.1", "Host: test"),
        to("route: exact and a slash", "GET /exact/ HTTP/1.1", "Host: test"),
        to("route: prefix", "GET /pre/x?q HTTP/1.1", "Host: test"),
        to("route: prefix alone", "GET /pre HTTP/1.1", "Host: test"),
        to("route: prefix and a slash", "GET /pre/ HTTP/1.1", "Host: test"),
        to("route: not a prefix", "GET /prefix HTTP/1.1", "Host: test"),
        to("route: prefix out of dots", "GET /x/..//pre/%78 HTTP/1.1", "Host: test"),
        to("route: regex", "GET /v12/items?q HTTP/1.1", "Host: test"),
        to("route: not the regex", "GET /v12/items/1 HTTP/1.1", "Host: test"),
        raw("route: method", "POST /method HTTP/1.1", "Host: test\r\nContent-Length: 0", ""),
        to("route: not the method", "GET /method HTTP/1.1", "Host: test"),
        to("route: header", "GET /a HTTP/1.1", "Host: test\r\nX-BETA: 1"),
        to("route: not the header's value", "GET /a HTTP/1.1", "Host: test\r\nX-Beta: 10"),
        to("route: header, twice", "GET /a HTTP/1.1", "Host: test\r\nX-Beta: 0\r\nX-Beta: 1"),
        to("route: query", "GET /a?x&debug=true HTTP/1.1", "Host: test"),
        to("route: query, encoded", "GET /a?debug=tr%75e HTTP/1.1", "Host: test"),
        to("route: query, twice", "GET /a?debug=false&debug=true HTTP/1.1", "Host: test"),
        to("route: host rewritten", "GET /host HTTP/1.1", "Host: Test:80"),
        to("route: redirect", "GET /old HTTP/1.1", "Host: test"),
        to("route: redirect with a query", "GET /old?q=1 HTTP/1.1", "Host: test"),
        to("route: respond", "GET /teapot HTTP/1.1", "Host: test"),
        to("route: respond to HEAD", "HEAD /teapot HTTP/1.1", "Host: test"),
    ]
}

fn hosts() -> Vec<Case> {
    let host = |name, fields| raw(name, "GET /a HTTP/1.1", fields, "");
    vec![
        host("host: port", "Host: test:8080"),
        host("host: case", "Host: TEST.Example"),
        host("host: IPv6", "Host: [::1]:80"),
        host("host: none", "X-A: b"),
        host("host: empty", "Host: "),
        host("host: two", "Host: a\r\nHost: b"),
        host("host: the same twice", "Host: a\r\nHost: a"),
        host("host: space inside", "Host: a b"),
        host("host: user", "Host: user@test"),
        host("host: a path", "Host: test/a"),
        host("host: dot at the end", "Host: test."),
        raw("host: HTTP/1.0 without", "GET /a HTTP/1.0", "X-A: b", ""),
        raw("host: HTTP/1.0", "GET /a HTTP/1.0", "Host: test", ""),
    ]
}

fn fields() -> Vec<Case> {
    let get = |name, fields| raw(name, "GET /a HTTP/1.1", fields, "");
    vec![
        get("fields: twice", "Host: test\r\nX-A: 1\r\nx-a: 2, 3"),
        get("fields: empty value", "Host: test\r\nX-A:\r\nX-B:  "),
        get("fields: space around", "Host: test\r\nX-A:\t 1 2\t "),
        get("fields: underscore", "Host: test\r\nX_A: 1"),
        get("fields: bytes above ASCII", "Host: test\r\nX-A: é"),
        get("fields: cookies", "Host: test\r\nCookie: a=1\r\nCookie: b=2"),
        get(
            "fields: hop by hop",
            "Host: test\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x",
        ),
        get("fields: connection names host", "Host: test\r\nConnection: host"),
        get(
            "fields: connection names authorization",
            "Host: test\r\nConnection: authorization\r\nAuthorization: secret",
        ),
        get("fields: te trailers", "Host: test\r\nTE: trailers"),
        get("fields: te gzip", "Host: test\r\nTE: gzip"),
        get("fields: upgrade without connection", "Host: test\r\nUpgrade: websocket"),
        get("fields: upgrade to what is not known", "Host: test\r\nConnection: upgrade\r\nUpgrade: other"),
        get(
            "fields: upgrade to h2c",
            "Host: test\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        ),
        get(
            "fields: forged forwarding",
            "Host: test\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4",
        ),
        get("fields: forged forwarded host", "Host: test\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1"),
        get("fields: forged origin of Envoy", "Host: test\r\nX-Envoy-Original-Path: /x"),
        get("fields: authorization", "Host: test\r\nAuthorization: Bearer x\r\nProxy-Authorization: Basic x"),
        get("fields: via", "Host: test\r\nVia: 1.1 before\r\nServer: x\r\nDate: y"),
        get("fields: max-forwards", "Host: test\r\nMax-Forwards: 0"),
        get("fields: folded", "Host: test\r\nX-A: 1\r\n 2"),
        get("fields: space before the colon", "Host: test\r\nX-A : 1"),
        get("fields: no colon", "Host: test\r\nX-A"),
        get("fields: name that is none", "Host: test\r\nX(A): 1"),
        get("fields: NUL", "Host: test\r\nX-A: 1\x002"),
        get("fields: bare CR", "Host: test\r\nX-A: 1\r2"),
        get("fields: bare LF", "Host: test\nX-A: 1"),
        raw("fields: version 1.2", "GET /a HTTP/1.2", "Host: test", ""),
        raw("fields: version 2.0", "GET /a HTTP/2.0", "Host: test", ""),
        raw("fields: no version", "GET /a", "Host: test", ""),
        raw("fields: two spaces", "GET  /a HTTP/1.1", "Host: test", ""),
    ]
}

fn bodies() -> Vec<Case> {
    let post = |name, fields, body| raw(name, "POST /a HTTP/1.1", fields, body);
    vec![
        post("body: length", "Host: test\r\nContent-Length: 5", "hello"),
        post("body: none", "Host: test", ""),
        post("body: length 0", "Host: test\r\nContent-Length: 0", ""),
        raw("body: of a GET", "GET /a HTTP/1.1", "Host: test\r\nContent-Length: 5", "hello"),
        raw(
            "body: of a DELETE, chunked",
            "DELETE /a HTTP/1.1",
            "Host: test\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        post(
            "body: chunked",
            "Host: test\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        ),
        post(
            "body: chunked, named in upper case",
            "Host: test\r\nTransfer-Encoding: CHUNKED",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        post(
            "body: trailers",
            "Host: test\r\nTrailer: X-T\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
        ),
        post("body: expects 100", "Host: test\r\nExpect: 100-continue\r\nContent-Length: 5", "hello"),
        post("body: expects something else", "Host: test\r\nExpect: more\r\nContent-Length: 5", "hello"),
        post(
            "body: both framings",
            "Host: test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        post("body: two lengths", "Host: test\r\nContent-Length: 5\r\nContent-Length: 6", "hello"),
        post("body: the same length twice", "Host: test\r\nContent-Length: 5\r\nContent-Length: 5", "hello"),
        post("body: a list of lengths", "Host: test\r\nContent-Length: 5, 5", "hello"),
        post("body: signed length", "Host: test\r\nContent-Length: +5", "hello"),
        post(
            "body: gzip and chunked",
            "Host: test\r\nTransfer-Encoding: gzip, chunked",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        post("body: an encoding that is none", "Host: test\r\nTransfer-Encoding: identity", ""),
        post(
            "body: chunked twice",
            "Host: test\r\nTransfer-Encoding: chunked, chunked",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        raw(
            "body: chunked in HTTP/1.0",
            "POST /a HTTP/1.0",
            "Host: test\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
    ]
}

fn http2() -> Vec<Case> {
    let with = |name: &str, method, fields, body, trailers, reply| Case {
        name: name.to_owned(),
        sent: Sent::H2 { method, uri: "http://test/a", fields, body, trailers },
        reply,
    };
    vec![
        h2("h2: plain", "http://test/a/b?c=d", &[]),
        h2("h2: authority with port", "http://Test:8080/a", &[]),
        h2("h2: path", "http://test//a/../b/%2e/%61%c3%a9", &[]),
        h2("h2: encoded slash", "http://test/a%2fb", &[]),
        h2("h2: https over cleartext", "https://test/a", &[]),
        h2("h2: host like the authority", "http://test/a", &[("host", "test")]),
        h2("h2: another host", "http://test/a", &[("host", "other")]),
        h2("h2: cookies", "http://test/a", &[("cookie", "a=1"), ("cookie", "b=2")]),
        h2("h2: te trailers", "http://test/a", &[("te", "trailers")]),
        h2(
            "h2: fields",
            "http://test/a",
            &[("x-a", "1"), ("x-a", "2"), ("x_b", ""), ("x-forwarded-for", "1.2.3.4")],
        ),
        h2("h2: redirect", "http://test/old", &[]),
        h2("h2: respond", "http://test/teapot", &[]),
        with("h2: body", "POST", &[], "hello", &[], OK),
        with("h2: body with its length", "POST", &[("content-length", "5")], "hello", &[], OK),
        with("h2: trailers of the request", "POST", &[("trailer", "x-t")], "hello", &[("x-t", "1")], OK),
        with("h2: trailers of the response", "GET", &[("te", "trailers")], "", &[], TRAILERS),
    ]
}
