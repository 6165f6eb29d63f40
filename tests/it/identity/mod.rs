//! Who calls, proven: mutual TLS on both sides, by SPIFFE identity.

mod mutual;
mod rotation;
mod secrets;
mod sources;
mod withdrawn;
mod zoo;

use std::sync::Arc;

use outrigger_tests::Dir;
use outrigger_tests::pki::Authority;

/// The trust domain of these tests.
const DOMAIN: &str = "cluster.local";

/// A directory with an identity in it: `own.crt`, `own.key`, `ca.crt`.
fn identity(authority: &Authority, path: &str) -> Arc<Dir> {
    let dir = Arc::new(Dir::new());
    dir.write("ca.crt", &authority.pem());
    authority.svid(path).write(&dir, "own");
    dir
}

/// The identity of [`identity`].
const IDENTITY: &str =
    "identity: { files: { certificate: own.crt, private_key: own.key, trust: { cluster.local: ca.crt } } }\n";

/// A listener `in` with this `mtls`, in front of `app`.
fn inbound(mtls: &str, app: &str) -> String {
    format!(
        "{IDENTITY}listeners:\n  in: {{ bind: 127.0.0.1:0, mtls: {mtls}, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [\"{app}\"], protocol: http1 }}\n"
    )
}
