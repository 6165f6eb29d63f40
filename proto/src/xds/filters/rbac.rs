//! Who may do what.
//!
//! A policy there is a tree over what is asked for and a tree over who asks. What of it is a conjunction of lists is a rule
//! here, and where several such are joined by `or`, several rules. What is not, is refused: nobody would know who is let in.

use super::super::cx::Cx;
use super::super::generated::envoy::config::rbac::v3 as pb;
use super::super::generated::envoy::config::rbac::v3::permission::Rule as P;
use super::super::generated::envoy::config::rbac::v3::principal::Identifier as I;
use super::super::generated::envoy::config::rbac::v3::rbac::Action;
use super::when::{self, Alternatives};
use super::{claims, request, text};
use crate::model::{Authorization, Effect, Name, PeerPattern, Rule, When};
use crate::xds::generated::envoy::r#type::matcher::v3::StringMatcher;
use crate::xds::generated::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

/// Before the place of a rule in the name of its policy.
pub(in crate::xds) const PLACE: &str = "outrigger.";

/// Where rules stand.
#[derive(Clone, Copy, Debug)]
pub(in crate::xds) struct Around {
    /// Requests can be looked at.
    pub(in crate::xds) http: bool,
    /// Somebody's word of where a request comes from is believed.
    pub(in crate::xds) trusts: bool,
}

/// The rules of several filters, all of which must let a request pass.
#[derive(Debug, Default)]
pub(in crate::xds) struct Gathered {
    /// Each with its place, where it has one.
    rules: Vec<(Option<u32>, Rule)>,
    denies: bool,
    allows: bool,
}

impl Gathered {
    /// Of a filter, the rules that decide and those that only show.
    pub(in crate::xds) fn add(
        &mut self,
        cx: &mut Cx,
        around: Around,
        (rules, shadow): (Option<pb::Rbac>, Option<pb::Rbac>),
    ) -> Option<()> {
        let decided = rules.clone();
        if let Some(rules) = rules {
            match action(&rules) {
                // Of two a request must pass both, which no list of rules says.
                Action::Allow if self.allows => {
                    return cx.fail("rules", "one filter that allows is supported");
                }
                Action::Allow => self.allows = true,
                Action::Deny => self.denies = true,
                Action::Log => {}
            }
            self.policies(cx, "rules", around, (rules, false))?;
        }
        let Some(mut shadow) = shadow else { return Some(()) };
        let effect = action(&shadow);
        if effect == Action::Log {
            return cx.fail("shadow_rules.action", "what is only logged decides nothing anyway");
        }
        // Beside those that decide, to show what all of them would do.
        if let Some(decided) = decided.filter(|decided| action(decided) == effect) {
            shadow.policies.retain(|name, policy| decided.policies.get(name) != Some(policy));
        }
        self.policies(cx, "shadow_rules", around, (shadow, true))
    }

    fn policies(
        &mut self,
        cx: &mut Cx,
        field: &str,
        around: Around,
        (rules, dry_run): (pb::Rbac, bool),
    ) -> Option<()> {
        let effect = match action(&rules) {
            Action::Allow => Effect::Allow,
            Action::Deny => Effect::Deny,
            Action::Log => Effect::Audit,
        };
        let mut policies: Vec<_> = rules.policies.into_iter().collect();
        policies.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, policy) in policies {
            let whens =
                cx.within(format_args!("{field}.policies[{name}]"), |cx| of_policy(cx, policy, around))?;
            let (place, name) = named(&name);
            let rule = |when| (place, Rule { name: name.clone(), effect, dry_run, when });
            self.rules.extend(whens.into_iter().map(rule));
        }
        Some(())
    }

    /// All of them; none where nothing was said.
    pub(in crate::xds) fn finish(self) -> Option<Authorization> {
        let Self { mut rules, denies, allows } = self;
        rules.sort_by_key(|(place, _)| place.unwrap_or(u32::MAX));
        let mut rules: Vec<_> = rules.into_iter().map(|(_, rule)| rule).collect();
        let all = |effect| Rule { name: None, effect, dry_run: false, when: When::default() };
        if denies && !allows {
            // There, what nothing denies passes.
            rules.push(all(Effect::Allow));
        } else if allows && !rules.iter().any(Rule::decides) {
            // There is a filter that lets nobody pass.
            rules.push(all(Effect::Deny));
        }
        (!rules.is_empty()).then(|| Authorization { rules: rules.into() })
    }
}

fn action(rules: &pb::Rbac) -> Action {
    Action::try_from(rules.action).unwrap_or(Action::Deny)
}

/// A policy's place among rules, where we wrote it, and what its rule is called.
fn named(policy: &str) -> (Option<u32>, Option<Box<str>>) {
    let ours = policy.strip_prefix(PLACE).and_then(|rest| {
        let (place, name) = rest.split_once('.').map_or((rest, None), |(place, name)| (place, Some(name)));
        let place = place.parse().ok().filter(|_| place.bytes().all(|byte| byte.is_ascii_digit()))?;
        Some((Some(place), name))
    });
    let (place, name) = ours.unwrap_or((None, Some(policy)));
    (place, name.and_then(Name::new).map(|name| name.as_str().into()))
}

fn of_policy(cx: &mut Cx, policy: pb::Policy, around: Around) -> Option<Alternatives> {
    let pb::Policy { permissions, principals } = policy;
    if permissions.is_empty() || principals.is_empty() {
        return cx.fail("", "there are to be `permissions` and `principals`");
    }
    let what = cx.each("permissions", permissions, |cx, one| permission(cx, one, around));
    let who = cx.each("principals", principals, |cx, one| principal(cx, one, around));
    when::and(cx, vec![when::or(what?), when::or(who?)])
}

fn permission(cx: &mut Cx, permission: pb::Permission, around: Around) -> Option<Alternatives> {
    let one = |when| Some(vec![when]);
    match cx.required("rule", permission.rule)? {
        P::AndRules(pb::permission::Set { rules }) => cx.within("and_rules", |cx| {
            let all = cx.each("rules", rules, |cx, rule| self::permission(cx, rule, around))?;
            when::and(cx, all)
        }),
        P::OrRules(pb::permission::Set { rules }) => cx.within("or_rules", |cx| {
            let all = cx.each("rules", rules, |cx, rule| self::permission(cx, rule, around))?;
            if all.is_empty() { cx.fail("rules", "there is none") } else { Some(when::or(all)) }
        }),
        P::Any(true) => one(When::default()),
        P::Any(false) => cx.fail("any", "it can only be true"),
        P::Header(_) | P::UrlPath(_) if !around.http => cx.fail("", "bytes are passed on, and have no head"),
        P::Header(header) => one(cx.within("header", |cx| request::header(cx, header))?),
        P::UrlPath(path) => {
            let path = cx.within("url_path", |cx| request::path(cx, path))?;
            one(When { paths: [path].into(), ..When::default() })
        }
        P::DestinationPort(port) => match u16::try_from(port) {
            Ok(port @ 1..) => one(When { ports: [port].into(), ..When::default() }),
            Ok(0) | Err(_) => cx.fail("destination_port", "this is not a port"),
        },
        P::RequestedServerName(name) => {
            let host = cx.within("requested_server_name", |cx| request::host(cx, name))?;
            one(When { sni: [host].into(), ..When::default() })
        }
    }
}

fn principal(cx: &mut Cx, principal: pb::Principal, around: Around) -> Option<Alternatives> {
    let one = |when| Some(vec![when]);
    match cx.required("identifier", principal.identifier)? {
        I::AndIds(pb::principal::Set { ids }) => cx.within("and_ids", |cx| {
            let all = cx.each("ids", ids, |cx, id| self::principal(cx, id, around))?;
            when::and(cx, all)
        }),
        I::OrIds(pb::principal::Set { ids }) => cx.within("or_ids", |cx| {
            let all = cx.each("ids", ids, |cx, id| self::principal(cx, id, around))?;
            if all.is_empty() { cx.fail("ids", "there is none") } else { Some(when::or(all)) }
        }),
        I::Any(true) => one(When::default()),
        I::Any(false) => cx.fail("any", "it can only be true"),
        I::Authenticated(pb::principal::Authenticated { principal_name }) => {
            let peer = cx.within("authenticated", |cx| {
                let name = cx.required("principal_name", principal_name)?;
                cx.within("principal_name", |cx| peer(cx, name))
            })?;
            one(When { peers: [peer].into(), ..When::default() })
        }
        // The two are the same where nobody else is believed.
        I::DirectRemoteIp(_) if around.trusts => {
            cx.fail("direct_remote_ip", "who is asked for is the client, not a proxy: write `remote_ip`")
        }
        I::DirectRemoteIp(range) => {
            let network = cx.within("direct_remote_ip", |cx| text::network(cx, range))?;
            one(When { source: [network].into(), ..When::default() })
        }
        I::RemoteIp(range) => {
            let network = cx.within("remote_ip", |cx| text::network(cx, range))?;
            one(When { source: [network].into(), ..When::default() })
        }
        I::Header(_) | I::Metadata(_) if !around.http => cx.fail("", "bytes are passed on, and have no head"),
        I::Header(header) => one(cx.within("header", |cx| request::header(cx, header))?),
        I::Metadata(metadata) => {
            let claim = cx.within("metadata", |cx| claims::read(cx, &metadata))?;
            one(When { claims: [claim].into(), ..When::default() })
        }
    }
}

fn peer(cx: &mut Cx, name: StringMatcher) -> Option<PeerPattern> {
    let pattern = match text::matcher(cx, name)? {
        (MatchPattern::Exact(id), false) if !id.ends_with("/*") => id,
        // Segments are whole.
        (MatchPattern::Prefix(above), false) if above.ends_with('/') => format!("{above}*"),
        _ => return cx.fail("", "write `exact`, or a `prefix` that ends in `/`"),
    };
    PeerPattern::new(&pattern)
        .map_or_else(|error| cx.fail("", format!("this is no SPIFFE ID: {error}")), Some)
}
