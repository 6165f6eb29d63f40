//! One turn: a fresh proxy, its load, and what that cost.
//!
//! Only the proxy's own CPU time is compared. It depends far less on who shares the cores
//! than requests per second do: generator, proxy and backend may stand on two of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Backend;
use crate::cases::{Case, Metric, Work};
use crate::error::{Doing, Failure, Result};
use crate::idle::Idle;
use crate::load::Load;
use crate::load::h2load::H2load;
use crate::load::handshakes::Handshakes;
use crate::load::wrk::Wrk;
use crate::measure::Usage;
use crate::net;
use crate::proxy::{self, Back, Front, Proxy, Routes, Serving, Setup, Shape, TlsFiles};
use crate::tcp::{self, Direction};
use crate::tools::Tools;

/// Routes that the load is spread over, where there are that many.
const ROUTES_USED: usize = 8;

/// How much work a turn is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Seconds of load that count.
    pub(crate) seconds: u64,
    /// Bytes each way.
    pub(crate) transfer: u64,
    /// Connections that stand idle.
    pub(crate) idle_connections: usize,
    /// How long idle things rest before they are weighed.
    pub(crate) rest: Duration,
}

impl Size {
    /// For figures.
    pub(crate) const FULL: Self =
        Self { seconds: 5, transfer: 4_000_000_000, idle_connections: 2000, rest: Duration::from_secs(4) };
    /// For a look.
    pub(crate) const QUICK: Self =
        Self { seconds: 2, transfer: 1_000_000_000, idle_connections: 2000, rest: Duration::from_secs(3) };
}

/// What one turn yielded.
pub(crate) type Sample = BTreeMap<Metric, f64>;

/// What all turns share.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Programs.
    pub(crate) tools: Tools,
    /// What stands behind the proxies.
    pub(crate) backend: Backend,
    /// What they serve TLS with.
    pub(crate) tls: TlsFiles,
    /// Our client of the TLS cases.
    pub(crate) handshakes: Handshakes,
    /// Folder for everything written.
    pub(crate) dir: PathBuf,
    /// How much work a turn is.
    pub(crate) size: Size,
}

impl Bench {
    /// Starts `proxy`, gives it the work of `case`, and stops it.
    pub(crate) fn turn(&self, case: Case, proxy: Proxy) -> Result<Sample> {
        let plan = case.plan();
        // The second hop, where there are two.
        let inner = Setup {
            shape: Shape { front: Front::Mtls, back: Back::Http1, ..plan.shape },
            dir: self.folder(&format!("{}-{}-inner", case.name(), proxy.name()))?,
            listen: net::free_port()?,
            admin: net::free_port()?,
            backend: self.backend.http1,
            tls: &self.tls,
        };
        let second = match plan.shape.back {
            Back::Mtls => Some(proxy::start(proxy, &inner, &self.tools)?),
            Back::Http1 | Back::Http2 | Back::Tcp => None,
        };
        let setup = Setup {
            shape: plan.shape,
            dir: self.folder(&format!("{}-{}", case.name(), proxy.name()))?,
            listen: net::free_port()?,
            admin: net::free_port()?,
            backend: match plan.shape.back {
                Back::Http1 => self.backend.http1,
                Back::Http2 => self.backend.http2,
                Back::Tcp => self.backend.tcp,
                Back::Mtls => inner.listen,
            },
            tls: &self.tls,
        };
        let serving = proxy::start(proxy, &setup, &self.tools)?;
        let turn = Turn { bench: self, setup: &setup, serving: &serving, second: second.as_ref() };
        turn.work(plan.work).map_err(|failure| serving.process.explain(&failure))
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        let _absent = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).doing(dir.display())?;
        dir.canonicalize().doing(dir.display())
    }
}

/// A proxy that has its turn.
struct Turn<'a> {
    bench: &'a Bench,
    setup: &'a Setup<'a>,
    serving: &'a Serving,
    /// The second hop, where there are two.
    second: Option<&'a Serving>,
}

impl Turn<'_> {
    fn work(&self, work: Work) -> Result<Sample> {
        let mut sample = match work {
            Work::Wrk { connections, path, fresh } => self.wrk(connections, path, fresh),
            Work::H2load { clients, streams } => self.h2load(clients, streams),
            Work::Handshakes { parallel, resumed } => self.handshakes(parallel, resumed),
            Work::Transfer => self.transfer(),
            Work::Rest => {
                thread::sleep(self.bench.size.rest);
                Ok(Sample::new())
            }
            Work::IdleConnections => self.idle_connections(),
        }?;
        sample.insert(Metric::Resident, self.usage()?.resident_mib);
        sample.insert(Metric::Ready, self.serving.ready.as_secs_f64() * 1e3);
        Ok(sample)
    }

    fn usage(&self) -> Result<Usage> {
        let first = Usage::of(self.serving.process.group())?;
        let Some(second) = self.second else { return Ok(first) };
        let Usage { cpu, resident_mib } = Usage::of(second.process.group())?;
        Ok(Usage { cpu: first.cpu + cpu, resident_mib: first.resident_mib + resident_mib })
    }

    /// Runs `load`; anything but good answers fails the turn. Divides the CPU time by the requests.
    fn of_requests(&self, load: impl FnOnce() -> Result<Load>) -> Result<Sample> {
        let before = self.usage()?;
        let Load { requests, seconds, p50_us, p99_us, errors } = load()?;
        let after = self.usage()?;
        if !errors.is_empty() {
            return Err(Failure::new(errors.join("; ")));
        }
        if requests == 0 {
            return Err(Failure::new("not one request was answered"));
        }
        let cpu = after.cpu.saturating_sub(before.cpu);
        Ok(Sample::from([
            (Metric::Cpu, cpu.as_secs_f64() * 1e6 / requests as f64),
            (Metric::Rate, requests as f64 / seconds),
            (Metric::P50, p50_us / 1e3),
            (Metric::P99, p99_us / 1e3),
        ]))
    }

    fn wrk(&self, connections: usize, path: &str, fresh: bool) -> Result<Sample> {
        let Bench { tools, size, .. } = self.bench;
        let origin = self.origin();
        let paths = match self.setup.shape.routes {
            Routes::Catchall => vec![path.to_owned()],
            Routes::Prefixes(count) => spread(count),
        };
        let program = tools.wrk.as_ref().map_err(Clone::clone)?;
        let run = |seconds| {
            let wrk = Wrk { connections, seconds, origin: &origin, paths: &paths, fresh };
            wrk.run(program, &self.setup.dir)
        };
        self.checked(run(1)?)?;
        self.of_requests(|| run(size.seconds))
    }

    fn handshakes(&self, parallel: usize, resumed: bool) -> Result<Sample> {
        let Bench { handshakes, size, .. } = self.bench;
        let run =
            |seconds| handshakes.run(self.setup.listen, (parallel, resumed), Duration::from_secs(seconds));
        self.checked(run(1))?;
        self.of_requests(|| Ok(run(size.seconds)))
    }

    fn h2load(&self, clients: u64, streams: u64) -> Result<Sample> {
        const WARM_UP: u64 = 20_000;
        let warm = self.checked(self.h2(clients, streams, WARM_UP)?)?;
        let requests = warm.requests as f64 / warm.seconds * self.bench.size.seconds as f64;
        self.of_requests(|| self.h2(clients, streams, requests as u64))
    }

    fn h2(&self, clients: u64, streams: u64, requests: u64) -> Result<Load> {
        let Bench { tools, .. } = self.bench;
        let program = tools.h2load.as_ref().map_err(Clone::clone)?;
        let url = format!("{}/", self.origin());
        H2load { clients, streams, requests, url: &url }.run(program, &self.setup.dir)
    }

    /// A warm-up that already fails needs no measurement.
    fn checked(&self, load: Load) -> Result<Load> {
        if load.errors.is_empty() { Ok(load) } else { Err(Failure::new(load.errors.join("; "))) }
    }

    fn origin(&self) -> String {
        let scheme = if self.setup.shape.front == Front::Tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.setup.listen)
    }

    fn transfer(&self) -> Result<Sample> {
        let bytes = self.bench.size.transfer;
        let giga = bytes as f64 / 1e9;
        let began = Instant::now();
        let cpu = |direction| {
            let before = self.usage()?.cpu;
            tcp::transfer(self.setup.listen, direction, bytes)?;
            Ok(self.usage()?.cpu.saturating_sub(before).as_secs_f64() / giga)
        };
        let (down, up) = (cpu(Direction::Down)?, cpu(Direction::Up)?);
        Ok(Sample::from([
            (Metric::CpuPerGb, f64::midpoint(down, up)),
            (Metric::CpuPerGbDown, down),
            (Metric::CpuPerGbUp, up),
            (Metric::GbPerSecond, 2.0 * giga / began.elapsed().as_secs_f64()),
        ]))
    }

    fn idle_connections(&self) -> Result<Sample> {
        let Size { idle_connections, rest, .. } = self.bench.size;
        thread::sleep(Duration::from_secs(1));
        let before = self.usage()?.resident_mib;
        let mut idle = Idle::open(self.setup.listen, idle_connections)?;
        thread::sleep(rest);
        let after = self.usage()?.resident_mib;
        match idle.closed() {
            0 => Ok(Sample::from([(Metric::PerConnection, (after - before) * 1024.0 / idle.count() as f64)])),
            closed => Err(Failure::new(format!("{closed} idle connections were closed"))),
        }
    }
}

/// Paths of routes that lie evenly between the first and the last.
fn spread(count: usize) -> Vec<String> {
    let used = count.min(ROUTES_USED);
    (0..used).map(|one| format!("/svc-{}/item", one * (count - 1) / (used - 1).max(1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_used_lie_from_the_first_to_the_last() {
        #[track_caller]
        fn check(count: usize, first: &str, last: &str, used: usize) {
            let paths = spread(count);
            assert_eq!((paths.len(), paths[0].as_str(), paths[used - 1].as_str()), (used, first, last));
        }
        check(1, "/svc-0/item", "/svc-0/item", 1);
        check(1000, "/svc-0/item", "/svc-999/item", 8);
        check(10_000, "/svc-0/item", "/svc-9999/item", 8);
    }
}
