//! The acts. What is told is looked at first, and what does not happen ends the play.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use super::Pace;
use super::documents::{self, SERVICES, Said, identity};
use super::mesh::{Changed, cast};
use super::service::{Answer, call};
use super::stage::{End, Stage, say};
use super::traffic::Seen;

type Played = Result<(), End>;

/// Plays all acts; then it is over (`check`), or goes on until somebody ends it.
///
/// # Errors
/// It was told to end, or something did not happen that was to.
pub(super) fn play(stage: &mut Stage, pace: Pace, check: bool) -> Played {
    say(
        "A mesh on this machine: `front` calls `cart`, `cart` calls `stock`. There are two replicas of each, a proxy\n\
         beside each replica, and a control plane that tells the proxies what to serve and who they are.",
    );
    let mut said = all_comes_up(stage, pace)?;
    a_good_change(stage, pace, &mut said)?;
    bad_changes(stage, &said)?;
    a_replica_dies(stage, pace, &mut said)?;
    the_control_plane_dies(stage, pace, &mut said)?;
    let (revision, nodes) = stage.mesh.in_sync()?;
    let seen = stage.seen();
    let all = format!("{}, {} proxies in sync with revision {revision}", seen.outcome(), nodes.len());
    if check {
        expect(seen.failed == 0, || all.clone())?;
        say(&format!("\nok: {all}"));
        return Ok(());
    }
    say(&format!("\n{all}. It goes on until Ctrl-C.\n"));
    where_to_look(stage)?;
    loop {
        stage.watch(pace.linger)?;
    }
}

fn all_comes_up(stage: &mut Stage, pace: Pace) -> Result<Said, End> {
    act("1. All comes up");
    stage.mesh.start_control(pace)?;
    let (xds, api) = stage.until("the control plane listens", |stage| stage.mesh.find_control())?;
    say(&format!("   the control plane: API http://{api}, for proxies http://{xds}"));
    let mut said = Said { version: "one", timeout: "3s", addresses: Default::default() };
    stage.mesh.apply(&documents::all(&said), "what each service serves")?;
    for (service, name) in cast() {
        stage.mesh.start_replica(service, &name)?;
    }
    for (_, name) in cast() {
        stage.until(&format!("the proxy of {name} listens"), |stage| {
            Ok(stage.mesh.find_replica(&name)?.then_some(()))
        })?;
    }
    // Ports were free ones: only now it is known where everybody is.
    said.addresses = stage.mesh.addresses();
    let Changed { revision, diff: _ } = stage.mesh.apply(&documents::all(&said), "where everybody is")?;
    settled(stage, revision)?;
    say(&format!("   ok: {} proxies are connected, and all have revision {revision}", cast().count()));
    identities(stage)?;
    stage.start_traffic();
    stage.until("an answer of all three", |stage| {
        Ok((stage.seen().by.len() == cast().count()).then_some(()))
    })?;
    let answer =
        asked(stage, "front-1", "front").map_err(|lost| format!("front-1 does not answer: {lost}"))?;
    say(&format!("   ok: a request goes {}", answer.body.trim_end().replace(' ', " > ")));
    strangers(stage)?;
    stage.watch(pace.linger)?;
    Ok(said)
}

/// Who everybody is, the control plane has signed.
fn identities(stage: &mut Stage) -> Played {
    let mut issued = stage.until("everybody has an identity", |stage| {
        let issued = stage.mesh.events("certificate.issued.v1")?;
        Ok((issued.len() >= cast().count()).then_some(issued))
    })?;
    issued.sort_by_key(|event| event["subject"].to_string());
    issued.dedup_by_key(|event| event["subject"].to_string());
    let names: Vec<_> = issued.iter().filter_map(|event| event["subject"].as_str()).collect();
    let mut all = SERVICES.map(identity);
    all.sort_unstable();
    expect(names == all, || format!("the identities are {names:?}"))?;
    say("   ok: each has an identity, by a certificate of the control plane that lives an hour:");
    say(&format!("       {}", names.join(", ")));
    Ok(())
}

/// Who proves nothing, or is somebody else, gets nothing.
fn strangers(stage: &mut Stage) -> Played {
    match asked(stage, "cart-1", "cart") {
        Err(lost) if lost.starts_with("the connection broke") => {
            say("   ok: whoever asks cart-1 in the clear, as nobody, is cut off without an answer");
        }
        other => return Err(End::Failed(format!("cart-1, asked in the clear: {other:?}"))),
    }
    let answer =
        asked(stage, "front-1", "front-to-stock").map_err(|lost| format!("stock does not answer: {lost}"))?;
    expect(answer.status == 403, || format!("stock answers front {answer:?}"))?;
    say("   ok: stock answers 403 to front, who has proven to be front, and whom no rule of stock's lets in");
    Ok(())
}

fn a_good_change(stage: &mut Stage, pace: Pace, said: &mut Said) -> Played {
    act("2. A good change goes to a few first");
    said.version = "two";
    let before = stage.seen();
    let Changed { revision, diff } = stage.mesh.apply(&documents::all(said), "a version to see")?;
    say(&indented(&diff));
    let some = step(stage, revision)?;
    say(&format!("   revision {revision} is told to one of each service: {}", some.join(", ")));
    // Half of the fronts have it, and their answers say so.
    let told = Instant::now();
    stage.until("answers of both versions", |stage| {
        let versions = stage.seen().since(&before).versions;
        Ok((versions.contains_key("one") && versions.contains_key("two")).then_some(()))
    })?;
    settled(stage, revision)?;
    say(&format!(
        "   ok: all of them took it; after {:.1} s it is told to all",
        told.elapsed().as_secs_f64()
    ));
    let now = stage.seen();
    stage.until("all answers are of version two", |stage| {
        let since = stage.seen().since(&now).versions;
        Ok((since.get("two").copied() >= Some(20)).then_some(()))
    })?;
    stage.watch(pace.linger)?;
    unhurt(stage, &before);
    Ok(())
}

fn bad_changes(stage: &mut Stage, said: &Said) -> Played {
    act("3. Bad changes");
    let before = stage.seen();
    let mut slip = documents::all(said);
    slip.values_mut().for_each(|text| *text = text.replace("to: cart,", "to: crat,"));
    match stage.mesh.apply(&slip, "a slip of the pen") {
        Err(why) => {
            expect(why.contains("did you mean `cart`?"), || format!("a slip is refused so: {why}"))?;
            say("   ok: a slip of the pen is refused at the door, and nothing changes:");
            say(&indented(&why));
        }
        Ok(changed) => return Err(End::Failed(format!("a slip became revision {}", changed.revision))),
    }
    // The same ones are told first each time.
    let (good, _) = stage.mesh.in_sync()?;
    let some = step(stage, good)?;
    let hangs = some
        .iter()
        .find(|name| name.starts_with("stock"))
        .ok_or("nobody of stock was told first".to_owned())?;
    say(&format!("   the proxy of {hangs} hangs (SIGSTOP), and there is a change that it is to take first"));
    stage.mesh.signal(hangs, Signal::STOP);
    let wrong = Said { timeout: "2s", ..said.clone() };
    let Changed { revision, diff: _ } = stage.mesh.apply(&documents::all(&wrong), "stock is faster")?;
    let subject = format!("revision/{revision}");
    let back = stage.until("the change is taken back", |stage| {
        Ok(stage.mesh.events("rollout.back.v1")?.into_iter().find(|event| event["subject"] == subject))
    })?;
    let why = back["data"]["why"].as_str().unwrap_or_default().to_owned();
    // It does not take the change, or requests wait for it: whichever is seen first.
    let is_slow = why.contains(" requests to those who were told end within ");
    expect(why.ends_with(hangs) || is_slow, || format!("revision {revision} is taken back because {why}"))?;
    say(&format!("   ok: revision {revision} is taken back by itself: {why}"));
    stage.mesh.signal(hangs, Signal::CONT);
    settled(stage, revision + 1)?;
    say(&format!(
        "   ok: revision {} says what revision {good} did; {hangs} goes on, and all have it",
        revision + 1
    ));
    unhurt(stage, &before);
    Ok(())
}

fn a_replica_dies(stage: &mut Stage, pace: Pace, said: &mut Said) -> Played {
    act("4. A replica dies");
    let dies = "cart-1";
    let before = stage.seen();
    stage.mesh.kill_replica(dies);
    say(&format!("   {dies} and its proxy are killed (SIGKILL), with what they had in hand"));
    stage.watch(pace.linger)?;
    let now = stage.seen();
    stage.until("cart-2 answers", |stage| Ok((stage.seen().since(&now).requests >= 40).then_some(())))?;
    expect(!stage.seen().since(&now).by.contains_key(dies), || format!("{dies} answers"))?;
    say("   ok: cart-2 answers all of it");
    unhurt(stage, &before);
    stage.mesh.start_replica("cart", dies)?;
    stage.until(&format!("the proxy of {dies} listens"), |stage| {
        Ok(stage.mesh.find_replica(dies)?.then_some(()))
    })?;
    said.addresses = stage.mesh.addresses();
    let Changed { revision, diff } = stage.mesh.apply(&documents::all(said), "cart-1 is back, elsewhere")?;
    say("   it is back, at another address:");
    say(&indented(&diff));
    let now = stage.seen();
    settled(stage, revision)?;
    stage.until(&format!("{dies} answers"), |stage| {
        Ok(stage.seen().since(&now).by.contains_key(dies).then_some(()))
    })?;
    say(&format!("   ok: revision {revision} says where it is, and it has its part again"));
    stage.watch(pace.linger)
}

fn the_control_plane_dies(stage: &mut Stage, pace: Pace, said: &mut Said) -> Played {
    act("5. The control plane dies");
    let before = stage.seen();
    let (revision, _) = stage.mesh.in_sync()?;
    stage.mesh.kill_control();
    say("   it is killed (SIGKILL), and everybody goes on with what they were told last");
    stage.watch(pace.linger)?;
    unhurt(stage, &before);
    let begun = Instant::now();
    stage.mesh.start_control(pace)?;
    stage.until("the control plane listens", |stage| stage.mesh.find_control())?;
    settled(stage, revision)?;
    let took = begun.elapsed().as_secs_f64();
    say(&format!(
        "   ok: it is back; after {took:.1} s all proxies are connected, and have revision {revision}"
    ));
    said.version = "three";
    let now = stage.seen();
    let Changed { revision, diff: _ } = stage.mesh.apply(&documents::all(said), "the next version")?;
    settled(stage, revision)?;
    stage.until("answers of version three", |stage| {
        Ok(stage.seen().since(&now).versions.contains_key("three").then_some(()))
    })?;
    say(&format!("   ok: and it leads the next one, revision {revision}, to all of them"));
    Ok(())
}

fn where_to_look(stage: &Stage) -> Played {
    let (server, token) = stage.mesh.api()?;
    let front = stage.mesh.bound("front-1", "front")?;
    say(&format!(
        "   in another terminal   export OUTRIGGER_CONTROL={server}\n   \
         \x20                     export OUTRIGGER_CONTROL_TOKEN_FILE={}\n   \
         who has what          outrigger-control status\n   \
         what happened         outrigger-control events --follow\n   \
         change something      outrigger-control get front.yaml > front.yaml, change it, outrigger-control apply front.yaml\n   \
         the API               {server}/v1/openapi.json\n   \
         ask                   curl -i http://{front}/\n   \
         files and logs        {}",
        token.display(),
        stage.mesh.directory().display(),
    ));
    for (name, admin) in stage.mesh.admins() {
        say(&format!("   {:<21} http://{admin}/", format!("admin of {name}")));
    }
    say("");
    Ok(())
}

/// All proxies have all of this revision, and nothing else is on its way.
fn settled(stage: &mut Stage, revision: u64) -> Played {
    let mut seen = (0, Vec::new());
    stage.until(&format!("all proxies have revision {revision}"), |stage| {
        seen = stage.mesh.in_sync()?;
        Ok((seen.0 == revision && seen.1.len() == cast().count()).then_some(()))
    })
}

/// Whom a revision is told first.
fn step(stage: &mut Stage, revision: u64) -> Result<Vec<String>, End> {
    let subject = format!("revision/{revision}");
    let event = stage.until(&format!("revision {revision} is told to some"), |stage| {
        Ok(stage.mesh.events("rollout.step.v1")?.into_iter().find(|event| event["subject"] == subject))
    })?;
    let nodes = event["data"]["nodes"].as_array().into_iter().flatten();
    Ok(nodes.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn asked(stage: &Stage, replica: &str, listener: &str) -> Result<Answer, String> {
    let to: SocketAddr = stage.mesh.bound(replica, listener)?;
    stage.mesh.runtime().block_on(call(to))
}

/// Says what came of the requests since then.
fn unhurt(stage: &Stage, before: &Seen) {
    let since = stage.seen().since(before);
    let well = if since.failed == 0 { "ok: " } else { "" };
    say(&format!("   {well}{} meanwhile", since.outcome()));
}

fn expect(is_so: bool, otherwise: impl FnOnce() -> String) -> Played {
    if is_so { Ok(()) } else { Err(End::Failed(otherwise())) }
}

fn act(name: &str) {
    say(&format!("\n{name}"));
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().map(|line| format!("       {line}")).collect();
    lines.join("\n")
}
