//! Who may do what: rules over who asks, from where, and for what.

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::{HostPattern, Pattern, PeerPattern, StringMatch};

/// The rules of a listener, at least one. A request that a `deny` fits is refused; of the others, those that an `allow`
/// fits pass. What no rule fits is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// In the order in which they are written, which says nothing but which one is named in a log.
    pub rules: Box<[Rule]>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is called in logs, beside its place.
    pub name: Option<Box<str>>,
    /// What it does.
    pub effect: Effect,
    /// It decides nothing; what it would have changed is logged and counted.
    pub dry_run: bool,
    /// What it is about.
    pub when: When,
}

impl Rule {
    /// Whether it lets anybody pass or refuses anybody: not one that only shows what it would do.
    pub fn decides(&self) -> bool {
        !self.dry_run && self.effect != Effect::Audit
    }
}

/// What a rule does with what it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Lets it pass, unless another denies it.
    Allow,
    /// Refuses it.
    Deny,
    /// Logs and counts it, and decides nothing.
    Audit,
}

/// What a rule is about: every part that says something must fit, and of a part one of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Who the client has proven to be. Nobody fits who has proven nothing.
    pub peers: Box<[PeerPattern]>,
    /// Where it comes from. A unix socket is nowhere.
    pub source: Box<[IpNet]>,
    /// Which host it named in the TLS handshake.
    pub sni: Box<[HostPattern]>,
    /// The port of ours that it came to.
    pub ports: Box<[u16]>,
    /// The method.
    pub methods: Box<[Method]>,
    /// The host.
    pub hosts: Box<[HostPattern]>,
    /// The path, in its canonical form.
    pub paths: Box<[PathPattern]>,
    /// Header fields, all of which must fit. Of a field that is repeated, one value that fits is enough to be denied; to
    /// be allowed all must.
    pub headers: Box<[HeaderRule]>,
    /// Claims of a token that was checked, all of which must fit.
    pub claims: Box<[ClaimRule]>,
}

impl When {
    /// Whether it asks for what only a request has.
    pub fn is_http(&self) -> bool {
        let Self { peers: _, source: _, sni: _, ports: _, methods, hosts, paths, headers, claims } = self;
        let empty = methods.is_empty() && hosts.is_empty() && paths.is_empty();
        !(empty && headers.is_empty() && claims.is_empty())
    }
}

/// Which paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// This one.
    Exact(Box<str>),
    /// Those that begin so; it ends in `/`. Written with a `*` at the end.
    Below(Box<str>),
    /// This one and those below it, kept without a slash at the end.
    Prefix(Box<str>),
    /// A regular expression, not anchored.
    Regex(Pattern),
}

/// A header field and what it must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// The field.
    pub name: HeaderName,
    /// What it must say.
    pub value: StringMatch,
}

/// A claim, and the values of which it must have one: as a text, as a word of it, or as an item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// Its name.
    pub name: Box<str>,
    /// The values.
    pub values: Box<[Box<str>]>,
}
