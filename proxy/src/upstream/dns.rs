//! Clusters whose endpoints are what a name resolves to: asked again when the answer's time is up, the last good
//! answer kept while the resolver fails.
//!
//! Where only the first address is used, that is one which there is a way to, IPv6 before IPv4 (RFC 6724 section 6, rules
//! 1 and 6), in the order of the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use outrigger_proto::model::{Address, Assignment, DnsUse, Endpoint};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::io::socket::source_towards;

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
    (host, port, uses): (Box<str>, u16, DnsUse),
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
                match uses {
                    DnsUse::All => {
                        addresses.sort_unstable();
                        addresses.dedup();
                    }
                    DnsUse::First => addresses = first(addresses, has_way).into_iter().collect(),
                }
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

/// The one that is used for all; where there is a way to none, whoever connects will find out.
fn first(mut addresses: Vec<IpAddr>, has_way: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    // Stable: the order of the answer is its server's to choose.
    addresses.sort_by_key(IpAddr::is_ipv4);
    addresses.iter().find(|address| has_way(address)).or(addresses.first()).copied()
}

/// Whether the system knows a way there.
fn has_way(to: &IpAddr) -> bool {
    /// RFC 863; any other would do.
    const DISCARD: u16 = 9;
    source_towards((*to, DISCARD).into()).is_ok_and(|source| source.is_some())
}

fn assignment(addresses: &[IpAddr], port: u16) -> Assignment {
    let endpoint = |ip: &IpAddr| Endpoint::new(Address::Ip((*ip, port).into()));
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_first_address_is_one_that_there_is_a_way_to() {
        let of = |all: &[&str], way: &dyn Fn(&IpAddr) -> bool| {
            first(all.iter().map(|ip| ip.parse().unwrap()).collect(), way).map(|ip| ip.to_string())
        };
        let mixed = ["10.0.0.2", "10.0.0.1", "fd00::2", "fd00::1"];
        assert_eq!(of(&mixed, &|_| true).as_deref(), Some("fd00::2"));
        assert_eq!(of(&mixed, &IpAddr::is_ipv4).as_deref(), Some("10.0.0.2"));
        assert_eq!(of(&mixed, &|_| false).as_deref(), Some("fd00::2"));
        assert_eq!(of(&[], &|_| true), None);
        assert!(has_way(&Ipv4Addr::LOCALHOST.into()));
    }
}
