//! Prometheus text exposition format 0.0.4. <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::{self, Display, Write};

use super::cell::Histogram;

/// The `content-type` of what [`Registry::render`](super::Registry::render) writes.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of series a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// One family of series on its way out. The header is held back until there is a sample.
pub(super) struct Lines<'a> {
    out: &'a mut dyn Write,
    name: &'a str,
    header: Option<(Kind, &'a str)>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(out: &'a mut dyn Write, name: &'a str, kind: Kind, help: &'a str) -> Self {
        Self { out, name, header: Some((kind, help)) }
    }

    /// `labels` are written by [`label`], with commas between; `extra` is one label more, of the program's own.
    pub(super) fn sample(
        &mut self,
        labels: &str,
        extra: Option<(&str, &str)>,
        value: impl Display,
    ) -> fmt::Result {
        self.line("", labels, extra, value)
    }

    pub(super) fn histogram(&mut self, labels: &str, histogram: &Histogram) -> fmt::Result {
        let spread = histogram.read();
        // Rust writes the shortest text that reads back as the same number; ten bytes hold any bound in use.
        let mut text = String::with_capacity(16);
        for (bound, count) in &spread.buckets {
            text.clear();
            write!(text, "{bound}")?;
            self.line("_bucket", labels, Some(("le", &text)), count)?;
        }
        self.line("_bucket", labels, Some(("le", "+Inf")), spread.count)?;
        self.line("_sum", labels, None, Float(spread.sum))?;
        self.line("_count", labels, None, spread.count)
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &str,
        extra: Option<(&str, &str)>,
        value: impl Display,
    ) -> fmt::Result {
        let (out, name) = (&mut *self.out, self.name);
        if let Some((kind, help)) = self.header.take() {
            if !help.is_empty() {
                write!(out, "# HELP {name} ")?;
                escape(out, help, false)?;
                out.write_char('\n')?;
            }
            writeln!(out, "# TYPE {name} {kind}")?;
        }
        write!(out, "{name}{suffix}")?;
        if !labels.is_empty() || extra.is_some() {
            write!(out, "{{{labels}")?;
            if let Some((key, value)) = extra {
                out.write_str(if labels.is_empty() { "" } else { "," })?;
                label(out, key, value)?;
            }
            out.write_char('}')?;
        }
        writeln!(out, " {value}")
    }
}

/// A number as Prometheus reads it.
pub(super) struct Float(pub(super) f64);

impl Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value == f64::INFINITY => f.write_str("+Inf"),
            value if value == f64::NEG_INFINITY => f.write_str("-Inf"),
            value => value.fmt(f),
        }
    }
}

/// Writes `key="value"`, the value escaped. The key is one of ours or went through [`label_name`].
pub(super) fn label(out: &mut dyn Write, key: &str, value: &str) -> fmt::Result {
    write!(out, "{key}=\"")?;
    escape(out, value, true)?;
    out.write_char('"')
}

fn escape(out: &mut dyn Write, text: &str, quotes: bool) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '"' if quotes => out.write_str("\\\"")?,
            c => out.write_char(c)?,
        }
    }
    Ok(())
}

/// A metric's name with what Prometheus does not allow replaced by `_`.
pub(super) fn metric_name(name: &str) -> String {
    clean(name, |c| c == ':')
}

/// A label's name, likewise; `le` belongs to histograms.
pub(super) fn label_name(name: &str) -> String {
    if name == "le" { "exported_le".to_owned() } else { clean(name, |_| false) }
}

fn clean(name: &str, also: fn(char) -> bool) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || also(c);
    let digit_first = name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty();
    let rest = name.chars().map(|c| if fits(c) { c } else { '_' });
    digit_first.then_some('_').into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        #[track_caller]
        fn check(value: &str, expected: &str) {
            let mut out = String::new();
            label(&mut out, "k", value).unwrap();
            assert_eq!(out, format!("k=\"{expected}\""));
        }
        check("", "");
        check("plain", "plain");
        check("a\"b", "a\\\"b");
        check("a\\b", "a\\\\b");
        check("a\nb", "a\\nb");
        check("\\n", "\\\\n");
        check("grüße", "grüße");
    }

    #[test]
    fn names_fit() {
        #[track_caller]
        fn check(name: &str, metric: &str, label: &str) {
            assert_eq!((metric_name(name).as_str(), label_name(name).as_str()), (metric, label));
        }
        check("a_b:c9", "a_b:c9", "a_b_c9");
        check("http.requests-total", "http_requests_total", "http_requests_total");
        check("9lives", "_9lives", "_9lives");
        check("", "_", "_");
        check("le", "le", "exported_le");
        check("ü", "_", "_");
    }

    #[test]
    fn numbers_read_back() {
        let all =
            [0.0, -1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(|value| Float(value).to_string());
        assert_eq!(all, ["0", "-1.5", "+Inf", "-Inf", "NaN"]);
    }
}
