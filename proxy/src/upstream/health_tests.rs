use std::num::NonZeroU32;

use outrigger_proto::model::Probe;

use super::*;

fn settings() -> HealthCheck {
    // The defaults: 5 s, 1 s, 60 s; three to fall, two to rise.
    HealthCheck::new(Probe::Tcp)
}

const ALL: [Outcome; 10] = [
    Outcome::Passed,
    Outcome::Refused,
    Outcome::Unreachable,
    Outcome::TimedOut,
    Outcome::Closed,
    Outcome::Protocol,
    Outcome::Status(503),
    Outcome::Grpc(12),
    Outcome::NotServing(2),
    Outcome::NotAsked,
];

/// `+` passes, `-` fails, `x` is refused, `?` could not be asked; the states after each, by their first letters.
#[track_caller]
fn check(from: Health, outcomes: &str, expected: &str) {
    let mut record = Record { health: from, ..Record::default() };
    let mut seen = String::new();
    for outcome in outcomes.chars() {
        let outcome = match outcome {
            '+' => Outcome::Passed,
            '-' => Outcome::Status(500),
            'x' => Outcome::Refused,
            _ => Outcome::NotAsked,
        };
        record = record.after(outcome, &settings());
        assert_eq!(record.last, Some(outcome));
        seen.push(match record.health {
            Health::Unknown => '.',
            Health::Awaited => 'a',
            Health::Healthy => 'H',
            Health::Unhealthy => 'U',
        });
    }
    assert_eq!(seen, expected, "{from:?} {outcomes}");
}

#[test]
fn outcomes_in_a_row_turn_it() {
    let rows = [
        // One success decides of what is new, failures only in a row.
        (Health::Unknown, "+", "H"),
        (Health::Unknown, "---", "..U"),
        (Health::Unknown, "--+", "..H"),
        (Health::Unknown, "x", "U"),
        (Health::Awaited, "+", "H"),
        (Health::Awaited, "--+", "aaH"),
        (Health::Awaited, "---", "aaU"),
        (Health::Awaited, "x", "U"),
        (Health::Healthy, "+++", "HHH"),
        (Health::Healthy, "---", "HHU"),
        (Health::Healthy, "--+--+", "HHHHHH"),
        (Health::Healthy, "--+---", "HHHHHU"),
        (Health::Healthy, "-x", "HU"),
        (Health::Healthy, "x++", "UUH"),
        (Health::Unhealthy, "++", "UH"),
        (Health::Unhealthy, "+-+-++", "UUUUUH"),
        (Health::Unhealthy, "+x++", "UUUH"),
        // What we could not ask says nothing, and interrupts nothing.
        (Health::Unknown, "???", "..."),
        (Health::Healthy, "--??-", "HHHHU"),
        (Health::Unhealthy, "+?+", "UUH"),
    ];
    for (from, outcomes, expected) in rows {
        check(from, outcomes, expected);
    }
}

#[test]
fn a_threshold_that_was_lowered_counts_with_the_next_outcome() {
    let mut settings = settings();
    settings.unhealthy_after = NonZeroU32::new(10).expect("not zero");
    let mut record = Record { health: Health::Healthy, ..Record::default() };
    for _ in 0..5 {
        record = record.after(Outcome::TimedOut, &settings);
    }
    assert_eq!((record.health, record.against), (Health::Healthy, 5));
    settings.unhealthy_after = NonZeroU32::new(2).expect("not zero");
    assert_eq!(record.after(Outcome::TimedOut, &settings).health, Health::Unhealthy);
}

#[test]
fn the_next_check_comes_by_state() {
    let seconds = Duration::from_secs;
    let rows = [
        (Health::Unknown, 0, false, seconds(1)),
        (Health::Unknown, 2, true, seconds(1)),
        (Health::Awaited, 0, true, seconds(1)),
        (Health::Unhealthy, 0, false, seconds(1)),
        (Health::Unhealthy, 1, true, seconds(1)),
        (Health::Healthy, 0, false, seconds(5)),
        (Health::Healthy, 0, true, seconds(60)),
        (Health::Healthy, 1, false, seconds(1)),
        (Health::Healthy, 1, true, seconds(1)),
    ];
    for (health, against, idle, most) in rows {
        let record = Record { health, against, last: None };
        assert_eq!(next_check(record, &settings(), idle, 0), most, "{record:?} idle={idle}");
        let least = next_check(record, &settings(), idle, u64::MAX);
        assert!(least > most * 899 / 1000 && least < most * 901 / 1000, "{record:?}: {least:?}");
    }
    // Doubt is never looked into later than a check would come without.
    let mut slow = settings();
    slow.unhealthy_interval = seconds(30);
    let doubted = Record { health: Health::Healthy, against: 1, last: None };
    assert_eq!(next_check(doubted, &slow, false, 0), seconds(5));
}

#[test]
fn first_checks_are_spread_by_how_many_they_are() {
    let rows = [
        (1, Duration::from_millis(2)),
        (1000, Duration::from_secs(2)),
        (10_000, Duration::from_secs(5)),
        (usize::MAX, Duration::from_secs(5)),
    ];
    for (together, most) in rows {
        assert_eq!(first_check(together, &settings(), 0), Duration::ZERO);
        assert!(first_check(together, &settings(), u64::MAX) <= most, "{together}");
        assert!(first_check(together, &settings(), u64::MAX) > most * 99 / 100, "{together}");
    }
}

#[test]
fn a_new_endpoint_is_used_unless_it_is_awaited() {
    assert!(HealthCell::default().is_usable());
    assert!(!HealthCell::new(Record::AWAITED).is_usable());
    assert_eq!(HealthCell::default().record().last, None);
}

#[test]
fn outcomes_have_names_of_their_own() {
    let codes: std::collections::BTreeSet<_> = ALL.iter().map(|outcome| outcome.code()).collect();
    let texts: std::collections::BTreeSet<_> = ALL.iter().map(ToString::to_string).collect();
    assert_eq!((codes.len(), texts.len()), (ALL.len(), ALL.len()));
    assert!(Outcome::Grpc(12).to_string().contains("no service grpc.health.v1.Health"));
}

#[test]
fn a_cell_shows_what_was_put_in() {
    let cell = HealthCell::default();
    let record = Record { health: Health::Unhealthy, against: 1, last: Some(Outcome::Status(503)) };
    cell.checked(record, Duration::from_secs(7));
    assert_eq!((cell.record(), cell.checked_at(), cell.is_usable()), (record, Duration::from_secs(7), false));
    cell.forget();
    assert_eq!((cell.record(), cell.is_usable()), (Record::default(), true));
}
