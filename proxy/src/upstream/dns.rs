//! Clusters whose endpoints are what a name resolves to: asked again when the answer's time is up, the last good
//! answer kept while the resolver fails.

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use outrigger_proto::model::{Address, Assignment, Endpoint};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Answers are asked for again no more often than this, whatever their TTL says, and no less often than [`LONGEST`].
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// After a failure; doubled with each further one.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// A name that is resolved for as long as the task is let live; each good answer is given to `assign`. `asked` is told
/// after the first answer, good or bad.
pub async fn resolve(
    resolver: Arc<TokioResolver>,
    (host, port): (Box<str>, u16),
    asked: oneshot::Sender<()>,
    assign: impl Fn(&Assignment),
) {
    let mut retry = RETRY;
    let mut asked = Some(asked);
    loop {
        let wait = match resolver.lookup_ip(&*host).await {
            Ok(answer) => {
                retry = RETRY;
                let mut addresses: Vec<_> = answer.iter().collect();
                addresses.sort_unstable();
                addresses.dedup();
                assign(&assignment(&addresses, port));
                let left = answer.valid_until().saturating_duration_since(Instant::now().into_std());
                left.clamp(SHORTEST, LONGEST)
            }
            Err(error) => {
                tracing::warn!(%host, %error, again_in = ?retry, "cannot resolve; the last good answer stays");
                let wait = retry;
                retry = (retry * 2).min(RETRY_MOST);
                wait
            }
        };
        if let Some(asked) = asked.take() {
            // Nobody waits for it any more: it took too long.
            let _ = asked.send(());
        }
        tokio::time::sleep(wait).await;
    }
}

fn assignment(addresses: &[std::net::IpAddr], port: u16) -> Assignment {
    let endpoint = |ip: &std::net::IpAddr| Endpoint::new(Address::Ip((*ip, port).into()));
    Assignment { endpoints: addresses.iter().map(endpoint).collect() }
}

/// The resolver that the system is set up with (`/etc/resolv.conf`, `/etc/hosts`); without one, names of
/// `/etc/hosts` alone resolve.
pub fn resolver() -> Arc<TokioResolver> {
    let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        tracing::warn!(%error, "no resolver is set up in this system; only /etc/hosts resolves");
        TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
    });
    let mut builder = builder;
    // We keep answers ourselves, for as long as they are good; a second cache would only age them.
    builder.options_mut().cache_size = 0;
    Arc::new(builder.build().expect("a resolver without TLS has nothing that can be wrong"))
}
