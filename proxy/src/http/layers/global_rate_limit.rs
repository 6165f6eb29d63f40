//! Whether a request is taken, asked of a service that counts for many proxies (Envoy's rate limit service). Right after
//! the limit of our own, which costs no call, and before anything is done for the request.
//!
//! Only routes that ask for it take this road, which is boxed: the others pay a branch.

use std::num::NonZeroU32;

use outrigger_proto::model::{DescriptorEntry, GlobalRateLimit, OnFailure};
use prost::Message;
use tokio::time::Instant;

use super::detour::{Detour, Fork, Inner};
use super::{Outcome, timeout};
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger};
use crate::http::headers;
use crate::policy::rls::{self, Decision, Descriptor, Entry};

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

fn policy(ledger: &Ledger) -> Option<&GlobalRateLimit> {
    ledger.route()?.global_rate_limit.as_deref()
}

async fn asked<S: Inner>(mut inner: S, mut call: Call) -> Outcome {
    ask(&mut call).await?;
    // What the wait has cost is not the endpoint's, which is yet to be asked.
    call.ledger.trip().held_up(Instant::now());
    // Boxed, as it is moved with the future around it.
    Box::pin(inner.call(call)).await
}

/// Asks, unless the answer is known; why the request is refused, if it is.
async fn ask(call: &mut Call) -> Result<(), ProxyError> {
    let ledger = call.ledger.clone();
    let policy = policy(&ledger).expect("looked at before");
    let Some(question) = question(call, policy) else { return Ok(()) };
    let stats = &ledger.view().state.stats;
    let epoch = ledger.conn().worker().shared().epoch;
    let refusals = ledger.limits().and_then(|limits| limits.refusals.as_deref());
    if refusals.is_some_and(|refusals| refusals.hold(&question, epoch.elapsed())) {
        stats.rate_limit_service("cached");
        return Err(ProxyError::RateLimitedGlobally);
    }
    let Some(decision) = decision(call, policy, &question).await? else {
        stats.rate_limit_service("error");
        return match policy.on_failure {
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
async fn decision(
    call: &Call,
    policy: &GlobalRateLimit,
    question: &[u8],
) -> Result<Option<Decision>, ProxyError> {
    let ledger = &call.ledger;
    let Some(service) = ledger.extras().and_then(|extras| extras.rate_limit_service.as_ref()) else {
        return Ok(None);
    };
    let (patience, own) = timeout::patience(call, policy.timeout);
    let answer = ledger.conn().worker().upstream().call(service, rls::PATH, question, patience).await;
    timeout::decided(answer.map(|message| rls::decision(&message)), own, &policy.cluster)
}

/// What is asked, encoded; `None` where the request counts as nothing.
fn question(call: &Call, policy: &GlobalRateLimit) -> Option<Vec<u8>> {
    let descriptors: Vec<_> = policy.descriptors.iter().filter_map(|of| descriptor(call, of)).collect();
    if descriptors.is_empty() {
        return None;
    }
    let domain = policy.domain.as_ref().to_owned();
    // One is what the service takes for granted, and so not written, as Envoy does.
    let hits_addend = if policy.hits == NonZeroU32::MIN { 0 } else { policy.hits.get() };
    Some(rls::Request { domain, descriptors, hits_addend }.encode_to_vec())
}

/// A descriptor that lacks an entry is left out.
fn descriptor(call: &Call, entries: &[DescriptorEntry]) -> Option<Descriptor> {
    let entries = entries.iter().map(|of| entry(call, of)).collect::<Option<_>>()?;
    Some(Descriptor { entries })
}

fn entry(call: &Call, of: &DescriptorEntry) -> Option<Entry> {
    let Call { request, tunnel: _, ledger } = call;
    let (key, value) = match of {
        DescriptorEntry::Header(name) => {
            // Protobuf has no texts but UTF-8. Who sends something else is counted all the same.
            let value = String::from_utf8_lossy(request.headers().get(name)?.as_bytes());
            (name.as_str(), value.into_owned())
        }
        DescriptorEntry::Source => {
            let client = headers::client(request, ledger.conn(), &ledger.http().0.trusted_proxies)?;
            ("remote_address", client.to_string())
        }
        DescriptorEntry::Fixed { key, value } => (key.as_ref(), value.as_ref().to_owned()),
    };
    (!value.is_empty()).then(|| Entry { key: key.to_owned(), value })
}
