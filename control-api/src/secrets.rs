//! Secrets that documents name: certificates with their keys, and roots, out of files of this process.
//!
//! They are of no revision. What is kept in a store, compared, and shown to people is that something is served with the secret
//! `shop`; which key that is, is kept where the operator put it, told to those nodes that have proven to be whom he named, and
//! replaced by replacing the files. Replicas have the same files each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_proto::model::{Holds, Name, PeerPattern, PlaneSecret, SpiffeId};
use outrigger_proto::xds::{Resource, Secret as Said, write};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio::sync::watch;
use tonic::Status;
use webpki::{BorrowedCertRevocationList, anchor_from_trusted_cert};

use crate::ca::Life;
use crate::events::Happened;
use crate::pem::{at, certificates, labelled, pem};
use crate::serving::{Item, Items, item};
use crate::watched::{Kept, Look, Watched, certificate};

/// See the module.
#[derive(Debug, Default)]
pub struct Secrets {
    all: BTreeMap<Name, Arc<Secret>>,
    holds: BTreeMap<Name, Holds>,
    changed: watch::Sender<()>,
}

/// One of them.
#[derive(Debug)]
struct Secret {
    name: Name,
    /// Who is told; `None` whoever's documents name it.
    nodes: Option<Box<[PeerPattern]>>,
    read: Watched<Read>,
    changed: watch::Sender<()>,
}

/// As its files are.
#[derive(Debug)]
struct Read {
    item: Arc<Item>,
    life: Option<Life>,
}

/// What a node is told, and of what else it is not, and why.
#[derive(Debug, Default)]
pub struct Granted {
    /// By name.
    pub items: Items,
    /// In words that name no secret's content.
    pub withheld: BTreeMap<Name, String>,
}

impl Secrets {
    /// Reads all of them.
    ///
    /// # Errors
    /// All that is wrong with their files.
    pub fn open(settings: &BTreeMap<Name, PlaneSecret>) -> Result<Self, String> {
        let (mut out, mut wrong) = (Self::default(), Vec::new());
        for (name, of) in settings {
            match Secret::open(name, of, out.changed.clone()) {
                Ok(secret) => drop(out.all.insert(name.clone(), Arc::new(secret))),
                Err(error) => wrong.push(format!("secret `{name}`: {error}")),
            }
            out.holds.insert(name.clone(), of.holds());
        }
        if wrong.is_empty() { Ok(out) } else { Err(wrong.join("\n")) }
    }

    /// Which there are, and what each can be used for.
    pub fn holds(&self) -> &BTreeMap<Name, Holds> {
        &self.holds
    }

    /// To be kept as their files are.
    pub(crate) fn kept(&self) -> impl Iterator<Item = Arc<dyn Kept>> {
        self.all.values().map(|secret| Arc::clone(secret) as Arc<dyn Kept>)
    }

    /// When any of them is another.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether it takes a proof to be told all of these.
    pub fn need_proof(&self, named: &BTreeSet<Name>) -> bool {
        named.iter().filter_map(|name| self.all.get(name)).any(|secret| secret.nodes.is_some())
    }

    /// What of these is told to whoever has proven to be this, or why he has not.
    pub fn granted(&self, named: &BTreeSet<Name>, who: Result<&SpiffeId, &Status>) -> Granted {
        let (mut items, mut withheld) = (BTreeMap::new(), BTreeMap::new());
        for name in named {
            let granted = match self.all.get(name) {
                Some(secret) => secret.granted(who),
                None => Err("this control plane has no such secret".to_owned()),
            };
            match granted {
                Ok(item) => drop(items.insert(name.clone(), item)),
                Err(why) => drop(withheld.insert(name.clone(), why)),
            }
        }
        Granted { items: Arc::new(items), withheld }
    }
}

impl Secret {
    fn open(name: &Name, settings: &PlaneSecret, changed: watch::Sender<()>) -> Result<Self, String> {
        let (called, of) = (name.clone(), settings.clone());
        let (files, nodes) = match settings {
            PlaneSecret::Certificate { files, nodes } => {
                (vec![files.certificate.clone(), files.private_key.clone()], Some(nodes.clone()))
            }
            PlaneSecret::Roots { roots, crls } => ([roots].into_iter().chain(crls).cloned().collect(), None),
        };
        let read = Watched::open(files, move || read(&called, &of))?;
        Ok(Self { name: name.clone(), nodes, read, changed })
    }

    fn granted(&self, who: Result<&SpiffeId, &Status>) -> Result<Arc<Item>, String> {
        if let Some(nodes) = &self.nodes {
            let who = who.map_err(|status| format!("it has not proven who it is: {}", status.message()))?;
            if !nodes.iter().any(|pattern| pattern.matches(who)) {
                return Err(format!("`{who}` is none of its `nodes`"));
            }
        }
        Ok(Arc::clone(&self.read.now().item))
    }
}

impl Kept for Secret {
    fn refresh(&self) {
        match self.read.refresh() {
            Ok(Look::Same) => {}
            Ok(Look::Other) => {
                tracing::info!(secret = %self.name, "another is told from now on");
                self.changed.send_replace(());
            }
            Err(error) => tracing::error!(secret = %self.name, error, "what is told stays as it was"),
        }
    }

    fn lapse(&self, now: SystemTime) -> Option<Happened> {
        self.read.lapse(&format!("secret/{}", self.name), self.read.now().life.clone()?, now)
    }
}

fn read(name: &Name, settings: &PlaneSecret) -> Result<Read, String> {
    let (said, life) = match settings {
        PlaneSecret::Certificate { files, nodes: _ } => {
            let (both, mut key) = certificate(files)?;
            let life = both.cert.first().and_then(Life::of);
            let chain: String = both.cert.iter().map(pem).collect();
            (
                Said::Certificate {
                    chain: chain.into_bytes().into(),
                    key: std::mem::take(&mut *key).into_bytes().into(),
                },
                life,
            )
        }
        PlaneSecret::Roots { roots: file, crls } => {
            let roots = roots(file)?;
            // With the last of them all is over.
            let life = roots.iter().filter_map(Life::of).max_by_key(|life| life.not_after);
            let crls: Vec<_> = crls.iter().map(|file| lists(file)).collect::<Result<_, _>>()?;
            let roots: String = roots.iter().map(pem).collect();
            (Said::Roots { roots: roots.into_bytes().into(), crls: crls.concat().into_bytes().into() }, life)
        }
    };
    let any = write(name, &Resource::Secret(said)).map_err(|refused| refused.to_string())?;
    Ok(Read { item: item(any), life })
}

/// Certificates alone: whatever else is in the file is told to nobody.
fn roots(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let roots = certificates(file)?;
    if roots.is_empty() {
        return Err(at(file, "there is no certificate in it"));
    }
    match roots.iter().find_map(|root| anchor_from_trusted_cert(root).err()) {
        None => Ok(roots),
        Some(error) => Err(at(file, format!("a certificate in it is none: {error}"))),
    }
}

fn lists(file: &Path) -> Result<String, String> {
    let text = fs::read(file).map_err(|error| at(file, error))?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|error| at(file, error))?;
    if lists.is_empty() {
        return Err(at(file, "there is no revocation list in it"));
    }
    match lists.iter().find_map(|list| BorrowedCertRevocationList::from_der(list).err()) {
        None => Ok(lists.iter().map(|list| std::mem::take(&mut *labelled("X509 CRL", list))).collect()),
        Some(error) => Err(at(file, format!("a revocation list in it is none: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};

    use outrigger_proto::model::PlaneTls;
    use outrigger_proto::xds::{Kind, read};
    use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    /// Gone when it is dropped.
    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path =
                std::env::temp_dir().join(format!("outrigger-secrets-{}-{number}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A root, its key in the same file, and what it has signed.
        fn write(&self) {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let key = KeyPair::generate().unwrap();
            let leaf = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
            let leaf = leaf.signed_by(&key, &root).unwrap();
            fs::write(self.file("ca.pem"), root.key().serialize_pem() + &root.pem()).unwrap();
            fs::write(self.file("shop.key"), key.serialize_pem()).unwrap();
            fs::write(self.file("shop.crt"), leaf.pem()).unwrap();
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn settings(&self) -> BTreeMap<Name, PlaneSecret> {
            let files = PlaneTls { certificate: self.file("shop.crt"), private_key: self.file("shop.key") };
            let nodes = [PeerPattern::new("spiffe://a.test/shop/*").unwrap()].into();
            let roots = PlaneSecret::Roots { roots: self.file("ca.pem"), crls: [].into() };
            [(name("shop"), PlaneSecret::Certificate { files, nodes }), (name("ca"), roots)].into()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn said(granted: &Granted, of: &str) -> Said {
        let (found, resource) = read(Kind::Secret, &granted.items[of].any).unwrap();
        assert_eq!(found.as_str(), of);
        let Resource::Secret(said) = resource else { panic!("a secret") };
        said
    }

    #[test]
    fn who_is_told_what() {
        let dir = Dir::new();
        dir.write();
        let secrets = Secrets::open(&dir.settings()).unwrap();
        let all = [name("shop"), name("ca"), name("gone")].into();
        let id = |path: &str| SpiffeId::new(&format!("spiffe://a.test{path}")).unwrap();
        let nobody = Status::unauthenticated("it shows none");
        let table = [
            (Ok(id("/shop/web")), None),
            (Ok(id("/shopping/web")), Some("`spiffe://a.test/shopping/web` is none of its `nodes`")),
            (Err(nobody), Some("it has not proven who it is: it shows none")),
        ];
        for (who, why) in table {
            let granted = secrets.granted(&all, who.as_ref());
            assert_eq!(granted.withheld.get("shop").map(String::as_str), why);
            assert_eq!(granted.items.contains_key("shop"), why.is_none());
            assert!(granted.items.contains_key("ca") && granted.withheld.contains_key("gone"));
        }
        assert!(secrets.need_proof(&all) && !secrets.need_proof(&[name("ca"), name("gone")].into()));
        assert!(secrets.granted(&BTreeSet::new(), Ok(&id("/shop/web"))).items.is_empty());
    }

    #[test]
    fn a_key_beside_roots_is_told_to_nobody() {
        let dir = Dir::new();
        dir.write();
        let secrets = Secrets::open(&dir.settings()).unwrap();
        let granted = secrets.granted(&[name("ca")].into(), Err(&Status::unauthenticated("")));
        let Said::Roots { roots, crls } = said(&granted, "ca") else { panic!("roots") };
        let text = String::from_utf8_lossy(roots.as_bytes()).into_owned();
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE"), "{text}");
        assert!(crls.as_bytes().is_empty());
    }

    #[test]
    fn what_replaces_it_is_told_and_what_is_wrong_is_not() {
        let dir = Dir::new();
        dir.write();
        let secrets = Secrets::open(&dir.settings()).unwrap();
        let mut changed = secrets.changed();
        let id = SpiffeId::new("spiffe://a.test/shop/web").unwrap();
        let told = || secrets.granted(&[name("shop")].into(), Ok(&id)).items["shop"].version.clone();
        let refresh = || secrets.kept().for_each(|kept| kept.refresh());
        let first = told();
        refresh();
        assert!(told() == first && !changed.has_changed().unwrap());
        // Half of it: the key is not this certificate's.
        fs::write(dir.file("shop.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        refresh();
        assert!(told() == first && !changed.has_changed().unwrap());
        dir.write();
        refresh();
        assert!(told() != first && changed.has_changed().unwrap());
        changed.borrow_and_update();
        let granted = secrets.granted(&[name("shop")].into(), Ok(&id));
        let Said::Certificate { key, .. } = said(&granted, "shop") else { panic!("a certificate") };
        // No more than that, whatever stands beside it.
        let text = fs::read_to_string(dir.file("shop.key")).unwrap();
        assert_eq!(String::from_utf8_lossy(key.as_bytes()), text.replace("\r\n", "\n"));
        assert!(!format!("{secrets:?}{granted:?}").contains("PRIVATE"));
    }

    #[test]
    fn all_that_is_wrong_is_said() {
        let dir = Dir::new();
        dir.write();
        fs::write(dir.file("ca.pem"), "nothing").unwrap();
        fs::remove_file(dir.file("shop.key")).unwrap();
        let said = Secrets::open(&dir.settings()).unwrap_err();
        let lines: Vec<_> = said.lines().collect();
        assert!(
            lines[0].starts_with("secret `ca`: ") && lines[0].ends_with("there is no certificate in it"),
            "{said}"
        );
        assert!(lines[1].starts_with("secret `shop`: ") && lines[1].contains("shop.key: "), "{said}");
    }
}
