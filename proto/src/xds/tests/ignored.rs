//! What is accepted without effect is told, each by its name and once, and nothing else is.

use super::super::schema::{self, MESSAGES};
use super::*;

/// Those that no endpoint is chosen by.
const LABELS: &str = "envoy.config.core.v3.Metadata.filter_metadata";

/// A field as it stands in the bytes, with little in it.
fn written(number: u32, kind: &schema::Kind) -> Vec<u8> {
    let (wire, content): (u32, Vec<u8>) = match kind {
        schema::Kind::Varint => (0, vec![1]),
        schema::Kind::Enum(known) => {
            let mut out = Vec::new();
            prost::encoding::encode_varint(known[0] as u64, &mut out);
            (0, out)
        }
        schema::Kind::Fixed32 => (5, vec![0; 4]),
        schema::Kind::Fixed64 => (1, vec![0; 8]),
        schema::Kind::Bytes | schema::Kind::Message(_) | schema::Kind::Any => (2, vec![0]),
    };
    let mut out = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | wire), &mut out);
    [out, content].concat()
}

/// Of a message of this type: whether it is refused, and what of it has no effect.
fn walked(name: &str, bytes: &[u8]) -> (bool, Vec<&'static str>) {
    let (errors, ignored) = walk::check(name, bytes, "It");
    (!errors.is_empty(), ignored)
}

#[test]
fn every_field_without_effect_is_told_under_its_name_and_no_other_is() {
    let mut told = 0;
    for message in MESSAGES {
        let name = message.name;
        let is_labels = name == "envoy.config.core.v3.Metadata.FilterMetadataEntry";
        let whole: Vec<_> =
            message.ignored.map(|_| name).or(is_labels.then_some(LABELS)).into_iter().collect();
        assert_eq!(walked(name, &[]), (false, whole.clone()), "{name}");
        // Of what is of any type, below.
        for field in message.fields.iter().filter(|field| !matches!(field.kind, schema::Kind::Any)) {
            let full = format!("{name}.{}", field.name);
            let expected: Vec<_> =
                field.ignored.map(|_| &*full).or((full == LABELS).then_some(LABELS)).into_iter().collect();
            let once = written(field.number, &field.kind);
            let ignored = [whole.clone(), expected].concat();
            assert_eq!(walked(name, &[once.clone(), once].concat()), (false, ignored), "{full}");
            told += usize::from(field.ignored.is_some());
        }
        for absent in message.absent {
            let full = format!("{name}.{}", absent.name);
            let once = written(absent.number, &schema::Kind::Varint);
            let (refused, ignored) = walked(name, &[once.clone(), once].concat());
            let expected: Vec<_> = absent.ignored.iter().map(|_| full.as_str()).collect();
            assert_eq!(
                (refused, ignored),
                (expected.is_empty(), [whole.clone(), expected].concat()),
                "{full}"
            );
            told += usize::from(!refused);
        }
    }
    assert!(told > 70, "{told}");
}

/// What of a listener with this filter before its router has no effect, or why it is refused.
fn beside(filter: manager::HttpFilter) -> Result<Vec<&'static str>, String> {
    let router = manager::HttpFilter {
        name: "router".to_owned(),
        config_type: Some(manager::http_filter::ConfigType::TypedConfig(any(
            "envoy.extensions.filters.http.router.v3.Router",
            &Router::default(),
        ))),
        ..Default::default()
    };
    let manager = manager::HttpConnectionManager {
        route_specifier: Some(manager::http_connection_manager::RouteSpecifier::RouteConfig(table_of(
            &["*"],
            Vec::new(),
        ))),
        http_filters: vec![filter, router],
        ..Default::default()
    };
    let name = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let filter = listener::Filter {
        name: "http".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(name, &manager))),
    };
    let chain = listener::FilterChain { filters: vec![filter], ..Default::default() };
    let listener = listener::Listener {
        name: "web".to_owned(),
        address: Some(socket("127.0.0.1", 80)),
        filter_chains: vec![chain],
        ..Default::default()
    };
    let accepted = accept(Kind::Listener, &any("envoy.config.listener.v3.Listener", &listener));
    accepted.map(|accepted| accepted.ignored).map_err(|refused| refused.to_string())
}

#[test]
fn a_filter_that_is_passed_over_is_told() {
    let filter = |name: &str, is_optional: bool| manager::HttpFilter {
        name: "it".to_owned(),
        config_type: Some(manager::http_filter::ConfigType::TypedConfig(any(name, &Router::default()))),
        is_optional,
        ..Default::default()
    };
    let passed_over = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.typed_config";
    assert_eq!(beside(filter("a.Lua", true)), Ok(vec![passed_over]));
    assert!(beside(filter("a.Lua", false)).unwrap_err().contains("`a.Lua` is not supported"));
    // One that is known, and only counts.
    let stats = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";
    assert_eq!(beside(filter(stats, false)), Ok(vec![stats]));
}

#[test]
fn labels_are_told_where_no_endpoint_is_chosen_by_them() {
    let metadata = |whose: &str| core::Metadata {
        filter_metadata: [(whose.to_owned(), prost_types::Struct::default())].into(),
        typed_filter_metadata: [("a".to_owned(), any("a.B", &Router::default()))].into(),
    };
    let typed = "envoy.config.core.v3.Metadata.typed_filter_metadata";
    let mut of = cluster_of("app");
    of.metadata = Some(metadata("envoy.lb"));
    let ignored = |of: &cluster::Cluster| {
        accept(Kind::Cluster, &any("envoy.config.cluster.v3.Cluster", of)).unwrap().ignored
    };
    assert_eq!(ignored(&of), [LABELS, typed]);
    for (whose, expected) in [("envoy.lb", &[typed][..]), ("theirs", &[LABELS, typed])] {
        let mut endpoint = endpoint_at("10.0.0.1", 80);
        endpoint.metadata = Some(metadata(whose));
        of = cluster_of("app");
        of.load_assignment = Some(set_of("app", vec![endpoint.clone(), endpoint]));
        assert_eq!(ignored(&of), expected, "{whose}");
    }
    assert_eq!(ignored(&cluster_of("app")), [""; 0]);
}
