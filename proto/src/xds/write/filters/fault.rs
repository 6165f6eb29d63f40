//! Failures made on purpose.

use super::super::super::generated::envoy::config::route::v3 as route;
use super::super::super::generated::envoy::extensions::filters::common::fault::v3 as common;
use super::super::super::generated::envoy::extensions::filters::http::fault::v3 as pb;
use super::super::super::generated::envoy::r#type::v3::FractionalPercent;
use super::super::super::generated::envoy::r#type::v3::fractional_percent::DenominatorType;
use super::super::listener::time;
use crate::model::{AbortWith, Fault, FaultAbort, FaultDelay, Percent};

pub(super) fn fault(fault: &Fault) -> pb::HttpFault {
    use common::fault_delay::FaultDelaySecifier;
    use pb::fault_abort::ErrorType;
    use route::header_matcher::HeaderMatchSpecifier;
    let Fault { delay, abort, when } = fault;
    let delay = delay.map(|FaultDelay { fixed, percent }| common::FaultDelay {
        fault_delay_secifier: time(fixed).map(FaultDelaySecifier::FixedDelay),
        percentage: Some(share(percent)),
    });
    let abort = abort.map(|FaultAbort { with, percent }| pb::FaultAbort {
        error_type: Some(match with {
            AbortWith::Status(status) => ErrorType::HttpStatus(status.as_u16().into()),
            AbortWith::Grpc(status) => ErrorType::GrpcStatus(status.into()),
        }),
        percentage: Some(share(percent)),
    });
    let header = when.as_ref().map(|name| route::HeaderMatcher {
        name: name.to_string(),
        invert_match: false,
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
    });
    pb::HttpFault { delay, abort, headers: header.into_iter().collect() }
}

fn share(percent: Percent) -> FractionalPercent {
    let (numerator, denominator) = match percent.millionths() {
        whole if whole % 10_000 == 0 => (whole / 10_000, DenominatorType::Hundred),
        millionths => (millionths, DenominatorType::Million),
    };
    FractionalPercent { numerator, denominator: denominator.into() }
}
