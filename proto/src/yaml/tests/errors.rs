//! Every rule, with the words in which its breach is reported: the tables in `errors.txt` and `warnings.txt`.

use super::read;

const TABLE: &str = include_str!("errors.txt");

/// The same of what is only warned of; a row without `! ` is one that nobody is warned of.
const WARNINGS: &str = include_str!("warnings.txt");

const CLUSTERS: &str = "clusters: { app: { endpoints: [127.0.0.1:9] }, api: { endpoints: [127.0.0.1:8] } }";

const PARTS: &str = "clusters: { app: { endpoints: [{ address: 127.0.0.1:9, labels: { v: v1 } }], subsets: { v1: { v: v1 }, v2: { v: v2 } } }, api: { dns: 'a:1' } }";

/// A document around a fragment, which begins in line 2.
fn around(place: &str, fragment: &str) -> String {
    let listener =
        |inside: String| format!("listeners: {{ web: {{ bind: 127.0.0.1:1, {inside} }} }}\n{CLUSTERS}\n");
    match place {
        "document" => format!("listeners: {{}}\n{fragment}\n"),
        "listener" => listener(format!("\n  {fragment}")),
        "unix" => listener(format!("\n  {fragment}")).replace("127.0.0.1:1,", "'unix:/a',"),
        "limits" => listener(format!("routes: [], limits: {{\n  {fragment} }}")),
        "routes" => listener(format!("routes: [\n{fragment}]")),
        "route" => format!(
            "listeners: {{ web: {{ bind: 127.0.0.1:1, routes: [{{\n  {fragment} }}] }} }}\nclusters: {{ app: {{ dns: \"app:1\" }} }}\n"
        ),
        "parts" => {
            format!("listeners: {{ web: {{ bind: 127.0.0.1:1, routes: [{{\n  {fragment} }}] }} }}\n{PARTS}\n")
        }
        "match" => listener(format!("routes: [{{ to: app, match: {{\n  {fragment} }} }}]")),
        "identity" => format!("listeners: {{}}\nidentity: {{ {fragment} }}\n"),
        "identified" => listener(format!("routes: [], {fragment}")).replace(
            CLUSTERS,
            "identity: { files: { certificate: a, private_key: b, trust: { cluster.local: c } } }",
        ),
        "mesh" => format!(
            "listeners: {{ web: {{ bind: 127.0.0.1:1, tcp: {{ to: app }} }} }}\nclusters: {{ app: {{ {fragment} }} }}\n\
             identity: {{ files: {{ certificate: a, private_key: b, trust: {{ cluster.local: c }} }} }}\n"
        ),
        "clusters" => format!(
            "listeners: {{ web: {{ bind: 127.0.0.1:1, tcp: {{ to: app }} }} }}\nclusters: {{ app: {{ {fragment} }} }}\n"
        ),
        _ => panic!("nothing stands around `{place}`"),
    }
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found = read(text).expect_err(text).to_string();
    let expected: Vec<_> = expected.iter().map(|line| format!("test.yaml:{line}")).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{text}");
}

/// Checks every row of a table, and says how many there are.
fn rows(table: &str, check: impl Fn(&str, &[&str])) -> u32 {
    let (mut place, mut rows) = ("", 0);
    for block in table.split("\n\n").skip(1) {
        if let Some(heading) = block.strip_prefix("== ") {
            place = heading;
            continue;
        }
        let fragment: Vec<_> = block.lines().filter(|line| !line.starts_with("! ")).collect();
        let expected: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("! ")).collect();
        check(&around(place, &fragment.join("\n")), &expected);
        rows += 1;
    }
    rows
}

#[test]
fn every_rule() {
    let rows = rows(TABLE, check);
    assert!(rows >= 120, "{rows}");
}

#[test]
fn every_warning_of_a_policy() {
    let rows = rows(WARNINGS, warns);
    assert!(rows >= 30, "{rows}");
}

#[test]
fn whole_documents() {
    check("[]", &["1:1: found a list; expected a mapping, as `key: value`"]);
    check("clusters: {}\n", &["1:1: `listeners` is missing"]);
    let binds = "\
admin: 127.0.0.1:1
listeners:
  a: { bind: 127.0.0.1:1, routes: [] }
  b: { bind: 127.0.0.1:0, routes: [] }
  c: { bind: 127.0.0.1:0, routes: [] }
  d: { bind: unix:/x, routes: [] }
  e: { bind: unix:/x, routes: [] }
";
    check(
        binds,
        &[
            "3:14: listeners.a.bind: `127.0.0.1:1` is taken in line 1 already",
            "7:14: listeners.e.bind: `unix:/x` is taken in line 6 already",
        ],
    );
    let tables = "
listeners:
  a: { bind: 127.0.0.1:1, routes: [] }
  b: { bind: 127.0.0.1:2, routes: bb }
route_tables: { a: [], bc: [] }
";
    check(
        tables,
        &[
            "3:27: listeners.a.routes: a route table of the name `a` exists already; \
         rename it, or use it here: a list of routes is a table under the listener's name",
            "4:35: listeners.b.routes: there is no route table `bb`; did you mean `bc`?",
        ],
    );
    let open = "
listeners:
  a: { bind: 127.0.0.1:1, routes: t, jwt: [{ issuer: i, audiences: b, jwks: c }] }
  b: { bind: 127.0.0.1:2, routes: t }
route_tables: { t: [{ respond: {}, jwt: required }] }
";
    check(
        open,
        &[
            "4:35: listeners.b.routes: routes[0] needs a token, and nobody looks at tokens here; write `jwt` at the listener",
        ],
    );
    // Syntax and meaning are reported together, in the order of their places.
    check(
        "listeners: { a: &x { bind: 1 }, a: {} }\nworkers: 0\n",
        &[
            "1:17: listeners.a: an anchor; anchors are not supported: write the value out",
            "1:17: listeners.a: one of `routes`, `tcp`, `chains` is missing",
            "1:28: listeners.a.bind: `1` is not an address; did you mean `127.0.0.1:1`?",
            "1:33: listeners.a: this key is written twice; it stands in line 1 already",
            "1:36: listeners.a: one of `routes`, `tcp`, `chains` is missing",
            "1:36: listeners.a: `bind` is missing",
            "2:10: workers: `0` is out of range; expected a whole number from 1 to 1024",
        ],
    );
}

#[track_caller]
fn warns(text: &str, expected: &[&str]) {
    let found: Vec<_> = read(text).unwrap().warnings.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn warnings() {
    warns(
        "listeners: {}\nclusters: { a: { endpoints: [127.0.0.1:1] } }\n",
        &[
            "1:1: listeners: nothing listens",
            "2:13: clusters.a: no route and no listener leads to this cluster",
        ],
    );
    warns(
        "overload: { memory: 100%, descriptors: 100% }\nlisteners: {}\n",
        &[
            "1:1: overload: at the limit of memory the kernel ends the process before it sheds anything; write less \
         than `memory: 100%`, or `none`",
            "2:1: listeners: nothing listens",
        ],
    );
    let text = "
shutdown: { lame_duck: 5s, deadline: 5s }
listeners:
  w:
    bind: 127.0.0.1:1
    routes:
      - { match: { path: /a/* }, respond: {} }
      - { match: { path: / }, to: a }
      - { match: { host: a.com }, to: b }
      - { match: { path: /b }, to: b }
route_tables: { t: [] }
clusters:
  a: { endpoints: [] }
  b: { endpoints: [{ address: 127.0.0.1:1, weight: 2 }, 127.0.0.1:2] }
  c: { endpoints: [{ address: 127.0.0.1:1, weight: 2 }, 127.0.0.1:2], balance: random }
";
    warns(
        text,
        &[
            "2:1: shutdown: the deadline is over before the lame-duck time is: nothing is drained; both count from the \
         signal: write a later `deadline`",
            "7:26: listeners.w.routes[0].match.path: the `*` in `/a/*` is an ordinary character; everything below is \
         `prefix: /a`",
            "10:9: listeners.w.routes[3]: this route is never reached: routes[1] takes every request first; move it \
         further up, or give it a host",
            "11:17: route_tables.t: no listener uses this route table",
            "13:8: clusters.a.endpoints: this cluster has no endpoint: every request to it is answered with 503",
            "15:3: clusters.c: no route and no listener leads to this cluster",
        ],
    );
}
