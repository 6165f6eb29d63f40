//! Parameters of a query: theirs are compared as they stand in a target, ours after decoding (URL Standard, section 5.1).
//!
//! So what is written is the form in which a client sends it, with no more encoded than must be.

/// What cannot stand in a query, or means something there.
const ENCODED: &[u8] = b"\"#%&+<>";

/// A name, or a value, as it stands in a query.
pub(in super::super) fn encode(text: &str, is_name: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !ENCODED.contains(&byte) && !(is_name && byte == b'=') {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// What stands in a query, decoded; `None` when that is not text.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, hex(0).zip(hex(1))) {
            (b'+', _) => out.push(b' '),
            (b'%', Some((high, low))) => {
                out.push(u8::try_from(high << 4 | low).expect("two hex digits make a byte"));
                rest = &after[2..];
            }
            (byte, _) => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_clients_send_it() {
        let rows = [
            ("a b", "a%20b"),
            ("1+1=2", "1%2B1=2"),
            ("50%", "50%25"),
            ("é&\"", "%C3%A9%26%22"),
            ("a/b:c", "a/b:c"),
        ];
        for (text, sent) in rows {
            assert_eq!((encode(text, false).as_str(), decode(sent).as_deref()), (sent, Some(text)));
        }
        assert_eq!(encode("a=b", true), "a%3Db");
        assert_eq!(
            (decode("a+b%2"), decode("%zz%c3%a9")),
            (Some("a b%2".to_owned()), Some("%zzé".to_owned()))
        );
        assert_eq!(decode("%ff"), None);
    }
}
