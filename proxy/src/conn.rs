//! One downstream connection, as its requests see it.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use ::http::HeaderValue;
use ipnet::IpNet;
use outrigger_proto::model::{Filter, SpiffeId};
use tokio::time::Instant;

use crate::body::Meter;
use crate::error::ProxyError;
use crate::facts::{Arrival, Caller, Greeting, Proven};
use crate::identity::verify::Usage;
use crate::live::{Entry, ListenerView};
use crate::policy::authz::{Fitting, Rules};
use crate::shadow::{Beginning, Bench, Held, Placed};
use crate::timer::Timer;
use crate::upstream::{Trip, Tunnelled};
use crate::watch::{Patience, Subject, Verdict, Watch};
use crate::worker::{Watched, Worker};

/// One downstream connection.
#[derive(Debug)]
pub struct Conn {
    worker: Rc<Worker>,
    watch: Rc<Watch>,
    view: RefCell<(u64, Arc<ListenerView>)>,
    ends: Ends,
    comes_back: OnceCell<bool>,
    /// The peer's address without the port, as `x-forwarded-for` has it.
    peer_value: HeaderValue,
    proven: OnceCell<Box<Proven>>,
    ended: Cell<Option<ProxyError>>,
    /// The rules of authorization that it fits as far as it goes, and of which.
    fitting: RefCell<Option<(Arc<Rules>, Fitting)>>,
    /// Where it would be by what is on trial.
    held: RefCell<Option<Rc<Held>>>,
    timer: Timer,
    _watched: Watched,
    _open: OpenGuard,
}

/// Where a connection comes from and goes to. All `None` for a unix socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// Its peer.
    pub peer: Option<SocketAddr>,
    /// The address of ours.
    pub local: Option<SocketAddr>,
    /// Where it was going before it was redirected, if it was and its listener asks for it.
    pub redirected: Option<SocketAddr>,
}

impl Ends {
    /// The address that it came to, as those see it who decide.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.redirected.or(self.local)
    }
}

/// Counts an open connection of a listener.
#[derive(Debug)]
pub struct OpenGuard(Arc<ListenerView>);

impl OpenGuard {
    /// `None` when the listener has as many as its limit allows.
    pub fn new(view: &Arc<ListenerView>) -> Option<Self> {
        let limit = view.chain.limits.connections.get();
        let open = view.state.open.fetch_add(1, Relaxed);
        // Built first, so that it is given back where it is over the limit.
        let guard = Self(view.clone());
        view.state.stats.connections.increment(1);
        view.state.stats.connections_total.increment(1);
        (open < limit).then_some(guard)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.state.open.fetch_sub(1, Relaxed);
        self.0.state.stats.connections.decrement(1);
    }
}

impl Conn {
    /// A connection that has just been accepted, between these ends.
    pub fn new(worker: Rc<Worker>, watch: Rc<Watch>, open: OpenGuard, ends: Ends) -> Rc<Self> {
        let peer_value = match ends.peer {
            Some(address) => HeaderValue::try_from(address.ip().to_canonical().to_string()),
            None => HeaderValue::try_from("unix"),
        };
        let view = open.0.clone();
        let conn = Rc::new(Self {
            _watched: worker.watch(watch.clone()),
            worker,
            watch,
            view: RefCell::new((0, view)),
            ends,
            comes_back: OnceCell::new(),
            peer_value: peer_value.expect("an address is printable ASCII"),
            proven: OnceCell::new(),
            ended: Cell::new(None),
            fitting: RefCell::default(),
            held: RefCell::default(),
            timer: Timer::default(),
            _open: open,
        });
        let subject: Weak<Self> = Rc::downgrade(&conn);
        conn.watch.set_subject(subject);
        conn
    }

    /// The worker it lives on.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Who watches over it.
    pub fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// The timer of its task, which is that of its HTTP/1.1 requests, too.
    pub fn timer(&self) -> &Timer {
        &self.timer
    }

    /// Its peer; `None` for a unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.ends.peer
    }

    /// The address that it came to: of ours, or where it was going before it was redirected; `None` for a unix socket.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.ends.destination()
    }

    /// Where its peer is, in one form for both families of addresses; `None` for a unix socket.
    pub fn source(&self) -> Option<IpAddr> {
        self.ends.peer.map(|peer| peer.ip().to_canonical())
    }

    /// Whether its peer is in one of these networks.
    pub fn is_from(&self, networks: &[IpNet]) -> bool {
        self.source().is_some_and(|source| networks.iter().any(|network| network.contains(&source)))
    }

    /// A trip of what comes on it. Whether it comes back to us is looked up by the first: whoever is at its other end was made
    /// known before it sent anything.
    pub fn trip(&self, started: Instant) -> Trip {
        let comes_back = *self.comes_back.get_or_init(|| self.comes_back());
        Trip::new(started).redirected(self.ends.redirected, comes_back)
    }

    /// Whether it is one of our own connections to an endpoint, which was redirected to us.
    pub fn comes_back(&self) -> bool {
        let ends = self.ends.peer.zip(self.ends.redirected);
        ends.is_some_and(|(from, to)| self.worker.shared().dialled.has(from, to))
    }

    /// Its peer's address without the port, as a header's value.
    pub fn peer_value(&self) -> &HeaderValue {
        &self.peer_value
    }

    /// Whether TLS is around it.
    pub fn is_secure(&self) -> bool {
        self.proven.get().is_some()
    }

    /// What its TLS handshake has told of the client; `None` in the clear.
    pub fn proven(&self) -> Option<&Proven> {
        self.proven.get().map(|proven| &**proven)
    }

    /// The SPIFFE ID that its client has proven.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.proven()?.identity.as_ref()
    }

    /// The same as a text; empty without one.
    pub fn identity(&self) -> &str {
        self.spiffe_id().map_or("", SpiffeId::as_str)
    }

    /// TLS is around it. To be called once.
    pub fn set_proven(&self, proven: Proven) {
        let first = self.proven.set(Box::new(proven)).is_ok();
        debug_assert!(first, "a connection has one handshake");
    }

    /// Who is at its other end.
    pub fn caller(&self) -> Caller<'_> {
        Caller {
            identity: self.spiffe_id(),
            source: self.source(),
            sni: self.proven().and_then(|proven| proven.sni.as_deref()),
            // Where it came to, wherever the listener is now.
            port: self.ends.redirected.map(|to| to.port()).or(self._open.0.port),
        }
    }

    /// What `decide` makes of the rules that the connection fits, as far as it goes.
    pub fn with_fitting<T>(&self, rules: &Arc<Rules>, decide: impl FnOnce(&Fitting) -> T) -> T {
        let mut known = self.fitting.borrow_mut();
        match &mut *known {
            Some((of, fitting)) if Arc::ptr_eq(of, rules) => decide(fitting),
            other => decide(&other.insert((rules.clone(), rules.fitting(&self.caller()))).1),
        }
    }

    /// What is on trial, and where the connection would be by that, if anything is on trial at its listener and it can be told.
    pub fn on_trial(&self) -> Option<(Rc<Bench>, Rc<Held>)> {
        let bench = self.worker.on_trial()?;
        self.look();
        let by = (bench.trial().number, self.view.borrow().0);
        let known = self.held.borrow().clone().filter(|held| held.by == by);
        let held = known.unwrap_or_else(|| {
            let held = Rc::new(self.hold(&bench, by));
            *self.held.borrow_mut() = Some(held.clone());
            held
        });
        (held.listener.is_some() && held.place != Placed::Unknown).then_some((bench, held))
    }

    fn hold(&self, bench: &Bench, by: (u64, u64)) -> Held {
        let view = self.view.borrow().1.clone();
        let trial = bench.trial();
        let Some(listener) = trial.place(&view.name) else {
            return Held { by, listener: None, place: Placed::Unknown, fitting: None };
        };
        let hello = |proven: &Proven| Greeting { host: proven.sni.clone(), protocols: Vec::new() };
        let beginning = Beginning {
            arrival: Arrival {
                to: self.ends.destination(),
                from: self.ends.peer,
                hello: self.proven().map(hello),
            },
            // Bytes that are passed on may be anything.
            is_read: self.is_secure() || matches!(view.chain.filter, Filter::Http(_)),
            taken_by: view.matches.as_ref(),
        };
        let place = self.worker.with_snapshot(|snapshot| {
            let all = || snapshot.listeners.get(&view.name).into_iter().flat_map(Entry::views);
            let in_force = || all().map(|view| view.matches.as_ref());
            bench.find(listener, &beginning, (snapshot.version, in_force))
        });
        let mut held = Held { by, listener: Some(listener), place, fitting: None };
        let rules = bench.chain(&held).and_then(|chain| chain.rules.as_ref());
        held.fitting = rules.map(|rules| rules.fitting(&self.caller()));
        held
    }

    /// We end it, requests in flight included, for this reason.
    pub fn set_ended(&self, why: ProxyError) {
        self.ended.set(Some(why));
    }

    /// Why we end it, if we do.
    pub fn ended(&self) -> Option<ProxyError> {
        self.ended.get()
    }

    /// Its listener, as the configuration in force has it; a listener that is gone is seen as it last was, and so is a chain.
    pub fn view(&self) -> Arc<ListenerView> {
        self.look();
        self.view.borrow().1.clone()
    }

    /// Whether its listener is gone, so that nothing more is to come here.
    pub fn is_gone(&self) -> bool {
        self.look();
        self.watch.is_gone()
    }

    fn look(&self) {
        let mut view = self.view.borrow_mut();
        let (version, known) = &mut *view;
        self.worker.with_snapshot(|snapshot| {
            if snapshot.version != *version {
                *version = snapshot.version;
                let listener = snapshot.listeners.get(&known.name);
                self.watch.set_gone(listener.is_none());
                if let Some(current) = listener.and_then(|all| all.like(known.matches.as_ref())) {
                    *known = current.clone();
                    self.watch.set_patience(patience(known));
                }
            }
        });
    }

    /// Does this until it is done, or the connection must end.
    pub async fn until_ended(&self, work: impl Future) {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            let done = work.as_mut().poll(cx).is_ready();
            let ended = matches!(self.watch.poll_verdict(cx), Some(Verdict::Close | Verdict::IdleTimeout));
            if done || ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// The upstream's end of a tunnel, and what is written down about it.
pub struct Tunnel {
    /// The upstream's end.
    pub upstream: Box<Tunnelled>,
    /// What counts its bytes; kept until it ends.
    pub meter: Rc<dyn Meter>,
}

impl Subject for Conn {
    fn is_welcome(&self) -> bool {
        let view = self.view();
        let welcome = self.is_believed(&view)
            && view.authorization.as_ref().is_none_or(|rules| {
                self.with_fitting(rules, |fitting| self.speaks_for_others(&view) || rules.could_pass(fitting))
            });
        if !welcome {
            self.set_ended(ProxyError::Unwelcome);
        }
        welcome
    }
}

impl Conn {
    /// Whether what the client has proven is still believed.
    fn is_believed(&self, view: &ListenerView) -> bool {
        let Some(proof) = self.proven().and_then(|proven| proven.proof.as_ref()) else { return true };
        let identity = view.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        identity.is_some_and(|identity| identity.still_believes(proof, Usage::Client))
    }

    /// Whether its requests may come from others than who is at its other end.
    fn speaks_for_others(&self, view: &ListenerView) -> bool {
        match &view.chain.filter {
            Filter::Http(http) => self.is_from(&http.trusted_proxies),
            Filter::Tcp(_) => false,
        }
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// How long a connection of this listener may take over things.
pub fn patience(view: &ListenerView) -> Patience {
    let limits = &view.chain.limits;
    let idle = match &view.chain.filter {
        Filter::Http(_) => limits.idle_timeout,
        Filter::Tcp(tcp) => tcp.idle_timeout,
    };
    Patience { header: limits.header_timeout, idle }
}
