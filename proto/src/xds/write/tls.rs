//! What TLS of both sides is written with.

use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::extensions::transport_sockets::tls::v3 as pb;
use super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::secret::{Secret, Wiped};
use super::{Cx, packed, stream};
use crate::model::{
    Bundle, Certificate, MutualUpstream, Name, PeerPattern, Revocation, Roots, San, ServerAuth, UpstreamTls,
};

/// As Envoy calls it.
const SOCKET: &str = "envoy.transport_sockets.tls";

/// TLS towards the endpoints of a cluster; outside `None` where it cannot be said.
pub(super) fn transport_socket(
    cx: &mut Cx,
    tls: &Option<UpstreamTls>,
) -> Option<Option<core::TransportSocket>> {
    let Some(tls) = tls else { return Some(None) };
    use pb::common_tls_context::ValidationContextType as V;
    let (certificate, validation, sni) = match tls {
        UpstreamTls::Mutual(MutualUpstream { peers, sni }) => {
            let names = peers.iter().map(peer).collect();
            (Some(of(Certificate::OWN)), V::CombinedValidationContext(combined(names, of(Bundle::OWN))), sni)
        }
        UpstreamTls::Server(server) => {
            let ServerAuth { roots, sni, sans, certificate, revocation } = &**server;
            not_in_files(cx, revocation)?;
            let names = sans.iter().map(san).collect();
            let own = match certificate {
                None => None,
                Some(certificate) => Some(shown(cx, certificate)?),
            };
            let validation = match roots {
                Roots::System => V::ValidationContext(pb::CertificateValidationContext {
                    system_root_certs: Some(pb::certificate_validation_context::SystemRootCerts {}),
                    match_typed_subject_alt_names: names,
                    ..pb::CertificateValidationContext::default()
                }),
                Roots::Of(bundle) => {
                    let roots = believed(cx, bundle)?;
                    let is_own = own.as_ref().is_some_and(|own| is_own([own], &roots));
                    not_own(cx, is_own)?;
                    V::CombinedValidationContext(combined(names, roots))
                }
            };
            (own, validation, sni)
        }
    };
    let common = common(certificate.into_iter().collect(), Some(validation), &[]);
    let sni = sni.as_deref().unwrap_or_default().to_owned();
    Some(Some(socket(&pb::UpstreamTlsContext { common_tls_context: Some(common), sni })))
}

pub(super) fn secret(name: &Name, secret: &Secret) -> pb::Secret {
    let held = match secret {
        Secret::Certificate { chain, key } => pb::secret::Type::TlsCertificate(pb::TlsCertificate {
            certificate_chain: Some(inline(chain)),
            private_key: Some(inline(key)),
        }),
        Secret::Roots { roots, crls } => {
            pb::secret::Type::ValidationContext(pb::CertificateValidationContext {
                trusted_ca: Some(inline(roots)),
                crl: (!crls.as_bytes().is_empty()).then(|| inline(crls)),
                ..pb::CertificateValidationContext::default()
            })
        }
    };
    pb::Secret { name: name.to_string(), r#type: Some(held) }
}

fn inline(text: &Wiped) -> core::DataSource {
    let bytes = text.as_bytes().to_vec();
    core::DataSource { specifier: Some(core::data_source::Specifier::InlineBytes(bytes)) }
}

pub(super) fn socket<M: prost::Message + prost::Name>(context: &M) -> core::TransportSocket {
    let config = core::transport_socket::ConfigType::TypedConfig(packed(context));
    core::TransportSocket { name: SOCKET.to_owned(), config_type: Some(config) }
}

/// Of both sides. Versions are said: without a word Envoy as a client stops at 1.2.
pub(super) fn common(
    certificates: Vec<pb::SdsSecretConfig>,
    validation: Option<pb::common_tls_context::ValidationContextType>,
    alpn: &[&str],
) -> pb::CommonTlsContext {
    use pb::tls_parameters::TlsProtocol;
    let versions = pb::TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
    };
    pb::CommonTlsContext {
        tls_params: Some(versions),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        tls_certificate_sds_secret_configs: certificates,
        validation_context_type: validation,
    }
}

/// A secret of the same stream.
pub(super) fn of(name: &str) -> pb::SdsSecretConfig {
    pb::SdsSecretConfig { name: name.to_owned(), sds_config: Some(stream()) }
}

/// What is shown of oneself.
pub(super) fn shown(cx: &mut Cx, certificate: &Certificate) -> Option<pb::SdsSecretConfig> {
    match certificate {
        Certificate::Secret(name) => Some(of(name.as_str())),
        Certificate::Files(_) => cx.fail(
            "transport_socket",
            "files are the reader's own: what can be named is its identity (`mtls`)",
        ),
    }
}

/// Whom one believes.
pub(super) fn believed(cx: &mut Cx, bundle: &Bundle) -> Option<pb::SdsSecretConfig> {
    match bundle {
        Bundle::Secret(name) => Some(of(name.as_str())),
        Bundle::File(_) => cx.fail("transport_socket", "files are the reader's own: what can be named is whom its system believes, or its identity (`mtls`)"),
    }
}

pub(super) fn not_in_files(cx: &mut Cx, revocation: &Revocation) -> Option<()> {
    if *revocation == Revocation::default() {
        return Some(());
    }
    cx.fail(
        "transport_socket",
        "files are the reader's own: revocation lists stand in its own file, at its identity",
    )
}

/// Whether these names together would be read as the proxy's own identity.
pub(super) fn is_own<'s>(
    certificates: impl IntoIterator<Item = &'s pb::SdsSecretConfig>,
    roots: &pb::SdsSecretConfig,
) -> bool {
    let mut certificates = certificates.into_iter();
    let is_one =
        certificates.next().is_some_and(|one| one.name == Certificate::OWN) && certificates.next().is_none();
    is_one && roots.name == Bundle::OWN
}

pub(super) fn not_own(cx: &mut Cx, is_own: bool) -> Option<()> {
    if !is_own {
        return Some(());
    }
    let problem = format!(
        "the secrets `{}` and `{}` together mean the proxy's own identity: name them otherwise",
        Certificate::OWN,
        Bundle::OWN
    );
    cx.fail("", problem)
}

fn combined(
    names: Vec<pb::SubjectAltNameMatcher>,
    roots: pb::SdsSecretConfig,
) -> pb::common_tls_context::CombinedCertificateValidationContext {
    let named = pb::CertificateValidationContext {
        match_typed_subject_alt_names: names,
        ..pb::CertificateValidationContext::default()
    };
    pb::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(named),
        validation_context_sds_secret_config: Some(roots),
    }
}

fn san(san: &San) -> pb::SubjectAltNameMatcher {
    use matcher::string_matcher::MatchPattern::Exact;
    use pb::subject_alt_name_matcher::SanType;
    match san {
        San::Dns(host) => named(SanType::Dns, Exact(host.to_string())),
        San::Ip(ip) => named(SanType::IpAddress, Exact(ip.to_string())),
        San::Spiffe(pattern) => peer(pattern),
    }
}

fn peer(peer: &PeerPattern) -> pb::SubjectAltNameMatcher {
    use matcher::string_matcher::MatchPattern::{Exact, Prefix};
    use pb::subject_alt_name_matcher::SanType;
    match peer {
        PeerPattern::Exact(id) => named(SanType::Uri, Exact(id.to_string())),
        PeerPattern::Below(above) => named(SanType::Uri, Prefix(above.to_string())),
    }
}

fn named(
    kind: pb::subject_alt_name_matcher::SanType,
    pattern: matcher::string_matcher::MatchPattern,
) -> pb::SubjectAltNameMatcher {
    let matcher = matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: false };
    pb::SubjectAltNameMatcher { san_type: kind.into(), matcher: Some(matcher) }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
