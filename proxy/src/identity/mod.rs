//! Who the proxy is and whom it believes: material from its sources, checked whole before it is in force, and checks of
//! what others show.
//!
//! Sources ([`files`], [`workload_api`], [`csr`]) offer; [`state`] takes or refuses; [`tls`] is how rustls asks. Nothing
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
pub mod state;
pub mod tickets;
pub mod tls;
pub mod verify;
pub mod workload_api;

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

pub use self::state::Identity;

/// The one provider of cryptography: aws-lc, hybrid post-quantum key exchange first.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}
