//! Where traffic arrives, and what is done with its connections.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

use super::{
    Address, Authorization, Chains, DownstreamTls, ExternalAuthorization, JwtIssuer, Name, RateLimitService,
    Split,
};

/// A place where connections arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub bind: Address,
    /// Whose traffic it is; labels metrics, and decides what drains first.
    pub direction: Direction,
    /// What is taken for the address that its connections came to.
    pub destination: DestinationSource,
    /// What happens to its connections.
    pub chains: Chains,
}

impl Listener {
    /// The clusters that it leads to itself, beside its routes.
    pub fn clusters(&self) -> Vec<&Name> {
        self.chains.each().flat_map(FilterChain::clusters).collect()
    }
}

/// Whose traffic a listener carries, seen from the service beside us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Calls to the service.
    #[default]
    Inbound,
    /// Calls that the service makes.
    Outbound,
}

/// What is taken for the address that connections came to: by those who tell chains apart, by authorization, and by clusters
/// whose endpoints are named so ([`Source::Original`](super::Source::Original)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DestinationSource {
    /// The address of ours.
    #[default]
    Bound,
    /// Where it was going before the kernel redirected it (REDIRECT of netfilter); the address of ours where it did not.
    Redirected,
}

/// What happens to a connection: unwrapped, bounded, then read as HTTP or passed on as bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChain {
    /// TLS is terminated here when set.
    pub tls: Option<DownstreamTls>,
    /// Who may do what; everybody everything by default.
    pub authorization: Option<Authorization>,
    /// What one client may cost us.
    pub limits: Limits,
    /// What the bytes are.
    pub filter: Filter,
}

impl FilterChain {
    /// The clusters that it leads to itself, beside its routes.
    pub fn clusters(&self) -> Vec<&Name> {
        match &self.filter {
            Filter::Http(http) => {
                let authorizer = http.external_authorization.iter().map(|asked| &asked.cluster);
                authorizer.chain(http.rate_limit_service.iter().map(|asked| &asked.cluster)).collect()
            }
            Filter::Tcp(tcp) => tcp.to.targets.iter().map(|target| &target.to.cluster).collect(),
        }
    }

    /// The service that counts its requests.
    pub fn counts(&self) -> Option<&RateLimitService> {
        match &self.filter {
            Filter::Http(http) => http.rate_limit_service.as_deref(),
            Filter::Tcp(_) => None,
        }
    }
}

/// What one client, or one chain of a listener, may cost us. Each limit names itself when it is hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of this chain, over all workers.
    pub connections: NonZeroU32,
    /// Bytes of a request's head: request line and header fields. 431 or 414 above.
    pub header_bytes: NonZeroUsize,
    /// Header fields of a request. 431 above.
    pub headers: NonZeroUsize,
    /// Bytes of a request's body; none by default. 413 above.
    pub body: Option<NonZeroU64>,
    /// From the first byte of a request, or from the accept, until its head is whole. 408 after.
    pub header_timeout: Duration,
    /// Without a byte in either direction: a connection, a stream of it, or a TCP pair.
    pub idle_timeout: Duration,
    /// Concurrent HTTP/2 streams of one connection.
    pub streams: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: NonZeroU32::new(10_000).expect("not zero"),
            header_bytes: NonZeroUsize::new(60 * 1024).expect("not zero"),
            headers: NonZeroUsize::new(100).expect("not zero"),
            body: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            streams: NonZeroU32::new(128).expect("not zero"),
        }
    }
}

/// What the bytes of a connection are.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// HTTP/1.1 and HTTP/2, told apart by ALPN or by the first bytes.
    Http(HttpFilter),
    /// Bytes, passed on as they are.
    Tcp(TcpFilter),
}

/// How requests are read and routed.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpFilter {
    /// Whose tokens requests may carry; nobody's by default, and nobody looks.
    pub jwt: Box<[JwtIssuer]>,
    /// A service that is asked whether requests are let in; `None` asks nobody.
    pub external_authorization: Option<Box<ExternalAuthorization>>,
    /// The service that counts requests of routes which say what they count as, and not who counts; `None` counts none.
    pub rate_limit_service: Option<Box<RateLimitService>>,
    /// The route table that decides.
    pub routes: Name,
    /// Whose `x-forwarded-*` and `forwarded` headers are believed and added to. From everybody else they are
    /// dropped and rebuilt. None by default.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether `//` in a path is read as `/`. On by default: most services do, and a policy that does not is a hole.
    pub merge_slashes: bool,
}

/// Where bytes go.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpFilter {
    /// The cluster, or several by weight; decided once a connection.
    pub to: Split,
    /// Without a byte in either direction, the pair is closed.
    pub idle_timeout: Duration,
}
