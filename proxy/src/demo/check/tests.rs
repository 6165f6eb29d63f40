//! The check must not pass when anything at all is wrong.

use super::*;
use crate::app::App;
use crate::control::file::Origin;
use crate::demo::Stage;
use crate::demo::echo::Services;
use crate::demo::script::Script;

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

fn answer(status: u16, body: &str) -> Answer {
    let took = Duration::from_millis(1);
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        took,
    }
}

#[track_caller]
fn check(number: usize, status: u16, body: &str, expected: Result<&str, &str>) {
    let actual = right(number, &answer(status, body), &NAMES);
    assert_eq!(actual.as_ref().map(|(name, _)| *name).map_err(String::as_str), expected);
}

#[test]
fn only_the_echo_of_what_was_sent_is_right() {
    let get = "alpha: GET /check/1?of=300\nhost: x\nx-check: 1\n";
    check(1, 200, get, Ok("alpha"));
    check(1, 503, "no endpoint\n", Err("503 Service Unavailable: no endpoint"));
    check(2, 200, get, Err("alpha was asked \"GET /check/1?of=300\""));
    check(
        1,
        200,
        &get.replace("alpha", "omega"),
        Err("the answer is none of the services': \"omega: GET /check/1?of=300\""),
    );
    check(1, 200, &get.replace("x-check: 1", "x-check: 11"), Err("alpha did not get its header"));
    check(1, 200, &format!("{get}\nsurplus"), Err("alpha got another body: 7 bytes, not 0"));
    check(1, 200, "", Err("the answer is none of the services': \"\""));
}

#[test]
fn a_body_is_held_against_what_was_sent() {
    let head = "beta: POST /check/3?of=300\nx-check: 3\n";
    let body = "<3>".repeat(24);
    check(3, 200, &format!("{head}\n{body}"), Ok("beta"));
    check(3, 200, head, Err("beta got another body: 0 bytes, not 72"));
    check(
        3,
        200,
        &format!("{head}\n{}", body.replace("3><", "3>>")),
        Err("beta got another body: 72 bytes, not 72"),
    );
}

fn services() -> Vec<Service> {
    let service =
        |(name, port)| Service { name, address: ([127, 0, 0, 1], port).into(), delay: Duration::ZERO };
    NAMES.into_iter().zip(1..).map(service).collect()
}

fn outcomes(counts: [usize; 3]) -> Vec<Result<Right, String>> {
    let of = |(name, count)| std::iter::repeat_n(Ok((name, Duration::from_millis(2))), count);
    NAMES.into_iter().zip(counts).flat_map(of).collect()
}

#[track_caller]
fn judge(outcomes: Vec<Result<Right, String>>, sent: [u64; 3], expected: Result<&str, &[&str]>) {
    let report = Report::new(&services(), outcomes, |address| sent[usize::from(address.port()) - 1]);
    let verdict = report.verdict();
    let verdict = verdict.as_ref().map(String::as_str).map_err(|problems| problems.join("\n"));
    assert_eq!(verdict, expected.map_err(|problems| problems.join("\n")));
}

#[test]
fn nothing_less_than_everything_passes() {
    judge(outcomes([150, 149, 1]), [150, 149, 1], Ok("ok: 300 requests, 0 failed, 3 endpoints answered"));
    judge(
        outcomes([150, 150, 0]),
        [150, 150, 0],
        Err(&[
            "gamma (127.0.0.1:3) answered nothing",
            "failed: 300 requests, 0 failed, 2 endpoints answered",
        ]),
    );
    judge(
        outcomes([150, 148, 1]),
        [150, 148, 1],
        Err(&[
            "1 requests had no outcome within 15 s",
            "failed: 300 requests, 1 failed, 3 endpoints answered",
        ]),
    );
    judge(
        outcomes([100, 100, 100]),
        [100, 101, 100],
        Err(&[
            "beta (127.0.0.1:2) answered 100, and the proxy counts 101",
            "failed: 300 requests, 0 failed, 3 endpoints answered",
        ]),
    );
    let mut some_wrong = outcomes([97, 97, 97]);
    some_wrong.extend((0..9).map(|n| Err(format!("request {n}: lost"))));
    judge(
        some_wrong,
        [97, 97, 97],
        Err(&[
            "request 0: lost",
            "request 1: lost",
            "request 2: lost",
            "request 3: lost",
            "request 4: lost",
            "... and 4 more",
            "failed: 300 requests, 9 failed, 3 endpoints answered",
        ]),
    );
}

#[test]
fn the_table_shows_shares_and_means() {
    let report = Report::new(&services(), outcomes([150, 147, 3]), |_| 0);
    let expected = [
        "endpoint                 requests    share  mean ms",
        "127.0.0.1:1  alpha            150   50.0 %     2.00",
        "127.0.0.1:2  beta             147   49.0 %     2.00",
        "127.0.0.1:3  gamma              3    1.0 %     2.00",
    ];
    assert_eq!(report.to_string().lines().collect::<Vec<_>>(), expected);
}

/// Runs the whole proxy in front of these services.
fn proxied(services: &[Service]) -> Report {
    let script = Script::write(services).unwrap();
    let origin = Origin::File(script.path().to_owned());
    let parsed = origin.load().unwrap();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let app = App::start(origin, parsed, None).await.unwrap();
        Stage::new(&app, services).check().await
    })
}

#[test]
fn it_passes_through_the_real_proxy() {
    let services = Services::start().unwrap();
    let report = proxied(services.all());
    assert_eq!(
        report.verdict().as_deref(),
        Ok("ok: 300 requests, 0 failed, 3 endpoints answered"),
        "{report}"
    );
}

#[test]
fn it_fails_when_a_service_cannot_be_reached() {
    let services = Services::start().unwrap();
    let mut with_one_gone = services.all().to_vec();
    // Held, and never listening: nobody else can take the port meanwhile.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    with_one_gone[2].address = silent.local_addr().unwrap().as_socket().unwrap();
    let problems = proxied(&with_one_gone).verdict().unwrap_err();
    assert!(
        problems.iter().any(|problem| problem.starts_with("gamma") && problem.ends_with("answered nothing"))
    );
    // Nothing was lost by it: what could not be sent there was sent to another.
    assert!(problems.iter().any(|problem| problem.contains("300 requests, 0 failed")), "{problems:?}");
}
