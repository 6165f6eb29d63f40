//! Which request goes where, and what is changed on its way.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{
    CheckUse, Concurrency, Destination, Fallback, Fault, GlobalRateLimit, HashKey, Hedge, Instead, JwtUse,
    Mirror, Name, Pattern, Priority, RateLimit, Replace, Retry,
};

/// Routes in the order they were written.
///
/// A request takes, of the routes that match it, those with the most specific host (exact, then the longest
/// wildcard, then none), and of these the first written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTable {
    /// In written order. Shared, as whoever serves them keeps them too.
    pub routes: Arc<[Route]>,
    /// Whether a control plane has routes of more hosts, and tells them when it is asked. A file cannot say so.
    pub on_demand: bool,
}

/// One rule: which requests, and what becomes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which requests.
    pub matches: Match,
    /// What becomes of them.
    pub action: Action,
    /// What it asks of tokens; `None` is what the listener asks.
    pub jwt: Option<JwtUse>,
    /// What it says about the service that its listener asks; `None` says nothing.
    pub external_authorization: Option<Box<CheckUse>>,
    /// How many of them are taken; `None` takes all.
    pub rate_limit: Option<Box<RateLimit>>,
    /// A service that is asked whether they are taken; `None` asks nobody.
    pub global_rate_limit: Option<Box<GlobalRateLimit>>,
    /// How many of them may be under way at once; `None` lets all.
    pub concurrency: Option<Box<Concurrency>>,
    /// Failures made on purpose.
    pub fault: Option<Box<Fault>>,
    /// Changes to the request before it is sent on.
    pub request_headers: HeaderEdits,
    /// Changes to the response before it goes back, also to one that we made.
    pub response_headers: HeaderEdits,
}

impl Route {
    /// The clusters that it leads to, whichever way.
    pub fn clusters(&self) -> Vec<&Name> {
        let asked = self.global_rate_limit.iter().filter_map(|limit| limit.service.as_ref());
        let mut out: Vec<_> = asked.map(|service| &service.cluster).collect();
        if let Action::Forward(forward) = &self.action {
            out.extend(forward.to.targets.iter().map(|target| &target.to.cluster));
            out.extend(forward.mirror.iter().map(|mirror| &mirror.to.cluster));
            match forward.fallback.as_deref().and_then(Fallback::instead) {
                Some(Instead::To(to)) => out.push(&to.cluster),
                Some(Instead::Respond(_)) | None => {}
            }
        }
        out
    }

    /// A route without policies.
    pub fn new(matches: Match, action: Action) -> Self {
        Self {
            matches,
            action,
            jwt: None,
            external_authorization: None,
            rate_limit: None,
            global_rate_limit: None,
            concurrency: None,
            fault: None,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
        }
    }
}

/// A request matches when every part does; a part that is empty matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// Any of these hosts; a port in the request's host is ignored, letter case too.
    pub hosts: Vec<HostPattern>,
    /// The canonical path.
    pub path: PathMatch,
    /// Any of these methods.
    pub methods: Vec<Method>,
    /// All of these.
    pub headers: Vec<HeaderMatch>,
    /// All of these.
    pub query: Vec<QueryMatch>,
}

/// A host, or all hosts below a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This host; lower case, without a port.
    Exact(Box<str>),
    /// `*.example.com` kept as `.example.com`: every host with at least one label more. Lower case.
    Suffix(Box<str>),
}

/// How a path is matched. Paths are matched in their canonical form, without the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// Exactly this path.
    Exact(Box<str>),
    /// This path and those below it: `/cart` is a prefix of `/cart` and `/cart/1`, not of `/cartoon`. A trailing
    /// slash says nothing (Gateway API's `PathPrefix`). Kept without one; `/` is kept as the empty string.
    Prefix(Box<str>),
    /// A regular expression, not anchored.
    Regex(Pattern),
}

/// A header field that must match. Where a field is repeated, one value that matches is enough.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// The field.
    pub name: HeaderName,
    /// Its value.
    pub value: StringMatch,
}

/// A query parameter that must match; percent-decoded, `+` is a space. The first of a name counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryMatch {
    /// The parameter.
    pub name: Box<str>,
    /// Its value.
    pub value: StringMatch,
}

/// How a text is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// There, with any value.
    Present,
    /// Not there.
    Absent,
    /// Exactly this.
    Exact(Box<str>),
    /// Begins with this.
    Prefix(Box<str>),
    /// A regular expression, not anchored.
    Regex(Pattern),
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is sent to a cluster.
    Forward(Forward),
    /// It is answered with a redirect.
    Redirect(Redirect),
    /// It is answered here.
    Respond(Respond),
}

/// Sending a request on.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Where to.
    pub to: Split,
    /// What is rewritten.
    pub rewrite: Rewrite,
    /// From the request's head to the last byte of the response; none by default, so that streams live.
    pub timeout: Option<Duration>,
    /// When a request that failed is sent again; never by default.
    pub retry: Option<Box<Retry>>,
    /// When a second attempt is started beside the first.
    pub hedge: Option<Hedge>,
    /// Which of the cluster's limits hold.
    pub priority: Priority,
    /// Who gets a copy.
    pub mirror: Option<Box<Mirror>>,
    /// What is answered when all has failed.
    pub fallback: Option<Box<Fallback>>,
    /// What of a request decides its endpoint, at clusters that balance by hash and do not say it themselves.
    pub hash: Box<[HashKey]>,
}

impl Forward {
    /// Sent on as it is, and never again.
    pub fn new(to: Split) -> Self {
        Self {
            to,
            rewrite: Rewrite::default(),
            timeout: None,
            retry: None,
            hedge: None,
            priority: Priority::Default,
            mirror: None,
            fallback: None,
            hash: Box::default(),
        }
    }
}

impl Forward {
    /// All to one cluster, with nothing rewritten and no policies.
    pub fn to(cluster: impl Into<Destination>) -> Self {
        Self::new(Split::one(cluster))
    }
}

/// One cluster, or several by weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// At least one, in written order; weights are relative to their sum.
    pub targets: Vec<Target>,
}

impl Split {
    /// All to one cluster.
    pub fn one(cluster: impl Into<Destination>) -> Self {
        Self { targets: vec![Target::new(cluster, NonZeroU32::MIN)] }
    }
}

/// One share of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The cluster, or a part of it.
    pub to: Destination,
    /// Its weight, relative to the others'.
    pub weight: NonZeroU32,
    /// Changes to a request that goes here, after the route's own.
    pub request_headers: HeaderEdits,
    /// Changes to a response that comes from here, before the route's own.
    pub response_headers: HeaderEdits,
}

impl Target {
    /// A share without header changes.
    pub fn new(to: impl Into<Destination>, weight: NonZeroU32) -> Self {
        Self {
            to: to.into(),
            weight,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
        }
    }
}

/// What is rewritten before a request is sent on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// The path; the query is kept.
    pub path: Option<PathRewrite>,
    /// The host.
    pub host: Option<HeaderValue>,
}

/// How a path is rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathRewrite {
    /// The whole path.
    Whole(Box<str>),
    /// The prefix that matched (only on a route with [`PathMatch::Prefix`]). Kept as that is: without a slash at its
    /// end, `/` as the empty string.
    Prefix(Box<str>),
    /// What an expression finds in the path; where it finds nothing, the path stays. What comes of it is brought into the one
    /// form of a path, but that slashes are not merged. Where it has none, or holds `.` or `..` as a segment, the request is
    /// refused: `/api` to `/static/` makes `/static/../x` of `/api../x`, which leads out of what stands in place.
    Found(Replace),
}

/// Changes to header fields: first remove, then set, then add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderEdits {
    /// Dropped, every occurrence.
    pub remove: Vec<HeaderName>,
    /// Put in place of what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Added beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The `location`: an absolute URL, or an absolute path.
    pub to: HeaderValue,
    /// 301, 302, 303, 307 or 308; 302 by default.
    pub status: StatusCode,
}

/// An answer of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: StatusCode,
    /// The body; `text/plain; charset=utf-8` unless a response header edit says otherwise.
    pub body: Box<str>,
}
