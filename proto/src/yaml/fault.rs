//! What is wrong with one value, before anybody says where it stands.

/// A problem, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// In one line.
    pub(super) fn into_text(self) -> String {
        match self.hint {
            Some(hint) => format!("{}; {hint}", self.problem),
            None => self.problem,
        }
    }

    /// "did you mean" when something is near, else the whole choice when it is short enough to read.
    pub(super) fn choice<'a>(
        self,
        found: &str,
        choice: impl Iterator<Item = &'a str> + Clone,
        one_of: &str,
    ) -> Self {
        if let Some(near) = nearest(found, choice.clone()) {
            return self.hint(format!("did you mean `{near}`?"));
        }
        let all: Vec<_> = choice.map(|name| format!("`{name}`")).take(13).collect();
        match all.len() {
            0 | 13 => self,
            1..13 | 14.. => self.hint(format!("{one_of} {}", all.join(", "))),
        }
    }
}

/// A value as error texts show it: on one line, not without end.
pub(super) fn show(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The candidate that `found` is most likely a slip of the pen for.
pub(super) fn nearest<'a>(found: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if found.is_empty() {
        return None;
    }
    let found = fold(found);
    let bound = (found.len() / 3).clamp(1, 3);
    let near = |candidate: &&'a str| {
        let folded = fold(candidate);
        (found.len().abs_diff(folded.len()) <= bound).then(|| distance(&found, &folded))
    };
    candidates
        .filter_map(|c| near(&c).map(|d| (d, c)))
        .filter(|(d, _)| *d <= bound)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Letter case and the kind of dash are the commonest slips, and cost nothing.
fn fold(text: &str) -> Vec<char> {
    text.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: &str, expected: Option<&str>) {
        let keys = ["routes", "bind", "tls", "timeout", "request_headers", "to"];
        assert_eq!(nearest(found, keys.into_iter()), expected, "{found}");
    }

    #[test]
    fn slips_are_recognised() {
        check("rotues", Some("routes"));
        check("route", Some("routes"));
        check("Bind", Some("bind"));
        check("request-headers", Some("request_headers"));
        check("timout", Some("timeout"));
        check("ot", Some("to"));
        check("listen", None);
        check("", None);
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(show("a\nb"), r"`a\nb`");
        assert_eq!(show(&"x".repeat(100)), format!("`{}…`", "x".repeat(60)));
    }
}
