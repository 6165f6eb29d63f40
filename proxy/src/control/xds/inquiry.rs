//! Somebody asks what there is: whoever speaks with the control plane knows, and is asked in between.

use std::time::Duration;

use outrigger_proto::xds::status::GenericXdsConfig;
use tokio::sync::{mpsc, oneshot};

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A question.
#[derive(Debug)]
pub struct Asked {
    /// Whether what resources say is wanted too.
    pub(super) contents: bool,
    pub(super) answer: oneshot::Sender<Vec<GenericXdsConfig>>,
}

/// Where questions are asked.
#[derive(Clone, Debug)]
pub struct Inquiry(mpsc::Sender<Asked>);

impl Inquiry {
    /// One, and where it is heard.
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(4);
        (Self(sender), receiver)
    }

    /// All resources, and what became of each; `None` when there is no answer in time.
    pub async fn ask(&self, contents: bool) -> Option<Vec<GenericXdsConfig>> {
        let (answer, found) = oneshot::channel();
        self.0.try_send(Asked { contents, answer }).ok()?;
        tokio::time::timeout(PATIENCE, found).await.ok()?.ok()
    }
}
