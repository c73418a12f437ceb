//! Reads `.env` as Laravel does, so that both sides of a signature have the same secret. PURE.
//!
//! Owns the syntax: a port of what phpdotenv 5.6 does (`Lines`, `EntryParser`, `Resolver`), and of Laravel's `env()`,
//! because shell-like readers differ where it hurts. To Laravel a `$` without braces, a backslash outside of double
//! quotes and a quote inside a word are plain text, a `#` ends an unquoted value anywhere, and `="` opens a value of
//! several lines even in a comment. One difference: phpdotenv drops the rest of a file silently when such a value never
//! ends; this reader reports it. Messages never contain a value: it may be a secret.
//!
//! Limits: `VALUE_BYTES_MAX` for a value with its variables replaced; `load.rs` bounds the file. Cost: linear in the
//! file, a few allocations for each line; once at the start and at each reload.

use std::borrow::Cow;
use std::collections::HashMap;

/// Longest value with its variables replaced, in bytes. Without a limit, a few lines that name each other twice would
/// take all memory.
const VALUE_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineFault {
    QuoteOpen,
    /// Text that is no comment follows the value.
    Trailing,
    /// In double quotes, a backslash before a character that has no escape.
    Escape,
    TooLong,
    Name,
}

impl LineFault {
    fn sentence(self) -> &'static str {
        match self {
            Self::QuoteOpen => "its quote is not closed",
            Self::Trailing => {
                "values with spaces need quotes, and only a comment may follow a quote"
            }
            Self::Escape => r#"in double quotes a backslash may precede only " \ $ f n r t v"#,
            Self::TooLong => "with its variables it has more than 65536 bytes",
            Self::Name => "a name has letters, digits, _ and . only",
        }
    }
}

/// A line whose value is not used. `name` is the text before `=`; `sentence` never contains the value.
pub struct MalformedLine {
    pub name: String,
    pub sentence: String,
}

/// Reads the text of a `.env` file: the values of all lines that can be read, and the lines that cannot. `environment`
/// is asked first for `${NAME}`, then the lines above.
#[must_use]
pub fn parse(
    text: &[u8],
    environment: &HashMap<String, String>,
) -> (HashMap<String, String>, Vec<MalformedLine>) {
    let text = String::from_utf8_lossy(text).replace(char::REPLACEMENT_CHARACTER, "?");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut values: HashMap<String, String> = HashMap::new();
    let mut malformed = Vec::new();
    let (entries, open) = split_entries(text);
    let mut add_malformed = |number: usize, name: &str, fault: LineFault| {
        let shown = if is_name(name) { name } else { "no name" };
        let sentence = format!("line {number} ({shown}) is malformed: {}", fault.sentence());
        malformed.push(MalformedLine { name: name.to_owned(), sentence });
    };
    for (number, entry) in entries {
        let (name, value) = match entry.split_once('=') {
            Some((name, value)) => (php_trim(name), Some(php_trim(value))),
            None => (&*entry, None),
        };
        let name = bare_name(name);
        if !is_name(name) {
            add_malformed(number, name, LineFault::Name);
            continue;
        }
        let lookup = |name: &str| environment.get(name).or_else(|| values.get(name)).cloned();
        match value.map(|value| read_value(value)?.insert_variables(lookup)) {
            Some(Ok(value)) => {
                values.insert(name.to_owned(), value);
            }
            Some(Err(fault)) => add_malformed(number, name, fault),
            None => {
                values.remove(name);
            }
        }
    }
    if let Some((number, line)) = open {
        add_malformed(
            number,
            bare_name(php_trim(line.split('=').next().unwrap_or_default())),
            LineFault::QuoteOpen,
        );
    }
    (values, malformed)
}

/// What Laravel's `env()` makes of a value: one pair of quotes around it goes, and these words have a meaning.
#[must_use]
pub fn laravel_env_value(value: &str) -> Cow<'_, str> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "(true)" => "true".into(),
        "false" | "(false)" => "false".into(),
        "empty" | "(empty)" | "null" | "(null)" => "".into(),
        _ => strip_quotes(value).filter(|inside| !inside.contains('\n')).unwrap_or(value).into(),
    }
}

type NumberedEntry<'a> = (usize, Cow<'a, str>);

/// The entries, each with the number of its first line; and the one whose quote is never closed, if there is one.
fn split_entries(text: &str) -> (Vec<NumberedEntry<'_>>, Option<(usize, &str)>) {
    let mut entries: Vec<NumberedEntry<'_>> = Vec::new();
    let mut open: Option<(usize, &str, Vec<&str>)> = None;
    for (line, number) in split_lines(text).zip(1..) {
        let entry: NumberedEntry<'_> = if let Some((first, start, mut parts)) = open.take() {
            parts.push(line);
            if !has_closing_quotes(line, 1) {
                open = Some((first, start, parts));
                continue;
            }
            (first, parts.join("\n").into())
        } else if line.contains("=\"") && !has_closing_quotes(line, 2) {
            open = Some((number, line, vec![line]));
            continue;
        } else {
            (number, line.into())
        };
        let text = php_trim(&entry.1);
        if !text.is_empty() && !text.starts_with('#') {
            entries.push(entry);
        }
    }
    (entries, open.map(|(number, start, _)| (number, start)))
}

/// Lines end at \r\n, \n or \r, as for phpdotenv.
fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(['\r', '\n']) else {
            rest = None;
            return Some(text);
        };
        let after = text[at..].strip_prefix("\r\n").unwrap_or(&text[at + 1..]);
        rest = Some(after);
        Some(&text[..at])
    })
}

/// Whether at least so many double quotes without a backslash before them are in the line, none of them at its start.
/// It decides, as phpdotenv does, where a value of several lines ends.
fn has_closing_quotes(line: &str, quotes: usize) -> bool {
    let without_pairs = line.replace(r"\\", "");
    let is_quote = |pair: &&[u8]| pair[0] != b'\\' && pair[1] == b'"';
    line == "\"" || without_pairs.as_bytes().windows(2).filter(is_quote).count() >= quotes
}

/// The characters that PHP's `trim` removes.
fn php_trim(text: &str) -> &str {
    text.trim_matches([' ', '\n', '\r', '\t', '\0', '\u{b}'])
}

/// The characters of PHP's `ctype_space`.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\n' | '\r' | '\t' | '\u{b}' | '\u{c}')
}

/// The name without `export` before it and without quotes around it, as phpdotenv reads it.
fn bare_name(text: &str) -> &str {
    let text = text
        .strip_prefix("export")
        // phpdotenv does not see it before names of one letter.
        .filter(|rest| rest.starts_with(is_space) && text.chars().count() > 8)
        .map_or(text, |rest| rest.trim_start_matches(is_space));
    strip_quotes(text).filter(|inside| !inside.is_empty()).unwrap_or(text)
}

/// The text between two equal quotes; `None` if there are none around it.
fn strip_quotes(text: &str) -> Option<&str> {
    let between = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    between('"').or_else(|| between('\''))
}

fn is_name(text: &str) -> bool {
    let is_part = |char: char| char.is_alphanumeric() || char == '_' || char == '.';
    !text.is_empty() && text.chars().all(is_part)
}

/// A value whose variables are not replaced yet.
#[derive(Debug, Default)]
struct UnexpandedValue {
    text: String,
    /// Indexes of each `$` that may begin a variable. One after a backslash or in single quotes is not here.
    variables: Vec<usize>,
}

impl UnexpandedValue {
    fn push(&mut self, character: char) {
        if character == '$' {
            self.variables.push(self.text.len());
        }
        self.text.push(character);
    }

    /// Replaces the variables from the last one to the first, as phpdotenv does. An unknown variable stays as it is
    /// written.
    fn insert_variables(
        self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<String, LineFault> {
        let mut text = self.text;
        for at in self.variables.into_iter().rev() {
            let name = text[at..].strip_prefix("${").and_then(|inner| inner.split_once('}'));
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
            let name = name.map(|(name, _)| name).filter(|name| !name.is_empty());
            let Some(name) = name.filter(|name| name.bytes().all(is_part)) else { continue };
            if let Some(found) = lookup(name) {
                let end = at + "${}".len() + name.len();
                if text.len() + found.len() > VALUE_BYTES_MAX {
                    return Err(LineFault::TooLong);
                }
                text.replace_range(at..end, &found);
            }
        }
        Ok(text)
    }
}

fn read_value(text: &str) -> Result<UnexpandedValue, LineFault> {
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, after) = quoted.split_once('\'').ok_or(LineFault::QuoteOpen)?;
        return check_end_of_value(after)
            .map(|()| UnexpandedValue { text: value.to_owned(), variables: Vec::new() });
    }
    if let Some(quoted) = text.strip_prefix('"') {
        return read_double_quoted(quoted);
    }
    let end = text.find(|char: char| char == '#' || is_space(char)).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    check_end_of_value(after)?;
    let mut value = UnexpandedValue::default();
    word.chars().for_each(|char| value.push(char));
    Ok(value)
}

fn read_double_quoted(text: &str) -> Result<UnexpandedValue, LineFault> {
    let mut value = UnexpandedValue::default();
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        match character {
            '"' => return check_end_of_value(chars.as_str()).map(|()| value),
            '\\' => {
                let escaped = chars.next().ok_or(LineFault::QuoteOpen)?;
                value.text.push(unescape(escaped).ok_or(LineFault::Escape)?);
            }
            _ => value.push(character),
        }
    }
    Err(LineFault::QuoteOpen)
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

fn check_end_of_value(text: &str) -> Result<(), LineFault> {
    let text = text.trim_start_matches(is_space);
    if text.is_empty() || text.starts_with('#') { Ok(()) } else { Err(LineFault::Trailing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HashMap<String, String>, Vec<String>> {
        let environment = [("FROM_ENV".to_owned(), "outer".to_owned())].into();
        let (values, malformed) = parse(text.as_bytes(), &environment);
        let problems: Vec<String> = malformed.into_iter().map(|line| line.sentence).collect();
        if problems.is_empty() { Ok(values) } else { Err(problems) }
    }

    /// What `env("X")` gives.
    enum Laravel {
        Is(&'static str),
        /// Nothing: `null`.
        Unset,
        /// phpdotenv throws.
        Fails,
    }
    use Laravel::{Fails, Is, Unset};

    /// Files and what PHP 8.2, phpdotenv 5.6 and Laravel's `Env` made of them; FROM_ENV is "outer" in the environment.
    #[rustfmt::skip]
    const BY_LARAVEL: &[(&str, Laravel)] = &[
        ("X=\" s3cret \"", Is(" s3cret ")),
        ("X=\"'s3cret'\"", Is("s3cret")),
        ("X=' s3cret'", Is(" s3cret")),
        ("X=s3cret", Is("s3cret")),
        ("X='\"s3cret\"'", Is("s3cret")),
        ("X=\"\\\"s3cret\\\"\"", Is("s3cret")),
        ("X=a b", Fails),
        ("X=a#b", Is("a")),
        ("X=\"a\" # c", Is("a")),
        ("X='a' b", Fails),
        ("X=\"a\\q\"", Fails),
        ("X=\"a\nb\"", Is("a\nb")),
        ("X='a\nb'", Fails),
        ("X='it''s'", Fails),
        ("X=${FROM_ENV}", Is("outer")),
        ("X=\"${Y}\"\nY=1", Is("${Y}")),
        ("Y=in\nX='${Y}'", Is("${Y}")),
        ("Y=in\nX=${Y}x", Is("inx")),
        ("export X=1", Fails),
        ("X = 1", Is("1")),
        ("X= 1", Is("1")),
        ("X=", Is("")),
        ("X=null", Is("")),
        ("X=NULL", Is("")),
        ("X=(null)", Is("")),
        ("X=true", Is("true")),
        ("X=(True)", Is("true")),
        ("X=empty", Is("")),
        ("X=(empty)", Is("")),
        ("X=\"true\"", Is("true")),
        ("X=\" null \"", Is(" null ")),
        ("X=\"null\"", Is("")),
        ("X=a\\nb", Is("a\\nb")),
        ("X=\"a\\nb\"", Is("a\nb")),
        ("X='a\\nb'", Is("a\\nb")),
        ("X=a'b", Is("a'b")),
        ("X=a\"b", Is("a\"b")),
        ("X=\"\"", Is("")),
        ("X=''", Is("")),
        ("X=\"''\"", Is("")),
        ("X=\"'\"", Is("'")),
        ("X=\"'a\"", Is("'a")),
        ("X=\"'a' b'\"", Is("a' b")),
        ("\"X\"=1", Is("1")),
        ("'X'=1", Is("1")),
        ("X=1\nX=2", Is("2")),
        ("FROM_ENV=inner\nX=${FROM_ENV}", Is("outer")),
        ("X=\"a\rb\"", Is("a\nb")),
        ("X=1\r\nY=2\r\n", Is("1")),
        ("\tX=1", Is("1")),
        ("X=\"a\\$b\"", Is("a$b")),
        ("X=$Y", Is("$Y")),
        ("X=\"${Y\"", Is("${Y")),
        ("X=${FROM_ENV", Is("${FROM_ENV")),
        ("X=a=b", Is("a=b")),
        ("X", Unset),
        ("=1", Fails),
        ("X-Y=1", Fails),
        ("X=é", Is("é")),
        ("X=\"a\"b", Fails),
        ("#X=1", Unset),
        ("X='a'#c", Is("a")),
        ("X=a;b", Is("a;b")),
        ("X=\"a\nY=2\nb\"\nZ=3", Is("a\nY=2\nb")),
        ("X='a", Fails),
        ("X=\"'a\nb'\"", Is("'a\nb'")),
        ("X.Y=1", Unset),
        ("X=a\\", Is("a\\")),
        ("X=\"a\\\\\"", Is("a\\")),
        ("X=  \"a\"", Is("a")),
        ("X=# c", Is("")),
        ("X= # c", Is("")),
        ("X=\"# c\"", Is("# c")),
        ("export  X = \"1\"", Is("1")),
        ("exportX=1", Unset),
        ("X=\"\\t\\f\\v\\r\"", Is("\t\u{c}\u{b}\r")),
        ("X=${X}", Is("${X}")),
        ("X=1\nX=${X}2", Is("12")),
        ("X=\"${FROM_ENV}${FROM_ENV}\"", Is("outerouter")),
        ("X=\\${FROM_ENV}", Is("\\outer")),
        ("X=\"\\${FROM_ENV}\"", Is("${FROM_ENV}")),
        ("X=tRuE", Is("true")),
        ("X=yes", Is("yes")),
        ("X=\"  \"", Is("  ")),
        ("X='  x  '", Is("  x  ")),
        ("X=a\u{a0}b", Is("a\u{a0}b")),
        ("X=a\u{b}b", Fails),
        ("X=a\u{c}b", Fails),
        ("X=${FROM_ENV} ", Is("outer")),
        ("X=\u{2003}a", Is("\u{2003}a")),
        ("X=\"a\" \"b\"", Fails),
    ];

    #[test]
    fn files_are_read_as_php_read_them() {
        for (text, laravel) in BY_LARAVEL {
            let values = read(text);
            let given =
                values.as_ref().map(|values| values.get("X").map(|value| laravel_env_value(value)));
            match laravel {
                Is(value) => assert_eq!(given, Ok(Some((*value).into())), "{text:?}"),
                // To this server nothing and an empty value are the same.
                Unset => assert!(
                    matches!(given.as_ref().map(|given| given.as_deref()), Ok(None | Some(""))),
                    "{text:?}: {given:?}"
                ),
                Fails => assert!(values.is_err(), "{text:?}: {given:?}"),
            }
        }
    }

    /// phpdotenv discards the rest of such a file silently.
    #[test]
    fn values_that_double_with_each_line_are_reported() {
        let lines = (1..60).map(|number| {
            let before = number - 1;
            format!("A{number}=\"${{A{before}}}${{A{before}}}\"\n")
        });
        let problems = read(&format!("A0=x\n{}", lines.collect::<String>())).unwrap_err();
        assert!(
            problems[0].starts_with("line 17 (A16) is malformed: with its variables"),
            "{problems:?}"
        );
        assert!(read(&format!("X={}", "x".repeat(100_000))).is_ok());
    }

    #[test]
    fn a_value_that_never_ends_is_reported() {
        for text in ["X=\"a", "X=\"a\\\"", "X='a=\"b'\nY=1", "# an example: X=\"a\nX=1"] {
            let problems = read(text).unwrap_err();
            assert!(problems[0].contains("its quote is not closed"), "{text:?}: {problems:?}");
        }
    }

    #[test]
    fn values_are_those_that_laravel_reads() {
        for (text, value) in [
            ("X=plain", "plain"),
            ("X=", ""),
            ("X= # comment", ""),
            ("X=\"\"", ""),
            ("X=\"My App\"", "My App"),
            ("X='My App' # comment", "My App"),
            ("  export  X = spaced  ", "spaced"),
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
        assert!(parse(b"X=caf\xe9\nY=1\n", &HashMap::new()).0.contains_key("Y"));
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
