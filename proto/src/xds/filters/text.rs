//! Conditions on texts and networks, as filters have them.

use ipnet::IpNet;

use super::super::cx::Cx;
use super::super::expression;
use super::super::generated::envoy::config::core::v3::CidrRange;
use super::super::generated::envoy::r#type::matcher::v3 as pb;
use super::super::generated::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use crate::model::{Pattern, StringMatch};

/// A network; bits beyond its length do not count.
pub(in crate::xds) fn network(cx: &mut Cx, range: CidrRange) -> Option<IpNet> {
    let CidrRange { address_prefix, prefix_len } = range;
    let Ok(address) = address_prefix.parse() else {
        return cx.fail("address_prefix", "this is not an IP address");
    };
    let length = u8::try_from(prefix_len.unwrap_or_default()).ok();
    match length.and_then(|length| IpNet::new(address, length).ok()) {
        Some(network) => Some(network.trunc()),
        None => cx.fail("prefix_len", "an address has not so many bits"),
    }
}

/// A text and whether letter case counts.
pub(super) fn matcher(cx: &mut Cx, matcher: pb::StringMatcher) -> Option<(MatchPattern, bool)> {
    let pb::StringMatcher { match_pattern, ignore_case } = matcher;
    let pattern = cx.required("match_pattern", match_pattern)?;
    Some((pattern, ignore_case))
}

pub(super) fn string(cx: &mut Cx, written: pb::StringMatcher) -> Option<StringMatch> {
    let (pattern, ignore_case) = matcher(cx, written)?;
    Some(match (pattern, ignore_case) {
        (MatchPattern::Exact(text), false) => StringMatch::Exact(text.into()),
        (MatchPattern::Prefix(text), false) => StringMatch::Prefix(text.into()),
        (pattern, ignore_case) => StringMatch::Regex(expression(cx, pattern, ignore_case)?),
    })
}

/// The same as an expression.
pub(super) fn expression(cx: &mut Cx, written: MatchPattern, ignore_case: bool) -> Option<Pattern> {
    let case = if ignore_case { "(?i)" } else { "" };
    let (field, expression) = match written {
        MatchPattern::Exact(text) => ("exact", format!("{case}^{}$", regex::escape(&text))),
        MatchPattern::Prefix(text) => ("prefix", format!("{case}^{}", regex::escape(&text))),
        MatchPattern::Suffix(text) => ("suffix", format!("{case}{}$", regex::escape(&text))),
        MatchPattern::Contains(text) => ("contains", format!("{case}{}", regex::escape(&text))),
        MatchPattern::SafeRegex(theirs) => {
            return compiled(cx, "safe_regex.regex", expression::read(&theirs.regex));
        }
    };
    compiled(cx, field, expression::compiled(&expression))
}

fn compiled(cx: &mut Cx, field: &str, read: Result<Pattern, String>) -> Option<Pattern> {
    read.map_or_else(|why| cx.fail(field, why), Some)
}
