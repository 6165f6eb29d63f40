//! Requests: their lines, their fields, and the two fields that frame.

use super::{Guard, Phase, Violation, accepts, refuses};
use Phase::{BetweenMessages, Body};

#[test]
fn sound_requests() {
    for (bytes, messages, phase) in [
        (&b""[..], 0, BetweenMessages),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1, BetweenMessages),
        (b"GET / HTTP/1.1\r\nhOsT: a\r\n\r\n", 1, BetweenMessages),
        (b"GET / HTTP/1.0\r\n\r\n", 1, BetweenMessages),
        (b"\r\n", 0, BetweenMessages),
        (b"\r\nGET / HTTP/1.1\r\nHost:\r\n\r\n\r\n", 1, BetweenMessages),
        (b"OPTIONS * HTTP/1.1\r\nHost:a\r\n\r\n", 1, BetweenMessages),
        (b"M-SEARCH !$%&'*+-.^_`|~/?[]{}\"\\<> HTTP/1.1\r\nHost: a\r\n\r\n", 1, BetweenMessages),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 1, BetweenMessages),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 0\r\n\r\n", 1, BetweenMessages),
        (b"CONNECTED / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 1, BetweenMessages),
        (b"CONNEC / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 1, BetweenMessages),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe2\x82\xac\xff\t\x80 \r\nY:\r\nZ:\t \r\n\r\n",
            1,
            BetweenMessages,
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: v\r\n\r\n", 1, BetweenMessages),
        (
            b"GET / HTTP/1.1\r\nHos: b\r\nHostess: c\r\nHost: a\r\nContent-Lengthy: z\r\n\r\n",
            1,
            BetweenMessages,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encodin: x\r\nTransfer-Encodings: y\r\n\r\n",
            1,
            BetweenMessages,
        ),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 1, BetweenMessages),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length:\t 0005 \t\r\n\r\nhello", 1, BetweenMessages),
        (b"PUT / HTTP/1.0\r\ncontent-length: 5\r\n\r\nhel", 1, Body),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\nx", 1, Body),
        (
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            2,
            BetweenMessages,
        ),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTRANSFER-encoding:\t CHunked \r\n\r\n0\r\n\r\n", 1, BetweenMessages),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n", 1, Body),
        (
            b"PUT / HTTP/1.0\r\nContent-Length: 1\r\n\r\n\x00\r\nGET /b HTTP/1.0\r\n\r\n\r\n",
            2,
            BetweenMessages,
        ),
        (b"GET /1 HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\nGET /3 HTTP/1.0\r\nHo", 2, Phase::Head),
        (b"G", 0, Phase::Head),
    ] {
        accepts(Guard::requests, bytes, messages, phase);
    }
}

#[test]
fn doubtful_request_lines() {
    for (sound, doubtful, violation) in [
        (&b""[..], &b"\n"[..], Violation::EmptyLine),
        (b"\r\n", b"\r\nGET / HTTP/1.0\r\n\r\n", Violation::EmptyLine),
        (b"\r\n", b"\n", Violation::EmptyLine),
        (b"\r", b"GET / HTTP/1.0\r\n\r\n", Violation::BareCr),
        (b"", b" GET / HTTP/1.0\r\n\r\n", Violation::Method),
        (b"", b"\x00GET / HTTP/1.0\r\n\r\n", Violation::Method),
        (b"", b"\x16\x03\x01\x02\x00", Violation::Method),
        (b"GE", b"(T / HTTP/1.0\r\n\r\n", Violation::Method),
        (b"GET", b"\t/ HTTP/1.0\r\n\r\n", Violation::Method),
        (b"GET", b"\r\n\r\n", Violation::Method),
        (b"GET ", b" / HTTP/1.0\r\n\r\n", Violation::Target),
        (b"GET ", b"\r\n\r\n", Violation::Target),
        (b"GET /", b"\t HTTP/1.0\r\n\r\n", Violation::Target),
        (b"GET /a", b"\x00 HTTP/1.0\r\n\r\n", Violation::Target),
        (b"GET /a", b"\x7f HTTP/1.0\r\n\r\n", Violation::Target),
        (b"GET /a", b"\x85HTTP/1.0 HTTP/1.1\r\n\r\n", Violation::Target),
        (b"GET /a", b"\xc3\xa9 HTTP/1.0\r\n\r\n", Violation::Target),
        (b"GET /", b"\r\n", Violation::Version),
        (b"GET /", b"\n", Violation::Version),
        (b"GET / ", b" HTTP/1.0\r\n\r\n", Violation::Version),
        (b"GET / ", b"\r\n\r\n", Violation::Version),
        (b"GET / ", b"http/1.1\r\n\r\n", Violation::Version),
        (b"GET / ", b"b HTTP/1.1\r\n\r\n", Violation::Version),
        (b"GET / HTTP/1.", b"2\r\n\r\n", Violation::Version),
        (b"GET / HTTP/1", b"\r\n\r\n", Violation::Version),
        (b"GET / HTTP/", b"0.9\r\n\r\n", Violation::Version),
        (b"PRI * HTTP/", b"2.0\r\n\r\nSM\r\n\r\n", Violation::Version),
        (b"GET / HTTP/1.1", b"1\r\n\r\n", Violation::Version),
        (b"GET / HTTP/1.1", b" \r\n\r\n", Violation::Version),
        (b"GET / HTTP/1.0", b"\n\n", Violation::BareLf),
        (b"GET / HTTP/1.0\r", b"Host: a\r\n\r\n", Violation::BareCr),
        (b"GET / HTTP/1.0\r\n\r", b"\r\n", Violation::BareCr),
        (b"GET / HTTP/1.0\r\n", b" Host: a\r\n\r\n", Violation::ObsFold),
        (b"GET / HTTP/1.1\r\n\r", b"\n", Violation::HostMissing),
        (b"GET / HTTP/1.1\r\nHostt: a\r\n\r", b"\n", Violation::HostMissing),
        (b"GET / HTTP/1.0\r\n\r\n", b"\x00", Violation::Method),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r", b"\nx", Violation::ConnectFraming),
        (
            b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r",
            b"\n",
            Violation::ConnectFraming,
        ),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost", b": a\r\n\r\n", Violation::HostRepeated),
        (b"PUT / HTTP/1.0\r\nTransfer-Encoding", b": chunked\r\n\r\n", Violation::TransferEncodingInHttp10),
    ] {
        refuses(Guard::requests, sound, doubtful, violation);
    }
}

#[test]
fn doubtful_field_lines() {
    use Violation as V;
    for (sound, doubtful, violation) in [
        ("X: a", "\n\r\n", V::BareLf),
        ("X: a\r", "b\r\n\r\n", V::BareCr),
        ("X: a\r", "\r\n\r\n", V::BareCr),
        ("X: a\r\n", "\n", V::BareLf),
        ("X: a", "\0b\r\n\r\n", V::Control),
        ("X: 0123456789abcdef\t", "\x0b\r\n\r\n", V::Control),
        ("X: a", "\x7f\r\n\r\n", V::Control),
        ("X: ", "\x1b[2J\r\n\r\n", V::Control),
        ("X: a\r\n", " b\r\n\r\n", V::ObsFold),
        ("X: a\r\n", "\tb\r\n\r\n", V::ObsFold),
        ("X: a\r\n", " \r\n\r\n", V::ObsFold),
        ("", ": a\r\n\r\n", V::EmptyFieldName),
        ("X", " : a\r\n\r\n", V::SpaceInFieldName),
        ("Content-Length", " : 5\r\n\r\n", V::SpaceInFieldName),
        ("Transfer-Encoding", "\t: chunked\r\n\r\n", V::SpaceInFieldName),
        ("X", " Y: a\r\n\r\n", V::SpaceInFieldName),
        ("X", "(: a\r\n\r\n", V::FieldName),
        ("X", "\0: a\r\n\r\n", V::FieldName),
        ("", "\u{e9}: a\r\n\r\n", V::FieldName),
        ("", "\"X\": a\r\n\r\n", V::FieldName),
        ("X", "\r\n\r\n", V::MissingColon),
        ("Content-Length", "\n", V::MissingColon),
        ("HOST", ": a\r\n\r\n", V::HostRepeated),
        ("Host", ": b\r\n\r\n", V::HostRepeated),
    ] {
        let sound = format!("POST / HTTP/1.1\r\nHost: a\r\n{sound}");
        refuses(Guard::requests, sound.as_bytes(), doubtful.as_bytes(), violation);
    }
}

#[test]
fn doubtful_framing_fields() {
    use Violation as V;
    for (sound, doubtful, violation) in [
        ("Content-Length:", "\r\n\r\n", V::ContentLength),
        ("Content-Length: \t", "\r\n\r\n", V::ContentLength),
        ("Content-Length: ", "+5\r\n\r\n", V::ContentLength),
        ("Content-Length: ", "-5\r\n\r\n", V::ContentLength),
        ("Content-Length: 0", "x5\r\n\r\n", V::ContentLength),
        ("Content-Length: 5 ", "5\r\n\r\n", V::ContentLength),
        ("Content-Length: 5", ".0\r\n\r\n", V::ContentLength),
        ("Content-Length: ", ",5\r\n\r\n", V::ContentLength),
        ("Content-Length: ", "\u{ff15}\r\n\r\n", V::ContentLength),
        ("Content-Length: 5", "\0\r\n\r\n", V::Control),
        ("Content-Length: 922337203685477580", "8\r\n\r\n", V::ContentLength),
        ("Content-Length: 1844674407370955161", "9\r\n\r\n", V::ContentLength),
        ("Content-Length: 5", ", 5\r\n\r\n", V::ContentLengthRepeated),
        ("Content-Length: 5 ", ",6\r\n\r\n", V::ContentLengthRepeated),
        ("Content-Length: 5\r\ncontent-length", ": 5\r\n\r\n", V::ContentLengthRepeated),
        ("Content-Length: 0\r\nContent-Length", ": 0\r\n\r\n", V::ContentLengthRepeated),
        ("Content-Length: 5\r\nTransfer-Encoding", ": chunked\r\n\r\n", V::BothFramings),
        ("Transfer-Encoding: chunked\r\nContent-Length", ": 5\r\n\r\n", V::BothFramings),
        (
            "Transfer-Encoding: chunked\r\nX: y\r\nTransfer-Encoding",
            ": chunked\r\n",
            V::TransferEncodingRepeated,
        ),
        ("Transfer-Encoding:", "\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: chunk", "\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: chunk", " ed\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: chunked", ", chunked\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: chunked", "d\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: chunked ", "x\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: chunked", ";q=1\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: ", "gzip, chunked\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: ", "identity\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: ", "\"chunked\"\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: ", "\u{212a}\r\n\r\n", V::TransferEncoding),
        ("Transfer-Encoding: ", "\x0bchunked\r\n\r\n", V::Control),
    ] {
        let sound = format!("POST / HTTP/1.1\r\nHost: a\r\n{sound}");
        refuses(Guard::requests, sound.as_bytes(), doubtful.as_bytes(), violation);
    }
}
