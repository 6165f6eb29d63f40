//! Which connections a chain takes.

use super::super::super::generated::envoy::config::listener::v3 as pb;
use super::super::super::generated::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use super::super::super::tls::{BY_TLS, IN_THE_CLEAR};
use super::super::filters;
use crate::model::{ChainMatch, HostPattern, Origin, Transport};

pub(super) fn matches(matches: &ChainMatch) -> pb::FilterChainMatch {
    let ChainMatch {
        port,
        destinations,
        hosts,
        transport,
        protocols,
        direct_sources,
        origin,
        sources,
        source_ports,
    } = matches;
    let host = |host: &HostPattern| match host {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Suffix(domain) => format!("*{domain}"),
    };
    let transport_protocol = match transport {
        None => "",
        Some(Transport::Tls) => BY_TLS,
        Some(Transport::Clear) => IN_THE_CLEAR,
    };
    let source_type = match origin {
        None => ConnectionSourceType::Any,
        Some(Origin::Local) => ConnectionSourceType::SameIpOrLoopback,
        Some(Origin::External) => ConnectionSourceType::External,
    };
    pb::FilterChainMatch {
        prefix_ranges: destinations.iter().map(filters::network).collect(),
        source_prefix_ranges: sources.iter().map(filters::network).collect(),
        source_ports: source_ports.iter().map(|port| port.get().into()).collect(),
        destination_port: port.map(|port| port.get().into()),
        transport_protocol: transport_protocol.to_owned(),
        application_protocols: protocols.iter().map(ToString::to_string).collect(),
        server_names: hosts.iter().map(host).collect(),
        source_type: source_type.into(),
        direct_source_prefix_ranges: direct_sources.iter().map(filters::network).collect(),
    }
}
