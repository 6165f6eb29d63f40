//! TLS of both sides. What it is made of comes in secrets of the same stream, never in files: those are the reader's own.
//!
//! The proxy's own identity is none of them, as its key never leaves the machine. Two names together stand for it, which
//! agents of meshes serve Envoy by: the certificate [`Certificate::OWN`], vouched for by [`Bundle::OWN`]. Envoy asks for secrets of these
//! names, and so behaves alike where it gets them; each of them alone is a secret as any other.

use prost::{Message, Name as _};
use prost_types::Any;

use super::any;
use super::cluster::ads;
use super::cx::Cx;
use super::generated::envoy::config::core::v3 as core;
use super::generated::envoy::config::listener::v3 as listener;
use super::generated::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use super::generated::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use super::generated::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use super::generated::envoy::extensions::transport_sockets::tls::v3 as pb;
use super::generated::envoy::r#type::matcher::v3 as matcher;
use crate::model::{
    Bundle, Certificate, ClientAuth, ClientTrust, DestinationSource, DownstreamTls, Mutual, MutualUpstream,
    Name, PeerPattern, Revocation, Roots, San, ServerAuth, ServerTls, SpiffeId, UpstreamTls, is_host_name,
};

/// A chain for connections with TLS.
pub(super) const BY_TLS: &str = "tls";
/// A chain for connections in the clear.
pub(super) const IN_THE_CLEAR: &str = "raw_buffer";
/// What is offered where HTTP is spoken.
pub(super) const HTTP: [&str; 2] = ["h2", "http/1.1"];

/// What both sides have.
struct Common {
    alpn: Vec<String>,
    certificates: Vec<Name>,
    validation: Option<Validation>,
}

/// Who is good.
struct Validation {
    roots: Roots,
    /// Any of them, if there are some.
    names: Vec<San>,
}

impl Validation {
    /// Whether it is what the proxy's identity believes, beside these certificates.
    fn is_own(&self, certificates: &[Name]) -> bool {
        let [certificate] = certificates else { return false };
        let of_secret =
            matches!(&self.roots, Roots::Of(Bundle::Secret(name)) if name.as_str() == Bundle::OWN);
        of_secret && certificate.as_str() == Certificate::OWN
    }
}

/// TLS towards the endpoints of a cluster, if there is any.
pub(super) fn upstream(cx: &mut Cx, socket: Option<core::TransportSocket>) -> Option<Option<UpstreamTls>> {
    let Some(socket) = socket else { return Some(None) };
    cx.within("transport_socket", |cx| {
        let pb::UpstreamTlsContext { common_tls_context, sni } = unpacked(cx, socket)?;
        cx.within("typed_config", |cx| {
            let sni = if sni.is_empty() { Some(None) } else { host(cx, "sni", &sni).map(Some) };
            let common = common(cx, common_tls_context)?;
            cx.within("common_tls_context", |cx| endpoints(cx, common, sni?))
        })
    })
    .map(Some)
}

fn endpoints(cx: &mut Cx, common: Common, sni: Option<Box<str>>) -> Option<UpstreamTls> {
    let Common { alpn, certificates, validation } = common;
    if !alpn.iter().all(|name| HTTP.contains(&name.as_str())) {
        return cx.fail(
            "alpn_protocols",
            "what is offered follows from what is spoken with the cluster: h2 or http/1.1",
        );
    }
    let validation = validation.filter(|validation| !validation.names.is_empty());
    let Some(validation) = validation else {
        let problem = "it is not said whose certificate is expected: write `combined_validation_context`, \
            with `match_typed_subject_alt_names` and the roots' secret";
        return cx.fail("", problem);
    };
    let is_own = validation.is_own(&certificates);
    let Validation { roots, names } = validation;
    if is_own {
        let peer = |name| match name {
            San::Spiffe(peer) => Some(peer),
            San::Dns(_) | San::Ip(_) => None,
        };
        let peers: Option<Box<[PeerPattern]>> = names.into_iter().map(peer).collect();
        let Some(peers) = peers else {
            return cx.fail(
                "combined_validation_context.default_validation_context.match_typed_subject_alt_names",
                "with the proxy's own identity peers are SPIFFE IDs: write `san_type: URI`",
            );
        };
        return Some(UpstreamTls::Mutual(MutualUpstream { peers, sni }));
    }
    let mut certificates = certificates.into_iter();
    let certificate = certificates.next().map(Certificate::Secret);
    if certificates.next().is_some() {
        return cx.fail("tls_certificate_sds_secret_configs", "one at most is supported");
    }
    let revocation = Revocation::default();
    let server = ServerAuth { roots, sni, sans: names.into(), certificate, revocation };
    Some(UpstreamTls::Server(Box::new(server)))
}

/// What looks at a connection first: for TLS, which is done anyway, and for where it was going.
pub(super) fn inspectors(
    cx: &mut Cx,
    inspectors: Vec<listener::ListenerFilter>,
) -> Option<DestinationSource> {
    let looked = cx.each("listener_filters", inspectors, |cx, filter| {
        let listener::listener_filter::ConfigType::TypedConfig(any) =
            cx.required("typed_config", filter.config_type)?;
        cx.within("typed_config", |cx| match any::is::<OriginalDst>(&any) {
            true => decoded(cx, &any).map(|OriginalDst {}| DestinationSource::Redirected),
            false => decoded::<TlsInspector>(cx, &any).map(|_| DestinationSource::Bound),
        })
    })?;
    let redirected = looked.contains(&DestinationSource::Redirected);
    Some(if redirected { DestinationSource::Redirected } else { DestinationSource::Bound })
}

/// The place of the one with TLS, of two chains that differ in nothing but that the other is in the clear, where TLS is by
/// the proxy's own identity: they are one that asks for TLS and goes without.
pub(super) fn permissive(chains: &[listener::FilterChain]) -> Option<usize> {
    let [first, second] = chains else { return None };
    let by = |protocol: &str| {
        let transport_protocol = protocol.to_owned();
        Some(listener::FilterChainMatch { transport_protocol, ..Default::default() })
    };
    let (by_tls, in_the_clear) = (by(BY_TLS), by(IN_THE_CLEAR));
    let (place, tls, clear) = match (&first.filter_chain_match, &second.filter_chain_match) {
        (one, other) if (one, other) == (&by_tls, &in_the_clear) => (0, first, second),
        (one, other) if (one, other) == (&in_the_clear, &by_tls) => (1, second, first),
        (_, _) => return None,
    };
    let same = (&tls.filters, &tls.metadata) == (&clear.filters, &clear.metadata);
    if !same || clear.transport_socket.is_some() {
        return None;
    }
    // What is wrong with it is said where the two are read as two.
    let around = around(&mut Cx::new(String::new()), tls.transport_socket.clone(), &tls.filters)?;
    (around == Some(DownstreamTls::Mutual(Mutual::Strict))).then_some(place)
}

/// What is around connections of a chain with these filters, if anything is.
pub(super) fn around(
    cx: &mut Cx,
    socket: Option<core::TransportSocket>,
    filters: &[listener::Filter],
) -> Option<Option<DownstreamTls>> {
    let Some(socket) = socket else { return Some(None) };
    let manager = HttpConnectionManager::full_name();
    let is_http = filters.iter().any(|filter| match &filter.config_type {
        Some(listener::filter::ConfigType::TypedConfig(any)) => type_of(any) == manager,
        None => false,
    });
    cx.within("transport_socket", |cx| {
        let context: pb::DownstreamTlsContext = unpacked(cx, socket)?;
        cx.within("typed_config", |cx| clients(cx, context, is_http))
    })
    .map(Some)
}

fn clients(cx: &mut Cx, context: pb::DownstreamTlsContext, is_http: bool) -> Option<DownstreamTls> {
    let pb::DownstreamTlsContext { common_tls_context, require_client_certificate } = context;
    let required = require_client_certificate.unwrap_or(false);
    let Common { alpn, certificates, validation } = common(cx, common_tls_context)?;
    let below = |field: &str| format!("common_tls_context.{field}");
    if !alpn.is_empty() && (!is_http || alpn != HTTP) {
        let problem = "with HTTP h2 and http/1.1 are offered, in this order; with bytes nothing is";
        return cx.fail(&below("alpn_protocols"), problem);
    }
    if certificates.is_empty() {
        return cx.fail(&below("tls_certificate_sds_secret_configs"), "there is none: at least one is shown");
    }
    let client = match validation {
        None if required => {
            let problem = "nobody is said to vouch for clients: write `validation_context_sds_secret_config`";
            return cx.fail("require_client_certificate", problem);
        }
        None => ClientAuth::None,
        Some(validation) if required && validation.is_own(&certificates) && validation.names.is_empty() => {
            return Some(DownstreamTls::Mutual(Mutual::Strict));
        }
        Some(Validation { roots: Roots::Of(roots), names }) if names.is_empty() => {
            let trust = ClientTrust { roots, revocation: Revocation::default() };
            if required { ClientAuth::Required(trust) } else { ClientAuth::Optional(trust) }
        }
        Some(Validation { roots: Roots::Of(_), names: _ }) => {
            let problem = "which clients may do what is not said here, but by the filter RBAC";
            return cx.fail(
                &below(
                    "combined_validation_context.default_validation_context.match_typed_subject_alt_names",
                ),
                problem,
            );
        }
        Some(Validation { roots: Roots::System, names: _ }) => {
            let problem = "clients are checked against the roots of a secret: write `validation_context_sds_secret_config`";
            return cx.fail(&below("validation_context"), problem);
        }
    };
    let certificates = certificates.into_iter().map(Certificate::Secret).collect();
    Some(DownstreamTls::Own(ServerTls { certificates, client }))
}

fn common(cx: &mut Cx, context: Option<pb::CommonTlsContext>) -> Option<Common> {
    let pb::CommonTlsContext {
        tls_params,
        alpn_protocols,
        tls_certificate_sds_secret_configs,
        validation_context_type,
    } = context.unwrap_or_default();
    cx.within("common_tls_context", |cx| {
        let versions = cx.within("tls_params", |cx| versions(cx, tls_params.unwrap_or_default()));
        let certificates =
            cx.each("tls_certificate_sds_secret_configs", tls_certificate_sds_secret_configs, secret);
        use pb::common_tls_context::ValidationContextType as V;
        let validation = match validation_context_type {
            None => Some(None),
            Some(V::ValidationContext(context)) => {
                cx.within("validation_context", |cx| believes_system(cx, context)).map(Some)
            }
            Some(V::ValidationContextSdsSecretConfig(of)) => {
                cx.within("validation_context_sds_secret_config", |cx| believes(cx, of, Vec::new())).map(Some)
            }
            Some(V::CombinedValidationContext(combined)) => {
                cx.within("combined_validation_context", |cx| believes_named(cx, combined)).map(Some)
            }
        };
        versions?;
        Some(Common { alpn: alpn_protocols, certificates: certificates?, validation: validation? })
    })
}

/// Those that are spoken, and no others: a listener that was to take less must not take more.
fn versions(cx: &mut Cx, params: pb::TlsParameters) -> Option<()> {
    use pb::tls_parameters::TlsProtocol;
    let pb::TlsParameters { tls_minimum_protocol_version: least, tls_maximum_protocol_version: most } =
        params;
    let mut held = |field: &str, version: i32, is: TlsProtocol| {
        let version = TlsProtocol::try_from(version).unwrap_or_default();
        if version == TlsProtocol::TlsAuto || version == is {
            return Some(());
        }
        let problem = format!("TLS 1.2 and 1.3 are spoken: write {}, or nothing", is.as_str_name());
        cx.fail(field, problem)
    };
    let least = held("tls_minimum_protocol_version", least, TlsProtocol::TlSv12);
    let most = held("tls_maximum_protocol_version", most, TlsProtocol::TlSv13);
    least.and(most)
}

/// The name of a secret of the same stream.
fn secret(cx: &mut Cx, of: pb::SdsSecretConfig) -> Option<Name> {
    let pb::SdsSecretConfig { name, sds_config } = of;
    let name = Name::new(&name).or_else(|| cx.fail("name", "this is not a name"));
    ads(cx, "sds_config", sds_config)?;
    name
}

fn believes(cx: &mut Cx, of: pb::SdsSecretConfig, names: Vec<San>) -> Option<Validation> {
    let roots = Roots::Of(Bundle::Secret(secret(cx, of)?));
    Some(Validation { roots, names })
}

fn believes_named(
    cx: &mut Cx,
    combined: pb::common_tls_context::CombinedCertificateValidationContext,
) -> Option<Validation> {
    let pb::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
    } = combined;
    let context = default_validation_context.unwrap_or_default();
    let names = cx.within("default_validation_context", |cx| {
        let (names, system) = names(cx, context)?;
        if system {
            return cx.fail("system_root_certs", "roots come from the secret beside it");
        }
        Some(names)
    });
    let of = cx.required("validation_context_sds_secret_config", validation_context_sds_secret_config)?;
    cx.within("validation_context_sds_secret_config", |cx| believes(cx, of, names?))
}

fn believes_system(cx: &mut Cx, context: pb::CertificateValidationContext) -> Option<Validation> {
    let (names, system) = names(cx, context)?;
    if !system {
        return cx.fail(
            "",
            "nobody is said to vouch: write `system_root_certs`, or `combined_validation_context` with the roots' secret",
        );
    }
    Some(Validation { roots: Roots::System, names })
}

/// The names, and whether those vouch whom the system trusts.
fn names(cx: &mut Cx, context: pb::CertificateValidationContext) -> Option<(Vec<San>, bool)> {
    let pb::CertificateValidationContext {
        trusted_ca,
        crl,
        match_typed_subject_alt_names,
        system_root_certs,
    } = context;
    for (field, is_there) in [("trusted_ca", trusted_ca.is_some()), ("crl", crl.is_some())] {
        if is_there {
            return cx.fail(field, "this comes in a secret: write `combined_validation_context`");
        }
    }
    let names = cx.each("match_typed_subject_alt_names", match_typed_subject_alt_names, san)?;
    Some((names, system_root_certs.is_some()))
}

fn san(cx: &mut Cx, name: pb::SubjectAltNameMatcher) -> Option<San> {
    use matcher::string_matcher::MatchPattern;
    use pb::subject_alt_name_matcher::SanType;
    let pb::SubjectAltNameMatcher { san_type, matcher } = name;
    let matcher::StringMatcher { match_pattern, ignore_case } = cx.required("matcher", matcher)?;
    if ignore_case {
        return cx.fail("matcher.ignore_case", "names are compared as they are: not supported");
    }
    let kind = SanType::try_from(san_type).unwrap_or_default();
    match (kind, match_pattern) {
        (SanType::Dns, Some(MatchPattern::Exact(name))) => host(cx, "matcher.exact", &name).map(San::Dns),
        (SanType::IpAddress, Some(MatchPattern::Exact(ip))) => match ip.parse() {
            Ok(ip) => Some(San::Ip(ip)),
            Err(_) => cx.fail("matcher.exact", format!("`{ip}` is not an IP address")),
        },
        (SanType::Uri, Some(MatchPattern::Exact(id))) => match SpiffeId::new(&id) {
            Ok(id) => Some(San::Spiffe(PeerPattern::Exact(id))),
            Err(error) => cx.fail("matcher.exact", format!("`{id}` is no SPIFFE ID: {error}")),
        },
        (SanType::Uri, Some(MatchPattern::Prefix(above))) if above.ends_with('/') => {
            match PeerPattern::new(&format!("{above}*")) {
                Ok(peers) => Some(San::Spiffe(peers)),
                Err(error) => {
                    cx.fail("matcher.prefix", format!("no SPIFFE ID begins with `{above}`: {error}"))
                }
            }
        }
        (SanType::Dns | SanType::IpAddress | SanType::Uri, _) => {
            cx.fail("matcher", "`exact` is supported, and of URIs a `prefix` that ends in `/`")
        }
        (SanType::Unspecified | SanType::Email | SanType::OtherName, _) => {
            cx.fail("san_type", "DNS, IP_ADDRESS and URI are supported")
        }
    }
}

/// A host that can be named; an address cannot (RFC 6066 section 3).
fn host(cx: &mut Cx, field: &str, name: &str) -> Option<Box<str>> {
    if !is_host_name(name) || name.parse::<std::net::IpAddr>().is_ok() {
        return cx.fail(field, format!("`{name}` is not a host's name"));
    }
    Some(name.to_ascii_lowercase().into())
}

fn unpacked<M: Message + prost::Name + Default>(cx: &mut Cx, socket: core::TransportSocket) -> Option<M> {
    // The name is for logs.
    let core::TransportSocket { name: _, config_type } = socket;
    let core::transport_socket::ConfigType::TypedConfig(any) = cx.required("typed_config", config_type)?;
    cx.within("typed_config", |cx| decoded(cx, &any))
}

fn decoded<M: Message + prost::Name + Default>(cx: &mut Cx, any: &Any) -> Option<M> {
    if type_of(any) != M::full_name() {
        return cx.fail("", format!("`{}` is of no use here: {} is", type_of(any), M::full_name()));
    }
    M::decode(any.value.as_slice()).map_or_else(|error| cx.fail("", error.to_string()), Some)
}

fn type_of(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}
