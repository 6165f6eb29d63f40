//! Which requests a route takes.

use ::http::header::{CONTENT_TYPE, HOST};
use ::http::{HeaderName, Method};

use super::super::cx::Cx;
use super::super::expression;
use super::super::generated::envoy::config::route::v3 as pb;
use super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::{percent, query};
use crate::model::{HeaderMatch, Match, PathMatch, Pattern, Percent, QueryMatch, StringMatch};
use crate::yaml::canonical_path;

/// What calls of gRPC say that they hold.
const GRPC: &str = r"^application/grpc(?:\+|$)";

/// Of all hosts; which ones they are is said around it.
pub(super) fn matches(cx: &mut Cx, matched: pb::RouteMatch) -> Option<Match> {
    let pb::RouteMatch { path_specifier, case_sensitive, runtime_fraction, headers, query_parameters, grpc } =
        matched;
    let path = cx.required("path_specifier", path_specifier).and_then(|path| path_of(cx, path));
    if case_sensitive == Some(false) {
        cx.fail::<()>("case_sensitive", "paths are compared letter by letter");
    }
    if percent(cx, "runtime_fraction", runtime_fraction).is_some_and(|share| share != Percent::ALL) {
        cx.fail::<()>("runtime_fraction", "a route takes all that matches it: write `weighted_clusters`");
    }
    let mut methods = None;
    let headers = cx.each("headers", headers, |cx, header| one_header(cx, header, &mut methods));
    let query = cx.each("query_parameters", query_parameters, parameter);
    let mut headers: Vec<_> = headers?.into_iter().flatten().collect();
    if let Some(pb::route_match::GrpcRouteMatchOptions {}) = grpc {
        let kind = Pattern::new(GRPC).expect("it is one");
        headers.push(HeaderMatch { name: CONTENT_TYPE, value: StringMatch::Regex(kind) });
    }
    Some(Match {
        hosts: Vec::new(),
        path: path?,
        methods: methods.unwrap_or_default(),
        headers,
        query: query?,
    })
}

fn path_of(cx: &mut Cx, path: pb::route_match::PathSpecifier) -> Option<PathMatch> {
    use pb::route_match::PathSpecifier as P;
    let canonical = |cx: &mut Cx, field: &str, path: &str| match canonical_path(path) {
        Ok(()) => Some(()),
        Err(why) => cx.fail(field, why),
    };
    match path {
        // Nothing at all is a prefix that ends at a `/`; `/` alone leaves nothing to be told apart.
        P::Prefix(prefix) if prefix.is_empty() => Some(PathMatch::Prefix(prefix.into())),
        P::Prefix(prefix) if prefix == "/" => Some(PathMatch::Any),
        // At a `/` or not.
        P::Prefix(prefix) => {
            canonical(cx, "prefix", &prefix)?;
            pattern(cx, "prefix", expression::compiled(&beginning(&prefix))).map(PathMatch::Regex)
        }
        P::Path(path) => {
            canonical(cx, "path", &path)?;
            Some(PathMatch::Exact(path.into()))
        }
        P::PathSeparatedPrefix(prefix) => {
            canonical(cx, "path_separated_prefix", &prefix)?;
            if prefix.ends_with('/') {
                return cx.fail("path_separated_prefix", "this ends with `/`");
            }
            Some(PathMatch::Prefix(prefix.into()))
        }
        P::SafeRegex(matcher::RegexMatcher { regex }) => {
            pattern(cx, "safe_regex.regex", expression::read(&regex)).map(PathMatch::Regex)
        }
    }
}

/// The expression of texts that begin so.
fn beginning(prefix: &str) -> String {
    format!("^{}", regex::escape(prefix))
}

/// What all paths begin with that an expression fits, where nothing else decides.
pub(in super::super) fn prefix_of(pattern: &Pattern) -> Option<String> {
    let prefix = expression::literal(pattern.as_str().strip_prefix('^')?)?;
    let is_same = prefix != "/" && canonical_path(&prefix).is_ok() && beginning(&prefix) == pattern.as_str();
    is_same.then_some(prefix)
}

fn pattern(cx: &mut Cx, field: &str, read: Result<Pattern, String>) -> Option<Pattern> {
    match read {
        Ok(pattern) => Some(pattern),
        Err(why) => cx.fail(field, why),
    }
}

/// A field, and no part of the first line.
pub(in super::super) fn header(cx: &mut Cx, header: pb::HeaderMatcher) -> Option<HeaderMatch> {
    let mut methods = None;
    match one_header(cx, header, &mut methods)? {
        Some(header) => Some(header),
        None => cx.fail("name", "the method is not supported here"),
    }
}

/// `None` inside for the method, which is not among our headers.
fn one_header(
    cx: &mut Cx,
    header: pb::HeaderMatcher,
    methods: &mut Option<Vec<Method>>,
) -> Option<Option<HeaderMatch>> {
    use pb::header_matcher::HeaderMatchSpecifier as H;
    let pb::HeaderMatcher { name, header_match_specifier, invert_match } = header;
    if name == ":method" {
        let read = method(cx, header_match_specifier, invert_match)?;
        if methods.replace(read).is_some() {
            return cx.fail("", "a request has one method, and it is matched once");
        }
        return Some(None);
    }
    let name = match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => name,
        Err(_) if name == ":authority" => HOST,
        Err(_) => return cx.fail("name", format!("`{name}` is not supported")),
    };
    let value = match header_match_specifier {
        None => Some(presence(!invert_match)),
        Some(H::PresentMatch(there)) => Some(presence(there != invert_match)),
        // Of a field that is not there no condition on its value holds, turned round or not.
        Some(_) if invert_match => cx.fail("invert_match", "only `present_match` can be turned round"),
        Some(H::StringMatch(wanted)) => text(cx, wanted),
        Some(H::ExactMatch(exact)) => Some(StringMatch::Exact(exact.into())),
        Some(H::PrefixMatch(prefix)) => part(cx, "prefix_match", Part::Prefix, (&prefix, false)),
        Some(H::SuffixMatch(suffix)) => part(cx, "suffix_match", Part::Suffix, (&suffix, false)),
        Some(H::ContainsMatch(inside)) => part(cx, "contains_match", Part::Inside, (&inside, false)),
        Some(H::SafeRegexMatch(matcher::RegexMatcher { regex })) => {
            pattern(cx, "safe_regex_match.regex", expression::read(&regex)).map(StringMatch::Regex)
        }
    };
    Some(Some(HeaderMatch { name, value: value? }))
}

/// Any of these; none for all.
fn method(
    cx: &mut Cx,
    wanted: Option<pb::header_matcher::HeaderMatchSpecifier>,
    inverted: bool,
) -> Option<Vec<Method>> {
    use matcher::string_matcher::MatchPattern as M;
    use pb::header_matcher::HeaderMatchSpecifier as H;
    if inverted {
        return cx.fail("invert_match", "a method is matched as it is");
    }
    let read = |texts: Vec<Option<String>>| {
        let methods = texts.into_iter().map(|text| Method::from_bytes(text?.as_bytes()).ok());
        methods.collect::<Option<Vec<_>>>()
    };
    let (field, methods) = match wanted {
        None | Some(H::PresentMatch(true)) => return Some(Vec::new()),
        Some(H::ExactMatch(exact)) => ("exact_match", read(vec![Some(exact)])),
        Some(H::SafeRegexMatch(of)) => ("safe_regex_match.regex", read(listed(&of.regex))),
        Some(H::StringMatch(matcher::StringMatcher { match_pattern, ignore_case: false })) => {
            match match_pattern {
                Some(M::Exact(exact)) => ("string_match.exact", read(vec![Some(exact)])),
                Some(M::SafeRegex(of)) => ("string_match.safe_regex.regex", read(listed(&of.regex))),
                Some(M::Prefix(_) | M::Suffix(_) | M::Contains(_)) | None => ("string_match", None),
            }
        }
        Some(H::StringMatch(_)) => ("string_match.ignore_case", None),
        Some(H::PresentMatch(false) | H::PrefixMatch(_) | H::SuffixMatch(_) | H::ContainsMatch(_)) => {
            ("", None)
        }
    };
    methods.or_else(|| cx.fail(field, "a method is matched exactly, or several as `GET|POST`"))
}

/// What stands in an expression as `GET|POST`, in brackets and between anchors or not.
fn listed(expression: &str) -> Vec<Option<String>> {
    let bare = expression.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).unwrap_or(expression);
    let inside = |open| bare.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(')'));
    let inside = inside("(?:").or_else(|| inside("("));
    // Without brackets the anchors would be of the first and of the last alone; which fits the whole all the same.
    let all = inside.unwrap_or(bare);
    expression::alternatives(all).into_iter().map(expression::literal).collect()
}

/// One that is compared with what is sent, as routes are chosen.
pub(super) fn parameter(cx: &mut Cx, parameter: pb::QueryParameterMatcher) -> Option<QueryMatch> {
    let QueryMatch { name, value } = decoded_parameter(cx, parameter)?;
    let decoded = |cx: &mut Cx, field: &str, text: &str| match query::decode(text) {
        Some(text) => Some(Box::<str>::from(text)),
        None => cx.fail(field, "this is not text, once it is decoded"),
    };
    let name = decoded(cx, "name", &name)?;
    let value = match value {
        StringMatch::Exact(text) => StringMatch::Exact(decoded(cx, "string_match.exact", &text)?),
        StringMatch::Prefix(text) => StringMatch::Prefix(decoded(cx, "string_match.prefix", &text)?),
        other @ (StringMatch::Present | StringMatch::Absent | StringMatch::Regex(_)) => other,
    };
    Some(QueryMatch { name, value })
}

/// One that is compared with what is decoded, as limits are: what is written is the text itself.
pub(in super::super) fn decoded_parameter(
    cx: &mut Cx,
    parameter: pb::QueryParameterMatcher,
) -> Option<QueryMatch> {
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Q;
    let pb::QueryParameterMatcher { name, query_parameter_match_specifier } = parameter;
    let value = match query_parameter_match_specifier {
        None => presence(true),
        Some(Q::PresentMatch(there)) => presence(there),
        Some(Q::StringMatch(wanted)) => text(cx, wanted)?,
    };
    Some(QueryMatch { name: name.into(), value })
}

fn presence(there: bool) -> StringMatch {
    if there { StringMatch::Present } else { StringMatch::Absent }
}

fn text(cx: &mut Cx, wanted: matcher::StringMatcher) -> Option<StringMatch> {
    use matcher::string_matcher::MatchPattern as M;
    let matcher::StringMatcher { match_pattern, ignore_case } = wanted;
    cx.within("string_match", |cx| match cx.required("match_pattern", match_pattern)? {
        M::Exact(text) if ignore_case => part(cx, "exact", Part::Whole, (&text, true)),
        M::Exact(text) => Some(StringMatch::Exact(text.into())),
        M::Prefix(text) => part(cx, "prefix", Part::Prefix, (&text, ignore_case)),
        M::Suffix(text) => part(cx, "suffix", Part::Suffix, (&text, ignore_case)),
        M::Contains(text) => part(cx, "contains", Part::Inside, (&text, ignore_case)),
        M::SafeRegex(_) if ignore_case => cx.fail("ignore_case", "an expression says so itself: `(?i)`"),
        M::SafeRegex(matcher::RegexMatcher { regex }) => {
            pattern(cx, "safe_regex.regex", expression::read(&regex)).map(StringMatch::Regex)
        }
    })
}

/// Where a text is to stand in another.
#[derive(Clone, Copy)]
enum Part {
    Whole,
    Prefix,
    Suffix,
    Inside,
}

/// A text that is a part of another, in whatever letters of ASCII.
fn part(cx: &mut Cx, field: &str, part: Part, (text, any_case): (&str, bool)) -> Option<StringMatch> {
    if text.is_empty() && !matches!(part, Part::Whole) {
        return cx.fail(field, "this is empty");
    }
    if let (Part::Prefix, false) = (part, any_case) {
        return Some(StringMatch::Prefix(text.into()));
    }
    let mut expression = regex::escape(text);
    if any_case {
        expression = format!("(?i-u:{expression})");
    }
    let expression = match part {
        Part::Whole => format!("^{expression}$"),
        Part::Prefix => format!("^{expression}"),
        Part::Suffix => format!("{expression}$"),
        Part::Inside => expression,
    };
    pattern(cx, field, expression::compiled(&expression)).map(StringMatch::Regex)
}
