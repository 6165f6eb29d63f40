//! Where more of the configuration comes from than a file says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A control plane that speaks xDS v3.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlPlane {
    /// `https://host:port`, or `http://` on loopback.
    pub server: Box<str>,
    /// PEM file of the roots that the server is checked against; the system's by default.
    pub trust: Option<PathBuf>,
    /// File that what it said last is kept in for the next start; nothing is kept by default.
    pub cache: Option<PathBuf>,
    /// Clusters are asked for by name, when something leads to them, and hosts of tables when requests come for them, where
    /// the control plane tells them so; `None`, the default, asks for all there are.
    pub on_demand: Option<OnDemand>,
    /// Whether it is told what clusters and listeners were asked, where it wants to hear of it (LRS).
    pub load_reports: bool,
    /// Whether it is asked what is on trial, and told what that would change; hosts and paths of requests are among that.
    pub trials: bool,
    /// Whether it is told which endpoints are ejected, and that the proxy's own certificate lapses.
    pub events: bool,
    /// Directories below which it may name unix sockets; none by default.
    pub sockets: Box<[PathBuf]>,
    /// Who we are to it.
    pub node: Node,
}

/// What becomes of that which was asked for because it was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDemand {
    /// A host whose clusters nobody has used for so long is let go, and asked for again when a request comes for it.
    pub idle: Duration,
}

impl OnDemand {
    /// An hour.
    pub const IDLE: Duration = Duration::from_secs(3600);
}

impl Default for OnDemand {
    fn default() -> Self {
        Self { idle: Self::IDLE }
    }
}

/// Who a proxy is to its control plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Tells it from all others; not empty.
    pub id: Box<str>,
    /// Those that are alike share it; may be empty.
    pub cluster: Box<str>,
    /// Where it stands; each may be empty.
    pub locality: Locality,
    /// What else its operator tells the control plane, which knows what it means.
    pub metadata: BTreeMap<Box<str>, Metadata>,
}

/// A value of a node's metadata: what JSON has, but null.
#[derive(Clone, Debug, PartialEq)]
pub enum Metadata {
    /// True or false.
    Bool(bool),
    /// Finite.
    Number(f64),
    /// Text.
    Text(Box<str>),
    /// Several.
    List(Box<[Metadata]>),
    /// By name.
    Map(BTreeMap<Box<str>, Metadata>),
}

/// Where something stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// As of a cloud.
    pub region: Box<str>,
    /// Within the region.
    pub zone: Box<str>,
    /// Within the zone.
    pub sub_zone: Box<str>,
}
