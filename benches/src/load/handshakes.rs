//! New TLS connections, each with a handshake and one request: all of them full, or all but the first of each thread
//! resumed.
//!
//! Our own, because `wrk` and `h2load` resume the session of the connection before as it pleases them. That spares the
//! proxy its signature, the very thing that is to be measured.

use std::fs::File;
use std::io::{BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, StreamOwned};
use tokio::time::Instant;

use super::Load;
use crate::error::{Doing, Failure, Result};
use crate::measure::percentile;
use crate::net;

/// A client that agrees to one version, group and cipher.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes(Arc<ClientConfig>);

impl Handshakes {
    /// A client that trusts the certificate in the file `trusted`, and no other.
    pub(crate) fn new(trusted: &Path) -> Result<Self> {
        let refused = |error: &dyn std::fmt::Display| Failure::new(format!("setting up TLS: {error}"));
        let file = File::open(trusted).doing(trusted.display())?;
        let certificate = rustls::pki_types::CertificateDer::from_pem_reader(BufReader::new(file))
            .map_err(|error| refused(&error))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|error| refused(&error))?;
        let provider = CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refused(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// A connection that is secure with the first byte, and on which HTTP/1.1 is spoken.
    pub(crate) fn connect(&self, port: u16) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        open(&self.0, port)
    }

    /// Keeps `parallel` connections going for `length`. The first that fails ends its share, and is reported.
    pub(crate) fn run(&self, port: u16, (parallel, resumed): (usize, bool), length: Duration) -> Load {
        let began = Instant::now();
        let share = || {
            let mut times = Vec::new();
            let mut config = (*self.0).clone();
            config.resumption =
                if resumed { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
            let config = Arc::new(config);
            let mut kind = HandshakeKind::Full;
            while began.elapsed() < length {
                let one = Instant::now();
                once(&config, port, kind)?;
                if resumed {
                    kind = HandshakeKind::Resumed;
                }
                times.push(u64::try_from(one.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            Ok(times)
        };
        let shares: Vec<Result<Vec<u64>>> = thread::scope(|scope| {
            let running: Vec<_> = (0..parallel).map(|_| scope.spawn(share)).collect();
            let lost = || Err(Failure::new("a thread of the load ended"));
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
        });
        let errors =
            shares.iter().filter_map(|share| share.as_ref().err()).map(ToString::to_string).collect();
        let mut times: Vec<u64> = shares.into_iter().flatten().flatten().collect();
        Load {
            requests: times.len() as u64,
            seconds: began.elapsed().as_secs_f64(),
            p50_us: percentile(&mut times, 50).unwrap_or(0) as f64,
            p99_us: percentile(&mut times, 99).unwrap_or(0) as f64,
            errors,
        }
    }
}

fn open(config: &Arc<ClientConfig>, port: u16) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let session = ClientConnection::new(Arc::clone(config), name)
        .map_err(|error| Failure::new(format!("setting up TLS: {error}")))?;
    Ok(StreamOwned::new(session, net::connect(port)?))
}

fn once(config: &Arc<ClientConfig>, port: u16, kind: HandshakeKind) -> Result<()> {
    let mut stream = open(config, port)?;
    let status = net::request(&mut stream, "/", "close")?;
    let group = stream.conn.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name);
    if status != 200 {
        return Err(Failure::new(format!("answered {status}")));
    }
    if group != Some(NamedGroup::X25519) || stream.conn.handshake_kind() != Some(kind) {
        return Err(Failure::new(format!("not a handshake over X25519, or not {kind:?}")));
    }
    // The proxy closes first: the ports that wait out their time are then not ours.
    let _either_way = stream.read(&mut [0]);
    Ok(())
}
