//! What the end-to-end tests are made of: the proxy and the control plane as processes, origins that do as they are told, clients that see
//! every byte. Nothing here knows the proxy's code: all it knows is the command line, the configuration and the wire.
//!
//! Every wait has a deadline, no wait is for a fixed time, every socket is bound to port 0.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

pub mod control;
pub mod dir;
pub mod echo;
pub mod h2client;
pub mod load;
pub mod network;
pub mod origin;
pub mod peer;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod tls;
pub mod wait;
pub mod wire;

pub use self::control::Control;
pub use self::dir::Dir;
pub use self::echo::{Echo, Report};
pub use self::origin::{Conn, Nobody, Origin, Received};
pub use self::proxy::Proxy;
pub use self::wait::{until, within};
pub use self::wire::{Client, Reply};
