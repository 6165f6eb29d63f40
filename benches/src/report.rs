//! What was found, as Markdown that also reads well in a terminal.

use std::collections::BTreeMap;
use std::fmt;

use crate::bars::BARS;
use crate::cases::{Case, Metric};
use crate::error::Result;
use crate::measure::median;
use crate::proxy::Proxy;
use crate::turn::Sample;

/// The peers that ratios are given to.
const AGAINST: [Proxy; 4] = [Proxy::Haproxy, Proxy::HaproxyTuned, Proxy::Nginx, Proxy::Envoy];

/// All turns of one proxy in one case.
#[derive(Clone, Debug)]
enum Row {
    /// One sample of each round.
    Measured(Vec<Sample>),
    /// A turn failed: whatever the others gave would flatter or slander.
    Failed(String),
    /// Beyond this proxy.
    NotApplicable(&'static str),
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results(BTreeMap<(Case, Proxy), Row>);

impl Results {
    /// Takes in the outcome of one turn.
    pub(crate) fn add(&mut self, case: Case, proxy: Proxy, outcome: Result<Sample>) {
        let row = self.0.entry((case, proxy)).or_insert_with(|| Row::Measured(Vec::new()));
        match (row, outcome) {
            (Row::Measured(samples), Ok(sample)) => samples.push(sample),
            (row @ Row::Measured(_), Err(failure)) => {
                // It may quote a program that printed several lines.
                *row = Row::Failed(failure.to_string().trim().replace('\n', " / "));
            }
            (Row::Failed(_) | Row::NotApplicable(_), _) => {}
        }
    }

    /// Notes that `proxy` cannot do `case`.
    pub(crate) fn exclude(&mut self, case: Case, proxy: Proxy, why: &'static str) {
        self.0.insert((case, proxy), Row::NotApplicable(why));
    }

    /// Whether a turn failed, so that further ones would be in vain.
    pub(crate) fn failed(&self, case: Case, proxy: Proxy) -> bool {
        matches!(self.0.get(&(case, proxy)), Some(Row::Failed(_)))
    }

    /// The median of all rounds; `None` when the row is not valid.
    pub(crate) fn figure(&self, case: Case, proxy: Proxy, metric: Metric) -> Option<f64> {
        median(&self.readings(case, proxy, metric))
    }

    /// So many times the figure of `to`: the median of what each round gives. `None` when one of the rows is not valid.
    ///
    /// Not the ratio of two medians: a round is over in a minute, in which a machine that is shared mostly keeps its speed,
    /// and medians are of rounds that may be far apart.
    pub(crate) fn ratio(&self, of: (Case, Proxy), to: (Case, Proxy), metric: Metric) -> Option<f64> {
        let [of, to] = [of, to].map(|(case, proxy)| self.readings(case, proxy, metric));
        let ratios: Vec<f64> = of.iter().zip(&to).map(|(of, to)| of / to).collect();
        median(&ratios)
    }

    fn readings(&self, case: Case, proxy: Proxy, metric: Metric) -> Vec<f64> {
        match self.0.get(&(case, proxy)) {
            Some(Row::Measured(samples)) => {
                samples.iter().filter_map(|sample| sample.get(&metric).copied()).collect()
            }
            Some(Row::Failed(_) | Row::NotApplicable(_)) | None => Vec::new(),
        }
    }

    /// The table of one case, and what went wrong in it.
    pub(crate) fn table(&self, case: Case) -> String {
        let plan = case.plan();
        let headline = plan.columns[0];
        let against: Vec<Proxy> =
            AGAINST.into_iter().filter(|peer| self.0.contains_key(&(case, *peer))).collect();
        let mut table = Table::new(
            1,
            ["proxy".to_owned()]
                .into_iter()
                .chain(plan.columns.iter().map(|metric| metric.title().to_owned()))
                .chain(["spread".to_owned()])
                .chain(against.iter().map(|peer| format!("x {peer}"))),
        );
        let mut notes = String::new();
        for (_, proxy) in self.0.keys().filter(|(one, _)| *one == case) {
            let figure = |metric| self.figure(case, *proxy, metric);
            let ratio = |peer| self.ratio((case, *proxy), (case, peer), headline);
            table.row(
                [proxy.to_string()]
                    .into_iter()
                    .chain(plan.columns.iter().map(|metric| number(figure(*metric), metric.digits())))
                    .chain([spread(&self.readings(case, *proxy, headline))])
                    .chain(against.iter().map(|peer| number(ratio(*peer), 2))),
            );
            match self.0.get(&(case, *proxy)) {
                Some(Row::Failed(why)) => notes.push_str(&format!("- {proxy}: INVALID, {why}\n")),
                Some(Row::NotApplicable(why)) => notes.push_str(&format!("- {proxy}: n/a, {why}\n")),
                Some(Row::Measured(_)) | None => {}
            }
        }
        let notes = if notes.is_empty() { notes } else { format!("\n{notes}") };
        format!("## {}: {}\n\n{table}{notes}", case.name(), plan.about)
    }

    /// The bars that the measured cases decide.
    pub(crate) fn bars(&self) -> String {
        let mut table =
            Table::new(2, ["case", "bar", "Outrigger", "verdict", "x HAProxy tuned"].map(str::to_owned));
        for bar in BARS.iter().filter(|bar| self.0.keys().any(|(case, _)| *case == bar.case())) {
            let verdict = bar.judge(self);
            table.row([
                bar.case().name(),
                bar.text(),
                number(verdict.map(|verdict| verdict.found), 2),
                match verdict {
                    Some(verdict) if verdict.passed => "pass",
                    Some(_) => "FAIL",
                    None => "not measured",
                }
                .to_owned(),
                number(bar.to_tuned(self), 2),
            ]);
        }
        format!(
            "## Bars\n\n{table}\n- HAProxy is HAProxy as it comes; the ratio to HAProxy tuned decides nothing\n"
        )
    }
}

/// The distance from the lowest to the highest reading, in percent of the median.
fn spread(readings: &[f64]) -> String {
    let low = readings.iter().copied().fold(f64::INFINITY, f64::min);
    let high = readings.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match median(readings) {
        Some(middle) if readings.len() > 1 && middle > 0.0 => {
            format!("{:.0}%", (high - low) / middle * 100.0)
        }
        _ => "-".to_owned(),
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// A Markdown table whose first columns stand to the left, and the others, numbers, to the right.
struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(left: usize, head: impl IntoIterator<Item = String>) -> Self {
        Self { left, rows: vec![head.into_iter().collect()] }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
        let widths: Vec<usize> = (0..).map_while(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match column < self.left {
                    true => write!(f, "| {cell:width$} ")?,
                    false => write!(f, "| {cell:>width$} ")?,
                }
            }
            writeln!(f, "|")?;
            if index == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    let end = if column < self.left { '-' } else { ':' };
                    write!(f, "|-{:-<width$}{end}", "")?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    #[test]
    fn table_of_a_case() {
        let mut results = Results::default();
        let measured = [
            (Proxy::Outrigger, [6.0, 5.0]),
            (Proxy::Haproxy, [11.0, 11.0]),
            (Proxy::HaproxyTuned, [10.0, 10.0]),
        ];
        for (proxy, figures) in measured {
            for figure in figures {
                results.add(
                    Case::IdleMemory,
                    proxy,
                    Ok([(Metric::Resident, figure), (Metric::Ready, 9.0)].into()),
                );
            }
        }
        results.add(Case::IdleMemory, Proxy::Envoy, Err(Failure::new("ended with 1")));
        results.exclude(Case::IdleMemory, Proxy::Nginx, "never learnt it");
        let expected = "\
## idle-memory: memory of a process that serves nobody yet

| proxy         | RSS MiB | ready ms | spread | x HAProxy | x HAProxy tuned | x nginx | x Envoy |
|---------------|--------:|---------:|-------:|----------:|----------------:|--------:|--------:|
| Outrigger     |     5.5 |        9 |    18% |      0.50 |            0.55 |       - |       - |
| Envoy         |       - |        - |      - |         - |               - |       - |       - |
| HAProxy       |    11.0 |        9 |     0% |      1.00 |            1.10 |       - |       - |
| HAProxy tuned |    10.0 |        9 |     0% |      0.91 |            1.00 |       - |       - |
| nginx         |       - |        - |      - |         - |               - |       - |       - |

- Envoy: INVALID, ended with 1
- nginx: n/a, never learnt it
";
        assert_eq!(results.table(Case::IdleMemory), expected);
    }

    #[test]
    fn ratios_are_those_of_rounds() {
        let mut results = Results::default();
        // The machine is twice as slow from the second round on, and in it for one of them alone.
        for (ours, theirs) in [(1.0, 1.0), (2.0, 4.0), (2.0, 2.0), (2.0, 2.0), (2.2, 2.0)] {
            results.add(Case::H1Small, Proxy::Outrigger, Ok([(Metric::Cpu, ours)].into()));
            results.add(Case::H1Small, Proxy::Nginx, Ok([(Metric::Cpu, theirs)].into()));
        }
        let ratio = |to| results.ratio((Case::H1Small, Proxy::Outrigger), (Case::H1Small, to), Metric::Cpu);
        assert_eq!((ratio(Proxy::Nginx), ratio(Proxy::Envoy)), (Some(1.0), None));
    }

    #[test]
    fn one_failed_round_spoils_the_row() {
        let mut results = Results::default();
        for outcome in
            [Ok([(Metric::Cpu, 1.0)].into()), Err(Failure::new("3 failed")), Ok([(Metric::Cpu, 1.0)].into())]
        {
            results.add(Case::H1Small, Proxy::Nginx, outcome);
        }
        assert_eq!(results.figure(Case::H1Small, Proxy::Nginx, Metric::Cpu), None);
        assert!(results.failed(Case::H1Small, Proxy::Nginx));
    }
}
