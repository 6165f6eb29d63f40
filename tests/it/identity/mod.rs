//! Who calls, proven: mutual TLS on both sides, by SPIFFE identity.

mod mutual;
mod rotation;
mod secrets;
mod sources;
mod withdrawn;
mod zoo;

use outrigger_tests::pki::{DOMAIN, IDENTITY, identity};

/// A listener `in` with this `mtls`, in front of `app`.
fn inbound(mtls: &str, app: &str) -> String {
    format!(
        "{IDENTITY}listeners:\n  in: {{ bind: 127.0.0.1:0, mtls: {mtls}, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [\"{app}\"], protocol: http1 }}\n"
    )
}
