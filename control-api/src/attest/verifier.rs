//! Whoever else knows who a node is: a service of the operator's own is shown what the node shows, and says who that is. What
//! it is shown (a document of a cloud, a ticket, a quote) is nothing to us.

use std::fmt;

use outrigger_proto::model::{self, SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tonic::Status;
use ureq::Agent;

use super::{By, Proven, Shown};
use crate::origin::Origin;
use crate::{tls, token};

/// Questions at a time: whoever it is that asks has proven nothing yet.
const MOST: usize = 32;
/// Bytes of an answer.
const LARGEST: u64 = 64 << 10;

/// See the module.
pub(super) struct Verifier {
    agent: Agent,
    url: Box<str>,
    asking: Semaphore,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What it is asked.
#[derive(Serialize)]
struct Question<'a> {
    /// As the node shows it.
    token: &'a str,
    /// From where, as `10.0.0.7:41234`; empty for this machine.
    peer: &'a str,
    /// Of whom somebody is wanted.
    trust_domain: &'a str,
    /// Whom the node asks to be, if it says so.
    spiffe_id: Option<&'a str>,
}

/// What it says: who that is, or why nobody is to be signed for.
#[derive(Deserialize)]
struct Answer {
    spiffe_id: Option<String>,
    refused: Option<String>,
}

impl Verifier {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// Its roots cannot be read.
    pub(super) fn open(settings: &model::Verifier) -> Result<Self, String> {
        let model::Verifier { url, trust, timeout } = settings;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls::client(trust.as_deref())?)
            .timeout_global(Some(*timeout))
            // What a node shows is for whoever is named, and for nobody on the way there.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None);
        Ok(Self { agent: config.build().into(), url: url.clone(), asking: Semaphore::new(MOST) })
    }

    /// Who shows this, by its word; `None` where nothing is shown that is for it.
    pub(super) fn attest(&self, domain: &TrustDomain, shown: &Shown) -> Result<Option<Proven>, Status> {
        let Some(token) = shown.token.as_ref().filter(|token| !token::is_ours(token)) else {
            return Ok(None);
        };
        let Ok(_asking) = self.asking.try_acquire() else {
            return Err(Status::unavailable("the verifier is asked about too many at once"));
        };
        let question = Question {
            token,
            peer: &shown.peer.address,
            trust_domain: domain.as_str(),
            spiffe_id: shown.asked.as_deref(),
        };
        let answer = self.ask(&question).map_err(|why| {
            // More than its caller is to know.
            tracing::warn!(url = %self.url, why, "the verifier decides nothing");
            Status::unavailable("the verifier decides nothing")
        })?;
        let Answer { spiffe_id, refused } = answer;
        let Some(id) = spiffe_id.filter(|_| refused.is_none()) else {
            let why = refused.map(|why| format!(": {why}")).unwrap_or_default();
            return Err(Status::permission_denied(format!("the verifier has refused{why}")));
        };
        let id = SpiffeId::new(&id).map_err(|error| {
            tracing::warn!(url = %self.url, id, %error, "the verifier names nobody");
            Status::unavailable("the verifier decides nothing")
        })?;
        Ok(Some(Proven { id, origin: Origin::Verifier, by: By::Verifier }))
    }

    fn ask(&self, question: &Question<'_>) -> Result<Answer, String> {
        let answer = self.agent.post(&*self.url).send_json(question).map_err(|error| error.to_string())?;
        let (head, mut body) = answer.into_parts();
        match head.status.as_u16() {
            200 => {}
            // Said in either way.
            401 | 403 => {
                let read = body.with_config().limit(LARGEST).read_json::<Answer>();
                let why = read.ok().and_then(|answer| answer.refused);
                return Ok(Answer { spiffe_id: None, refused: why });
            }
            status => return Err(format!("it answers with {status}")),
        }
        body.with_config().limit(LARGEST).read_json().map_err(|error| error.to_string())
    }
}
