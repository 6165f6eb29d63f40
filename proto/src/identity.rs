//! How a proxy gets a certificate: the messages of `proto/outrigger/identity/v1/identity.proto`, which says what they
//! mean.

use std::collections::HashMap;

use prost::Message;

/// Where a certificate is asked for.
pub const SIGN: &str = "/outrigger.identity.v1.CertificateAuthority/Sign";

/// `SignRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct SignRequest {
    /// PKCS #10, as DER.
    #[prost(bytes = "vec", tag = "1")]
    pub csr: Vec<u8>,
    /// How long the certificate should live, in seconds.
    #[prost(uint64, tag = "2")]
    pub lifetime_seconds: u64,
}

/// `SignResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct SignResponse {
    /// Leaf first, as DER.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub chain: Vec<Vec<u8>>,
    /// By the trust domain's name.
    #[prost(map = "string, message", tag = "2")]
    pub bundles: HashMap<String, Bundle>,
}

/// `Bundle`.
#[derive(Clone, PartialEq, Message)]
pub struct Bundle {
    /// As DER.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub roots: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are the contract: what is written down in the .proto file is what goes over the wire.
    #[test]
    fn the_wire_is_as_written() {
        let request = SignRequest { csr: vec![1, 2], lifetime_seconds: 300 };
        assert_eq!(request.encode_to_vec(), [0x0a, 2, 1, 2, 0x10, 0xac, 2]);
        let bundle = Bundle { roots: vec![vec![7]] };
        let response = SignResponse { chain: vec![vec![9]], bundles: [("a".to_owned(), bundle)].into() };
        let wire = response.encode_to_vec();
        assert_eq!(wire, [0x0a, 1, 9, 0x12, 8, 0x0a, 1, b'a', 0x12, 3, 0x0a, 1, 7]);
        assert_eq!(SignResponse::decode(&*wire).unwrap(), response);
    }
}
