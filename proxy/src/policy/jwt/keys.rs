//! Signatures, by the key that they are checked with.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use outrigger_proto::model::{JwtAlgorithm, Key, KeyMaterial};

/// Whether a signature is good; the algorithm is one that the key is for.
pub(super) fn verifies(key: &Key, algorithm: JwtAlgorithm, message: &[u8], signature: &[u8]) -> bool {
    use JwtAlgorithm as A;
    match &key.material {
        KeyMaterial::Rsa { n, e } => {
            let parameters = match algorithm {
                A::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
                A::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                A::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
                A::Ps256 => &RSA_PSS_2048_8192_SHA256,
                A::Ps384 => &RSA_PSS_2048_8192_SHA384,
                A::Ps512 => &RSA_PSS_2048_8192_SHA512,
                A::Es256 | A::Es384 | A::EdDsa => return false,
            };
            RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
        }
        KeyMaterial::P256(point) => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
        }
        KeyMaterial::P384(point) => {
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok()
        }
        KeyMaterial::Ed25519(point) => {
            UnparsedPublicKey::new(&ED25519, point).verify(message, signature).is_ok()
        }
    }
}
