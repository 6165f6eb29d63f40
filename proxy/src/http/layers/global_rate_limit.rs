//! Whether a request is taken, asked of a service that counts for many proxies (Envoy's rate limit service). Right after
//! the limit of our own, which costs no call, and before anything is done for the request.
//!
//! Only routes that ask for it take this road, which is boxed: the others pay a branch.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::Request;
use outrigger_proto::model::{
    Absent, DescriptorEntry, GlobalRateLimit, OnFailure, Only, OnlyOf, RateLimitService,
};
use prost::Message;
use tokio::time::Instant;

use super::detour::{Detour, Fork, Inner};
use super::{Outcome, timeout};
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger};
use crate::http::headers;
use crate::live::CountedBy;
use crate::policy::refusals::Refusals;
use crate::policy::rls::{self, Decision, Descriptor, Entry};
use crate::routing::{Plus, header_matches, query_matches, query_value};
use crate::upstream::ClusterView;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct GlobalRateLimitFork;

impl Fork for GlobalRateLimitFork {
    fn send<S: Inner>(self, inner: &mut S, call: Call) -> Detour<S::Future> {
        match policy(&call.ledger) {
            None => Detour::straight(inner.call(call)),
            Some(_) => Detour::around(asked(inner.clone(), call)),
        }
    }
}

/// What a request counts as, and who counts.
#[derive(Clone, Copy)]
struct Policy<'a> {
    limit: &'a GlobalRateLimit,
    service: &'a RateLimitService,
    cluster: Option<&'a Arc<ClusterView>>,
    refusals: Option<&'a Refusals>,
}

/// `None` where nobody counts: a route may say what its requests count as at listeners that have a service, and stand at
/// others as well.
fn policy(ledger: &Ledger) -> Option<Policy<'_>> {
    let limit = ledger.route()?.global_rate_limit.as_deref()?;
    if let Some(service) = &limit.service {
        let cluster = ledger.extras().and_then(|extras| extras.rate_limit_service.as_ref());
        let refusals = ledger.limits().and_then(|limits| limits.refusals.as_deref());
        return Some(Policy { limit, service, cluster, refusals });
    }
    let service = ledger.http().0.rate_limit_service.as_deref()?;
    let CountedBy { service: cluster, refusals } = ledger.view().counted_by.as_ref()?;
    Some(Policy { limit, service, cluster: Some(cluster), refusals: refusals.as_deref() })
}

async fn asked<S: Inner>(mut inner: S, mut call: Call) -> Outcome {
    ask(&mut call).await?;
    // What the wait has cost is not the endpoint's, which is yet to be asked.
    call.ledger.trip().held_up(Instant::now());
    inner.call(call).await
}

/// Asks, unless the answer is known; why the request is refused, if it is.
async fn ask(call: &mut Call) -> Result<(), ProxyError> {
    let ledger = call.ledger.clone();
    let policy = policy(&ledger).expect("looked at before");
    let Some(question) = question(call, &policy) else { return Ok(()) };
    let stats = &ledger.view().state.stats;
    let epoch = ledger.conn().worker().shared().epoch;
    let refusals = policy.refusals;
    if refusals.is_some_and(|refusals| refusals.hold(&question, epoch.elapsed())) {
        stats.rate_limit_service("cached");
        return Err(ProxyError::RateLimitedGlobally);
    }
    let Some(decision) = decision(call, &policy, &question).await? else {
        stats.rate_limit_service("error");
        return match policy.service.on_failure {
            OnFailure::Allow => Ok(()),
            OnFailure::Deny => Err(ProxyError::RateLimitUnavailable),
        };
    };
    let Decision { granted, reset, request_headers, response_headers } = decision;
    ledger.change_answer(response_headers);
    if granted {
        stats.rate_limit_service("ok");
        request_headers.into_iter().for_each(|change| change.apply(call.request.headers_mut()));
        return Ok(());
    }
    stats.rate_limit_service("over_limit");
    if let Some((refusals, reset)) = refusals.zip(reset) {
        refusals.note(&question, epoch.elapsed(), reset);
    }
    Err(ProxyError::RateLimitedGlobally)
}

/// What the service says; `None` when it says nothing. The request's own deadline holds here as well.
async fn decision(call: &Call, policy: &Policy<'_>, question: &[u8]) -> Result<Option<Decision>, ProxyError> {
    let Some(cluster) = policy.cluster else { return Ok(None) };
    let (patience, own) = timeout::patience(call, policy.service.timeout);
    let answer = call.ledger.conn().worker().upstream().call(cluster, rls::PATH, question, patience).await;
    timeout::decided(answer.map(|message| rls::decision(&message)), own, &policy.service.cluster)
}

/// What is asked, encoded; `None` where the request counts as nothing.
fn question(call: &Call, policy: &Policy<'_>) -> Option<Vec<u8>> {
    let GlobalRateLimit { service: _, descriptors, hits } = policy.limit;
    let descriptors: Vec<_> = descriptors.iter().filter_map(|of| descriptor(call, of)).collect();
    if descriptors.is_empty() {
        return None;
    }
    let domain = policy.service.domain.as_ref().to_owned();
    // One is what the service takes for granted, and so not written, as Envoy does.
    let hits_addend = if *hits == NonZeroU32::MIN { 0 } else { hits.get() };
    Some(rls::Request { domain, descriptors, hits_addend }.encode_to_vec())
}

/// A descriptor that lacks an entry is left out, and so is one that has none.
fn descriptor(call: &Call, entries: &[DescriptorEntry]) -> Option<Descriptor> {
    let entries = entries.iter().map(|of| entry(call, of)).collect::<Option<Vec<_>>>()?;
    let entries: Vec<_> = entries.into_iter().flatten().collect();
    (!entries.is_empty()).then_some(Descriptor { entries })
}

/// `None` where the descriptor is left out; `None` inside where the entry alone is.
fn entry(call: &Call, of: &DescriptorEntry) -> Option<Option<Entry>> {
    let Call { request, tunnel: _, ledger } = call;
    let (key, value, absent) = match of {
        DescriptorEntry::Header { name, key, absent } => {
            let value = request.headers().get(name).map(|value| text(value.as_bytes()));
            (&**key, value, *absent)
        }
        DescriptorEntry::Query { name, key, absent } => {
            let value = request.uri().query().and_then(|query| query_value(query, name, Plus::Itself));
            (&**key, value.map(|value| text(&value)), *absent)
        }
        DescriptorEntry::Source => {
            let client = headers::client(request, ledger.conn(), &ledger.http().0.trusted_proxies);
            ("remote_address", client.map(|client| client.to_string()), Absent::Descriptor)
        }
        DescriptorEntry::SourceCluster => {
            let cluster = ledger.view().node_cluster.to_string();
            ("source_cluster", Some(cluster).filter(|cluster| !cluster.is_empty()), Absent::Descriptor)
        }
        DescriptorEntry::DestinationCluster => {
            let goes = ledger.forward().and_then(|_| ledger.destination().0);
            ("destination_cluster", goes.map(|target| target.to.cluster.to_string()), Absent::Descriptor)
        }
        DescriptorEntry::Fixed { key, value, only } => {
            let counts = only.as_ref().is_none_or(|only| is_of(request, only));
            (&**key, counts.then(|| value.to_string()), Absent::Descriptor)
        }
    };
    // One that is there and empty is counted, so that nobody gets away by saying nothing.
    match (value, absent) {
        (Some(value), _) => Some(Some(Entry { key: key.to_owned(), value })),
        (None, Absent::Entry) => Some(None),
        (None, Absent::Descriptor) => None,
    }
}

/// Protobuf has no texts but UTF-8. Who sends something else is counted all the same.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_of(request: &Request<Body>, Only { fits, of }: &Only) -> bool {
    let all = match of {
        OnlyOf::Headers(all) => all.iter().all(|wanted| header_matches(wanted, request.headers())),
        OnlyOf::Query(all) => {
            all.iter().all(|wanted| query_matches(wanted, request.uri().query(), Plus::Itself))
        }
    };
    all == *fits
}
