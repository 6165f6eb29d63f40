//! Who the proxy is and whom it believes: material from its sources, checked whole before it is in force, and checks of
//! what others show.
//!
//! Sources ([`files`], [`workload_api`], [`csr`]) offer; [`state`] takes or refuses; [`tls`] is how rustls asks. What is no
//! identity of the proxy's may come in [`secrets`] of a control plane as well as in files. Nothing
//! here knows what a request is.

pub mod alarm;
pub mod backoff;
pub mod csr;
pub mod dial;
pub mod files;
pub mod offer;
pub mod pem;
#[cfg(test)]
mod pipe;
mod renewal;
pub mod secrets;
pub mod state;
pub mod tickets;
pub mod tls;
pub mod verify;
pub mod workload_api;

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

pub use self::state::{Identity, Lapse};

/// The one provider of cryptography: aws-lc, hybrid post-quantum key exchange first; with the feature `fips` its validated
/// module, and no more than that approves.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Whether cryptography is what the build says: with the feature `fips` all of it must be approved.
pub fn is_as_built() -> bool {
    !cfg!(feature = "fips") || provider().fips()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the feature `fips` of approved things alone; without it hybrid key exchange comes first, either way.
    #[test]
    fn cryptography_is_what_the_build_says() {
        assert!(is_as_built());
        assert_eq!(provider().fips(), cfg!(feature = "fips"));
        let first = provider().kx_groups[0].name();
        assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
    }
}
