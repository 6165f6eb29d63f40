//! Where more of the configuration comes from than a file says.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A control plane that speaks xDS v3.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlPlane {
    /// `https://host:port`, or `http://` on loopback.
    pub server: Box<str>,
    /// PEM file of the roots that the server is checked against; the system's by default.
    pub trust: Option<PathBuf>,
    /// File that what it said last is kept in for the next start; nothing is kept by default.
    pub cache: Option<PathBuf>,
    /// Whether clusters are asked for by name, when something leads to them, and hosts of tables when requests come for them,
    /// where the control plane tells them so.
    pub on_demand: bool,
    /// Whether it is told what clusters and listeners were asked, where it wants to hear of it (LRS).
    pub load_reports: bool,
    /// Who we are to it.
    pub node: Node,
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
