//! What is measured: for each case what is spoken, how it is loaded, and what is reported.

use clap::ValueEnum;

use crate::proxy::{Back, Front, Proxy, Routes, Shape};

/// One number that a turn yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// User and system time of the proxy per request, microseconds.
    Cpu,
    /// The same per 10^9 bytes, both ways together, seconds.
    CpuPerGb,
    /// Towards the client.
    CpuPerGbDown,
    /// Towards the backend.
    CpuPerGbUp,
    /// Requests per second.
    Rate,
    /// 10^9 bytes per second.
    GbPerSecond,
    /// Median latency, milliseconds.
    P50,
    /// 99th percentile of latency, milliseconds.
    P99,
    /// Resident memory at the end, MiB.
    Resident,
    /// Resident memory that one more connection costs, KiB.
    PerConnection,
    /// From start to the first answer, milliseconds.
    Ready,
}

impl Metric {
    /// Head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU us/request",
            Self::CpuPerGb => "CPU s/GB",
            Self::CpuPerGbDown => "down",
            Self::CpuPerGbUp => "up",
            Self::Rate => "requests/s",
            Self::GbPerSecond => "GB/s",
            Self::P50 => "p50 ms",
            Self::P99 => "p99 ms",
            Self::Resident => "RSS MiB",
            Self::PerConnection => "KiB/connection",
            Self::Ready => "ready ms",
        }
    }

    /// Digits after the point that mean something.
    pub(crate) fn digits(self) -> usize {
        match self {
            Self::Rate | Self::Ready => 0,
            Self::Cpu | Self::Resident | Self::PerConnection => 1,
            Self::GbPerSecond | Self::P50 | Self::P99 => 2,
            Self::CpuPerGb | Self::CpuPerGbDown | Self::CpuPerGbUp => 3,
        }
    }
}

/// A case; `plan` says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Case {
    /// Small bodies.
    #[value(name = "h1-256")]
    H1Small,
    /// Medium bodies.
    #[value(name = "h1-16k")]
    H1Medium,
    /// Large bodies.
    #[value(name = "h1-1m")]
    H1Large,
    /// Nothing in parallel.
    #[value(name = "h1-one-connection")]
    H1OneConnection,
    /// Nothing reused.
    #[value(name = "h1-new-connection")]
    H1NewConnection,
    /// HTTP/2 on both sides.
    #[value(name = "h2c")]
    H2c,
    /// TLS terminated.
    #[value(name = "tls-h2-h1")]
    TlsH2H1,
    /// Nothing but handshakes.
    #[value(name = "tls-handshake")]
    TlsHandshake,
    /// Handshakes of those who come back.
    #[value(name = "tls-resumed")]
    TlsResumed,
    /// Two hops, and mutual TLS between them.
    #[value(name = "mtls-pair")]
    MtlsPair,
    /// Bytes.
    #[value(name = "tcp")]
    Tcp,
    /// A process without work.
    #[value(name = "idle-memory")]
    IdleMemory,
    /// A connection without work.
    #[value(name = "idle-connection")]
    IdleConnection,
    /// What the next two are compared with.
    #[value(name = "routes-1")]
    Routes1,
    /// A mesh of medium size.
    #[value(name = "routes-1000")]
    Routes1000,
    /// A large mesh.
    #[value(name = "routes-10000")]
    Routes10000,
}

/// How a case is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// HTTP/1.1 by `wrk`.
    Wrk {
        /// Connections that are always busy.
        connections: usize,
        /// Which body, where there is one route.
        path: &'static str,
        /// A new connection for each request.
        fresh: bool,
    },
    /// HTTP/2 by `h2load`.
    H2load {
        /// Connections.
        clients: u64,
        /// Busy streams of each.
        streams: u64,
    },
    /// HTTP/1.1 over TLS, a handshake for each request.
    Handshakes {
        /// Connections at a time.
        parallel: usize,
        /// Whether sessions are resumed.
        resumed: bool,
    },
    /// Bytes, down and then up.
    Transfer,
    /// Nothing but a short rest.
    Rest,
    /// Connections that carried one request each.
    IdleConnections,
}

/// What a case is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// One line for people.
    pub(crate) about: &'static str,
    /// What the proxy is configured for.
    pub(crate) shape: Shape,
    /// How it is loaded.
    pub(crate) work: Work,
    /// What is reported; proxies are compared by the first.
    pub(crate) columns: &'static [Metric],
}

const REQUESTS: &[Metric] = &[Metric::Cpu, Metric::Rate, Metric::P50, Metric::P99, Metric::Resident];

impl Case {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether a bar compares both.
    pub(crate) fn is_read_beside(self, other: Self) -> bool {
        let is_of_routes = |case| matches!(case, Self::Routes1 | Self::Routes1000 | Self::Routes10000);
        is_of_routes(self) && is_of_routes(other)
    }

    /// Whether `proxy` has anything to tell here. HAProxy tuned has not where nothing is sent, nor among routes:
    /// their clients stay and their bodies are small, so it would only be HAProxy again. What idle policies cost a request
    /// is asked once.
    pub(crate) fn suits(self, proxy: Proxy) -> bool {
        if proxy == Proxy::OutriggerGuarded {
            return self == Self::H1Small;
        }
        match self {
            Self::IdleMemory | Self::Routes1 | Self::Routes1000 | Self::Routes10000 => {
                proxy != Proxy::HaproxyTuned
            }
            Self::H1Small
            | Self::H1Medium
            | Self::H1Large
            | Self::H1OneConnection
            | Self::H1NewConnection
            | Self::H2c
            | Self::TlsH2H1
            | Self::TlsHandshake
            | Self::TlsResumed
            | Self::MtlsPair
            | Self::Tcp
            | Self::IdleConnection => true,
        }
    }

    /// What it is.
    pub(crate) fn plan(self) -> Plan {
        match self {
            Self::H1Small => http1("HTTP/1.1 keep-alive, 256 B, 32 connections", 32, "/", false),
            Self::H1Medium => http1("HTTP/1.1 keep-alive, 16 KiB, 32 connections", 32, "/16k", false),
            Self::H1Large => http1("HTTP/1.1 keep-alive, 1 MiB, 32 connections", 32, "/1m", false),
            Self::H1OneConnection => http1("HTTP/1.1 keep-alive, 256 B, one connection", 1, "/", false),
            Self::H1NewConnection => {
                http1("HTTP/1.1, 256 B, a new connection for each request, 32 at a time", 32, "/", true)
            }
            Self::H2c => Plan {
                about: "HTTP/2 cleartext on both sides, 256 B, 8 connections x 32 streams",
                shape: Shape { front: Front::Http2, back: Back::Http2, routes: Routes::Catchall },
                work: Work::H2load { clients: 8, streams: 32 },
                columns: REQUESTS,
            },
            Self::TlsH2H1 => Plan {
                about: "TLS 1.3 and HTTP/2 in, HTTP/1.1 out, 256 B, 8 connections x 32 streams",
                shape: Shape { front: Front::Tls, back: Back::Http1, routes: Routes::Catchall },
                work: Work::H2load { clients: 8, streams: 32 },
                columns: REQUESTS,
            },
            Self::TlsHandshake => {
                handshakes("a full TLS 1.3 handshake for each HTTP/1.1 request, 256 B, 16 at a time", false)
            }
            Self::TlsResumed => {
                handshakes("a resumed TLS 1.3 handshake for each HTTP/1.1 request, 256 B, 16 at a time", true)
            }
            Self::MtlsPair => Plan {
                about: "two proxies with mutual TLS between them, HTTP/1.1 keep-alive, 256 B, 32 connections; CPU of both",
                shape: Shape { front: Front::Http1, back: Back::Mtls, routes: Routes::Catchall },
                work: Work::Wrk { connections: 32, path: "/", fresh: false },
                columns: REQUESTS,
            },
            Self::Tcp => Plan {
                about: "TCP, one connection, writes of 128 KiB, CPU per 10^9 bytes",
                shape: Shape { front: Front::Tcp, back: Back::Tcp, routes: Routes::Catchall },
                work: Work::Transfer,
                columns: &[
                    Metric::CpuPerGb,
                    Metric::CpuPerGbDown,
                    Metric::CpuPerGbUp,
                    Metric::GbPerSecond,
                    Metric::Resident,
                ],
            },
            Self::IdleMemory => Plan {
                about: "memory of a process that serves nobody yet",
                shape: Shape { front: Front::Http1, back: Back::Http1, routes: Routes::Catchall },
                work: Work::Rest,
                columns: &[Metric::Resident, Metric::Ready],
            },
            Self::IdleConnection => Plan {
                about: "growth of memory per idle client connection, after one request each",
                shape: Shape { front: Front::Http1, back: Back::Http1, routes: Routes::Catchall },
                work: Work::IdleConnections,
                columns: &[Metric::PerConnection, Metric::Resident],
            },
            Self::Routes1 => routes("one route, HTTP/1.1, 256 B, 32 connections", 1),
            Self::Routes1000 => routes("1,000 routes and clusters, the load on 8 of them", 1000),
            Self::Routes10000 => routes("10,000 routes and clusters, the load on 8 of them", 10_000),
        }
    }
}

fn handshakes(about: &'static str, resumed: bool) -> Plan {
    Plan {
        about,
        shape: Shape { front: Front::Tls, back: Back::Http1, routes: Routes::Catchall },
        work: Work::Handshakes { parallel: 16, resumed },
        columns: REQUESTS,
    }
}

fn http1(about: &'static str, connections: usize, path: &'static str, fresh: bool) -> Plan {
    Plan {
        about,
        shape: Shape { front: Front::Http1, back: Back::Http1, routes: Routes::Catchall },
        work: Work::Wrk { connections, path, fresh },
        columns: REQUESTS,
    }
}

fn routes(about: &'static str, count: usize) -> Plan {
    Plan {
        about,
        shape: Shape { front: Front::Http1, back: Back::Http1, routes: Routes::Prefixes(count) },
        work: Work::Wrk { connections: 32, path: "/", fresh: false },
        columns: &[Metric::Cpu, Metric::Rate, Metric::P50, Metric::P99, Metric::Resident, Metric::Ready],
    }
}
