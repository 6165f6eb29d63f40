//! Secrets that a control plane has told: what they hold is read as files are, and checked before anybody counts on it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use outrigger_proto::model::{Bundle, Certificate, CertificateFiles, Name, SecretRef, Unknown};
use outrigger_proto::xds::Secret;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::offer::Key;
use super::pem::{self, Held, PemError};
use super::state::certified;
use super::verify::{Lists, Roots};

/// All that there are, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<Name, Arc<Secret>>);

impl Secrets {
    /// Whether it is there, and holds what it is to.
    pub fn have(&self, SecretRef { name, holds }: SecretRef<'_>) -> bool {
        self.0.get(name).is_some_and(|secret| secret.holds() == holds)
    }

    /// A chain and its key.
    ///
    /// # Errors
    /// See [`PemError`].
    pub fn pair(&self, of: &Certificate) -> Result<(Vec<CertificateDer<'static>>, Key), PemError> {
        match of {
            Certificate::Files(files) => pem::pair(files),
            Certificate::Secret(name) => match self.0.get(name).map(|secret| &**secret) {
                Some(Secret::Certificate { chain, key }) => {
                    let held = || Held::Secret(name.clone());
                    let chain = pem::certificates_in(chain.as_bytes(), held)?;
                    Ok((chain, pem::private_key_in(key.as_bytes(), held)?))
                }
                Some(Secret::Roots { .. }) | None => Err(PemError::NoSecret(name.clone())),
            },
        }
    }

    /// Roots, and the revocation lists that came with them.
    ///
    /// # Errors
    /// See [`PemError`].
    pub fn bundle(&self, of: &Bundle) -> Result<Believed, PemError> {
        match of {
            Bundle::File(path) => Ok(Believed { roots: pem::certificates(path)?, crls: Vec::new() }),
            Bundle::Secret(name) => match self.0.get(name).map(|secret| &**secret) {
                Some(Secret::Roots { roots, crls }) => {
                    let held = || Held::Secret(name.clone());
                    let roots = pem::certificates_in(roots.as_bytes(), held)?;
                    let crls = if crls.as_bytes().is_empty() {
                        Vec::new()
                    } else {
                        pem::lists_in(crls.as_bytes(), held)?
                    };
                    Ok(Believed { roots, crls })
                }
                Some(Secret::Certificate { .. }) | None => Err(PemError::NoSecret(name.clone())),
            },
        }
    }
}

/// What a bundle says.
#[derive(Debug)]
pub struct Believed {
    /// At least one.
    pub roots: Vec<CertificateDer<'static>>,
    /// Of what is no longer good.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
}

/// Looks whether a secret can be used.
///
/// # Errors
/// The field, and what is wrong with it; nothing of what it holds.
pub fn check(name: &Name, secret: &Secret) -> Result<(), (&'static str, String)> {
    fn at<E: fmt::Display>(field: &'static str) -> impl Fn(E) -> (&'static str, String) {
        move |error| (field, error.to_string())
    }
    let held = || Held::Secret(name.clone());
    match secret {
        Secret::Certificate { chain, key } => {
            let chain = pem::certificates_in(chain.as_bytes(), held);
            let chain = chain.map_err(at("tls_certificate.certificate_chain"))?;
            let key = pem::private_key_in(key.as_bytes(), held).map_err(at("tls_certificate.private_key"))?;
            certified(chain, &key).map_err(at("tls_certificate"))?;
        }
        Secret::Roots { roots, crls } => {
            let field = "validation_context.trusted_ca";
            let roots = pem::certificates_in(roots.as_bytes(), held).map_err(at(field))?;
            Roots::new(&roots).map_err(at(field))?;
            if !crls.as_bytes().is_empty() {
                let field = "validation_context.crl";
                let lists = pem::lists_in(crls.as_bytes(), held).map_err(at(field))?;
                Lists::new(&lists, Unknown::Deny).map_err(at(field))?;
            }
        }
    }
    Ok(())
}

/// Where a certificate comes from, for errors.
pub fn place(certificate: &Certificate) -> String {
    match certificate {
        Certificate::Files(CertificateFiles { certificate, private_key }) => {
            format!("{}, {}", certificate.display(), private_key.display())
        }
        Certificate::Secret(name) => Held::Secret(name.clone()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pem(host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn wiped(text: &str) -> outrigger_proto::xds::Wiped {
        text.as_bytes().to_vec().into()
    }

    #[test]
    fn what_cannot_be_used_is_named_and_not_shown() {
        let name = Name::new("web").unwrap();
        let ((chain, key), (_, other)) = (pem("a.test"), pem("b.test"));
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        let certificate =
            |chain: &str, key: &str| Secret::Certificate { chain: wiped(chain), key: wiped(key) };
        let roots = |roots: &str, crls: &str| Secret::Roots { roots: wiped(roots), crls: wiped(crls) };
        let (at_chain, at_key) = ("tls_certificate.certificate_chain", "tls_certificate.private_key");
        let rows = [
            (certificate(&chain, &key), None),
            (certificate("rubbish", &key), Some((at_chain, "the secret `web` holds no PEM certificate"))),
            (
                certificate(broken, &key),
                Some((at_chain, "the secret `web` is not whole: a PEM block in it is broken")),
            ),
            (
                certificate(&chain, &chain),
                Some((at_key, "the secret `web` holds no PEM private key that can be used")),
            ),
            (
                certificate(&chain, &other),
                Some(("tls_certificate", "the private key does not belong to the certificate")),
            ),
            (roots(&chain, ""), None),
            (
                roots(&key, ""),
                Some(("validation_context.trusted_ca", "the secret `web` holds no PEM certificate")),
            ),
            (
                roots(&chain, &chain),
                Some(("validation_context.crl", "the secret `web` holds no PEM revocation list (X509 CRL)")),
            ),
        ];
        for (secret, expected) in rows {
            let found = check(&name, &secret).err();
            let found = found.as_ref().map(|(field, problem)| (*field, problem.as_str()));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn one_kind_is_never_taken_for_the_other() {
        let name = Name::new("web").unwrap();
        let (chain, key) = pem("a.test");
        let secret = Secret::Certificate { chain: wiped(&chain), key: wiped(&key) };
        let secrets = Secrets([(name.clone(), Arc::new(secret))].into());
        assert!(secrets.pair(&Certificate::Secret(name.clone())).is_ok());
        assert!(matches!(secrets.bundle(&Bundle::Secret(name)), Err(PemError::NoSecret(_))));
        let other = Name::new("other").unwrap();
        assert!(matches!(secrets.pair(&Certificate::Secret(other)), Err(PemError::NoSecret(_))));
    }
}
