//! The proxies: what each can do, how each is configured for a case, and when it is ready.
//!
//! All do the same work: one worker, no access log, `x-forwarded-for` and `x-forwarded-proto` added, upstream
//! connections kept and reused (by HAProxy as it comes not for a client's first request), limits far above the
//! load. Where TLS is spoken: version 1.3, group X25519.

pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod nginx;
pub(crate) mod outrigger;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fmt, fs};

use clap::ValueEnum;
use tokio::time::Instant;

use crate::error::{Doing, Failure, Result};
use crate::net;
use crate::process::Running;
use crate::proxy::haproxy::Tuning;
use crate::proxy::outrigger::Policies;
use crate::tools::Tools;

/// Longest time from start to ready: Envoy needs many seconds for 10,000 clusters.
const STARTING: Duration = Duration::from_secs(90);

/// Client connections that each proxy admits, well above what any case opens.
pub(crate) const CONNECTIONS: usize = 4096;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Proxy {
    /// Ours.
    Outrigger,
    /// Ours, with every policy that it has, and none of them at work.
    #[value(name = "outrigger-policies")]
    OutriggerGuarded,
    /// Envoy.
    Envoy,
    /// HAProxy as it comes.
    Haproxy,
    /// HAProxy as an expert may tune it.
    #[value(name = "haproxy-tuned")]
    HaproxyTuned,
    /// nginx.
    Nginx,
}

impl Proxy {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 6] = [
        Self::Outrigger,
        Self::OutriggerGuarded,
        Self::Envoy,
        Self::Haproxy,
        Self::HaproxyTuned,
        Self::Nginx,
    ];

    /// Its name on the command line and in those of files.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Why `shape` is beyond this proxy, if it is.
    pub(crate) fn cannot(self, shape: Shape) -> Option<&'static str> {
        (self == Self::Nginx && shape.back == Back::Http2).then_some("no HTTP/2 towards upstreams")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outrigger => "Outrigger",
            Self::OutriggerGuarded => "Outrigger, all policies",
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
            Self::HaproxyTuned => "HAProxy tuned",
            Self::Nginx => "nginx",
        })
    }
}

/// What clients speak to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Cleartext HTTP/1.1.
    Http1,
    /// Cleartext HTTP/2 by prior knowledge.
    Http2,
    /// TLS, with HTTP/2 and HTTP/1.1 offered.
    Tls,
    /// TLS with HTTP/1.1, for clients that show a certificate.
    Mtls,
    /// Bytes.
    Tcp,
}

/// What the proxy speaks to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in cleartext.
    Http2,
    /// HTTP/1.1 over TLS, with a certificate shown and one checked.
    Mtls,
    /// Bytes.
    Tcp,
}

/// Which routes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routes {
    /// One that matches everything.
    Catchall,
    /// This many, `/svc-N/`, each to a cluster of its own; all clusters are the same backend.
    Prefixes(usize),
}

impl Routes {
    /// Name of each cluster, and the path prefix that leads to it.
    pub(crate) fn each(self) -> Vec<(String, String)> {
        match self {
            Self::Catchall => vec![("backend".to_owned(), "/".to_owned())],
            Self::Prefixes(count) => {
                (0..count).map(|number| (format!("svc-{number}"), format!("/svc-{number}/"))).collect()
            }
        }
    }

    /// Upstream connections that one cluster may keep idle.
    fn idle_upstream(self) -> usize {
        match self {
            Self::Catchall => 256,
            // nginx reserves memory for each, used or not.
            Self::Prefixes(_) => 32,
        }
    }
}

/// What a proxy must be configured for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Towards clients.
    pub(crate) front: Front,
    /// Towards the backend.
    pub(crate) back: Back,
    /// Between them.
    pub(crate) routes: Routes,
}

/// A certificate for this machine, in the forms that the proxies read.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    /// The certificate (ECDSA P-256, signed by itself), PEM.
    pub(crate) certificate: PathBuf,
    /// Its key, PEM.
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub(crate) both: PathBuf,
    /// What both ends of mutual TLS show, in the same forms: a certificate of a workload, [`SPIFFE_ID`], ECDSA P-256.
    pub(crate) mesh: [PathBuf; 3],
    /// The root that has signed it, PEM.
    pub(crate) mesh_root: PathBuf,
}

/// The trust domain of mutual TLS.
pub(crate) const TRUST_DOMAIN: &str = "bench.local";

/// Who both its ends are.
pub(crate) const SPIFFE_ID: &str = "spiffe://bench.local/hop";

impl TlsFiles {
    /// Makes a new certificate in `dir`.
    pub(crate) fn make(dir: &Path) -> Result<Self> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)
            .map_err(|error| Failure::new(format!("making a certificate: {error}")))?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let (mesh_root, mesh_certificate, mesh_key) =
            mesh().map_err(|error| Failure::new(format!("making a certificate: {error}")))?;
        let mesh_both = format!("{mesh_certificate}{mesh_key}");
        let both = format!("{certificate}{key}");
        let write = |name: &str, text: &str| {
            let file = dir.join(name);
            fs::write(&file, text).doing(file.display())?;
            file.canonicalize().doing(file.display())
        };
        Ok(Self {
            certificate: write("tls.crt", &certificate)?,
            key: write("tls.key", &key)?,
            both: write("tls.pem", &both)?,
            mesh: [
                write("mesh.crt", &mesh_certificate)?,
                write("mesh.key", &mesh_key)?,
                write("mesh.pem", &mesh_both)?,
            ],
            mesh_root: write("mesh-ca.crt", &mesh_root)?,
        })
    }
}

/// A root, a certificate below it, and its key, PEM.
fn mesh() -> std::result::Result<(String, String, String), rcgen::Error> {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
    let mut root = CertificateParams::new(Vec::new())?;
    root.distinguished_name.push(DnType::CommonName, "root of the benches");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    // HAProxy and nginx know servers by their hosts.
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
    leaf.subject_alt_names.push(SanType::URI(SPIFFE_ID.try_into()?));
    let key = KeyPair::generate()?;
    Ok((root.pem(), leaf.signed_by(&key, &root)?.pem(), key.serialize_pem()))
}

/// All that a configuration is written from.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    /// What to speak.
    pub(crate) shape: Shape,
    /// Empty folder for its files.
    pub(crate) dir: PathBuf,
    /// Port that it serves.
    pub(crate) listen: u16,
    /// Port for its own questions, where it has one.
    pub(crate) admin: u16,
    /// Port of the backend.
    pub(crate) backend: u16,
    /// Certificate to serve.
    pub(crate) tls: &'a TlsFiles,
}

impl Setup<'_> {
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.dir.join(name);
        fs::write(&file, text).doing(file.display())?;
        Ok(file)
    }

    fn is_ready(&self, proxy: Proxy) -> bool {
        let ours = matches!(proxy, Proxy::Outrigger | Proxy::OutriggerGuarded);
        let asked = !ours || net::answers(self.admin, "/ready");
        asked
            && match (self.shape.front, self.shape.routes) {
                (Front::Http1, Routes::Catchall) => net::answers(self.listen, "/"),
                (Front::Http1, Routes::Prefixes(count)) => {
                    net::answers(self.listen, &format!("/svc-{}/", count - 1))
                }
                (Front::Http2 | Front::Tls | Front::Mtls | Front::Tcp, _) => {
                    net::connect(self.listen).is_ok()
                }
            }
    }
}

/// A proxy that serves, and how long it took to get there.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Its processes.
    pub(crate) process: Running,
    /// From start to the first answer.
    pub(crate) ready: Duration,
}

/// Writes the configuration of `proxy` for `setup`, starts it, and waits until it serves.
pub(crate) fn start(proxy: Proxy, setup: &Setup<'_>, tools: &Tools) -> Result<Serving> {
    let command: Command = match proxy {
        Proxy::Outrigger => outrigger::command(setup, tools, Policies::None)?,
        Proxy::OutriggerGuarded => outrigger::command(setup, tools, Policies::All)?,
        Proxy::Envoy => envoy::command(setup, tools)?,
        Proxy::Haproxy => haproxy::command(setup, tools, Tuning::AsItComes)?,
        Proxy::HaproxyTuned => haproxy::command(setup, tools, Tuning::Expert)?,
        Proxy::Nginx => nginx::command(setup, tools)?,
    };
    let began = Instant::now();
    let mut process = Running::start(command, &setup.dir.join("log"))?;
    process.until(STARTING, || setup.is_ready(proxy))?;
    Ok(Serving { process, ready: began.elapsed() })
}
