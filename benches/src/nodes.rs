//! Many nodes on one control plane: how soon the last of them has a change, what that costs, and how many bytes it is.
//!
//! Nodes are streams of incremental xDS in this process, each on a connection of its own, who ask for clusters, endpoints,
//! listeners and routes as a proxy does, and take whatever comes.

use std::cell::RefCell;
use std::fmt::Write;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use http::uri::PathAndQuery;
use outrigger_proto::xds::Kind;
use outrigger_proto::xds::discovery::{DELTA_STREAM, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::control::Control;
use crate::error::{Failure, Result};
use crate::fleet::runtime;
use crate::measure::{Usage, percentile};

/// Until all nodes have all.
const PATIENCE: Duration = Duration::from_secs(120);
/// Without a word, nothing more is coming.
const QUIET: Duration = Duration::from_millis(500);
/// Changes of one endpoint, one after the other.
const CHANGES: u16 = 10;

/// Nodes, and the clusters that each of them is told of.
const SIZES: [(usize, usize); 3] = [(100, 100), (1_000, 100), (10, 10_000)];

/// What nodes have heard so far.
#[derive(Debug, Default)]
struct Heard {
    /// When each message was answered, and its bytes.
    messages: Vec<(Instant, usize)>,
    /// Why a node is no more.
    failed: Option<String>,
}

/// Measures all sizes, and prints the table.
pub(crate) fn run(control: &Path, dir: &Path) -> Result<()> {
    println!("# Nodes on one control plane\n");
    println!(
        "From the start of `outrigger-control apply`, which changes one endpoint, to the last node's ACK; medians of {CHANGES} changes.\n"
    );
    println!(
        "| nodes | clusters | all told in | bytes each | a change, last ACK | p99 of nodes | bytes each | CPU | memory |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for size in SIZES {
        println!("{}", measure(control, &dir.join("nodes"), size)?);
    }
    Ok(())
}

fn documents(clusters: usize, port: u16) -> String {
    let mut out = "listeners:\n  web:\n    bind: 127.0.0.1:8080\n    routes:\n".to_owned();
    for number in 0..clusters {
        let _ = writeln!(out, "      - {{ match: {{ path: {{ prefix: /c{number} }} }}, to: c{number} }}");
    }
    out += "clusters:\n";
    for number in 0..clusters {
        let port = if number == 0 { port } else { 80 };
        let (high, low) = (number / 250, number % 250 + 1);
        let _ =
            writeln!(out, "  c{number}: {{ endpoints: [10.0.{high}.{low}:{port}, 10.1.{high}.{low}:80] }}");
    }
    out
}

fn measure(control: &Path, dir: &Path, (nodes, clusters): (usize, usize)) -> Result<String> {
    let running = Control::start(control, dir)?;
    let xds = running.xds;
    running.asks.apply(&documents(clusters, 80))?;
    let heard = Rc::new(RefCell::new(Heard::default()));
    runtime()?.block_on(async {
        let begun = Instant::now();
        for number in 0..nodes {
            let heard = Rc::clone(&heard);
            spawn_local(async move {
                if let Err(error) = node(xds, number, &heard).await {
                    heard.borrow_mut().failed.get_or_insert(error);
                }
            });
        }
        // Clusters, endpoints, listeners and routes.
        let (told, _) = settle(&heard, nodes * 4).await?;
        let told_in = told.iter().map(|(at, _)| at.duration_since(begun)).max().unwrap_or_default();
        let told_bytes = told.iter().map(|(_, bytes)| bytes).sum::<usize>() / nodes;
        let (mut last, mut p99, mut bytes) = (Vec::new(), Vec::new(), 0);
        let before = Usage::of(running.group())?;
        for change in 0..CHANGES {
            let begun = Instant::now();
            running.asks.apply_beside(documents(clusters, 81 + change)).await?;
            let (messages, _) = settle(&heard, nodes).await?;
            let mut took: Vec<_> = messages.iter().map(|(at, _)| at.duration_since(begun)).collect();
            last.extend(took.iter().max());
            p99.extend(percentile(&mut took, 99));
            bytes = messages.iter().map(|(_, bytes)| bytes).sum::<usize>() / nodes;
        }
        let after = Usage::of(running.group())?;
        let cpu = (after.cpu - before.cpu) / u32::from(CHANGES);
        let middle = |mut of: Vec<Duration>| percentile(&mut of, 50).unwrap_or_default().as_millis();
        Ok(format!(
            "| {nodes} | {clusters} | {} ms | {told_bytes} | {} ms | {} ms | {bytes} | {} ms | {:.0} MiB |",
            told_in.as_millis(),
            middle(last),
            middle(p99),
            cpu.as_millis(),
            after.resident_mib
        ))
    })
}

/// Waits until so many messages were answered, and no more come.
async fn settle(heard: &Rc<RefCell<Heard>>, least: usize) -> Result<(Vec<(Instant, usize)>, Instant)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        sleep(Duration::from_millis(20)).await;
        let mut now = heard.borrow_mut();
        if let Some(why) = &now.failed {
            return Err(Failure::new(format!("a node is gone: {why}")));
        }
        let last = now.messages.iter().map(|(at, _)| *at).max();
        if let Some(last) = last.filter(|last| now.messages.len() >= least && last.elapsed() > QUIET) {
            return Ok((std::mem::take(&mut now.messages), last));
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!(
                "{} of {least} messages after {PATIENCE:?}",
                now.messages.len()
            )));
        }
    }
}

/// One node, to the end of its stream.
async fn node(port: u16, number: usize, heard: &Rc<RefCell<Heard>>) -> std::result::Result<(), String> {
    let endpoint =
        Endpoint::try_from(format!("http://127.0.0.1:{port}")).map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready().await.map_err(|error| error.to_string())?;
    let (requests, queued) = mpsc::channel(16);
    let send = async |request| requests.send(request).await.map_err(|_| "it has ended".to_owned());
    let node = Node { id: format!("node-{number}"), ..Node::default() };
    send(DeltaDiscoveryRequest { node: Some(node), ..subscription(Kind::Cluster, Vec::new()) }).await?;
    send(subscription(Kind::Listener, Vec::new())).await?;
    send(subscription(Kind::Routes, vec!["web".to_owned()])).await?;
    let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
    let outbound = Request::new(ReceiverStream::new(queued));
    let answered = grpc.streaming(outbound, PathAndQuery::from_static(DELTA_STREAM), codec).await;
    let mut inbound = answered.map_err(|status| status.to_string())?.into_inner();
    while let Some(response) = inbound.message().await.map_err(|status| status.to_string())? {
        let bytes = response.encoded_len();
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        if Kind::of_url(&response.type_url) == Some(Kind::Cluster) {
            let names = response.resources.into_iter().map(|resource| resource.name).collect();
            send(subscription(Kind::Endpoints, names)).await?;
        }
        send(ack).await?;
        heard.borrow_mut().messages.push((Instant::now(), bytes));
    }
    Err("its stream has ended".to_owned())
}

fn subscription(kind: Kind, names: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.url(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    }
}
