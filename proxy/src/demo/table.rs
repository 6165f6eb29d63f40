//! The demonstration's figures as text: a table for a terminal, a line for a log. Pure.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

/// What share and rate are counted over: long enough to be steady, short enough to show a change of configuration.
const RECENT: Duration = Duration::from_secs(5);
/// Endpoints in the table: more would not fit on a small screen, and could not be drawn over.
const ROWS: usize = 12;

/// An endpoint's figures at one moment.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Distinguishes it from every other there ever was.
    pub(super) id: u64,
    pub(super) address: String,
    /// Its name, if it is one of ours; others come with a changed configuration.
    pub(super) name: Option<&'static str>,
    pub(super) requests: u64,
    pub(super) active: u32,
    pub(super) failures: u64,
    /// As the balancer sees it; 0 before the first answer.
    pub(super) latency: Duration,
}

/// How many requests each endpoint had got, at moments of the last seconds.
#[derive(Debug)]
pub(super) struct Window(VecDeque<(Duration, HashMap<u64, u64>)>);

/// What happened in the last seconds.
#[derive(Debug, PartialEq)]
pub(super) struct Recent {
    /// Requests of each row.
    requests: Vec<u64>,
    over: Duration,
}

impl Window {
    /// Nothing has happened yet.
    pub(super) fn new(now: Duration) -> Self {
        Self([(now, HashMap::new())].into())
    }

    /// Takes note of the figures of now, and tells how they came about.
    pub(super) fn note(&mut self, now: Duration, rows: &[Row]) -> Recent {
        self.0.push_back((now, rows.iter().map(|row| (row.id, row.requests)).collect()));
        while self.0.len() > 2 && self.0[1].0 + RECENT <= now {
            self.0.pop_front();
        }
        let (then, before) = &self.0[0];
        let since = |row: &Row| row.requests.saturating_sub(before.get(&row.id).copied().unwrap_or(0));
        Recent { requests: rows.iter().map(since).collect(), over: now.saturating_sub(*then) }
    }
}

impl Recent {
    fn total(&self) -> u64 {
        self.requests.iter().sum()
    }

    fn per_second(&self) -> f64 {
        if self.over.is_zero() { 0.0 } else { self.total() as f64 / self.over.as_secs_f64() }
    }

    /// In percent.
    fn share(&self, position: usize) -> f64 {
        percent(self.requests[position], self.total())
    }
}

/// A part in percent; nothing of nothing is 0.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// A table of less than 80 columns.
pub(super) fn table(rows: &[Row], recent: &Recent) -> String {
    let mut out = format!(
        "{:<24}{:>9}{:>8}{:>8}{:>10}{:>7}\n",
        "endpoint", "requests", "active", "failed", "latency", "share"
    );
    for (position, row) in rows.iter().enumerate().take(ROWS) {
        let Row { id: _, address, name, requests, active, failures, latency } = row;
        let label = format!("{address}  {}", name.unwrap_or_default());
        let share = recent.share(position);
        let bar = "#".repeat((share / 10.0).round() as usize);
        let latency = milliseconds(*latency);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{label:<24}{requests:>9}{active:>8}{failures:>8}{latency:>10}{share:>5.0} %  {bar}"
        );
    }
    if rows.len() > ROWS {
        let _ = writeln!(out, "... and {} more", rows.len() - ROWS);
    }
    let (requests, active, failures) = totals(rows);
    let per_second = recent.per_second();
    let _ = writeln!(out, "{:<24}{requests:>9}{active:>8}{failures:>8}{per_second:>15.1}/s", "total");
    out
}

/// One line.
pub(super) fn line(rows: &[Row], recent: &Recent) -> String {
    let (requests, active, failures) = totals(rows);
    let mut out = format!(
        "total {requests} requests, {:.1}/s, {active} active, {failures} failed",
        recent.per_second()
    );
    for (position, row) in rows.iter().enumerate() {
        let Row { id: _, address, name, requests, active, failures: _, latency } = row;
        let (name, latency, share) =
            (name.unwrap_or(address), milliseconds(*latency), recent.share(position));
        let _ = write!(out, " | {name} {requests}, {active} active, {latency}, {share:.0} %");
    }
    out.push('\n');
    out
}

fn totals(rows: &[Row]) -> (u64, u32, u64) {
    rows.iter().fold((0, 0, 0), |(requests, active, failures), row| {
        (requests + row.requests, active + row.active, failures + row.failures)
    })
}

fn milliseconds(latency: Duration) -> String {
    if latency.is_zero() { "-".to_owned() } else { format!("{:.2} ms", latency.as_secs_f64() * 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, name: Option<&'static str>, requests: u64, latency_us: u64) -> Row {
        let address = format!("127.0.0.1:{}", 40000 + id);
        Row {
            id,
            address,
            name,
            requests,
            active: 1,
            failures: 0,
            latency: Duration::from_micros(latency_us),
        }
    }

    fn two() -> [Row; 2] {
        [row(1, Some("alpha"), 75, 410), row(2, Some("gamma"), 25, 5_600)]
    }

    #[track_caller]
    fn check(actual: &str, expected: &[&str]) {
        assert_eq!(actual.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_table_has_a_line_for_each_endpoint_and_one_for_all() {
        let recent = Window::new(Duration::ZERO).note(Duration::from_secs(4), &two());
        check(
            &table(&two(), &recent),
            &[
                "endpoint                 requests  active  failed   latency  share",
                "127.0.0.1:40001  alpha         75       1       0   0.41 ms   75 %  ########",
                "127.0.0.1:40002  gamma         25       1       0   5.60 ms   25 %  ###",
                "total                         100       2       0           25.0/s",
            ],
        );
        check(
            &line(&two(), &recent),
            &[concat!(
                "total 100 requests, 25.0/s, 2 active, 0 failed",
                " | alpha 75, 1 active, 0.41 ms, 75 %",
                " | gamma 25, 1 active, 5.60 ms, 25 %"
            )],
        );
    }

    #[test]
    fn before_the_first_request_nothing_is_divided() {
        let idle = [row(1, None, 0, 0)];
        let recent = Window::new(Duration::ZERO).note(Duration::ZERO, &idle);
        check(
            &table(&idle, &recent),
            &[
                "endpoint                 requests  active  failed   latency  share",
                "127.0.0.1:40001                 0       1       0         -    0 %  ",
                "total                           0       1       0            0.0/s",
            ],
        );
        check(
            &line(&idle, &recent),
            &["total 0 requests, 0.0/s, 1 active, 0 failed | 127.0.0.1:40001 0, 1 active, -, 0 %"],
        );
        let nothing = Window::new(Duration::ZERO).note(Duration::ZERO, &[]);
        assert_eq!(table(&[], &nothing).lines().count(), 2);
    }

    #[test]
    fn a_table_stays_smaller_than_a_screen() {
        let rows: Vec<_> = (0..100).map(|id| row(id, Some("alpha"), u64::MAX >> 40, 99_999_999)).collect();
        let recent = Window::new(Duration::ZERO).note(Duration::from_secs(1), &rows);
        let table = table(&rows, &recent);
        assert_eq!(table.lines().count(), ROWS + 3);
        assert!(table.contains("... and 88 more\n"));
        assert!(table.lines().all(|line| line.len() < 80), "{table}");
    }

    #[test]
    fn what_is_long_past_no_longer_counts() {
        let second = Duration::from_secs(1);
        let mut window = Window::new(Duration::ZERO);
        let mut recent = window.note(second, &[row(1, None, 100, 1)]);
        assert_eq!(recent, Recent { requests: vec![100], over: second });
        for at in 2..=6 {
            recent = window.note(at * second, &[row(1, None, 100, 1)]);
        }
        assert_eq!(recent, Recent { requests: vec![0], over: 5 * second });
    }

    #[test]
    fn endpoints_may_come_and_go() {
        let second = Duration::from_secs(1);
        let mut window = Window::new(Duration::ZERO);
        window.note(second, &[row(1, None, 10, 1)]);
        let recent = window.note(2 * second, &[row(2, None, 4, 1)]);
        assert_eq!(recent, Recent { requests: vec![4], over: 2 * second });
        // As after a restart of the count: never below nothing.
        let recent = window.note(7 * second, &[row(1, None, 3, 1)]);
        assert_eq!(recent.requests, [3]);
    }
}
