//! What many proxies serve, and which of it each of them does.

use std::collections::BTreeSet;

use super::{Config, DownstreamTls, Filter, Labels, Listener, Name, Node, Route, UpstreamTls};

/// All that a control plane tells its proxies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Listeners, route tables and clusters of all of them. Nothing is said of the process, and nobody's identity.
    pub config: Config,
    /// Who serves what of it. A node is of the first that takes it; one that none takes is told nothing.
    pub groups: Vec<Group>,
}

/// Proxies that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they are called.
    pub name: Name,
    /// Who is one of them.
    pub select: Select,
    /// What they listen on; `None` is all there is.
    pub listeners: Option<BTreeSet<Name>>,
    /// Clusters that they are told of beside those that their listeners lead to; `None` is all there are.
    pub clusters: Option<BTreeSet<Name>>,
}

/// Who is of a group: all that is said must fit. Empty, everybody is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// The node's id.
    pub id: Option<IdPattern>,
    /// The node's cluster.
    pub cluster: Option<Box<str>>,
    /// What its metadata says below `labels`.
    pub labels: Labels,
}

/// Which ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdPattern {
    /// This one.
    Exact(Box<str>),
    /// Those that begin so. Written with a `*` at the end.
    Prefix(Box<str>),
}

impl Select {
    /// Whether a node with these labels is meant.
    pub fn takes(&self, node: &Node, labels: &Labels) -> bool {
        let Self { id, cluster, labels: wanted } = self;
        let id_fits = match id {
            None => true,
            Some(IdPattern::Exact(id)) => *id == node.id,
            Some(IdPattern::Prefix(prefix)) => node.id.starts_with(&**prefix),
        };
        id_fits && cluster.as_ref().is_none_or(|cluster| *cluster == node.cluster) && labels.has_all(wanted)
    }
}

impl Fleet {
    /// The group of a node with these labels.
    pub fn group(&self, node: &Node, labels: &Labels) -> Option<&Group> {
        self.groups.iter().find(|group| group.select.takes(node, labels))
    }

    /// What a group listens on.
    pub fn listeners<'f>(&'f self, group: &'f Group) -> impl Iterator<Item = (&'f Name, &'f Listener)> {
        let all = self.config.mesh.listeners.iter();
        all.filter(|(name, _)| group.listeners.as_ref().is_none_or(|named| named.contains(*name)))
    }

    /// The route tables of a group's listeners.
    pub fn tables<'f>(&'f self, group: &'f Group) -> BTreeSet<&'f Name> {
        let chains = self.listeners(group).flat_map(|(_, listener)| listener.chains.each());
        let http = chains.filter_map(|chain| match &chain.filter {
            Filter::Http(http) => Some(&http.routes),
            Filter::Tcp(_) => None,
        });
        http.collect()
    }

    /// The secrets that a group's listeners and clusters name.
    pub fn secrets<'f>(&'f self, group: &'f Group) -> BTreeSet<&'f Name> {
        let chains = self.listeners(group).flat_map(|(_, listener)| listener.chains.each());
        let of_listeners = chains.filter_map(|chain| chain.tls.as_ref()).flat_map(DownstreamTls::secrets);
        let clusters =
            self.clusters(group).into_iter().filter_map(|name| self.config.mesh.clusters.get(name));
        let of_clusters = clusters.filter_map(|cluster| cluster.tls.as_ref()).flat_map(UpstreamTls::secrets);
        of_listeners.chain(of_clusters).map(|secret| secret.name).collect()
    }

    /// The clusters that a group is told of.
    pub fn clusters<'f>(&'f self, group: &'f Group) -> BTreeSet<&'f Name> {
        let mesh = &self.config.mesh;
        let Some(named) = &group.clusters else { return mesh.clusters.keys().collect() };
        let mut out: BTreeSet<_> = named.iter().collect();
        out.extend(self.listeners(group).flat_map(|(_, listener)| listener.clusters()));
        let tables = self.tables(group).into_iter().filter_map(|name| mesh.route_tables.get(name));
        out.extend(tables.flat_map(|table| table.routes.iter()).flat_map(Route::clusters));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_of_a_group() {
        let labels = |pairs: &[(&str, &str)]| {
            Labels(pairs.iter().map(|(key, value)| (Box::from(*key), Box::from(*value))).collect())
        };
        let node = Node { id: "web-7".into(), cluster: "web".into(), ..Node::default() };
        let of = labels(&[("tier", "front"), ("zone", "a")]);
        let id = |pattern| Select { id: Some(pattern), ..Select::default() };
        let table = [
            (Select::default(), true),
            (id(IdPattern::Exact("web-7".into())), true),
            (id(IdPattern::Exact("web-".into())), false),
            (id(IdPattern::Prefix("web-".into())), true),
            (id(IdPattern::Prefix("db-".into())), false),
            (Select { cluster: Some("web".into()), ..Select::default() }, true),
            (Select { cluster: Some("db".into()), ..Select::default() }, false),
            (Select { labels: labels(&[("tier", "front")]), ..Select::default() }, true),
            (Select { labels: labels(&[("tier", "back")]), ..Select::default() }, false),
            (Select { cluster: Some("web".into()), labels: labels(&[("x", "y")]), id: None }, false),
        ];
        for (select, expected) in table {
            assert_eq!(select.takes(&node, &of), expected, "{select:?}");
        }
    }
}
