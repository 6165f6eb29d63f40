//! What befalls this process, told to the control plane: `proto/outrigger/events/v1/events.proto`.

use std::convert::Infallible;
use std::time::Duration;

use outrigger_proto::xds::events::{REPORT, ReportRequest, ReportResponse};
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::control::aside::Aside;
use crate::control::xds::node;
use crate::identity::backoff::Backoff;
use crate::observe::Registry;
use crate::observe::journal::Page;

/// What comes so soon after an event is told with it: one failure ejects several endpoints.
const GATHER: Duration = Duration::from_millis(500);

/// Tells for as long as the process lives, whenever there is something. What the server has not taken is told again.
pub async fn tell(aside: Aside, registry: Registry) {
    let mut untold = None;
    let journal = registry.journal();
    journal.open();
    let one = async |backoff: &mut Backoff| -> Result<Infallible, Status> {
        loop {
            let Page { events, forgotten } = match &mut untold {
                Some(page) => page,
                untold @ None => {
                    journal.ready().await;
                    sleep(GATHER).await;
                    untold.insert(journal.page())
                }
            };
            let report = ReportRequest {
                node: Some(node(&aside.control.node)),
                events: events.clone(),
                forgotten: *forgotten,
            };
            match aside.ask::<_, ReportResponse>(REPORT, report).await {
                Ok(ReportResponse {}) => untold = None,
                // It would be the same another time, and hold up all that comes after.
                Err(status) if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange) => {
                    tracing::warn!(%status, "the control plane does not take what it is told of this proxy");
                    untold = None;
                }
                Err(status) => return Err(status),
            }
            backoff.reset();
        }
    };
    aside.keep("events", one).await;
}
