//! As whom a control plane is asked. An identity may come later than the process: at the start it is waited for, but not for long,
//! and who was asked as nobody is asked once more when it is there. What is told may depend on it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use crate::identity::Identity;

/// How long an identity that is on its way is waited for, before it is asked as nobody.
const INTRODUCTION: Duration = Duration::from_secs(2);
/// Between two looks at it, first while nothing is asked, and then beside a stream.
const SOON: Duration = Duration::from_millis(10);
const LATER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Asker {
    /// What is shown.
    pub identity: Arc<Identity>,
    /// It is asked by TLS: without it nobody is shown anything.
    pub is_secure: bool,
    /// It has not asked yet, and an identity is to come.
    pub awaits: Cell<bool>,
}

impl Asker {
    /// Whether it could be somebody there, and is not.
    pub fn is_nobody(&self) -> bool {
        self.is_secure && self.identity.good(SystemTime::now()).is_none()
    }

    /// Comes at once, but for the first time: then when it is somebody, or after a while.
    pub async fn introduced(&self) {
        let awaits = self.awaits.take();
        let end = Instant::now() + INTRODUCTION;
        while awaits && self.is_nobody() && Instant::now() < end {
            sleep(SOON).await;
        }
    }

    /// Comes when it is somebody who began as `nobody`; never, if it did not.
    pub async fn known(&self, nobody: bool) {
        if !nobody {
            return std::future::pending().await;
        }
        while self.is_nobody() {
            sleep(LATER).await;
        }
    }
}
