//! The way from the root of a document to a value, as error texts name it: `listeners.web.routes[2].timeout`.

use std::fmt::Write;

/// One step of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Into a mapping.
    Key(&'a str),
    /// Into a list, from 0.
    Item(usize),
}

/// The way as text. A key that could be misread, such as a name with a dot, stands in quotes.
pub(super) fn render<'a>(steps: impl IntoIterator<Item = Step<'a>>) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Item(index) => write!(out, "[{index}]").expect("a String takes all"),
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                let simple = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                if !key.is_empty() && key.chars().all(simple) {
                    out.push_str(key);
                } else {
                    write!(out, "{key:?}").expect("a String takes all");
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_items() {
        let steps =
            [Step::Key("listeners"), Step::Key("a.b"), Step::Key("routes"), Step::Item(2), Step::Key("to")];
        assert_eq!(render(steps), r#"listeners."a.b".routes[2].to"#);
        assert_eq!(render([]), "");
    }
}
