//! Identities for nodes that ask for secrets and make no keys: Envoy, which names them `default` (its certificate and key) and
//! `ROOTCA` (whom it believes). This is the one place where a key is made for somebody else: anew for each stream, for who
//! has proven who it is over the same connection, and kept nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_proto::model::Name;
use outrigger_proto::xds::{Kind, Resource, Secret, Wiped, write};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use tonic::Status;
use zeroize::Zeroizing;

use super::{Attestors, Proven, of_ours};
use crate::pem::pem;
use crate::serving::{Items, item};
use crate::tls::Peer;

/// What is shown of oneself.
const CERTIFICATE: &str = "default";
/// Who vouches for others.
const ROOTS: &str = "ROOTCA";

/// The secrets of one node.
#[derive(Clone, Debug)]
pub struct Own {
    /// By name.
    pub items: Items,
    /// When there should be others: at about half of the certificate's life.
    pub renew_in: Duration,
}

impl Own {
    /// What the secrets are called.
    pub const NAMES: [&str; 2] = [CERTIFICATE, ROOTS];
}

impl Attestors {
    /// Whether anything is shown by which a node may have secrets of its own.
    pub fn may_have_own(&self, peer: &Peer) -> bool {
        self.plane.authority.is_some() && !peer.chain.is_empty()
    }

    /// A key, and a certificate for it, for whoever this is.
    ///
    /// # Errors
    /// It has not proven who it is, or what it has proven it by is not good any more.
    pub fn own(&self, peer: &Peer) -> Result<Own, Status> {
        let missing = || Status::unauthenticated("no certificate is shown");
        let authority = self.plane.authority.as_ref().ok_or_else(missing)?;
        // What leads to no certificate by itself leads to none here.
        let proven = self.certificates.renews(&self.plane, authority, &peer.chain)?.ok_or_else(missing)?;
        let Proven { id, origin, by } = of_ours(proven, authority.trust_domain())?;
        let made = |error: rcgen::Error| Status::internal(format!("no key can be made: {error}"));
        let key = Zeroizing::new(KeyPair::generate().map_err(made)?);
        let csr = CertificateParams::default().serialize_request(&*key).map_err(made)?;
        let signed = self.signed(authority, (csr.der(), Duration::ZERO), &Proven { id, origin, by })?;
        let left = signed.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        // By chance: nodes that came together do not come back together.
        let share = 0.45 + 0.1 * f64::from(signed.certificate.last().copied().unwrap_or_default()) / 255.0;
        let certificate = Secret::Certificate {
            chain: pem(&CertificateDer::from(signed.certificate)).into_bytes().into(),
            key: Wiped::from(key.serialize_pem().into_bytes()),
        };
        let roots = Secret::Roots {
            roots: authority.bundle_pem().into_bytes().into(),
            crls: Wiped::from(Vec::new()),
        };
        let mut items = BTreeMap::new();
        for (name, secret) in [(CERTIFICATE, certificate), (ROOTS, roots)] {
            let name = Name::new(name).expect("it is a name");
            let any = write(&name, &Resource::Secret(secret));
            let any = any.map_err(|refused| Status::internal(refused.to_string()))?;
            items.insert(name, item(any));
        }
        Ok(Own { items: Arc::new(items), renew_in: left.mul_f64(share) })
    }
}

/// Whether this is of the kind that is made for one node, and for no other.
pub(crate) fn is_secret(type_url: &str) -> bool {
    Kind::of_url(type_url) == Some(Kind::Secret)
}
