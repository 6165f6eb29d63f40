//! TLS towards clients.

use super::super::generated::envoy::config::listener::v3 as listener;
use super::super::generated::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use super::super::generated::envoy::extensions::transport_sockets::tls::v3 as pb;
use super::super::tls::{BY_TLS, HTTP, IN_THE_CLEAR};
use super::tls::{believed, common, is_own, not_in_files, not_own, of, shown, socket};
use super::{Cx, packed};
use crate::model::{
    Bundle, Certificate, ClientAuth, ClientTrust, DownstreamTls, Filter, FilterChain, Mutual, ServerTls,
};

/// As Envoy calls it.
const INSPECTOR: &str = "envoy.filters.listener.tls_inspector";

/// A chain that has everything but TLS, alone, with TLS as `model` has it: two chains where it goes without as well, and what
/// tells them apart.
pub(super) fn chains(
    cx: &mut Cx,
    model: &FilterChain,
    chain: listener::FilterChain,
) -> Option<(Vec<listener::FilterChain>, Vec<listener::ListenerFilter>)> {
    let by_tls = around(cx, model, chain.clone())?;
    match &model.tls {
        None | Some(DownstreamTls::Own(_) | DownstreamTls::Mutual(Mutual::Strict)) => {
            Some((vec![by_tls], Vec::new()))
        }
        Some(DownstreamTls::Mutual(Mutual::Permissive)) => {
            Some((vec![matching(by_tls, BY_TLS), matching(chain, IN_THE_CLEAR)], vec![inspector()]))
        }
    }
}

/// The same of one of several chains, none of which goes without as well.
pub(super) fn around(
    cx: &mut Cx,
    model: &FilterChain,
    chain: listener::FilterChain,
) -> Option<listener::FilterChain> {
    let context = match &model.tls {
        None => return Some(chain),
        Some(DownstreamTls::Own(own)) => context(cx, own, &model.filter)?,
        Some(DownstreamTls::Mutual(Mutual::Strict | Mutual::Permissive)) => {
            made(vec![of(Certificate::OWN)], Some(of(Bundle::OWN)), true, &model.filter)
        }
    };
    Some(listener::FilterChain { transport_socket: Some(socket(&context)), ..chain })
}

/// What looks at the first bytes for those who tell chains apart.
pub(super) fn inspector() -> listener::ListenerFilter {
    let inspector = listener::listener_filter::ConfigType::TypedConfig(packed(&TlsInspector {}));
    listener::ListenerFilter { name: INSPECTOR.to_owned(), config_type: Some(inspector) }
}

fn matching(chain: listener::FilterChain, protocol: &str) -> listener::FilterChain {
    let transport_protocol = protocol.to_owned();
    let matches = listener::FilterChainMatch { transport_protocol, ..Default::default() };
    listener::FilterChain { filter_chain_match: Some(matches), ..chain }
}

fn context(
    cx: &mut Cx,
    ServerTls { certificates, client }: &ServerTls,
    filter: &Filter,
) -> Option<pb::DownstreamTlsContext> {
    let certificates: Vec<_> = certificates.iter().map(|one| shown(cx, one)).collect::<Option<_>>()?;
    let (trust, required) = match client {
        ClientAuth::None => (None, false),
        ClientAuth::Optional(trust) => (Some(trust), false),
        ClientAuth::Required(trust) => (Some(trust), true),
    };
    let roots = match trust {
        None => None,
        Some(ClientTrust { roots, revocation }) => {
            not_in_files(cx, revocation)?;
            let roots = believed(cx, roots)?;
            not_own(cx, required && is_own(&certificates, &roots))?;
            Some(roots)
        }
    };
    Some(made(certificates, roots, required, filter))
}

fn made(
    certificates: Vec<pb::SdsSecretConfig>,
    roots: Option<pb::SdsSecretConfig>,
    required: bool,
    filter: &Filter,
) -> pb::DownstreamTlsContext {
    let alpn = match filter {
        Filter::Http(_) => &HTTP[..],
        Filter::Tcp(_) => &[],
    };
    let validation =
        roots.map(pb::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig);
    pb::DownstreamTlsContext {
        common_tls_context: Some(common(certificates, validation, alpn)),
        require_client_certificate: Some(required),
    }
}
