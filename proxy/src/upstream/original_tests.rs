//! What names an endpoint, and what becomes of those that are named.

use std::num::{NonZeroU16, NonZeroU32};

use http::HeaderValue;
use outrigger_proto::model::{Assignment, Name, OutlierDetection};
use tokio::time::Instant;

use super::super::cluster::{ClusterView, Clusters};
use super::super::endpoint::Availability;
use super::*;
use crate::io::socket::source_towards;
use crate::observe::Registry;

const SECOND: Duration = Duration::from_secs(1);

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

#[test]
fn a_header_names_it_where_it_may_and_else_the_connection() {
    #[track_caller]
    fn check(
        original: &Original,
        values: &[&str],
        redirected: Option<&str>,
        expected: Result<&str, UpstreamError>,
    ) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(Original::HEADER, HeaderValue::from_str(value).unwrap());
        }
        let found = named(original, Some(&headers), redirected.map(at));
        assert_eq!(found, expected.map(at), "{values:?} {redirected:?}");
    }
    let none = Err(UpstreamError::NoOriginalDestination);
    let bad = Err(UpstreamError::BadOriginalDestination);
    let (plain, there) = (Original::default(), Some("192.0.2.1:80"));
    check(&plain, &[], there, Ok("192.0.2.1:80"));
    check(&plain, &[], None, none);
    // Nobody is believed who is not to be.
    check(&plain, &["192.0.2.9:1"], there, Ok("192.0.2.1:80"));
    check(&plain, &["192.0.2.9:1"], None, none);
    let by_header = Original { header: Some(Original::HEADER), ..Original::default() };
    check(&by_header, &[], there, Ok("192.0.2.1:80"));
    check(&by_header, &[], None, none);
    check(&by_header, &["192.0.2.9:1"], there, Ok("192.0.2.9:1"));
    check(&by_header, &["192.0.2.9:1"], None, Ok("192.0.2.9:1"));
    check(&by_header, &["[2001:db8::1]:443"], None, Ok("[2001:db8::1]:443"));
    check(&by_header, &["[::ffff:192.0.2.9]:1"], None, Ok("192.0.2.9:1"));
    for wrong in [
        "",
        "192.0.2.9",
        "192.0.2.9:",
        "192.0.2.9:0",
        "192.0.2.9:65536",
        "192.0.2.9:1 ",
        "192.0.2.9:1, 192.0.2.8:1",
        "192.0.2.9:1/",
        "http://192.0.2.9:1",
        "192.0.2.09:1",
        "3221226153:80",
        "2001:db8::1:443",
        "[2001:db8::1]",
        "[fe80::1%1]:80",
        "localhost:80",
        "unix:/a",
        "0.0.0.0:80",
        "[::]:80",
        "[::ffff:0.0.0.0]:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "[ff02::1]:80",
    ] {
        // One that is wrong is not as good as none.
        check(&by_header, &[wrong], there, bad);
    }
    check(&by_header, &["192.0.2.9:1", "192.0.2.9:1"], there, bad);
    let port = Original { port: NonZeroU16::new(8080), ..by_header };
    check(&port, &["[2001:db8::1]:443"], None, Ok("[2001:db8::1]:8080"));
    check(&port, &[], there, Ok("192.0.2.1:8080"));
    check(&port, &[], None, none);
}

#[test]
fn a_place_has_one_form() {
    let SocketAddr::V6(mut labelled) = at("[2001:db8::1]:1") else { panic!() };
    labelled.set_flowinfo(7);
    assert_eq!(canonical(labelled.into()), at("[2001:db8::1]:1"));
    assert_eq!(canonical(at("[::ffff:192.0.2.1]:1")), at("192.0.2.1:1"));
}

#[test]
fn where_the_process_listens_is_known() {
    #[track_caller]
    fn check(own: &str, address: &str, expected: bool) {
        let own = [at("192.0.2.7:7"), at(own)];
        let is_local =
            |address: SocketAddr| Ok(["127.0.0.1", "192.0.2.1", "::1"].contains(&&*address.ip().to_string()));
        assert_eq!(comes_back(&own, at(address), is_local).unwrap(), expected, "{own:?} {address}");
    }
    check("192.0.2.1:80", "192.0.2.1:80", true);
    check("192.0.2.1:80", "192.0.2.1:81", false);
    check("192.0.2.1:80", "127.0.0.1:80", false);
    for (address, expected) in [("192.0.2.1:80", true), ("127.0.0.1:80", true), ("192.0.2.2:80", false)] {
        check("0.0.0.0:80", address, expected);
        check("[::]:80", address, expected);
    }
    check("0.0.0.0:80", "[::1]:80", false);
    check("[::]:80", "[::1]:80", true);
    check("[::ffff:192.0.2.1]:80", "192.0.2.1:80", true);
    // The system is asked where that decides, and else is not.
    let own = ["192.0.2.7:7", "0.0.0.0:80", "[::]:81", "192.0.2.7:81"].map(at);
    let fails = |_| Err(io::ErrorKind::Other.into());
    for (address, expected) in [
        ("192.0.2.7:7", Some(true)),
        ("192.0.2.1:7", Some(false)),
        ("192.0.2.1:80", None),
        ("[::1]:80", Some(false)),
        ("192.0.2.7:81", Some(true)),
        ("[::1]:81", None),
    ] {
        assert_eq!(comes_back(&own, at(address), fails).ok(), expected, "{address}");
    }
}

#[test]
fn this_machine_knows_its_addresses() {
    for (address, expected) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        // Kept for documentation (RFC 5737): nobody has it.
        ("192.0.2.1:1", false),
    ] {
        assert_eq!(is_local(at(address)).unwrap(), expected, "{address}");
    }
    // Whichever one others are reached from.
    if let Some(own) = source_towards(at("192.0.2.1:1")).unwrap() {
        assert!(is_local(SocketAddr::new(own, 1)).unwrap());
    }
}

fn cluster(clusters: &Clusters, original: Original) -> Arc<Cluster> {
    let cluster = clusters.get_or_make(&Name::new("app").unwrap());
    configure(clusters, &cluster, Source::Original(original));
    clusters.settle(&cluster);
    cluster
}

/// What requests see that begin under this configuration.
fn configure(clusters: &Clusters, cluster: &Arc<Cluster>, source: Source) -> ClusterView {
    let outlier_detection = Some(OutlierDetection::default());
    let config = Arc::new(model::Cluster { outlier_detection, ..model::Cluster::new(source) });
    clusters.configure(cluster, &config);
    ClusterView { config, live: cluster.clone(), tls: None, subset: None }
}

/// The endpoint at an address, a second after the start.
fn reach(cluster: &Cluster, address: &str) -> Result<Arc<Endpoint>, UpstreamError> {
    cluster.endpoint_at(&Original::default(), at(address), SECOND)
}

fn named_by(cluster: &Cluster) -> Vec<String> {
    cluster.endpoints().endpoints().iter().map(|endpoint| endpoint.at().label.to_string()).collect()
}

#[test]
fn endpoints_are_made_once_and_are_bounded() {
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let most = NonZeroU32::new(2).unwrap();
    let original = Original { max_endpoints: most, ..Original::default() };
    let cluster = cluster(&clusters, original.clone());
    let reach = |address: &str| cluster.endpoint_at(&original, at(address), SECOND);
    clusters.listens_on(vec![at("192.0.2.9:9")]);
    let first = reach("192.0.2.1:1").unwrap();
    assert!(Arc::ptr_eq(&first, &reach("192.0.2.1:1").unwrap()));
    assert_eq!(first.since(), SECOND);
    assert_eq!(reach("192.0.2.9:9").unwrap_err(), UpstreamError::OwnAddress, "before it is counted");
    reach("192.0.2.2:1").unwrap();
    let refused = reach("192.0.2.3:1").unwrap_err();
    assert_eq!(refused, UpstreamError::TooManyEndpoints(most));
    assert!(reach("192.0.2.1:1").is_ok(), "who is known is served");
    assert_eq!(named_by(&cluster), ["192.0.2.1:1", "192.0.2.2:1"]);
    assert_eq!(first.availability(), Availability::Available);
    // Listening there now, as after a change of the configuration.
    clusters.listens_on(vec![at("192.0.2.1:1")]);
    assert_eq!(named_by(&cluster), ["192.0.2.2:1"]);
    assert!(first.is_retired());
    assert!(reach("192.0.2.1:1").is_err());
    assert!(reach("192.0.2.3:1").is_ok(), "there is room again");
}

#[test]
fn who_is_not_used_is_forgotten() {
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let cluster = cluster(&clusters, Original::default());
    let used = reach(&cluster, "192.0.2.1:1").unwrap();
    let lasting = reach(&cluster, "192.0.2.2:1").unwrap().lease();
    let unused = reach(&cluster, "192.0.2.3:1").unwrap();
    assert!(!cluster.forget_unused(5 * SECOND));
    drop(used.lease());
    assert!(!cluster.forget_unused(SECOND * 11 / 2), "a request was there in between");
    assert!(cluster.forget_unused(6 * SECOND));
    assert_eq!(named_by(&cluster), ["192.0.2.1:1", "192.0.2.2:1"]);
    assert!(unused.is_retired() && !used.is_retired());
    let again = cluster.endpoint_at(&Original::default(), at("192.0.2.3:1"), 6 * SECOND).unwrap();
    assert_ne!(again.id(), unused.id());
    assert!(cluster.forget_unused(20 * SECOND));
    assert_eq!(named_by(&cluster), ["192.0.2.2:1"], "a connection lasts there");
    drop(lasting);
    assert!(!cluster.forget_unused(24 * SECOND));
    assert!(cluster.forget_unused(25 * SECOND));
    assert_eq!(named_by(&cluster), [""; 0]);
}

#[test]
fn what_a_cluster_was_before_does_not_linger() {
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let cluster = cluster(&clusters, Original::default());
    let named = reach(&cluster, "192.0.2.1:1").unwrap();
    // The same again, as with each configuration.
    let original = Original { port: NonZeroU16::new(2), ..Original::default() };
    configure(&clusters, &cluster, Source::Original(original));
    clusters.settle(&cluster);
    assert_eq!(named_by(&cluster), ["192.0.2.1:1"]);
    assert!(!named.is_retired());
    let two = Assignment { endpoints: vec![model::Endpoint::new(Address::Ip(at("192.0.2.2:1")))] };
    let stated = configure(&clusters, &cluster, Source::Static);
    clusters.assign(&cluster, &two);
    assert!(!named.is_retired(), "it is in force until the other one is");
    assert!(Arc::ptr_eq(&named, &reach(&cluster, "192.0.2.1:1").unwrap()));
    assert!(!reach(&cluster, "192.0.2.3:1").unwrap().is_retired());
    assert_eq!(named_by(&cluster), ["192.0.2.1:1", "192.0.2.3:1"]);
    clusters.settle(&cluster);
    assert!(named.is_retired());
    assert_eq!(named_by(&cluster), ["192.0.2.2:1"]);
    // For who was led there before, and for nobody else.
    let late = reach(&cluster, "192.0.2.1:1").unwrap();
    assert!(late.is_retired() && !Arc::ptr_eq(&late, &named));
    assert!(!cluster.forget_unused(100 * SECOND));
    let chosen = stated.endpoints().endpoints()[0].clone();
    configure(&clusters, &cluster, Source::Original(Original::default()));
    assert_eq!(named_by(&cluster), ["192.0.2.2:1"]);
    assert!(!chosen.is_retired(), "it is in force until the other one is");
    let first = reach(&cluster, "192.0.2.4:1").unwrap();
    clusters.settle(&cluster);
    assert!(chosen.is_retired() && !first.is_retired());
    assert_eq!(named_by(&cluster), ["192.0.2.4:1"]);
    // A request that began before finds what it was to find, and never what another one has named.
    assert!(Arc::ptr_eq(&stated.endpoints().endpoints()[0], &chosen));
    assert_eq!(stated.endpoints().endpoints().len(), 1);
    configure(&clusters, &cluster, Source::Static);
    clusters.assign(&cluster, &two);
    clusters.settle(&cluster);
    assert_eq!(named_by(&cluster), ["192.0.2.2:1"]);
    assert!(!cluster.endpoints().endpoints()[0].is_retired(), "who was retired does not come back");
}

#[test]
fn who_is_named_goes_with_the_cluster() {
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let cluster = cluster(&clusters, Original::default());
    let named = reach(&cluster, "192.0.2.1:1").unwrap();
    clusters.retain(|_| false);
    assert!(named.is_retired());
    assert!(reach(&cluster, "192.0.2.1:1").unwrap().is_retired());
}

#[test]
fn where_it_listens_is_news_once() {
    let own = Own::default();
    assert!(!own.set(Vec::new()));
    assert!(own.set(vec![at("192.0.2.1:1"), at("192.0.2.2:1")]));
    assert!(!own.set(vec![at("192.0.2.2:1"), at("192.0.2.1:1"), at("192.0.2.1:1")]), "in any order");
    assert!(own.set(vec![at("192.0.2.1:1")]));
}
