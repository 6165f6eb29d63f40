//! Who may import whom, executable: the table below is the shape of the code, and this test reads the source to see
//! that it still is.
//!
//! Rows stand lowest first and name lower rows only, so that a cycle cannot even be written down. Tests are not read:
//! they may know everybody.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the proxy, each with those that it may use.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // Words that everybody may use: plain data.
    ("facts", &[]),
    ("body", &[]),
    // The one module with `unsafe`; whoever comes to need it is named here.
    ("sys", &[]),
    ("task", &[]),
    ("privileges", &[]),
    // Limits that threads share.
    ("gate", &[]),
    // Deciding which way, what may go on, and what is tried again.
    ("routing", &["facts"]),
    ("policy", &["facts", "gate", "routing"]),
    // The same decisions by a configuration on trial.
    ("shadow", &["facts", "policy", "routing"]),
    // Bytes, and who watches over connections.
    ("io", &[]),
    ("watch", &["io"]),
    ("timer", &[]),
    ("h2_stream", &["body"]),
    // HTTP/1.1 on the wire, towards clients and upstreams.
    ("h1", &["body", "io"]),
    // What everybody reports to, and so knows nobody.
    ("observe", &[]),
    // Who we are, and whom we believe.
    ("identity", &["facts", "observe"]),
    // Sending.
    ("upstream", &["body", "facts", "gate", "h1", "h2_stream", "identity", "io", "observe", "policy"]),
    // What is in force, and what a thread and a connection have of it.
    ("live", &["facts", "identity", "observe", "policy", "routing", "upstream"]),
    ("demand", &[]),
    (
        "worker",
        &[
            "demand", "h1", "identity", "io", "live", "observe", "policy", "shadow", "sys", "upstream",
            "watch",
        ],
    ),
    ("error", &["body", "policy", "routing", "upstream"]),
    (
        "conn",
        &[
            "body", "error", "facts", "identity", "live", "policy", "shadow", "timer", "upstream", "watch",
            "worker",
        ],
    ),
    // Who speaks with clients. HTTP and TCP do not know each other.
    ("tcp", &["conn", "error", "io", "live", "observe", "policy", "routing", "shadow", "upstream", "watch"]),
    (
        "http",
        &[
            "body",
            "conn",
            "demand",
            "error",
            "facts",
            "gate",
            "h1",
            "h2_stream",
            "io",
            "live",
            "observe",
            "policy",
            "routing",
            "shadow",
            "timer",
            "upstream",
            "watch",
            "worker",
        ],
    ),
    ("downstream", &["conn", "facts", "http", "identity", "io", "live", "tcp", "watch", "worker"]),
    // Beside the road. Where configuration comes from knows nothing of where it goes.
    ("control", &["demand", "identity", "observe"]),
    ("csds", &["control"]),
    ("loads", &["control", "identity", "observe", "upstream"]),
    ("reports", &["control", "identity", "observe"]),
    ("health", &["io", "observe", "policy", "upstream"]),
    ("overload", &["observe", "policy", "worker"]),
    ("threads", &["downstream", "http", "io", "observe", "shadow", "worker"]),
    ("trials", &["control", "facts", "identity", "observe", "shadow", "threads"]),
    ("jwks", &["identity", "observe", "policy", "task"]),
    ("material", &["downstream", "identity", "jwks", "observe", "policy", "task", "upstream"]),
    (
        "apply",
        &[
            "health", "identity", "io", "live", "material", "observe", "policy", "threads", "upstream",
            "worker",
        ],
    ),
    (
        "admin",
        &[
            "body", "csds", "gate", "identity", "io", "live", "observe", "trials", "upstream", "watch",
            "worker",
        ],
    ),
    (
        "app",
        &[
            "admin", "apply", "control", "csds", "demand", "identity", "io", "loads", "observe", "overload",
            "reports", "sys", "threads", "trials", "upstream", "watch", "worker",
        ],
    ),
    ("demo", &["app", "body", "control", "upstream", "watch", "worker"]),
    ("cli", &["app", "control", "demo", "identity", "material", "privileges"]),
];

/// Code that decides, and so may not do: no I/O, no task, no clock. `now` and chance are its arguments.
const PURE: &[&str] = &[
    "facts.rs",
    "error.rs",
    "watch.rs",
    "policy",
    "routing",
    "shadow",
    "upstream/balance",
    "upstream/outlier.rs",
    "upstream/outlier",
    "upstream/endpoint.rs",
    "upstream/health.rs",
    "health/watchlist.rs",
    "io/framing",
];

/// What would make it do something.
const IMPURE: &[&str] = &[
    "tokio::net",
    "tokio::time",
    "tokio::task",
    "spawn",
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "std::os::unix",
    "hyper",
    "Instant::now",
    "SystemTime::now",
    "fastrand",
    "async fn",
];

/// The same of the whole of `proto`: bytes in, a model or errors out.
const IMPURE_PROTO: &[&str] =
    &["tokio", "std::fs", "std::env", "std::net::Tcp", "std::os::unix", "SystemTime", "Instant"];

#[test]
fn rows_stand_lowest_first_so_that_there_is_no_cycle() {
    let mut lower = BTreeSet::new();
    for (module, imports) in MAY_IMPORT {
        for import in *imports {
            assert!(
                lower.contains(import),
                "`{module}` may import `{import}`, which does not stand above it"
            );
        }
        assert!(lower.insert(*module), "`{module}` stands in the table twice");
    }
}

#[test]
fn modules_import_whom_they_may() {
    let sources = sources("src");
    let mut broken = BTreeSet::new();
    for source in sources.iter().filter(|source| !source.is_root()) {
        let from = source.top();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(module, _)| *module == from) else {
            broken.insert(format!("{}: `{from}` does not stand in the table", source.name()));
            continue;
        };
        for to in source.imports() {
            if to != from && !allowed.contains(&to.as_str()) {
                broken.insert(format!("{}: `{from}` may not import `{to}`", source.name()));
            }
        }
    }
    say(broken);
    for (module, _) in MAY_IMPORT {
        assert!(sources.iter().any(|s| s.top() == *module), "`{module}` stands in the table, and is no more");
    }
}

#[test]
fn paths_are_written_so_that_an_edge_can_be_seen() {
    let mut broken = BTreeSet::new();
    for source in sources("src").iter().chain(&sources("../proto/src")) {
        for (hidden, instead) in [
            ("crate::{", "a line for each module"),
            ("crate::*", "what is meant"),
            ("crate as ", "`crate::`"),
        ] {
            if source.code.contains(hidden) {
                broken.insert(format!("{}: `{hidden}` hides an edge: write {instead}", source.name()));
            }
        }
        let climbs = "super::".repeat(source.depth());
        if !source.is_root() && source.code.contains(&climbs) {
            broken.insert(format!("{}: `{climbs}` reaches the root: write `crate::`", source.name()));
        }
    }
    say(broken);
}

#[test]
fn what_decides_does_nothing() {
    let mut broken = BTreeSet::new();
    let all = sources("src");
    for pure in PURE {
        let theirs: Vec<_> = all.iter().filter(|source| source.path.starts_with(pure)).collect();
        assert!(!theirs.is_empty(), "`{pure}` is no more");
        for source in theirs {
            broken.extend(source.words(IMPURE));
        }
    }
    for source in sources("../proto/src") {
        broken.extend(source.words(IMPURE_PROTO));
    }
    say(broken);
}

#[test]
fn the_model_imports_nothing_of_ours() {
    let mut broken = BTreeSet::new();
    for source in sources("../proto/src") {
        let allowed: &[&str] = match source.top() {
            "model" | "error" | "identity" => &[],
            "yaml" => &["error", "model"],
            // Both write the same, and of paths there is one form.
            "xds" => &["error", "model", "yaml"],
            _ if source.is_root() => continue,
            other => panic!("`proto` has a module `{other}` that this test does not know"),
        };
        for to in source.imports() {
            if to != source.top() && !allowed.contains(&to.as_str()) {
                broken.insert(format!("proto: {}: `{}` may not import `{to}`", source.name(), source.top()));
            }
        }
    }
    say(broken);
}

#[test]
fn comments_texts_and_tests_are_not_read() {
    let check = |text: &str, expected: &str| assert_eq!(without_tests(&code(text)).0, expected, "{text}");
    check("a // crate::b\nc", "a \nc");
    check("a /* crate::b /* c */ */ d", "a  d");
    check(r##"a "crate::b\"" c r#"crate::"d"# 'x' '"' '\'' e"##, "a  c     e");
    check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
    check("a\n#[cfg(test)]\nmod tests { use b; { } }\nc", "a\n\nc");
    check("a\n#[cfg(test)]\n#[path = \"x.rs\"]\npub(super) mod tests;\nc", "a\n\nc");
    assert_eq!(without_tests("#[cfg(test)]\nmod naive;").1, ["naive"]);
    assert_eq!(without_tests("#[cfg(test)]\npub(super) fn f() {}").1, [""; 0]);
}

#[track_caller]
fn say(broken: BTreeSet<String>) {
    let lines: Vec<_> = broken.into_iter().collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// One file, without comments, texts and tests.
struct Source {
    /// Below `src`.
    path: PathBuf,
    code: String,
}

impl Source {
    fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// The module right below the root that it belongs to.
    fn top(&self) -> &str {
        let first = self.path.iter().next().and_then(|part| part.to_str()).expect("files have UTF-8 names");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_root(&self) -> bool {
        matches!(self.top(), "lib" | "main")
    }

    /// How many `super::` lead to the root.
    fn depth(&self) -> usize {
        self.path.components().count() - usize::from(self.path.ends_with("mod.rs"))
    }

    /// What follows each `crate::`.
    fn imports(&self) -> BTreeSet<String> {
        let ident = |text: &str| text.chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect();
        self.code.split("crate::").skip(1).map(ident).collect()
    }

    /// Which of these words stand in it.
    fn words(&self, words: &[&str]) -> Vec<String> {
        let found = words.iter().filter(|word| self.code.contains(**word));
        found.map(|word| format!("{}: `{word}` in code that only decides", self.name())).collect()
    }
}

/// All files below a folder of this package that are not tests.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut tests = Vec::new();
    read(&root, &root, &mut found, &mut tests);
    let is_test = |path: &Path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        stem.ends_with("_tests")
            || path.iter().any(|part| part == "tests")
            || tests.iter().any(|t| path.starts_with(t))
    };
    found.retain(|source| !is_test(&source.path) && !is_test(&source.path.with_extension("")));
    assert!(found.len() > 5, "{} has hardly a file", root.display());
    found
}

fn read(root: &Path, folder: &Path, found: &mut Vec<Source>, tests: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of source") {
        let path = entry.expect("a folder of source").path();
        if path.is_dir() {
            read(root, &path, found, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("source is UTF-8");
            let (code, modules) = without_tests(&code(&text));
            let path = path.strip_prefix(root).expect("below the root").to_owned();
            let beside =
                if path.ends_with("mod.rs") { path.with_file_name("") } else { path.with_extension("") };
            tests.extend(modules.into_iter().map(|module| beside.join(module)));
            found.push(Source { path, code });
        }
    }
}

/// The text without comments, strings and characters.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            string(rest)
        } else if c == 'r' && !out.ends_with(|c: char| c == '_' || c.is_alphanumeric()) {
            raw_string(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(c);
        }
        rest = &rest[skipped.max(if skipped == 0 { c.len_utf8() } else { 0 })..];
    }
    out
}

/// Its length; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Its length, quotes included.
fn string(text: &str) -> usize {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `r"..."` or `r#"..."#`; 0 when this is none.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let start = 1 + hashes;
    if !text[start..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[start + 1..].find(&end).map_or(text.len(), |at| start + 1 + at + end.len())
}

/// The length of `'x'` or `'\n'`; 0 when this is a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            text[escaped + 1..].find('\'').map_or(text.len(), |at| escaped + 2 + at)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        (_, _) => 0,
    }
}

/// The code without what stands behind `#[cfg(test)]`, and the modules that this declares in files of their own.
fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let (mut out, mut modules) = (String::new(), Vec::new());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let item = &rest[at + MARK.len()..];
        let head = item.find(['{', ';']).unwrap_or(item.len());
        let body = item[head..].starts_with('{');
        let end = if body { head + braces(&item[head..]) } else { (head + 1).min(item.len()) };
        if !body && let Some((_, name)) = item[..head].rsplit_once("mod ") {
            modules.push(name.trim().to_owned());
        }
        rest = &item[end..];
    }
    out.push_str(rest);
    (out, modules)
}

/// The length of what stands between the first brace and its counterpart, both included.
fn braces(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}
