//! The worker threads: one runtime each, told what to do through a mailbox.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use outrigger_proto::model::{LogFormat, Name};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::downstream::accept::{self, Accepted, PassOn, Source};
use crate::http::stack::{Stack, stack};
use crate::io::listen::Bound;
use crate::observe::{Logger, Queue};
use crate::shadow::{Bench, Common, Trial};
use crate::worker::{Shared, Worker};

/// Polls of tasks between two looks at the sockets. Under load more of them batch more: what became ready meanwhile is
/// found in one system call.
const EVENT_INTERVAL: u32 = 61;

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Accept there.
    Listen(Name, Arc<Bound>),
    /// Accept there no longer.
    Unlisten(Name),
    /// Serve this connection.
    Take(Accepted),
    /// Log there.
    Log(Option<(LogFormat, Queue)>),
    /// This is on trial, and what is found goes there.
    Try(Option<(Arc<Trial>, Arc<Common>)>),
    /// End.
    Stop,
}

/// The worker threads.
#[derive(Debug)]
pub struct Threads {
    mailboxes: Vec<UnboundedSender<Command>>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts them, as many as `shared` has loads for.
    ///
    /// # Errors
    /// The operating system's: a thread or its descriptors cannot be had.
    pub fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (mailboxes, letters): (Vec<_>, Vec<_>) = shared.loads.iter().map(|_| unbounded_channel()).unzip();
        let mut handles = Vec::new();
        for (id, letters) in letters.into_iter().enumerate() {
            let runtime = move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .event_interval(EVENT_INTERVAL)
                    .build_local(tokio::runtime::LocalOptions::default())
            };
            let (shared, mailboxes) = (shared.clone(), mailboxes.clone());
            let body = move || match runtime() {
                Ok(runtime) => runtime.block_on(work(Worker::new(id, shared), letters, mailboxes)),
                Err(error) => tracing::error!(worker = id, %error, "a worker cannot start"),
            };
            handles.push(std::thread::Builder::new().name(format!("worker-{id}")).spawn(body)?);
        }
        Ok(Self { mailboxes, handles })
    }

    /// Tells all of them.
    pub fn all(&self, command: impl Fn() -> Command) {
        for mailbox in &self.mailboxes {
            // A worker that has ended needs to be told nothing.
            let _ = mailbox.send(command());
        }
    }

    /// Ends them and waits until they have.
    pub fn join(self) {
        self.all(|| Command::Stop);
        for handle in self.handles {
            // A worker that panicked has said so itself.
            let _ = handle.join();
        }
    }
}

async fn work(
    worker: Rc<Worker>,
    letters: UnboundedReceiver<Command>,
    mailboxes: Vec<UnboundedSender<Command>>,
) {
    tokio::task::spawn_local(worker.clone().sweep());
    tokio::task::spawn_local(worker.clone().reclaim());
    let pass_on: PassOn = Rc::new(move |target, accepted| {
        let _ = mailboxes[target].send(Command::Take(accepted));
    });
    obey(&worker, stack(), letters, pass_on).await;
    worker.set_logger(None);
}

async fn obey<S: Stack>(
    worker: &Rc<Worker>,
    stack: S,
    mut letters: UnboundedReceiver<Command>,
    pass_on: PassOn,
) {
    let mut accepting: HashMap<Name, Rc<Notify>> = HashMap::new();
    while let Some(command) = letters.recv().await {
        match command {
            Command::Listen(name, bound) => {
                let stop = Rc::new(Notify::new());
                let from = Source { bound, stop: stop.clone(), pass_on: pass_on.clone() };
                tokio::task::spawn_local(accept::accept(worker.clone(), stack.clone(), name.clone(), from));
                if let Some(old) = accepting.insert(name, stop) {
                    old.notify_one();
                }
            }
            Command::Unlisten(name) => {
                if let Some(stop) = accepting.remove(&name) {
                    stop.notify_one();
                }
            }
            Command::Take(accepted) => accept::take(worker, &stack, accepted),
            Command::Log(to) => worker.set_logger(to.map(|(format, queue)| Logger::new(format, queue))),
            Command::Try(what) => worker.set_on_trial(what.map(|(trial, common)| Bench::new(trial, common))),
            Command::Stop => return,
        }
    }
}
