//! Where configurations come from. Bytes in, a configuration or errors out; nothing here knows what is done with it.

pub mod aside;
pub mod file;
pub mod xds;

/// Bytes of a message of a control plane's, on any stream.
const LARGEST: usize = 32 << 20;
