//! As whom a control plane is asked. An identity may come later than the process: it is waited for, but not for long, and who
//! was asked as nobody is asked once more when it is there. What is told may depend on it.

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
#[derive(Clone, Debug)]
pub struct Asker {
    /// What is shown.
    pub identity: Arc<Identity>,
    /// There is to be one, and it is of use there.
    pub is_awaited: bool,
}

impl Asker {
    /// Whether it is to be somebody, and is not yet.
    pub fn is_nobody(&self) -> bool {
        self.is_awaited && self.identity.good(SystemTime::now()).is_none()
    }

    /// Comes when it is somebody, or after a while.
    pub async fn introduced(&self) {
        let end = Instant::now() + INTRODUCTION;
        while self.is_nobody() && Instant::now() < end {
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
