//! Claims of tokens, as rules find them: where jwt_authn writes what a token says, under a name of ours.

use super::super::any::OURS;
use super::super::cx::Cx;
use super::super::generated::envoy::r#type::matcher::v3 as pb;
use super::super::generated::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use super::super::generated::envoy::r#type::matcher::v3::value_matcher::MatchPattern as V;
use super::super::generated::envoy::r#type::matcher::v3::{list_matcher, metadata_matcher};
use crate::model::ClaimRule;

/// By which name Envoy's filter writes it down.
const FILTER: &str = "envoy.filters.http.jwt_authn";

/// A claim fits as a text, as a word of it, as an item of a list, or as a number or truth that is written so.
pub(in crate::xds) fn written(rule: &ClaimRule) -> pb::MetadataMatcher {
    let ClaimRule { name, values } = rule;
    let step = |key: &str| metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
    };
    let value_matchers = values.iter().flat_map(|value| one(value)).collect();
    pb::MetadataMatcher {
        filter: FILTER.to_owned(),
        path: vec![step(OURS), step(name)],
        value: Some(value(V::OrMatch(pb::OrMatcher { value_matchers }))),
    }
}

fn value(pattern: V) -> pb::ValueMatcher {
    pb::ValueMatcher { match_pattern: Some(pattern) }
}

fn text(pattern: MatchPattern) -> pb::ValueMatcher {
    value(V::StringMatch(pb::StringMatcher { match_pattern: Some(pattern), ignore_case: false }))
}

fn one(wanted: &str) -> Vec<pb::ValueMatcher> {
    let whole = regex::escape(wanted);
    // What has a space in it is no word of a text.
    let word = if wanted.contains(' ') { whole } else { format!("(?s:.* )?{whole}(?s: .*)?") };
    let item = Box::new(text(MatchPattern::Exact(wanted.to_owned())));
    let item = pb::ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(item)) };
    let mut all = vec![
        text(MatchPattern::SafeRegex(pb::RegexMatcher { regex: word })),
        value(V::ListMatch(Box::new(item))),
    ];
    if let Ok(truth) = wanted.parse() {
        all.push(value(V::BoolMatch(truth)));
    }
    // As it would be written, and no other way of writing it.
    if let Some(number) =
        wanted.parse::<f64>().ok().filter(|number| number.is_finite() && number.to_string() == wanted)
    {
        let pattern = Some(pb::double_matcher::MatchPattern::Exact(number));
        all.push(value(V::DoubleMatch(pb::DoubleMatcher { match_pattern: pattern })));
    }
    all
}

pub(super) fn read(cx: &mut Cx, matcher: &pb::MetadataMatcher) -> Option<ClaimRule> {
    let name = matcher.path.last().and_then(|step| step.segment.as_ref());
    let name = name.map(|metadata_matcher::path_segment::Segment::Key(key)| key.as_str().into());
    let wanted = matcher.value.as_ref().and_then(|value| value.match_pattern.as_ref());
    let values: Vec<Box<str>> = match wanted {
        Some(V::OrMatch(all)) => all.value_matchers.iter().filter_map(item).collect(),
        _ => Vec::new(),
    };
    let rule = ClaimRule { name: name.unwrap_or_default(), values: values.into() };
    if written(&rule) != *matcher || rule.values.is_empty() {
        return cx.fail("", "only claims are supported, written as Outrigger writes them");
    }
    Some(rule)
}

/// The text that an item of a list is to be.
fn item(matcher: &pb::ValueMatcher) -> Option<Box<str>> {
    let Some(V::ListMatch(list)) = &matcher.match_pattern else { return None };
    let Some(list_matcher::MatchPattern::OneOf(item)) = &list.match_pattern else { return None };
    let Some(V::StringMatch(text)) = &item.match_pattern else { return None };
    match &text.match_pattern {
        Some(MatchPattern::Exact(text)) => Some(text.as_str().into()),
        _ => None,
    }
}
