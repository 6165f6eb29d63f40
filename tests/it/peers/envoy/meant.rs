//! Where we mean to differ from Envoy, and why.

/// Differences that have one reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meant {
    pub(super) why: &'static str,
    pub(super) rows: &'static [Row],
}

/// The case; what of the view differs; what it is with us and with Envoy, where `-` is nothing.
pub(super) type Row = (&'static str, &'static str, [&'static str; 2]);

const PASSED: &str = "passed on";

/// All of them.
pub(super) const MEANT: &[Meant] = &[
    Meant {
        why: "a path without one certain meaning is refused, not guessed at",
        rows: &[
            ("path: dots above the root", PASSED, ["no: 400", "/b: 200"]),
            ("path: backslash", PASSED, ["no: 400", "/a/b: 200"]),
            ("path: bad escape", PASSED, ["no: 400", "/a%zz: 200"]),
            ("path: cut escape", PASSED, ["no: 400", "/a%: 200"]),
            ("path: quotes", PASSED, ["no: 400", "/a%22b%3Cc%3E: 200"]),
        ],
    },
    Meant {
        why: "escapes have one form, in upper case (RFC 3986 section 6.2.2.1): rules that compare paths see no second one",
        rows: &[
            ("path: case of escapes", "origin target", ["/%C3%A9%C3%A9", "/%c3%a9%C3%A9"]),
            ("h2: path", "origin target", ["/b/a%C3%A9", "/b/a%c3%a9"]),
        ],
    },
    Meant {
        why: "what is sent without an escape, and can be, is not given one: to the origin it is another path",
        rows: &[("path: delimiters", "origin target", ["/{a}|b", "/%7Ba%7D%7Cb"])],
    },
    Meant {
        why: "methods are the origin's business, and `OPTIONS *` is a request for it",
        rows: &[
            ("path: asterisk", PASSED, ["*: 200", "no: 404"]),
            ("path: unknown method", PASSED, ["/pot: 200", "no: 400"]),
        ],
    },
    Meant {
        why: "parameters are compared as what they mean, not as they are written",
        rows: &[("route: query, encoded", "origin x-route", ["query", "default"])],
    },
    Meant {
        why: "texts of ours say their charset",
        rows: &[
            ("route: respond", "response content-type", ["text/plain; charset=utf-8", "text/plain"]),
            ("route: respond to HEAD", "response content-type", ["text/plain; charset=utf-8", "text/plain"]),
            ("h2: respond", "response content-type", ["text/plain; charset=utf-8", "text/plain"]),
        ],
    },
    Meant {
        why: "a request names exactly one valid host (RFC 9112 section 3.2)",
        rows: &[
            ("host: empty", PASSED, ["no: 400", "/a: 200"]),
            ("host: empty", "status", ["400", "502"]),
            ("host: two", PASSED, ["no: 400", "/a: 200"]),
            ("host: the same twice", PASSED, ["no: 400", "/a: 200"]),
            ("host: user", PASSED, ["no: 400", "/a: 200"]),
        ],
    },
    Meant {
        why: "an HTTP/1 upstream gets one cookie field: some read no more than the first (RFC 6265 section 5.4)",
        rows: &[("fields: cookies", "origin cookie", ["a=1; b=2", "a=1 | b=2"])],
    },
    Meant {
        why: "`connection` cannot name away who asks, and for what",
        rows: &[
            ("fields: connection names host", PASSED, ["/a: 200", "no: 400"]),
            ("fields: connection names authorization", "origin authorization", ["secret", "-"]),
        ],
    },
    Meant {
        why: "`te` concerns one hop, and has to be named by `connection` (RFC 9110 section 10.1.4)",
        rows: &[
            ("fields: te trailers", "origin connection", ["te", "-"]),
            ("answer: trailers that are wanted", "origin connection", ["te", "-"]),
            ("h2: te trailers", "origin connection", ["te", "-"]),
            ("h2: trailers of the response", "origin connection", ["te", "-"]),
        ],
    },
    Meant {
        why: "HTTP/2 may carry cookies in crumbs (RFC 9113 section 8.2.3); what came so goes on so",
        rows: &[("h2: cookies", "origin cookie", ["a=1 | b=2", "a=1; b=2"])],
    },
    Meant {
        why: "an HTTP/2 origin is not asked whether it wants the body: it can reset the stream at any time",
        rows: &[
            ("body: expects 100", "origin expect", ["-", "100-continue"]),
            ("body: expects something else", "origin expect", ["-", "more"]),
        ],
    },
    Meant {
        why: "the upstream decides which upgrades it knows, if its protocol has any; Envoy has a list",
        rows: &[
            ("fields: upgrade to what is not known", PASSED, ["/a: 200", "no: 403"]),
            ("fields: upgrade to what is not known", "status", ["501", "403"]),
        ],
    },
    Meant {
        why: "what a stranger says of who asked is not passed on, in any spelling",
        rows: &[
            ("fields: forged forwarding", "origin forwarded", ["-", "for=1.2.3.4"]),
            ("fields: forged forwarding", "origin x-forwarded-for", ["client", "1.2.3.4, client"]),
            ("fields: forged forwarded host", "origin x-forwarded-host", ["-", "evil"]),
            ("fields: forged forwarded host", "origin x-forwarded-port", ["-", "1"]),
            ("h2: fields", "origin x-forwarded-for", ["client", "1.2.3.4, client"]),
        ],
    },
    Meant {
        why: "what two parsers may read in two ways is refused (RFC 9112 sections 2.2, 2.3, 3 and 5.2)",
        rows: &[
            ("fields: folded", PASSED, ["no: 400", "/a: 200"]),
            ("fields: bare CR", PASSED, ["no: 400", "/a: 200"]),
            ("fields: bare LF", PASSED, ["no: 400", "/a: 200"]),
            ("fields: version 1.2", PASSED, ["no: 400", "/a: 200"]),
            ("fields: version 2.0", PASSED, ["no: 400", "/a: 200"]),
            ("fields: two spaces", PASSED, ["no: 400", "/a: 200"]),
            ("body: chunked in HTTP/1.0", PASSED, ["no: 400", "/a: 200"]),
            ("answer: folded", "status", ["502", "200"]),
            ("answer to h2: folded", "status", ["502", "200"]),
            ("answer to h2: 101 without being asked", "status", ["502", "Some(PROTOCOL_ERROR)"]),
            ("answer: 101 without being asked", "status", ["502", "101"]),
        ],
    },
    Meant {
        why: "a coding that is not chunked breaks the framing, which is one error with one status",
        rows: &[
            ("body: gzip and chunked", "status", ["400", "501"]),
            ("body: an encoding that is none", "status", ["400", "501"]),
            ("body: chunked twice", "status", ["400", "501"]),
        ],
    },
    Meant {
        why: "a request without a body is sent on without one",
        rows: &[("body: none", "origin content-length", ["-", "0"])],
    },
    Meant {
        why: "where the upstream keeps silent about an expectation, the body is asked for after a while",
        rows: &[("body: expects 100", "interim", ["100", "-"])],
    },
    Meant {
        why: "no body, no framing: neither field is asked for (RFC 9110 sections 6.4.1 and 8.6)",
        rows: &[("answer: HEAD, chunked", "response transfer-encoding", ["-", "chunked"])],
    },
    Meant {
        why: "an HTTP/1 client gets trailers if it says that it takes them (RFC 9110 section 6.5.1)",
        rows: &[("answer: trailers", "response trailer x-t", ["-", "1"])],
    },
    Meant {
        why: "what `connection` names is for one hop, in answers too (RFC 9110 section 7.6.1)",
        rows: &[
            ("answer: hop by hop", "response x-back", ["-", "1"]),
            ("answer to h2: hop by hop", "response x-back", ["-", "1"]),
        ],
    },
    Meant {
        why: "interim answers that nobody asked for do not pass; documented",
        rows: &[
            ("answer: 100 first", "interim", ["-", "100"]),
            ("answer: 103 first", "interim", ["-", "103"]),
        ],
    },
];
