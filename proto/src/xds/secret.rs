//! Secrets: certificates with their keys, and roots. What a control plane says of them is a text that nobody has read yet:
//! whether it can be used is for who uses it to find out.

use std::fmt;

use zeroize::Zeroizing;

use super::cx::Cx;
use super::generated::envoy::config::core::v3 as core;
use super::generated::envoy::extensions::transport_sockets::tls::v3 as pb;
use crate::model::Holds;

/// A text that is wiped when it is dropped, and shown by its length alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Wiped {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// What a secret holds. All of it is PEM, none of it is empty but where that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// What is shown of oneself.
    Certificate {
        /// Leaf first.
        chain: Wiped,
        /// The leaf's private key.
        key: Wiped,
    },
    /// Who vouches for others.
    Roots {
        /// Their certificates.
        roots: Wiped,
        /// Lists of what is no longer good; empty where none is asked for. With any, what none of them covers is refused.
        crls: Wiped,
    },
}

impl Secret {
    /// What it can be used for.
    pub fn holds(&self) -> Holds {
        match self {
            Self::Certificate { .. } => Holds::Certificate,
            Self::Roots { .. } => Holds::Roots,
        }
    }
}

pub(super) fn secret(cx: &mut Cx, secret: pb::Secret) -> Option<Secret> {
    let pb::Secret { name: _, r#type } = secret;
    match r#type {
        None => cx.fail("", "it holds nothing: write `tls_certificate` or `validation_context`"),
        Some(pb::secret::Type::TlsCertificate(certificate)) => cx.within("tls_certificate", |cx| {
            let pb::TlsCertificate { certificate_chain, private_key } = certificate;
            let chain = required(cx, "certificate_chain", certificate_chain);
            let key = required(cx, "private_key", private_key);
            Some(Secret::Certificate { chain: chain?, key: key? })
        }),
        Some(pb::secret::Type::ValidationContext(context)) => cx.within("validation_context", |cx| {
            let pb::CertificateValidationContext {
                trusted_ca,
                crl,
                match_typed_subject_alt_names,
                system_root_certs,
            } = context;
            if !match_typed_subject_alt_names.is_empty() {
                return cx.fail(
                    "match_typed_subject_alt_names",
                    "who may answer is said by the cluster, in `default_validation_context`",
                );
            }
            if system_root_certs.is_some() {
                return cx.fail(
                    "system_root_certs",
                    "this is no secret: write it in the cluster's `validation_context`",
                );
            }
            let roots = required(cx, "trusted_ca", trusted_ca);
            let crls = match crl {
                None => Some(Wiped::from(Vec::new())),
                Some(_) => required(cx, "crl", crl),
            };
            Some(Secret::Roots { roots: roots?, crls: crls? })
        }),
    }
}

fn required(cx: &mut Cx, field: &str, source: Option<core::DataSource>) -> Option<Wiped> {
    use core::data_source::Specifier;
    let text = match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => Wiped::from(bytes),
        Some(Specifier::InlineString(text)) => Wiped::from(text.into_bytes()),
        None => return cx.fail(field, "this is missing: write `inline_string` or `inline_bytes`"),
    };
    if text.as_bytes().is_empty() {
        return cx.fail(field, "this is empty");
    }
    Some(text)
}
