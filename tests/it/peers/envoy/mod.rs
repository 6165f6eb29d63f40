//! Envoy as a second opinion: the same requests through it and through us, configured alike, to the same origin. What
//! the client gets and what the origin sees must be the same, but for the differences that are meant and listed.
//! HTTP/1.1 and HTTP/2 on either side.

mod answers;
mod cases;
mod look;
mod meant;
mod setup;

use std::collections::BTreeSet;

use self::cases::{Case, cases};
use self::look::{Behind, TARGET, View, view};
use self::meant::{MEANT, Row};
use self::setup::outrigger;
pub(super) use self::setup::{Envoy, Serving, node};

/// A difference of one case: what it is in, ours, Envoy's.
type Difference = (String, String, [String; 2]);

fn differences(name: &str, ours: &View, envoys: &View) -> Vec<Difference> {
    let [passed, passed_by_envoy] = [ours, envoys].map(|view| view.contains_key(TARGET));
    if passed != passed_by_envoy {
        // One refuses what the other passes on: everything else follows from that.
        return vec![(name.to_owned(), "passed on".to_owned(), [ours, envoys].map(summary))];
    }
    if ours["status"] != envoys["status"] {
        return vec![(
            name.to_owned(),
            "status".to_owned(),
            [ours, envoys].map(|view| view["status"].clone()),
        )];
    }
    let keys: BTreeSet<&String> = ours.keys().chain(envoys.keys()).collect();
    let get = |view: &View, key: &String| view.get(key).cloned().unwrap_or_else(|| "-".to_owned());
    let both = keys.into_iter().map(|key| (name.to_owned(), key.clone(), [get(ours, key), get(envoys, key)]));
    both.filter(|(_, _, [ours, envoys])| ours != envoys).collect()
}

fn summary(view: &View) -> String {
    match view.get(TARGET) {
        Some(target) => format!("{target}: {}", view["status"]),
        None => format!("no: {}", view["status"]),
    }
}

/// All cases through both.
async fn compare(envoy: &Envoy, cases: &[Case], behind: [Behind; 2]) -> Vec<Difference> {
    let [our_origin, envoys_origin] = behind;
    let proxy = outrigger(&our_origin).await;
    let envoy = envoy.serve(&envoys_origin).await;
    let address = proxy.address("web");
    let mut found = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let ours = view(case, number, address, &our_origin);
        let envoys = view(case, number, envoy.address, &envoys_origin);
        let (ours, envoys) = tokio::join!(ours, envoys);
        found.extend(differences(&case.name, &ours, &envoys));
    }
    super::quiet(&proxy).await;
    found
}

#[tokio::test]
async fn every_difference_is_meant() {
    let Some(envoy) = Envoy::find().await else { return };
    let all = cases();
    let to_http1 = [Behind::http1(&all).await, Behind::http1(&all).await];
    let mut found = compare(&envoy, &all, to_http1).await;
    // The HTTP/2 origin has one answer to all.
    let requests: Vec<Case> = all.into_iter().filter(Case::has_plain_answer).collect();
    found.extend(compare(&envoy, &requests, [Behind::http2().await, Behind::http2().await]).await);

    let rows: Vec<_> = MEANT.iter().flat_map(|meant| meant.rows.iter().map(|row| (row, meant.why))).collect();
    let meant = |(name, key, values): &Difference| {
        rows.iter().any(|((case, what, both), _)| case == name && what == key && both == values)
    };
    let is_found =
        |row: &Row| found.iter().any(|(name, key, both)| row.0 == *name && row.1 == key && row.2 == *both);
    let mut wrong = String::new();
    for (name, key, [ours, envoys]) in found.iter().filter(|difference| !meant(difference)) {
        wrong += &format!("{name}: {key}\n    outrigger  {ours:?}\n    envoy      {envoys:?}\n");
    }
    for ((case, what, _), why) in rows.iter().filter(|(row, _)| !is_found(row)) {
        wrong += &format!("{case}: {what} is listed as different, and is not; the reason was: {why}\n");
    }
    assert!(wrong.is_empty(), "{wrong}");
}
