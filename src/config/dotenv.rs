//! Reads `.env` as Laravel does, so that both sides of a signature hold the same secret. PURE.
//!
//! Its own reader, because shell-like ones differ where it hurts: to Laravel a `$` without braces, a backslash
//! outside of double quotes and a quote inside a word are plain text, and a `#` ends an unquoted value anywhere.
//! Messages name line and variable, never the value: it may be a secret.

use std::collections::HashMap;

/// Why a value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A double quote was opened; the value may go on in the next line.
    DoubleQuoteOpen,
    SingleQuoteOpen,
    /// Something follows the end of the value.
    Trailing,
    /// A backslash in double quotes before something that is not escaped.
    Escape,
}

impl Fault {
    fn sentence(self) -> &'static str {
        match self {
            Self::DoubleQuoteOpen | Self::SingleQuoteOpen => "its quote is not closed",
            Self::Trailing => {
                "values with spaces want quotes, and only a comment may follow a quote"
            }
            Self::Escape => r#"in double quotes a backslash may precede only " \ $ f n r t v"#,
        }
    }
}

/// Reads the text of a `.env` file. `environment` is asked first for `${NAME}`, then the lines above.
///
/// # Errors
/// One sentence per line that cannot be read.
pub fn parse(
    text: &[u8],
    environment: &HashMap<String, String>,
) -> Result<HashMap<String, String>, Vec<String>> {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut values = HashMap::new();
    let mut problems = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim();
        // A name without "=" is nothing to Laravel, too.
        let Some((name, rest)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let name = bare_name(name);
        let mut wrong = |sentence: &str| {
            let shown = if is_name(name) { name } else { "no name" };
            problems.push(format!("line {} ({shown}) is malformed: {sentence}", index + 1));
        };
        if !is_name(name) {
            wrong("a name has letters, digits, _ and . only");
            continue;
        }
        let lookup = |name: &str| environment.get(name).or_else(|| values.get(name)).cloned();
        let mut rest = rest.trim().to_owned();
        let mut value = read_value(&rest, &lookup);
        while value == Err(Fault::DoubleQuoteOpen) {
            let Some((_, more)) = lines.next() else { break };
            rest.push('\n');
            rest.push_str(more);
            value = read_value(&rest, &lookup);
        }
        match value {
            Ok(value) => {
                values.insert(name.to_owned(), value);
            }
            Err(fault) => wrong(fault.sentence()),
        }
    }
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}

/// The name without `export` and quotes.
fn bare_name(text: &str) -> &str {
    let text = text.trim();
    let text = text
        .strip_prefix("export")
        .filter(|rest| rest.starts_with(char::is_whitespace))
        .map_or(text, str::trim_start);
    let unquoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    unquoted('"').or_else(|| unquoted('\'')).unwrap_or(text)
}

fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    !text.is_empty() && text.bytes().all(is_part)
}

fn read_value(text: &str, lookup: &impl Fn(&str) -> Option<String>) -> Result<String, Fault> {
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, after) = quoted.split_once('\'').ok_or(Fault::SingleQuoteOpen)?;
        return nothing_follows(after).map(|()| value.to_owned());
    }
    if let Some(quoted) = text.strip_prefix('"') {
        return read_double_quoted(quoted, lookup);
    }
    let end = text.find(|c: char| c == '#' || c.is_whitespace()).unwrap_or(text.len());
    let (mut word, after) = text.split_at(end);
    nothing_follows(after)?;
    let mut value = String::new();
    while let Some(character) = word.chars().next() {
        word = push_resolved(&mut value, character, word, lookup);
    }
    Ok(value)
}

fn read_double_quoted(
    mut rest: &str,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<String, Fault> {
    let mut value = String::new();
    while let Some(character) = rest.chars().next() {
        match character {
            '"' => return nothing_follows(&rest[1..]).map(|()| value),
            '\\' => {
                let escaped = rest[1..].chars().next().ok_or(Fault::DoubleQuoteOpen)?;
                value.push(unescape(escaped).ok_or(Fault::Escape)?);
                // What can be escaped is one byte long.
                rest = &rest[2..];
            }
            _ => rest = push_resolved(&mut value, character, rest, lookup),
        }
    }
    Err(Fault::DoubleQuoteOpen)
}

fn unescape(character: char) -> Option<char> {
    match character {
        '"' | '\\' | '$' => Some(character),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        _ => None,
    }
}

/// Takes one character, or `${NAME}` if a variable has that name, from the front; gives back what is left.
fn push_resolved<'a>(
    value: &mut String,
    character: char,
    rest: &'a str,
    lookup: &impl Fn(&str) -> Option<String>,
) -> &'a str {
    let variable = rest.strip_prefix("${").and_then(|inner| inner.split_once('}'));
    if let Some((name, after)) = variable.filter(|(name, _)| is_name(name))
        && let Some(found) = lookup(name)
    {
        value.push_str(&found);
        return after;
    }
    value.push(character);
    &rest[character.len_utf8()..]
}

fn nothing_follows(text: &str) -> Result<(), Fault> {
    let text = text.trim_start();
    if text.is_empty() || text.starts_with('#') { Ok(()) } else { Err(Fault::Trailing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HashMap<String, String>, Vec<String>> {
        let environment = [("FROM_ENV".to_owned(), "outer".to_owned())].into();
        parse(text.as_bytes(), &environment)
    }

    #[test]
    fn values_are_what_laravel_reads() {
        for (text, value) in [
            ("X=plain", "plain"),
            ("X=", ""),
            ("X= # comment", ""),
            ("X=\"\"", ""),
            ("X=\"My App\"", "My App"),
            ("X='My App' # comment", "My App"),
            ("  export X = spaced  ", "spaced"),
            ("\u{feff}X=bom", "bom"),
            ("X=one\r\nY=2\r", "one"),
            ("X=word # comment", "word"),
            // A # needs no space before it.
            ("X=word#rest", "word"),
            ("X=\"s#cret\"", "s#cret"),
            // A $ without braces is text.
            ("X=pa$$word", "pa$$word"),
            ("X=\"pa$word\"", "pa$word"),
            ("X=$", "$"),
            // So are backslashes outside of double quotes, and quotes inside a word.
            ("X=App\\Events\\News", "App\\Events\\News"),
            ("X='a\\'", "a\\"),
            ("X={\"a\":1}", "{\"a\":1}"),
            ("X=base64:ab/c+d==", "base64:ab/c+d=="),
            ("X=\"a\\\"b\\\\c\\$d\\n\"", "a\"b\\c$d\n"),
            ("X=\"\\${FROM_ENV}\"", "${FROM_ENV}"),
            ("Y=in\nX=\"${Y}-${FROM_ENV}\"", "in-outer"),
            ("FROM_ENV=inner\nX=${FROM_ENV}", "outer"),
            ("Y=in\nX='${Y}'", "${Y}"),
            // What has no value stays as it stands.
            ("X=${LATER}\nLATER=1", "${LATER}"),
            ("X=\"${not closed\"", "${not closed"),
            ("X=\"ä${Y}ö\"", "ä${Y}ö"),
            ("X=\"one\nZ=two\nthree\"\nY=1", "one\nZ=two\nthree"),
            ("X=first\nX=last", "last"),
            ("# X=comment\nLONELY\n\nX=1", "1"),
        ] {
            let values = read(text).unwrap_or_else(|problems| panic!("{text:?}: {problems:?}"));
            assert_eq!(values["X"], value, "{text:?}");
            assert!(!values.contains_key("Z") && !values.contains_key("LONELY"), "{text:?}");
        }
        assert!(parse(b"X=caf\xe9\nY=1\n", &HashMap::new()).unwrap().contains_key("Y"));
    }

    #[test]
    fn malformed_lines_are_named_all_of_them_without_their_values() {
        let text = "A=hunter2 hunter2\nB=1\nC=\"hunter2\" hunter2\nD='hunter2\nE=\"hunter2\\q\"\n\
            F-hunter2=1\n=hunter2\nG=\"hunter2\nH=1\n";
        let problems = read(text).unwrap_err();
        let starts = ["line 1 (A)", "line 3 (C)", "line 4 (D)", "line 5 (E)", "line 6 (no name)"];
        let starts = starts.into_iter().chain(["line 7 (no name)", "line 8 (G)"]);
        assert_eq!(problems.len(), starts.clone().count(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{start}: {problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
