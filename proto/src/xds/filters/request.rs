//! Conditions of rules on a request's head.

use http::{HeaderName, Method};

use super::super::cx::Cx;
use super::super::generated::envoy::config::route::v3 as route;
use super::super::generated::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::generated::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use super::text;
use crate::model::{HeaderRule, HostPattern, PathPattern, StringMatch, When};
use crate::yaml::{canonical_path, of_one_hop};

/// After an expression for a path, for all that is below it too.
pub(in crate::xds) const AND_BELOW: &str = "(?:/.*)?";
/// After an expression for a host, for its port.
pub(in crate::xds) const PORT: &str = ":[0-9]+";
/// Before an expression for a domain, for the hosts in it.
pub(in crate::xds) const HOST_IN: &str = "(?i).*";

pub(super) fn header(cx: &mut Cx, header: route::HeaderMatcher) -> Option<When> {
    let route::HeaderMatcher { name, invert_match, header_match_specifier } = header;
    let wanted = match header_match_specifier {
        None => Ok(true),
        Some(HeaderMatchSpecifier::PresentMatch(there)) => Ok(there),
        Some(HeaderMatchSpecifier::StringMatch(text)) => Err(text),
        // The older words.
        Some(HeaderMatchSpecifier::ExactMatch(text)) => Err(older(MatchPattern::Exact(text))),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => Err(older(MatchPattern::Prefix(text))),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => Err(older(MatchPattern::Suffix(text))),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => Err(older(MatchPattern::Contains(text))),
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => Err(older(MatchPattern::SafeRegex(regex))),
    };
    let wanted = match wanted {
        Ok(there) => Ok(there != invert_match),
        Err(_) if invert_match => return cx.fail("invert_match", "not with a text"),
        Err(text) => Err(text),
    };
    let pseudo = |cx: &mut Cx| match &wanted {
        Ok(_) => cx.fail("string_match", "it is always there: write what it is to be"),
        Err(text) => Some(text.clone()),
    };
    match name.to_ascii_lowercase().as_str() {
        ":method" => {
            let text = pseudo(cx)?;
            let (MatchPattern::Exact(method), false) = text::matcher(cx, text)? else {
                return cx.fail("string_match", "a method is matched exactly");
            };
            let method = Method::from_bytes(method.as_bytes());
            let method = method.ok().or_else(|| cx.fail("string_match.exact", "this is not a method"))?;
            Some(When { methods: [method].into(), ..When::default() })
        }
        ":authority" | "host" => {
            let text = pseudo(cx)?;
            let host = cx.within("string_match", |cx| host(cx, text))?;
            Some(When { hosts: [host].into(), ..When::default() })
        }
        lower => {
            let name = HeaderName::from_bytes(lower.as_bytes()).ok().filter(|name| !of_one_hop(name));
            let name = name.or_else(|| cx.fail("name", format!("`{lower}` is not supported")))?;
            let value = match wanted {
                Ok(true) => StringMatch::Present,
                Ok(false) => StringMatch::Absent,
                Err(text) => cx.within("string_match", |cx| text::string(cx, text))?,
            };
            Some(When { headers: [HeaderRule { name, value }].into(), ..When::default() })
        }
    }
}

fn older(pattern: MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

/// A host, or a domain; with any port, as rules ask for none.
pub(super) fn host(cx: &mut Cx, text: matcher::StringMatcher) -> Option<HostPattern> {
    let (pattern, _) = text::matcher(cx, text)?;
    let exact = |host: &str| {
        let host = host.to_ascii_lowercase();
        let fits = !host.is_empty() && !host.contains(['*', '/']) && !has_port(&host);
        fits.then(|| HostPattern::Exact(host.into()))
    };
    let suffix = |suffix: &str| {
        let suffix = suffix.to_ascii_lowercase();
        let fits = suffix.len() > 1 && suffix.starts_with('.') && !suffix.contains(['*', '/', ':']);
        fits.then(|| HostPattern::Suffix(suffix.into()))
    };
    let host = match &pattern {
        MatchPattern::Exact(host) => exact(host),
        MatchPattern::Prefix(host) => host.strip_suffix(':').and_then(exact),
        MatchPattern::Suffix(domain) => suffix(domain),
        MatchPattern::SafeRegex(matcher::RegexMatcher { regex }) => {
            let domain = regex.strip_prefix(HOST_IN).and_then(|rest| rest.strip_suffix(PORT));
            domain.and_then(unescaped).as_deref().and_then(suffix)
        }
        MatchPattern::Contains(_) => None,
    };
    host.or_else(|| {
        cx.fail(
            "",
            "this is not supported: write `exact` with a host, or `suffix` with a domain behind a `.`",
        )
    })
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(before, port)| {
        // The colons of an address stand within brackets.
        !port.ends_with(']') && !before.is_empty()
    })
}

pub(super) fn path(cx: &mut Cx, path: matcher::PathMatcher) -> Option<PathPattern> {
    let matcher::PathMatcher { rule } = path;
    let matcher::path_matcher::Rule::Path(text) = cx.required("path", rule)?;
    cx.within("path", |cx| {
        let canonical = |cx: &mut Cx, field: &str, path: &str| match canonical_path(path) {
            Ok(()) => Some(()),
            Err(why) => cx.fail(field, why),
        };
        let pattern = match text::matcher(cx, text)? {
            (MatchPattern::Exact(path), false) => {
                canonical(cx, "exact", &path)?;
                return Some(PathPattern::Exact(path.into()));
            }
            (MatchPattern::Prefix(path), false) => {
                canonical(cx, "prefix", &path)?;
                if path.ends_with('/') {
                    return Some(PathPattern::Below(path.into()));
                }
                (MatchPattern::Prefix(path), false)
            }
            (MatchPattern::SafeRegex(expression), false) => {
                let prefix = expression.regex.strip_suffix(AND_BELOW).and_then(unescaped);
                let prefix = prefix.filter(|path| path.is_empty() || canonical_path(path).is_ok());
                if let Some(prefix) = prefix.filter(|path| !path.ends_with('/')) {
                    return Some(PathPattern::Prefix(prefix.into()));
                }
                (MatchPattern::SafeRegex(expression), false)
            }
            other => other,
        };
        text::expression(cx, pattern.0, pattern.1).map(PathPattern::Regex)
    })
}

/// The text that an expression stands for, where it stands for one.
fn unescaped(expression: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = expression.chars();
    while let Some(next) = rest.next() {
        text.push(if next == '\\' { rest.next()? } else { next });
    }
    (regex::escape(&text) == expression).then_some(text)
}
