//! What is written means what was meant: a policy is looked at as Envoy does, a rule as the model does, and both say the
//! same of requests that nearly fit.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::model::{ClaimRule, Filter};
use crate::xds::generated::envoy::r#type::matcher::v3::value_matcher::MatchPattern as V;

/// A request, and who sends it.
#[derive(Clone, Debug)]
struct Facts {
    peer: String,
    source: IpAddr,
    sni: String,
    port: u16,
    method: String,
    authority: String,
    path: String,
    headers: BTreeMap<String, String>,
    claims: BTreeMap<String, String>,
}

/// Requests that fit, but for one part at a time.
fn nearly(when: &When) -> Vec<Facts> {
    let When { peers, source, sni, ports, methods, hosts, paths, headers, claims } = when;
    let peers: Vec<String> =
        peers.iter().flat_map(|peer| around(peer.to_string().trim_end_matches('*'))).collect();
    let source: Vec<IpAddr> = source
        .iter()
        .flat_map(|net| [net.network(), net.broadcast(), IpAddr::from([203, 0, 113, 9])])
        .collect();
    let sni: Vec<String> = sni.iter().flat_map(names).collect();
    let ports: Vec<u16> = ports.iter().flat_map(|port| [*port, port.wrapping_add(1)]).collect();
    let methods: Vec<String> = methods.iter().map(ToString::to_string).chain(["TRACE".to_owned()]).collect();
    let authorities: Vec<String> =
        hosts.iter().flat_map(names).flat_map(|host| [host.clone(), format!("{host}:80")]).collect();
    let path = |path: &PathPattern| match path {
        PathPattern::Exact(path) | PathPattern::Below(path) | PathPattern::Prefix(path) => around(path),
        PathPattern::Regex(_) => vec!["/v1".to_owned(), "/v1/".to_owned(), "/x/v1".to_owned()],
    };
    let paths: Vec<String> = paths.iter().flat_map(path).collect();
    let first = |all: &[String], other: &str| all.first().map_or_else(|| other.to_owned(), Clone::clone);
    let value = |rule: &HeaderRule| match &rule.value {
        StringMatch::Exact(text) | StringMatch::Prefix(text) => Some(text.to_string()),
        StringMatch::Present | StringMatch::Regex(_) => Some("a".to_owned()),
        StringMatch::Absent => None,
    };
    let fields = headers.iter().filter_map(|rule| Some((rule.name.to_string(), value(rule)?)));
    let said = claims.iter().map(|rule| (rule.name.to_string(), rule.values[0].to_string()));
    let fits = Facts {
        peer: first(&peers, "spiffe://other/a"),
        source: source.first().copied().unwrap_or(IpAddr::from([203, 0, 113, 9])),
        sni: first(&sni, "other.example"),
        port: ports.first().copied().unwrap_or(80),
        method: first(&methods, "GET"),
        authority: first(&authorities, "other.example"),
        path: first(&paths, "/other"),
        headers: fields.collect(),
        claims: said.collect(),
    };
    let mut all = vec![fits.clone()];
    all.extend(peers.into_iter().map(|peer| Facts { peer, ..fits.clone() }));
    all.extend(source.into_iter().map(|source| Facts { source, ..fits.clone() }));
    all.extend(sni.into_iter().map(|sni| Facts { sni, ..fits.clone() }));
    all.extend(ports.into_iter().map(|port| Facts { port, ..fits.clone() }));
    all.extend(methods.into_iter().map(|method| Facts { method, ..fits.clone() }));
    all.extend(authorities.into_iter().map(|authority| Facts { authority, ..fits.clone() }));
    all.extend(paths.into_iter().map(|path| Facts { path, ..fits.clone() }));
    with_fields(&fits, when, &mut all);
    all
}

fn with_fields(fits: &Facts, when: &When, all: &mut Vec<Facts>) {
    for name in when.headers.iter().map(|rule| rule.name.as_str()) {
        let there = fits.headers.get(name).cloned().unwrap_or_default();
        for value in around(&there).into_iter().map(Some).chain([None]) {
            let mut facts = fits.clone();
            facts.headers.remove(name);
            facts.headers.extend(value.map(|value| (name.to_owned(), value)));
            all.push(facts);
        }
    }
    for (name, value) in &fits.claims {
        for value in [format!("a {value} b"), format!("{value} b"), format!("{value}b"), String::new()] {
            let mut facts = fits.clone();
            facts.claims.insert(name.clone(), value);
            all.push(facts);
        }
    }
}

fn around(text: &str) -> Vec<String> {
    let cut = text.trim_end_matches('/');
    [text, &format!("{cut}/x"), &format!("{cut}x"), cut, &format!("x{text}")].map(str::to_owned).to_vec()
}

fn names(host: &HostPattern) -> Vec<String> {
    match host {
        HostPattern::Exact(host) => {
            vec![host.to_string(), host.to_uppercase(), format!("x.{host}"), format!("{host}.x")]
        }
        HostPattern::Suffix(domain) => {
            vec![format!("x{domain}"), format!("Y.X{domain}"), domain[1..].to_owned(), format!("x{domain}.x")]
        }
    }
}

fn host_is(host: &HostPattern, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match host {
        HostPattern::Exact(host) => **host == *name,
        HostPattern::Suffix(domain) => name.len() > domain.len() && name.ends_with(&**domain),
    }
}

fn meant(when: &When, facts: &Facts) -> bool {
    let When { peers, source, sni, ports, methods, hosts, paths, headers, claims } = when;
    let id = crate::model::SpiffeId::new(&facts.peer);
    let host = facts.authority.strip_suffix(":80").unwrap_or(&facts.authority);
    let path = |path: &PathPattern| match path {
        PathPattern::Exact(exact) => **exact == *facts.path,
        PathPattern::Below(above) => facts.path.starts_with(&**above),
        PathPattern::Prefix(prefix) => {
            facts.path == **prefix || facts.path.starts_with(&format!("{prefix}/"))
        }
        PathPattern::Regex(pattern) => pattern.is_match(&facts.path),
    };
    let header = |rule: &HeaderRule| {
        let value = facts.headers.get(rule.name.as_str());
        match (&rule.value, value) {
            (StringMatch::Absent, value) => value.is_none(),
            (_, None) => false,
            (StringMatch::Present, Some(_)) => true,
            (StringMatch::Exact(text), Some(value)) => **text == *value.as_str(),
            (StringMatch::Prefix(text), Some(value)) => value.starts_with(&**text),
            (StringMatch::Regex(pattern), Some(value)) => pattern.is_match(value),
        }
    };
    let claim = |rule: &ClaimRule| {
        let said = facts.claims.get(&*rule.name).map_or("", String::as_str);
        let is_one = |text: &str| rule.values.iter().any(|value| **value == *text);
        is_one(said) || said.split(' ').any(is_one)
    };
    (peers.is_empty() || id.is_ok_and(|id| peers.iter().any(|peer| peer.matches(&id))))
        && (source.is_empty() || source.iter().any(|network| network.contains(&facts.source)))
        && (sni.is_empty() || sni.iter().any(|host| host_is(host, &facts.sni)))
        && (ports.is_empty() || ports.contains(&facts.port))
        && (methods.is_empty() || methods.iter().any(|method| method.as_str() == facts.method))
        && (hosts.is_empty() || hosts.iter().any(|pattern| host_is(pattern, host)))
        && (paths.is_empty() || paths.iter().any(path))
        && headers.iter().all(header)
        && claims.iter().all(claim)
}

fn text_is(matcher: &matcher::StringMatcher, text: &str) -> bool {
    let lower = |text: &str| if matcher.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    match matcher.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(exact) => lower(text) == lower(exact),
        MatchPattern::Prefix(prefix) => lower(text).starts_with(&lower(prefix)),
        MatchPattern::Suffix(suffix) => lower(text).ends_with(&lower(suffix)),
        MatchPattern::Contains(_) => panic!("this is not written"),
        MatchPattern::SafeRegex(expression) => {
            Pattern::new(&format!("^(?:{})$", expression.regex)).unwrap().is_match(text)
        }
    }
}

fn what_fits(permission: &pb::Permission, facts: &Facts) -> bool {
    match permission.rule.as_ref().unwrap() {
        P::AndRules(set) => set.rules.iter().all(|rule| what_fits(rule, facts)),
        P::OrRules(set) => set.rules.iter().any(|rule| what_fits(rule, facts)),
        P::Any(any) => *any,
        P::Header(header) => {
            let value = match header.name.as_str() {
                ":method" => Some(&facts.method),
                ":authority" => Some(&facts.authority),
                name => facts.headers.get(name),
            };
            match header.header_match_specifier.as_ref().unwrap() {
                HeaderMatchSpecifier::PresentMatch(there) => value.is_some() == *there,
                HeaderMatchSpecifier::StringMatch(text) => value.is_some_and(|value| text_is(text, value)),
                _ => panic!("older words are not written"),
            }
        }
        P::UrlPath(path) => {
            let matcher::path_matcher::Rule::Path(path) = path.rule.as_ref().unwrap();
            text_is(path, &facts.path)
        }
        P::DestinationPort(port) => *port == u32::from(facts.port),
        P::RequestedServerName(name) => text_is(name, &facts.sni),
    }
}

fn who_fits(principal: &pb::Principal, facts: &Facts) -> bool {
    match principal.identifier.as_ref().unwrap() {
        I::AndIds(set) => set.ids.iter().all(|id| who_fits(id, facts)),
        I::OrIds(set) => set.ids.iter().any(|id| who_fits(id, facts)),
        I::Any(any) => *any,
        I::Authenticated(who) => text_is(who.principal_name.as_ref().unwrap(), &facts.peer),
        I::RemoteIp(range) => {
            let network = format!("{}/{}", range.address_prefix, range.prefix_len.unwrap());
            network.parse::<ipnet::IpNet>().unwrap().contains(&facts.source)
        }
        I::DirectRemoteIp(_) | I::Header(_) => panic!("these are not written"),
        I::Metadata(metadata) => {
            let matcher::metadata_matcher::path_segment::Segment::Key(name) =
                metadata.path[1].segment.as_ref().unwrap();
            let said = facts.claims.get(name).map_or("", String::as_str);
            let Some(V::OrMatch(any)) = &metadata.value.as_ref().unwrap().match_pattern else {
                panic!("any of some")
            };
            // A claim that is a text is no list, no number and no truth.
            any.value_matchers.iter().any(|one| match one.match_pattern.as_ref().unwrap() {
                V::StringMatch(text) => text_is(text, said),
                V::ListMatch(_) | V::BoolMatch(_) | V::DoubleMatch(_) | V::OrMatch(_) => false,
            })
        }
    }
}

/// Identities that are none are nobody's: Envoy would compare them all the same.
fn is_somebody(facts: &Facts) -> bool {
    crate::model::SpiffeId::new(&facts.peer).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn envoy_makes_of_a_policy_what_the_rule_means(config in crate::model::random::config()) {
        let chains = config.mesh.listeners.values().flat_map(|listener| listener.chains.each());
        for chain in chains.filter(|chain| matches!(chain.filter, Filter::Http(_))) {
            for rule in chain.authorization.iter().flat_map(|all| all.rules.iter()) {
                let policy = policy(&rule.when);
                for facts in nearly(&rule.when).iter().filter(|facts| is_somebody(facts)) {
                    let fits = policy.permissions.iter().any(|one| what_fits(one, facts))
                        && policy.principals.iter().any(|one| who_fits(one, facts));
                    prop_assert_eq!(fits, meant(&rule.when, facts), "{:?} {:?}", rule.when, facts);
                }
            }
        }
    }
}
