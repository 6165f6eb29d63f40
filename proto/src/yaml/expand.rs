//! Environment variables in scalars: `${NAME}`, `${NAME:-default}`, and `$$` for a dollar.
//!
//! Done after YAML is parsed, so that no value can add a key or end a quote, and before a value is typed. What comes
//! out is not looked at again. A dollar before anything else stands for itself: regular expressions end in one. As in
//! a shell, the default also replaces an empty value.

use super::fault::{Fault, show};

/// Looks up a variable; `None` replaces none.
pub(super) type Env<'a> = Option<&'a dyn Fn(&str) -> Option<String>>;

/// What became of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expanded {
    /// Nothing.
    Same,
    /// A dollar was escaped.
    Unescaped(String),
    /// A variable was replaced: the text has no YAML type of its own any more.
    Substituted(String),
}

/// Replaces every variable of a text.
///
/// # Errors
/// An unset variable without a default, or a `${` that is not a variable; any variable where there is no environment.
pub(super) fn expand(text: &str, env: Env<'_>) -> Result<Expanded, Fault> {
    if !text.contains("$$") && !text.contains("${") {
        return Ok(Expanded::Same);
    }
    let mut out = String::with_capacity(text.len());
    let mut substituted = false;
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            let Some((inside, after)) = after.split_once('}') else {
                return Err(Fault::new(format!("a `${{` without its `}}` in {}", show(text)))
                    .hint("write `$${` where no variable is meant"));
            };
            out.push_str(&variable(inside, env)?);
            substituted = true;
            rest = after;
        } else {
            out.push('$');
            rest = rest.strip_prefix('$').unwrap_or(rest);
        }
    }
    out.push_str(rest);
    Ok(if substituted { Expanded::Substituted(out) } else { Expanded::Unescaped(out) })
}

fn variable(inside: &str, env: Env<'_>) -> Result<String, Fault> {
    let Some(env) = env else {
        return Err(Fault::new(format!("the variable `${{{inside}}}` is not replaced here"))
            .hint("write its value, as what many proxies serve must not depend on who reads it"));
    };
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let letter = |b: u8| b == b'_' || b.is_ascii_alphabetic();
    if !name.bytes().next().is_some_and(letter) || !name.bytes().all(|b| letter(b) || b.is_ascii_digit()) {
        return Err(Fault::new(format!("`${{{inside}}}` is not a variable"))
            .hint("write `${NAME}`, `${NAME:-default}`, or `$${` where no variable is meant"));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Fault::new(format!("the environment variable `{name}` is not set"))
            .hint(format!("set it, or give a default: `${{{name}:-default}}`"))),
    }
}

/// The text that [`expand`] turns into this one.
pub(super) fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Expanded, &str>) {
        let env = |name: &str| match name {
            "HOST" => Some("h${X}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let found = expand(text, Some(&env));
        assert_eq!(
            found.as_ref().map_err(|fault| fault.problem.as_str()),
            expected.as_ref().map_err(|e| *e),
            "{text}"
        );
    }

    #[test]
    fn every_form() {
        let substituted = |text: &str| Ok(Expanded::Substituted(text.to_owned()));
        let unescaped = |text: &str| Ok(Expanded::Unescaped(text.to_owned()));
        check("plain", Ok(Expanded::Same));
        check("^/a$", Ok(Expanded::Same));
        check("a $b", Ok(Expanded::Same));
        check("$$", unescaped("$"));
        check("$$$$x$", unescaped("$$x$"));
        check("$${HOST}", unescaped("${HOST}"));
        check("a${HOST}b$", substituted("ah${X}b$"));
        check("${NONE:-d}", substituted("d"));
        check("${NONE:-}", substituted(""));
        check("${EMPTY:-d}", substituted("d"));
        check("${EMPTY}", substituted(""));
        check("${NONE}", Err("the environment variable `NONE` is not set"));
        check("${HOST", Err("a `${` without its `}` in `${HOST`"));
        check("${}", Err("`${}` is not a variable"));
        check("${A-b}", Err("`${A-b}` is not a variable"));
        check("${1A}", Err("`${1A}` is not a variable"));
    }

    #[test]
    fn escaped_text_comes_back() {
        for text in ["", "$", "$$", "${A}", "a$b${", "$$${"] {
            let back = match expand(&escape(text), Some(&|_| None)).unwrap() {
                Expanded::Same => escape(text),
                Expanded::Unescaped(back) | Expanded::Substituted(back) => back,
            };
            assert_eq!(back, text);
        }
    }
}
