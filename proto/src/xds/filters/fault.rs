//! Failures made on purpose.

use http::{HeaderName, StatusCode};

use super::super::cx::Cx;
use super::super::generated::envoy::config::route::v3 as route;
use super::super::generated::envoy::extensions::filters::common::fault::v3 as common;
use super::super::generated::envoy::extensions::filters::http::fault::v3 as pb;
use super::super::generated::envoy::r#type::v3::FractionalPercent;
use super::super::generated::envoy::r#type::v3::fractional_percent::DenominatorType;
use crate::model::{AbortWith, Fault, FaultAbort, FaultDelay, Percent};

/// That of a listener, which only makes room for those of routes.
pub(super) fn filter(cx: &mut Cx, filter: pb::HttpFault) -> Option<()> {
    if filter != pb::HttpFault::default() {
        return cx.fail("", "faults are a route's: write them in its `typed_per_filter_config`");
    }
    Some(())
}

pub(super) fn fault(cx: &mut Cx, fault: pb::HttpFault) -> Option<Option<Fault>> {
    let pb::HttpFault { delay: held, abort: answered, headers } = fault;
    let when = when(cx, headers);
    let delay = held.map_or(Some(None), |held| cx.within("delay", |cx| delay(cx, held)).map(Some));
    let abort = answered.map_or(Some(None), |it| cx.within("abort", |cx| abort(cx, it)).map(Some));
    let (delay, abort, when) = (delay?, abort?, when?);
    Some((delay.is_some() || abort.is_some()).then_some(Fault { delay, abort, when }))
}

fn delay(cx: &mut Cx, delay: common::FaultDelay) -> Option<FaultDelay> {
    let common::FaultDelay { percentage, fault_delay_secifier } = delay;
    let fixed = fault_delay_secifier.map(|common::fault_delay::FaultDelaySecifier::FixedDelay(fixed)| fixed);
    let fixed = cx.time("fixed_delay", fixed)?;
    Some(FaultDelay {
        fixed: cx.required("fixed_delay", fixed)?,
        percent: percent(cx, "percentage", percentage)?,
    })
}

fn abort(cx: &mut Cx, abort: pb::FaultAbort) -> Option<FaultAbort> {
    use pb::fault_abort::ErrorType;
    let pb::FaultAbort { error_type, percentage } = abort;
    let with = match cx.required("error_type", error_type)? {
        ErrorType::HttpStatus(status) => {
            let status = u16::try_from(status).ok().filter(|status| (400..600).contains(status));
            let status = status.and_then(|status| StatusCode::from_u16(status).ok());
            AbortWith::Status(status.or_else(|| cx.fail("http_status", "it is between 400 and 599"))?)
        }
        ErrorType::GrpcStatus(status) => {
            let status = u8::try_from(status).ok().filter(|status| (1..=16).contains(status));
            AbortWith::Grpc(status.or_else(|| cx.fail("grpc_status", "it is between 1 and 16"))?)
        }
    };
    Some(FaultAbort { with, percent: percent(cx, "percentage", percentage)? })
}

/// Nothing said is nothing of it.
pub(super) fn percent(cx: &mut Cx, field: &str, share: Option<FractionalPercent>) -> Option<Percent> {
    let FractionalPercent { numerator, denominator } = share.unwrap_or_default();
    let each = match DenominatorType::try_from(denominator).unwrap_or_default() {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    let share = numerator.checked_mul(each).and_then(Percent::from_millionths);
    share.or_else(|| cx.fail(&format!("{field}.numerator"), "this is more than the whole"))
}

/// One field that must be there is all that can be asked for.
fn when(cx: &mut Cx, headers: Vec<route::HeaderMatcher>) -> Option<Option<HeaderName>> {
    use route::header_matcher::HeaderMatchSpecifier;
    let mut names = cx.each("headers", headers, |cx, header| {
        let route::HeaderMatcher { name, invert_match, header_match_specifier } = header;
        match header_match_specifier {
            None | Some(HeaderMatchSpecifier::PresentMatch(true)) if !invert_match => {}
            _ => {
                return cx
                    .fail("", "only whether a field is there can be asked for: write `present_match: true`");
            }
        }
        HeaderName::from_bytes(name.as_bytes())
            .ok()
            .or_else(|| cx.fail("name", format!("`{name}` is not supported")))
    })?;
    let name = names.pop();
    if names.is_empty() { Some(name) } else { cx.fail("headers", "one at the most is supported") }
}
