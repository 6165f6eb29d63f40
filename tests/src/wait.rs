//! Waiting for something to become true, never for time to pass.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Longer than anything takes on a busy machine with two cores; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// The value that `look` comes to have; panics with `what` when it has none in time.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_for(PATIENCE, what, look).await
}

/// The same, with a patience of its own. A look that hangs is given up with the rest.
pub async fn until_for<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if let Ok(Some(value)) = tokio::time::timeout_at(end, look()).await {
            return value;
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("still waiting after {patience:?}: {what}")
}

/// The future's value; panics with `what` when it takes longer than anything should.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("still waiting after {PATIENCE:?}: {what}"),
    }
}
