//! Resources for tests, written by hand: tag, length, content.

pub(super) fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 0x7f {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    [&out, content].concat()
}

/// A cluster whose endpoints come from EDS; with more behind it.
pub(super) fn cluster(name: &str, more: &[u8]) -> Vec<u8> {
    let ads = field(1, &field(3, &[]));
    [&field(1, name.as_bytes())[..], &[2 << 3, 3], &field(3, &ads), more].concat()
}

pub(super) fn set(name: &str, ports: &[u8]) -> Vec<u8> {
    let endpoint = |port: &u8| {
        let socket = [&field(2, b"10.0.0.1")[..], &[3 << 3, *port]].concat();
        field(2, &field(1, &field(1, &field(1, &socket))))
    };
    let group: Vec<u8> = ports.iter().flat_map(endpoint).collect();
    [field(1, name.as_bytes()), field(2, &group)].concat()
}

/// Who asks.
pub(super) fn node() -> outrigger_proto::xds::discovery::Node {
    outrigger_proto::xds::discovery::Node { id: "a".to_owned(), ..Default::default() }
}
