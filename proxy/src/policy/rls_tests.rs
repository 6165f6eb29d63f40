use super::*;

fn entry(key: &str, value: &str) -> Entry {
    Entry { key: key.to_owned(), value: value.to_owned() }
}

/// Tag, length, content: what protobuf makes of a message or a text.
fn nested(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2, u8::try_from(content.len()).unwrap()][..], content].concat()
}

#[test]
fn a_question_is_encoded_byte_for_byte() {
    let question = Request {
        domain: "shop".to_owned(),
        descriptors: vec![
            Descriptor { entries: vec![entry("x-api-key", "k"), entry("path", "cart")] },
            Descriptor { entries: vec![entry("remote_address", "::1")] },
        ],
        hits_addend: 300,
    };
    #[rustfmt::skip]
    let expected = [
        &[0x0a, 4][..], b"shop",
        &[0x12, 30],
            &[0x0a, 14, 0x0a, 9], b"x-api-key", &[0x12, 1], b"k",
            &[0x0a, 12, 0x0a, 4], b"path", &[0x12, 4], b"cart",
        &[0x12, 23],
            &[0x0a, 21, 0x0a, 14], b"remote_address", &[0x12, 3], b"::1",
        &[0x18, 0xac, 0x02],
    ]
    .concat();
    assert_eq!(question.encode_to_vec(), expected);
}

#[test]
fn an_answer_is_read_byte_by_byte() {
    let limit = nested(2, &[0x08, 5, 0x10, 1]);
    let statuses = [
        // OK, with a limit and a rest, and a reset that says nothing.
        nested(2, &[&[0x08, 1][..], &limit, &[0x18, 4], &nested(4, &[0x08, 60])].concat()),
        // OVER_LIMIT, until 1.5 s.
        nested(2, &[&[0x08, 2][..], &nested(4, &[0x08, 1, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01])].concat()),
        // OVER_LIMIT, until 1 s.
        nested(2, &[&[0x08, 2][..], &nested(4, &[0x08, 1])].concat()),
    ];
    let field = |tag, key: &[u8], value: &[u8]| nested(tag, &[nested(1, key), nested(2, value)].concat());
    let message = [
        vec![0x08, 2],
        statuses.concat(),
        field(3, b"x-limit", b"5"),
        field(4, b"x-tier", b"free"),
        nested(4, &[nested(1, b"x-raw"), nested(3, b"\xff")].concat()),
        // A body, which we do not use, and a field that nobody knows yet.
        nested(5, b"no"),
        nested(15, b"?"),
    ]
    .concat();
    let Decision { granted, reset, request_headers, response_headers } = decision(&message).unwrap();
    assert_eq!((granted, reset), (false, Some(Duration::from_millis(1500))));
    let fields = |changes: &[Change]| {
        let fields = changes.iter().map(|change| (change.name.to_string(), change.value.as_bytes().to_vec()));
        fields.collect::<Vec<_>>()
    };
    let expected = [("x-tier".to_owned(), b"free".to_vec()), ("x-raw".to_owned(), b"\xff".to_vec())];
    assert_eq!(fields(&request_headers), expected);
    assert_eq!(fields(&response_headers), [("x-limit".to_owned(), b"5".to_vec())]);
}

#[test]
fn what_decides_nothing_is_no_answer() {
    let granted = |message: &[u8]| decision(message).map(|decision| decision.granted);
    assert_eq!(granted(&[0x08, 1]), Some(true));
    assert_eq!(granted(&[0x08, 2]), Some(false));
    // UNKNOWN, which is not written when it is meant; a code that is none; and what is cut off.
    for message in [&[][..], &[0x08, 0], &[0x08, 3], &[0x08], &[0x08, 1, 0x12, 5]] {
        assert_eq!(granted(message), None, "{message:x?}");
    }
}

#[test]
fn a_reset_that_is_none_is_not_believed() {
    for (seconds, nanos) in [(-1, 0), (0, -1), (1, 1_000_000_000)] {
        assert_eq!(span(Span { seconds, nanos }), None);
    }
    assert_eq!(span(Span { seconds: 0, nanos: 5 }), Some(Duration::from_nanos(5)));
}

#[test]
fn a_service_frames_no_message() {
    let field = |key: &str, value: &str| Field {
        key: key.to_owned(),
        value: value.to_owned(),
        raw_value: Vec::new(),
    };
    let rows = [
        field("x-a", "1"),
        field("X-A", "2"),
        field("Transfer-Encoding", "chunked"),
        field("content-length", "0"),
        field("connection", "x-a"),
        field("host", "elsewhere"),
        field(":path", "/"),
        field("", "1"),
        field("x-b", "a\r\nb"),
    ];
    let fields = fields(rows.into());
    let kept: Vec<_> =
        fields.iter().map(|field| (field.name.as_str(), field.value.to_str().unwrap())).collect();
    assert_eq!(kept, [("x-a", "1"), ("x-a", "2")]);
}
