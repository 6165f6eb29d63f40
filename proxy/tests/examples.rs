//! What `deploy/` and the README show is true: examples are good configurations, the keys that are explained are the
//! keys that exist, and dashboards and alerts ask for series that we have.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use outrigger_proto::yaml::{self, Parsed, Source};

/// Every series that exists, from the test that renders all of them.
const SERIES: &str = include_str!("../src/observe/registry_golden.txt");
const README: &str = include_str!("../../README.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[track_caller]
fn check(name: &str, text: &str) {
    // Defaults of variables are part of an example.
    let source = Source { name, text, base: Path::new("/etc/outrigger"), env: &|_| None };
    match yaml::parse(&source) {
        Ok(Parsed { config: _, warnings }) => assert_eq!(warnings, [], "{name}"),
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn examples_are_good_configurations() {
    let mut seen = 0;
    for folder in ["deploy/examples", "deploy/compose", "deploy/systemd"] {
        for path in files(&root().join(folder), "yaml") {
            let text = fs::read_to_string(&path).expect("an example");
            // What is no configuration of ours stands beside them: a compose file.
            if text.lines().any(|line| line == "listeners:") {
                check(&path.display().to_string(), &text);
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "only {seen} examples were found");
}

#[test]
fn the_mesh_is_a_good_example() {
    let folder = root().join("deploy/mesh");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("an example");
    check("proxy.yaml", &read("proxy.yaml"));
    let source = Source { name: "control.yaml", text: &read("control.yaml"), base: &folder, env: &|_| None };
    yaml::parse_plane(&source).unwrap_or_else(|errors| panic!("{errors}"));
    let paths = files(&folder.join("documents"), "yaml");
    let texts: Vec<_> = paths.iter().map(|path| fs::read_to_string(path).expect("an example")).collect();
    let documents: Vec<_> = texts.iter().map(|text| yaml::Document { name: "a document", text }).collect();
    let parsed = yaml::parse_fleet(&documents, None).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(parsed.warnings, []);
    assert_eq!(parsed.fleet.groups.len(), 1);
}

#[test]
fn configurations_in_the_readme_are_good() {
    let blocks: Vec<_> =
        README.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let whole: Vec<_> =
        blocks.iter().filter(|block| block.lines().any(|line| line == "listeners:")).collect();
    assert!(whole.len() >= 2, "the quick start and the reference");
    for block in whole {
        check("README.md", block);
    }
}

#[test]
fn the_readme_explains_every_key() {
    let schema = yaml::schema();
    let kinds = schema["$defs"].as_object().expect("definitions");
    let keys: BTreeSet<&String> = kinds
        .values()
        .filter_map(|kind| kind["properties"].as_object())
        .flat_map(|keys| keys.keys())
        .collect();
    let missing: Vec<_> = keys.into_iter().filter(|key| !README.contains(&format!("{key}:"))).collect();
    assert!(missing.is_empty(), "the README does not say what these are: {missing:?}");
}

#[test]
fn dashboards_and_alerts_ask_for_series_that_exist() {
    let families: BTreeSet<&str> =
        SERIES.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let mut asked = 0;
    for extension in ["json", "yaml"] {
        for folder in ["deploy/prometheus", "deploy/grafana"] {
            for path in files(&root().join(folder), extension) {
                let text = fs::read_to_string(&path).expect("a file of deploy/");
                for name in series(&text) {
                    let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                    let known =
                        families.contains(name) || family.is_some_and(|family| families.contains(family));
                    assert!(known, "{}: there is no series `{name}`", path.display());
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 10, "only {asked} series were found");
}

/// The names of ours in a text.
fn series(text: &str) -> impl Iterator<Item = &str> {
    let ident = |c: char| c == '_' || c.is_ascii_alphanumeric();
    text.split(move |c| !ident(c)).filter(|word| word.starts_with("outrigger_"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("a file of deploy/").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    paths.sort();
    paths
}
