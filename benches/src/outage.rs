//! The control plane dies for a minute, under load, and proxies are started again meanwhile: each of the two that serve has
//! the other beside it, and what it was told last. Then it is back, with a change: who comes when, and when all have it.

mod starts;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::control::Control;
use crate::error::{Doing, Failure, Result};
use crate::fleet::runtime;
use crate::fleet::service::Service;
use crate::measure::{Usage, percentile};
use crate::net::whole;
use crate::net::{free_port, local};
use crate::process::Running;

/// How long it is away.
const AWAY: Duration = Duration::from_secs(60);
/// Between two starts of a proxy that serves.
const STEP: Duration = Duration::from_secs(5);
/// Proxies that follow it, beside the two that serve.
const OTHERS: usize = 50;
/// Clients, and between two requests of one.
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// Who has no answer by then takes it for a failure.
const ANSWER: Duration = Duration::from_secs(5);
/// For whatever is waited for, and between two looks.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(1);
/// The two that serve.
const NAMES: [&str; 2] = ["a", "b"];

/// Runs it, and prints what came of it.
pub(crate) fn run(outrigger: &Path, control: &Path, dir: &Path) -> Result<()> {
    println!("# A minute without the control plane\n");
    println!(
        "{} proxies follow it; two of them serve {} requests/s, and one of the two is started again every {} s.\n",
        OTHERS + 2,
        CLIENTS as u128 * 1000 / PAUSE.as_millis(),
        STEP.as_secs()
    );
    let (runtime, dir) = (runtime()?, dir.join("outage"));
    runtime.block_on(experiment(outrigger, control, &dir))?;
    runtime.block_on(starts::measure(outrigger, control, &dir))
}

async fn experiment(outrigger: &Path, control: &Path, dir: &Path) -> Result<()> {
    let plane = Control::start(control, dir)?;
    let service = Service::start().await?;
    let at = [free_port()?, free_port()?];
    plane.asks.apply(&document(at, service.port(), 5))?;
    let fleet = Fleet { program: outrigger.to_owned(), dir: plane.asks.dir.clone(), xds: plane.xds };
    let mut serving = [fleet.serving(0, at).await?, fleet.serving(1, at).await?].map(|(it, _)| Some(it));
    let others: Vec<_> = (0..OTHERS).map(|number| fleet.start(&format!("n{number}"), "rest")).collect();
    let others = others.into_iter().collect::<Result<Vec<_>>>()?;
    all_have_it(&plane).await?;
    for name in NAMES {
        let kept = fleet.dir.join(name).join("kept.xds");
        until("what was said is on disk", || kept.is_file()).await?;
    }
    let clients = Clients::start(at);

    let dead = plane.kill();
    let (end, mut starts) = (Instant::now() + AWAY, Vec::new());
    while Instant::now() < end {
        sleep(STEP).await;
        let which = starts.len() % NAMES.len();
        if let Some(old) = serving[which].take() {
            let left = spawn_blocking(move || old.leave(PATIENCE)).await;
            left.map_err(|_| Failure::new("nobody waited for its end"))??;
        }
        let (started, took) = fleet.serving(which, at).await?;
        serving[which] = Some(started);
        starts.push(took);
    }

    let begun = Instant::now();
    let plane = spawn_blocking(|| dead.start()).await.map_err(|_| Failure::new("it was not started"))??;
    plane.asks.apply_beside(document(at, service.port(), 6)).await?;
    all_have_it(&plane).await?;
    let all = begun.elapsed();
    let used = Usage::of(plane.group())?;
    let came = came(&plane.asks.run(&["events"], "events.log")?, others.len() + NAMES.len())?;
    let Tally { answered, failed } = clients.tally.take();
    print(&came, (all, used.cpu), (answered, &mut starts), &failed);
    Ok(())
}

async fn all_have_it(plane: &Control) -> Result<()> {
    if plane.asks.in_sync(OTHERS + NAMES.len(), PATIENCE).await? {
        Ok(())
    } else {
        Err(Failure::new(format!("not all proxies have all in {PATIENCE:?}")))
    }
}

fn print(
    came: &[Duration],
    (all, cpu): (Duration, Duration),
    (answered, starts): (usize, &mut [Duration]),
    failed: &BTreeMap<String, usize>,
) {
    let failures: usize = failed.values().sum();
    let at = |percent| percentile(&mut came.to_vec(), percent).unwrap_or_default().as_secs_f64();
    let most = came.iter().map(|one| came.iter().filter(|other| in_a_second(**other, *one)).count()).max();
    println!("| | |\n|---|---:|");
    println!("| seconds without it | {} |", AWAY.as_secs());
    println!("| starts of proxies that serve meanwhile | {} |", starts.len());
    let mut took = |percent| percentile(starts, percent).unwrap_or_default().as_millis();
    println!(
        "| from such a start until it is served, ms: half of them, the longest | {}, {} |",
        took(50),
        took(100)
    );
    println!("| requests | {} |", answered + failures);
    println!("| of these failed | {failures} |");
    println!("| proxies that came back: half of them after the first by, s | {:.1} |", at(50));
    println!("| the last of them by, s | {:.1} |", at(100));
    println!("| most of them within a second | {} |", most.unwrap_or_default());
    println!("| from its start until all have the change, s | {:.1} |", all.as_secs_f64());
    println!("| CPU of the control plane for that, ms | {} |", cpu.as_millis());
    for (why, times) in failed {
        println!("\nfailed: {times} x {why}");
    }
}

fn in_a_second(one: Duration, from: Duration) -> bool {
    one >= from && one - from < Duration::from_secs(1)
}

/// A listener for each of the two, and one for each of the others, wherever there is room.
fn document([a, b]: [u16; 2], service: u16, seconds: u32) -> String {
    format!(
        "listeners:
  a: {{ bind: 127.0.0.1:{a}, routes: all }}
  b: {{ bind: 127.0.0.1:{b}, routes: all }}
  rest: {{ bind: 127.0.0.1:0, routes: all }}
route_tables: {{ all: [{{ to: app, timeout: {seconds}s }}] }}
clusters: {{ app: {{ endpoints: [127.0.0.1:{service}] }} }}
proxies:
  a: {{ select: {{ id: a }}, listeners: [a] }}
  b: {{ select: {{ id: b }}, listeners: [b] }}
  rest: {{ select: {{ cluster: rest }}, listeners: [rest] }}
"
    )
}

/// How proxies are started.
#[derive(Debug)]
struct Fleet {
    program: PathBuf,
    dir: PathBuf,
    xds: u16,
}

impl Fleet {
    fn start(&self, name: &str, cluster: &str) -> Result<Running> {
        let folder = self.dir.join(name);
        fs::create_dir_all(&folder).doing(folder.display())?;
        let file = folder.join("outrigger.yaml");
        let text = format!(
            "admin: \"unix:{}\"\nworkers: 1\nnode: {{ id: {name}, cluster: {cluster} }}\n\
             xds: {{ server: \"http://127.0.0.1:{}\", cache: kept.xds }}\nshutdown: {{ quiet: 100ms }}\n",
            folder.join("admin.sock").display(),
            self.xds
        );
        fs::write(&file, text).doing(file.display())?;
        let mut command = Command::new(&self.program);
        command.arg("run").arg(&file);
        Running::start(command, &folder.join("log"))
    }

    /// One of the two that serve, once it does, and how long that took.
    async fn serving(&self, which: usize, at: [u16; 2]) -> Result<(Running, Duration)> {
        let begun = Instant::now();
        let running = served(self.start(NAMES[which], "serving")?, at[which]).await?;
        Ok((running, begun.elapsed()))
    }
}

/// A proxy, once it serves there.
async fn served(running: Running, at: u16) -> Result<Running> {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(local(at)).await.is_err() {
        if Instant::now() > end {
            return Err(running.explain(&Failure::new(format!("nobody serves at port {at}"))));
        }
        sleep(LOOK).await;
    }
    Ok(running)
}

async fn until(what: &str, is: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is() {
        if Instant::now() > end {
            return Err(Failure::new(format!("not in {PATIENCE:?}: {what}")));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// When the last so many nodes came, after the first of them, by the events that tell of it.
fn came(events: &str, nodes: usize) -> Result<Vec<Duration>> {
    let up = events.lines().filter(|line| line.contains("node.up.v1"));
    let times: Option<Vec<Duration>> = up.map(time_of_day).collect();
    let mut times = times.ok_or_else(|| Failure::new("an event without a time"))?;
    times.drain(..times.len().saturating_sub(nodes));
    let first = *times.first().ok_or_else(|| Failure::new("no node has come back"))?;
    let day = Duration::from_secs(24 * 3600);
    Ok(times.into_iter().map(|time| if time < first { time + day - first } else { time - first }).collect())
}

fn time_of_day(event: &str) -> Option<Duration> {
    let time = event.split_once("\"time\":")?.1.split_once('T')?.1.split_once('Z')?.0;
    let mut parts = time.split(':');
    let (hours, minutes): (u64, u64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_secs_f64(seconds))
}

/// What came of requests.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    failed: BTreeMap<String, usize>,
}

/// Clients who know both proxies that serve: as whoever balances between them does, each goes to the other when one says
/// that it is going, or does not listen.
#[derive(Debug)]
struct Clients {
    tally: Rc<RefCell<Tally>>,
}

impl Clients {
    fn start(at: [u16; 2]) -> Self {
        let tally = Rc::new(RefCell::new(Tally::default()));
        for number in 0..CLIENTS {
            let tally = Rc::clone(&tally);
            spawn_local(async move {
                let mut client = Client { at, next: number % 2, stream: None };
                let mut ticks = interval(PAUSE);
                loop {
                    ticks.tick().await;
                    let answered = timeout(ANSWER, client.exchange()).await;
                    let mut tally = tally.borrow_mut();
                    let failed = match answered {
                        Ok(Ok(200)) => {
                            tally.answered += 1;
                            continue;
                        }
                        Ok(Ok(status)) => format!("status {status}"),
                        Ok(Err(error)) => error.to_string(),
                        Err(_) => format!("no answer in {ANSWER:?}"),
                    };
                    client.stream = None;
                    *tally.failed.entry(failed).or_default() += 1;
                }
            });
        }
        Self { tally }
    }
}

struct Client {
    at: [u16; 2],
    next: usize,
    stream: Option<TcpStream>,
}

impl Client {
    async fn exchange(&mut self) -> io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(b"GET / HTTP/1.1\r\nhost: outage\r\n\r\n").await?;
        let mut answer = Vec::with_capacity(512);
        loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed without an answer"));
            }
            let Some(status) = whole(&answer) else { continue };
            if String::from_utf8_lossy(&answer).to_ascii_lowercase().contains("\r\nconnection: close") {
                self.next ^= 1;
            } else {
                self.stream = Some(stream);
            }
            return Ok(status);
        }
    }

    async fn connect(&mut self) -> io::Result<TcpStream> {
        if let Ok(stream) = TcpStream::connect(local(self.at[self.next])).await {
            return Ok(stream);
        }
        self.next ^= 1;
        TcpStream::connect(local(self.at[self.next])).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_came_last_are_counted_from_their_first() {
        let event = |of: &str, time: &str| format!("{{\"type\":\"{of}\",\"time\":\"2026-01-01T{time}Z\"}}\n");
        let up = |time| event("dev.outrigger.node.up.v1", time);
        let events = up("23:00:00") + &up("23:59:59.5") + &event("other", "23:59:59.9") + &up("00:00:01");
        assert_eq!(came(&events, 2).unwrap(), [Duration::ZERO, Duration::from_millis(1500)]);
        assert!(came("", 2).is_err());
        assert_eq!(time_of_day("{}"), None);
    }
}
