//! Identity, and TLS of both sides. A secret of the control plane is shown by its name; a file cannot ask for one.

use std::path::Path;

use super::super::scalar::show_duration;
use super::path;
use super::writer::{Out, key, list, text};
use crate::model::{
    Bundle, Certificate, CertificateFiles, ClientAuth, ClientTrust, Csr, DownstreamTls, Identity,
    IdentitySource, Mutual, MutualUpstream, Name, PeerPattern, Revocation, Roots, San, ServerAuth, ServerTls,
    Unknown, UpstreamTls,
};

pub(super) fn identity(out: &mut Out, identity: &Identity) {
    let Identity { source, revocation: revoked } = identity;
    out.block("identity", |out| {
        match source {
            IdentitySource::Files { own, trust } => out.block("files", |out| {
                certificate_files(out, own);
                out.map("trust", trust.iter(), |out, (domain, file)| {
                    out.field(&key(domain.as_str()), path(file, ""));
                });
            }),
            IdentitySource::WorkloadApi(socket) => {
                out.field("workload_api", text(&format!("unix:{}", socket.display())));
            }
            IdentitySource::Csr(Csr { server, trust, token, lifetime }) => out.block("csr", |out| {
                out.field("server", text(server));
                if let Some(trust) = trust {
                    out.field("trust", path(trust, ""));
                }
                if let Some(token) = token {
                    out.field("token", path(token, ""));
                }
                out.field("lifetime", show_duration(*lifetime));
            }),
        }
        revocation(out, revoked);
    });
}

fn certificate_files(out: &mut Out, files: &CertificateFiles) {
    let CertificateFiles { certificate, private_key } = files;
    out.field("certificate", path(certificate, ""));
    out.field("private_key", path(private_key, ""));
}

fn certificate(out: &mut Out, certificate: &Certificate) {
    match certificate {
        Certificate::Files(files) => certificate_files(out, files),
        Certificate::Secret(name) => out.field("certificate", secret(name)),
    }
}

fn secret(name: &Name) -> String {
    format!("{{ secret: {} }}", text(name.as_str()))
}

fn revocation(out: &mut Out, Revocation { crls, unknown }: &Revocation) {
    if crls.is_empty() {
        return;
    }
    out.block("revocation", |out| {
        out.field("crls", list(crls.iter().map(|file| path(file, ""))));
        out.field(
            "unknown",
            match unknown {
                Unknown::Deny => "deny",
                Unknown::Allow => "allow",
            },
        );
    });
}

pub(super) fn downstream(out: &mut Out, tls: &DownstreamTls) {
    match tls {
        DownstreamTls::Mutual(Mutual::Strict) => out.field("mtls", "strict"),
        DownstreamTls::Mutual(Mutual::Permissive) => out.field("mtls", "permissive"),
        DownstreamTls::Own(ServerTls { certificates, client }) => out.block("tls", |out| {
            match &**certificates {
                [one] => certificate(out, one),
                several => out.list("certificates", several.iter(), certificate),
            }
            let (asked, trust) = match client {
                ClientAuth::None => ("none", None),
                ClientAuth::Optional(trust) => ("optional", Some(trust)),
                ClientAuth::Required(trust) => ("required", Some(trust)),
            };
            out.field("client", asked);
            if let Some(ClientTrust { roots, revocation: revoked }) = trust {
                match roots {
                    Bundle::File(file) => out.field("client_trust", path(file, "")),
                    Bundle::Secret(name) => out.field("client_trust", secret(name)),
                }
                revocation(out, revoked);
            }
        }),
    }
}

pub(super) fn upstream(out: &mut Out, tls: &UpstreamTls) {
    match tls {
        UpstreamTls::Mutual(MutualUpstream { peers, sni }) => out.block("mtls", |out| {
            out.field("peers", list(peers.iter().map(pattern)));
            if let Some(sni) = sni {
                out.field("sni", text(sni));
            }
        }),
        UpstreamTls::Server(server) => {
            let ServerAuth { roots, sni, sans, certificate: own, revocation: revoked } = &**server;
            out.block("tls", |out| {
                match roots {
                    Roots::System => out.field("trust", "system"),
                    Roots::Of(Bundle::File(file)) => out.field("trust", root_file(file)),
                    Roots::Of(Bundle::Secret(name)) => out.field("trust", secret(name)),
                }
                if let Some(sni) = sni {
                    out.field("sni", text(sni));
                }
                out.field("sans", list(sans.iter().map(san)));
                if let Some(own) = own {
                    certificate(out, own);
                }
                revocation(out, revoked);
            });
        }
    }
}

/// What would be read as something else gets `./` before it.
fn root_file(file: &Path) -> String {
    let shown = file.to_string_lossy();
    let taken = shown == "system" || shown.starts_with("./");
    text(&if taken { format!("./{shown}") } else { shown.into_owned() })
}

pub(super) fn pattern(pattern: &PeerPattern) -> String {
    text(&pattern.to_string())
}

fn san(san: &San) -> String {
    match san {
        San::Dns(host) => text(host),
        San::Ip(ip) => text(&ip.to_string()),
        San::Spiffe(peer) => pattern(peer),
    }
}
