//! The command line, as people and scripts use it.

use outrigger_tests::Dir;
use outrigger_tests::proxy::{outrigger, outrigger_with};
use outrigger_tests::tls::write_certificate;

use crate::web;

const QUICKSTART: &str = include_str!("quickstart.yaml");
const FULL: &str = include_str!("full.yaml");

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(args: &[&str], stdin: &str) -> Said {
    said(&outrigger(args, stdin))
}

fn said(output: &std::process::Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// The text is refused, and each of these is said of it.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let dir = Dir::new();
    let file = dir.write("mesh.yaml", text);
    let Said { code, out, err } = run(&["check", file.to_str().unwrap()], "");
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    for expected in expected {
        let expected = expected.replace("FILE", file.to_str().unwrap());
        assert!(err.contains(&expected), "{expected:?} is not in:\n{err}");
    }
}

#[test]
fn errors_say_where_what_and_what_was_meant() {
    let good = web(["127.0.0.1:9001"]);
    check(&good.replace("bind", "bnid"), &["FILE:3:5: listeners.web.bnid", "did you mean `bind`"]);
    check(&good.replace("to: app", "to: ap"), &["FILE:5:13: listeners.web.routes[0].to", "`ap`", "`app`"]);
    check(&good.replace("127.0.0.1:9001", "nowhere"), &["FILE:8:17: clusters.app.endpoints[0]", "nowhere"]);
    check(&good.replace("127.0.0.1:0", "127.0.0.1:99999"), &["FILE:3:11: listeners.web.bind", "99999"]);
    check("listeners:\n\tweb: {}\n", &["FILE:2:"]);
    check("a: 1\na: 2\n", &["FILE:2:1", "a"]);
    check("", &["FILE", "listeners"]);
    let limits =
        |value: &str| good.replace("    routes:", &format!("    limits: {{ {value} }}\n    routes:"));
    check(
        &limits("body: 10 apples"),
        &["FILE:4:21: listeners.web.limits.body", "`10 apples` is not a size", "KiB"],
    );
    check(
        &limits("header_timeout: 10"),
        &["FILE:4:31: listeners.web.limits.header_timeout", "`10` has no unit", "`10s`"],
    );
    check(&limits("headers: no"), &["FILE:4:24"]);
}

#[test]
fn all_errors_are_said_at_once() {
    let text = web(["nowhere"]).replace("bind", "bnid").replace("to: app", "to: ap");
    check(&text, &["listeners.web.bnid", "listeners.web.routes[0].to", "clusters.app.endpoints[0]"]);
}

#[test]
fn a_file_that_is_not_there_is_said_to_be_missing() {
    let Said { code, err, .. } = run(&["check", "/nowhere/mesh.yaml"], "");
    assert_eq!(code, Some(1));
    assert!(err.contains("/nowhere/mesh.yaml") && err.contains("no such file"), "{err}");
}

/// A directory with the text in `mesh.yaml`, and the certificate that `full.yaml` names.
fn beside_certificate(text: &str) -> (Dir, String) {
    let dir = Dir::new();
    write_certificate(&dir, &["shop.example.com"]);
    let file = dir.write("mesh.yaml", text).display().to_string();
    (dir, file)
}

#[test]
fn the_two_files_of_the_contract_are_good() {
    for (name, text) in [("quickstart", QUICKSTART), ("full", FULL)] {
        let (_dir, file) = beside_certificate(text);
        let Said { code, out, err } = run(&["check", &file], "");
        assert_eq!(code, Some(0), "{name}: {err}");
        assert_eq!(err, "", "{name}: a warning about a file of the contract");
        assert!(out.lines().any(|line| line == "ok"), "{name}: {out}");
    }
    let Said { out, .. } = run(&["check", "-"], QUICKSTART);
    assert!(out.contains("127.0.0.1:8080") && out.contains("3 endpoints"), "{out}");
}

/// What is in force, written out, is a configuration that means the same.
#[test]
fn the_effective_configuration_is_its_own_effective_configuration() {
    for text in [QUICKSTART, FULL, &web(["unix:/run/app.sock"])] {
        let (_dir, file) = beside_certificate(text);
        let once = run(&["check", "--effective", &file], "");
        assert_eq!(once.code, Some(0), "{}", once.err);
        let twice = run(&["check", "--effective", "-"], &once.out);
        assert_eq!(twice.code, Some(0), "{}\n{}", twice.err, once.out);
        assert_eq!(twice.out, once.out);
    }
    let effective = run(&["check", "--effective", "-"], QUICKSTART).out;
    for default in ["header_bytes: 60KiB", "peak-ewma", "127.0.0.1:15000", "deadline: 30s"] {
        assert!(effective.contains(default), "{default} in\n{effective}");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_said_before_it_is_needed() {
    let (dir, file) = beside_certificate(FULL);
    dir.write("tls.key", "no key");
    let Said { code, err, .. } = run(&["check", &file], "");
    assert_eq!(code, Some(1));
    assert!(err.contains("listeners.public.tls"), "{err}");
}

#[test]
fn the_environment_is_read_in_values() {
    let text = web(["${APP_HOST:-127.0.0.1}:${APP_PORT}"]).replace("web:", "${NAME}:");
    let check = |env: &[(&str, &str)]| said(&outrigger_with(&["check", "--effective", "-"], &text, env));
    let text_of = |env: &[(&str, &str)]| {
        let Said { code, out, err } = said(&outrigger_with(
            &["check", "--effective", "-"],
            &web(["${APP_HOST:-127.0.0.1}:${APP_PORT}"]),
            env,
        ));
        assert_eq!(code, Some(0), "{err}");
        out
    };
    assert!(text_of(&[("APP_PORT", "9001")]).contains("127.0.0.1:9001"));
    assert!(text_of(&[("APP_PORT", "9001"), ("APP_HOST", "10.0.0.1")]).contains("10.0.0.1:9001"));
    let Said { code, err, .. } = check(&[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("APP_PORT"), "{err}");
}

#[test]
fn the_schema_is_json_schema() {
    let Said { code, out, .. } = run(&["schema"], "");
    assert_eq!(code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"), "{}", schema["$schema"]);
    let root = schema["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
    let root = schema.pointer(root).unwrap();
    for key in ["workers", "admin", "shutdown", "access_log", "listeners", "clusters"] {
        assert!(root["properties"][key].is_object(), "{key}");
    }
}

#[test]
fn shells_get_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let Said { code, out, err } = run(&["completions", shell], "");
        assert_eq!(code, Some(0), "{err}");
        for word in ["outrigger", "check", "schema"] {
            assert!(out.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn the_version_and_the_help_are_there() {
    let version = run(&["--version"], "");
    assert_eq!((version.code, version.out.starts_with("outrigger ")), (Some(0), true), "{}", version.out);
    let help = run(&["--help"], "");
    for verb in ["run", "check", "demo", "schema", "completions"] {
        assert!(help.out.contains(verb), "{verb}:\n{}", help.out);
    }
    assert_eq!(run(&["chekc"], "").code, Some(2));
}

#[test]
fn the_demo_checks_itself() {
    let Said { code, out, err } = run(&["demo", "--check"], "");
    assert_eq!(code, Some(0), "{out}\n{err}");
}

#[test]
fn without_a_file_the_environment_must_say_enough() {
    let ran = outrigger(&["run"], "");
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.code() == Some(2) && said.contains("no FILE is given"), "{said}");
    let env = [("OUTRIGGER_XDS_SERVER", "https://control:18000"), ("OUTRIGGER_NODE_CLUSTER", "web")];
    let ran = outrigger_with(&["check", "--effective"], "", &env);
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(
        said.contains("  cluster: web\n") && said.contains("  server: https://control:18000\n"),
        "{said}"
    );
    let host = rustix::system::uname();
    assert!(said.contains(host.nodename().to_str().unwrap()), "{said}");
    let ran = outrigger_with(&["check"], "", &[("OUTRIGGER_XDS_SERVER", "http://10.0.0.1:1")]);
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(said.starts_with("<environment>: OUTRIGGER_XDS_SERVER: in the clear"), "{said}");
}
