//! What runs in the demonstration: the control plane, and replicas of services with a proxy beside each. All that is asked of
//! the control plane is asked as by any user, over its API.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::Pace;
use super::documents::{SERVICES, TRUST_DOMAIN, identity, listeners, outbound};
use super::process::Process;
use super::service::Service;
use crate::cli::Remote;
use crate::cli::client::Client;

/// So many of each service.
const REPLICAS: usize = 2;
/// For which a join token can be shown, in seconds: longer than anybody looks at a demonstration.
const JOIN: u64 = 30 * 24 * 3600;

/// See the module.
pub(super) struct Mesh {
    /// Ours and the proxy's.
    programs: (PathBuf, PathBuf),
    directory: PathBuf,
    runtime: Handle,
    replicas: BTreeMap<String, Replica>,
    control: Option<Process>,
    /// Where the control plane is, for proxies and for people, once that is known: it comes back there.
    addresses: Option<(SocketAddr, SocketAddr)>,
    /// Made once: to read the system's roots takes longer than to ask.
    client: Option<Client>,
}

/// A replica of a service, and its proxy.
struct Replica {
    // The proxy goes first: nobody is to see it without its service.
    proxy: Process,
    app: Service,
    service: &'static str,
    /// Where its proxy listens, by listener; and for people.
    bound: BTreeMap<&'static str, SocketAddr>,
    admin: Option<SocketAddr>,
}

/// The names of all replicas, as `cart-1`, with their services.
pub(super) fn cast() -> impl Iterator<Item = (&'static str, String)> {
    SERVICES
        .into_iter()
        .flat_map(|service| (1..=REPLICAS).map(move |number| (service, format!("{service}-{number}"))))
}

/// What a change has become.
pub(super) struct Changed {
    pub(super) revision: u64,
    pub(super) diff: String,
}

impl Mesh {
    /// Nothing runs yet.
    pub(super) fn new(programs: (PathBuf, PathBuf), directory: PathBuf, runtime: Handle) -> Self {
        Self {
            programs,
            directory,
            runtime,
            replicas: BTreeMap::new(),
            control: None,
            addresses: None,
            client: None,
        }
    }

    /// Where services and their client run.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Starts the control plane, where it was before.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start_control(&mut self, pace: Pace) -> Result<(), String> {
        let Pace { watch, patience, linger: _ } = pace;
        let port_zero = SocketAddr::from(([127, 0, 0, 1], 0));
        let (xds, api) = self.addresses.unwrap_or((port_zero, port_zero));
        let text = format!(
            "xds: {xds}\napi: {api}\nstore: store\nreads: open\nca: {{ trust_domain: {TRUST_DOMAIN}, lifetime: 1h }}\n\
             rollout: {{ steps: [50%], watch: {}ms, patience: {}ms }}\n",
            watch.as_millis(),
            patience.as_millis(),
        );
        let file = self.write("control.yaml", &text)?;
        self.control = Some(Process::run(&self.programs.0, &file, self.directory.join("control.log"))?);
        Ok(())
    }

    /// Where the control plane is, once it listens: for proxies, and for people.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn find_control(&mut self) -> Result<Option<(SocketAddr, SocketAddr)>, String> {
        let Some(process) = &mut self.control else { return Ok(None) };
        let nodes = process.address(" listening for nodes (xDS) address=")?;
        let found = nodes.zip(process.address(" listening for people (API) address=")?);
        self.addresses = found.or(self.addresses);
        if found.is_some() && self.client.is_none() {
            let (server, token) = self.api()?;
            self.client = Some(Client::new(&Remote::to(server, token))?);
        }
        Ok(found)
    }

    /// Ends the control plane, without a word.
    pub(super) fn kill_control(&mut self) {
        self.control = None;
    }

    /// Starts a replica and its proxy, which joins by a token of its own.
    ///
    /// # Errors
    /// They cannot be started, or the control plane makes no token.
    pub(super) fn start_replica(&mut self, service: &'static str, name: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{name} cannot be started: {error}");
        let app = Service::start(&self.runtime, name).map_err(failed)?;
        let wanted = json!({ "spiffe_id": identity(service), "lifetime_seconds": JOIN });
        let join = self.client()?.post("/v1/join-tokens", &wanted)?;
        self.write(&format!("{name}.token"), join["token"].as_str().unwrap_or_default())?;
        let (xds, _) = self.addresses.ok_or("the control plane is not there")?;
        let text = format!(
            "# The proxy of {name}: who it is, whom it asks, and where its service is. Everything else it is told.\n\
             node: {{ id: {name}, cluster: {service} }}\n\
             xds: {{ server: \"http://{xds}\" }}\n\
             identity: {{ csr: {{ server: \"http://{xds}\", token: {name}.token }} }}\n\
             admin: 127.0.0.1:0\n\
             workers: 1\n\
             clusters: {{ app: {{ endpoints: [{}] }} }}\n",
            app.address()
        );
        let file = self.write(&format!("{name}.yaml"), &text)?;
        let proxy = Process::run(&self.programs.1, &file, self.directory.join(format!("{name}.log")))?;
        let replica = Replica { proxy, app, service, bound: BTreeMap::new(), admin: None };
        self.replicas.insert(name.to_owned(), replica);
        Ok(())
    }

    /// Whether the proxy of a replica listens wherever it is to; its service calls through it then.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn find_replica(&mut self, name: &str) -> Result<bool, String> {
        let Some(replica) = self.replicas.get_mut(name) else { return Ok(false) };
        replica.admin = replica.proxy.address(" admin listening address=")?;
        for listener in listeners(replica.service) {
            let marker = format!(" listening listener={listener} address=");
            let Some(address) = replica.proxy.address(&marker)? else { return Ok(false) };
            replica.bound.insert(listener, address);
        }
        let next = SERVICES.iter().skip_while(|service| **service != replica.service).nth(1);
        let next = next.and_then(|next| replica.bound.get(outbound(replica.service, next).as_str()));
        next.into_iter().for_each(|next| replica.app.calls(*next));
        Ok(replica.admin.is_some())
    }

    /// Ends a replica and its proxy, without a word.
    pub(super) fn kill_replica(&mut self, name: &str) {
        self.replicas.remove(name);
    }

    /// Sends a signal to the proxy of a replica.
    pub(super) fn signal(&self, name: &str, signal: Signal) {
        self.replicas.get(name).into_iter().for_each(|replica| replica.proxy.signal(signal));
    }

    /// Where the proxy of a replica listens.
    ///
    /// # Errors
    /// There is no such thing.
    pub(super) fn bound(&self, name: &str, listener: &str) -> Result<SocketAddr, String> {
        let bound = self.replicas.get(name).and_then(|replica| replica.bound.get(listener));
        bound.copied().ok_or_else(|| format!("{name} has no listener `{listener}`"))
    }

    /// Where the proxies of each service take what is for it.
    pub(super) fn addresses(&self) -> BTreeMap<&'static str, Vec<SocketAddr>> {
        let mut out: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for replica in self.replicas.values() {
            out.entry(replica.service).or_default().extend(replica.bound.get(replica.service));
        }
        out
    }

    /// Where the admin interfaces of the proxies are, by replica.
    pub(super) fn admins(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.replicas.iter().filter_map(|(name, replica)| Some((name.as_str(), replica.admin?)))
    }

    /// Where the control plane's API is, and the token that it made first.
    ///
    /// # Errors
    /// The control plane has never been there.
    pub(super) fn api(&self) -> Result<(String, PathBuf), String> {
        let (_, api) = self.addresses.ok_or("the control plane is not there")?;
        Ok((format!("http://{api}"), self.directory.join("store/admin.token")))
    }

    fn client(&self) -> Result<&Client, String> {
        self.client.as_ref().ok_or_else(|| "the control plane is not there".to_owned())
    }

    /// Puts documents into force.
    ///
    /// # Errors
    /// They are refused: all that is wrong with them.
    pub(super) fn apply(
        &self,
        documents: &BTreeMap<String, String>,
        message: &str,
    ) -> Result<Changed, String> {
        let body = json!({ "documents": documents, "message": message });
        let answer = self.client()?.post("/v1/revisions", &body)?;
        let diff = answer["diff"].as_str().unwrap_or_default().to_owned();
        Ok(Changed { revision: answer["revision"].as_u64().unwrap_or_default(), diff })
    }

    /// Which revision is told to all, and who has all of it.
    ///
    /// # Errors
    /// The control plane cannot be asked.
    pub(super) fn in_sync(&self) -> Result<(u64, Vec<String>), String> {
        let status = self.client()?.get("/v1/status")?;
        let has = |node: &&Value| node["in_sync"] == true && node["revision"] == status["revision"];
        let names = status["nodes"].as_array().into_iter().flatten().filter(has);
        let names = names.filter_map(|node| node["id"].as_str().map(str::to_owned)).collect();
        // One that is on its way is not told to all yet, whatever nodes have.
        let revision = status["revision"].as_u64().filter(|_| status["candidate"].is_null());
        Ok((revision.unwrap_or_default(), names))
    }

    /// The events so far of this type, as `node.up.v1`.
    ///
    /// # Errors
    /// The control plane cannot be asked.
    pub(super) fn events(&self, kind: &str) -> Result<Vec<Value>, String> {
        let (client, kind) = (self.client()?, format!("dev.outrigger.{kind}"));
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = client.get(&format!("/v1/events?after={after}"))?;
            let Some(page) = page.as_array().filter(|page| !page.is_empty()) else { return Ok(found) };
            for event in page {
                after = event["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or(after + 1);
                found.extend((event["type"] == kind).then(|| event.clone()));
            }
        }
    }

    /// What the processes said last.
    pub(super) fn last_words(&self) -> String {
        let control = self.control.iter().map(|process| ("the control plane", process));
        let proxies = self.replicas.iter().map(|(name, replica)| (name.as_str(), &replica.proxy));
        let said = control.chain(proxies).map(|(name, process)| (name, process.last_words()));
        said.filter(|(_, words)| !words.is_empty()).map(|(name, words)| format!("{name}:\n{words}")).collect()
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.directory.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Where everything is written.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}
