//! Bytes as text.

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// So many bytes, of text that begins with them.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let two = text.get(at * 2..at * 2 + 2).filter(|two| two.bytes().all(|c| c.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(two, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(hex(&[0, 10, 255]), "000aff");
        assert_eq!(unhex("000aff"), Some([0, 10, 255]));
        assert_eq!(unhex("000aff01"), Some([0, 10, 255]), "what follows is another's");
        for text in ["", "000a", "000af", "00+a00", "zz0000", "ééé"] {
            assert_eq!(unhex::<3>(text), None, "{text}");
        }
    }
}
