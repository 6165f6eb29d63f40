//! Makes of the subset of xDS's `.proto` files below `proto/` the messages (prost), and the table that `xds::walk` reads raw
//! bytes by: what prost drops, the walk still sees.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Where `.proto` files are found, and the list of what is not in them.
const ROOT: &str = "proto";
const UPSTREAM: &str = "proto/upstream.txt";
/// What is in them and has no effect all the same: fields that Envoy will not be without, or that only what is not here would
/// read, and whole messages.
const WITHOUT_EFFECT: [&str; 13] = [
    "envoy.config.core.v3.RuntimeDouble.runtime_key",
    "envoy.config.core.v3.RuntimeFractionalPercent.runtime_key",
    "envoy.config.route.v3.RateLimit.disable_key",
    "envoy.config.route.v3.RetryPolicy.host_selection_retry_max_attempts",
    "envoy.config.route.v3.RouteConfiguration.max_direct_response_body_size_bytes",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.payload_in_metadata",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit.stat_prefix",
    "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit.stat_prefix",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.stat_prefix",
    "envoy.extensions.filters.network.rbac.v3.RBAC.stat_prefix",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.stat_prefix",
];

fn main() {
    println!("cargo:rerun-if-changed={ROOT}");
    let mut files = Vec::new();
    for below in ["envoy", "google", "outrigger/events", "outrigger/extensions", "outrigger/shadow"] {
        find(&Path::new(ROOT).join(below), &mut files);
    }
    files.sort();
    let set = protox::compile(&files, [ROOT]).unwrap_or_else(|error| panic!("{error:?}"));
    let table = table(&set);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("schema.rs"), table).expect("the directory is ours");
    let mut config = prost_build::Config::new();
    // In one order: what is written twice is the same bytes.
    config.enable_type_names().btree_map(["."]);
    config.include_file("messages.rs").compile_fds(set).unwrap_or_else(|error| panic!("{error}"));
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("it is part of the source") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
}

/// All messages by their full names, with a leading dot, in the order of the table.
#[derive(Default)]
struct Messages<'d> {
    all: Vec<(String, &'d DescriptorProto)>,
    enums: HashMap<String, &'d EnumDescriptorProto>,
}

impl<'d> Messages<'d> {
    fn add(&mut self, scope: &str, message: &'d DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
        for kind in &message.enum_type {
            self.enums.insert(format!("{name}.{}", kind.name()), kind);
        }
        self.all.push((name, message));
    }

    fn index(&self, name: &str) -> usize {
        self.all.iter().position(|(known, _)| known == name).expect("every message that is named is there")
    }
}

/// Of what has no effect, all that was not met yet.
struct Vain(Vec<&'static str>);

impl Vain {
    fn take(&mut self, full: &str) -> Option<&'static str> {
        let place = self.0.iter().position(|name| *name == full)?;
        Some(self.0.swap_remove(place))
    }
}

fn table(set: &FileDescriptorSet) -> String {
    let mut messages = Messages::default();
    for file in &set.file {
        let scope = format!(".{}", file.package());
        file.message_type.iter().for_each(|message| messages.add(&scope, message));
        for kind in &file.enum_type {
            messages.enums.insert(format!("{scope}.{}", kind.name()), kind);
        }
    }
    println!("cargo:rerun-if-changed={UPSTREAM}");
    let upstream = std::fs::read_to_string(UPSTREAM).expect("it is part of the source");
    let mut absent: HashMap<&str, Vec<(u32, &str, bool)>> = HashMap::new();
    for line in upstream.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split(' ').collect();
        let (&[message, number, name], rest) = words.split_first_chunk().expect("three words a line");
        let number = number.parse().expect("the second is a number");
        absent.entry(message).or_default().push((number, name, rest == ["harmless"]));
    }
    let mut vain = Vain(WITHOUT_EFFECT.into());
    let mut out = "pub(super) static MESSAGES: &[Message] = &[\n".to_owned();
    for (full, message) in &messages.all {
        let full = full.trim_start_matches('.');
        let ignored = vain.take(full);
        write!(out, "Message {{ name: {full:?}, ignored: {ignored:?}, fields: &[").expect("a text takes all");
        for field in &message.field {
            let kind = kind(field, &messages);
            let (number, name, many) = (field.number(), field.name(), field.label() == Label::Repeated);
            let ignored = vain.take(&format!("{full}.{name}"));
            write!(
                out,
                "Field {{ number: {number}, name: {name:?}, many: {many}, kind: {kind}, ignored: {ignored:?} }}, "
            )
            .expect("a text takes all");
        }
        out += "], absent: &[";
        for (number, name, harmless) in absent.remove(full).unwrap_or_default() {
            let ignored = harmless.then(|| format!("{full}.{name}"));
            write!(out, "Absent {{ number: {number}, name: {name:?}, ignored: {ignored:?} }}, ")
                .expect("a text takes all");
        }
        out += "] },\n";
    }
    assert!(vain.0.is_empty(), "there is nothing of these names: {:?}", vain.0);
    assert!(absent.is_empty(), "{UPSTREAM} names messages that are not there: {:?}", absent.keys());
    out + "];\n"
}

fn kind(field: &FieldDescriptorProto, messages: &Messages<'_>) -> String {
    match field.r#type() {
        Type::Double | Type::Fixed64 | Type::Sfixed64 => "Kind::Fixed64".to_owned(),
        Type::Float | Type::Fixed32 | Type::Sfixed32 => "Kind::Fixed32".to_owned(),
        Type::String | Type::Bytes => "Kind::Bytes".to_owned(),
        Type::Group => panic!("there are no groups in proto3"),
        Type::Enum => {
            let numbers: Vec<_> =
                messages.enums[field.type_name()].value.iter().map(|v| v.number()).collect();
            format!("Kind::Enum(&{numbers:?})")
        }
        Type::Message if field.type_name() == ".google.protobuf.Any" => "Kind::Any".to_owned(),
        Type::Message => format!("Kind::Message({})", messages.index(field.type_name())),
        _ => "Kind::Varint".to_owned(),
    }
}
