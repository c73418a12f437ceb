//! Source text as the rules of the house read it: comments and literals are blanked, lines stay where they were.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder of the repository, sorted. They are read once for all tests.
pub(crate) fn sources(folder: &str) -> &'static [Source] {
    static SRC: OnceLock<Vec<Source>> = OnceLock::new();
    static BENCH: OnceLock<Vec<Source>> = OnceLock::new();
    let once = if folder == "src" { &SRC } else { &BENCH };
    once.get_or_init(|| {
        let mut paths = Vec::new();
        collect(&root().join(folder), &mut paths);
        read(paths)
    })
}

/// The tests of the package: `tests/*.rs`, what they share, and the bodies of the fuzz targets.
pub(crate) fn tests() -> &'static [Source] {
    static TESTS: OnceLock<Vec<Source>> = OnceLock::new();
    TESTS.get_or_init(read_tests)
}

fn read_tests() -> Vec<Source> {
    let files = fs::read_dir(root().join("tests")).expect("a folder").flatten();
    let mut paths: Vec<PathBuf> =
        files.map(|file| file.path()).filter(|path| is_rust(path)).collect();
    for folder in [
        "tests/autobahn",
        "tests/kernels",
        "tests/loom",
        "tests/process",
        "tests/simulator",
        "tests/tidy",
        "tests/tidy_documents",
        "tests/fuzz/bodies",
        "tests/fuzz/fuzz_targets",
    ] {
        let folder = root().join(folder);
        if folder.is_dir() {
            collect(&folder, &mut paths);
        }
    }
    read(paths)
}

fn read(mut paths: Vec<PathBuf>) -> Vec<Source> {
    assert!(!paths.is_empty());
    paths.sort();
    let source = |path: PathBuf| {
        let name =
            path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        Source::new(&name, fs::read_to_string(&path).expect("a source file"))
    };
    paths.into_iter().map(source).collect()
}

/// Calls `see` for each file below a folder but those that packages and interpreters put there, and hidden ones.
pub(crate) fn visit(folder: &Path, see: &mut dyn FnMut(&Path)) {
    const MADE: &[&str] = &["node_modules", "vendor", "target", "__pycache__"];
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.expect("a folder entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if MADE.contains(&&*name) || name.starts_with('.') || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            visit(&path, see);
        } else {
            see(&path);
        }
    }
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    visit(folder, &mut |path| paths.extend(is_rust(path).then(|| path.to_owned())));
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// What a character of a literal or comment is replaced with; lines stay where they were.
pub(crate) const BLANK: char = '\u{1}';

pub(crate) struct Source {
    /// Path from the root.
    pub(crate) name: String,
    pub(crate) text: String,
    /// Without literals and comments.
    pub(crate) code: String,
    /// Without literals, with comments.
    pub(crate) prose: String,
}

impl Source {
    pub(crate) fn new(name: &str, text: String) -> Self {
        let (mut code, mut prose) = (String::new(), String::new());
        let mut rest = text.as_str();
        let mut previous = ' ';
        while let Some(first) = rest.chars().next() {
            let (length, kind) = next_token(rest, previous);
            let (token, after) = rest.split_at(length);
            let blanked: String =
                token.chars().map(|char| if char == '\n' { char } else { BLANK }).collect();
            code.push_str(if kind == Token::Code { token } else { &blanked });
            prose.push_str(if kind == Token::Literal { &blanked } else { token });
            previous = first;
            rest = after;
        }
        Self { name: name.to_owned(), text, code, prose }
    }

    /// The module below the root that the file belongs to; `main.rs` counts as server, `lib.rs` is the root itself.
    pub(crate) fn top_module(&self) -> Option<String> {
        let path = self.name.strip_prefix("src/")?;
        let first = path.split('/').next()?.trim_end_matches(".rs");
        match first {
            "lib" => None,
            "main" => Some("server".to_owned()),
            module => Some(module.to_owned()),
        }
    }

    pub(crate) fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }

    /// Modules below the root that are named through `crate::`, or through enough `super::` to reach the root, by line.
    pub(crate) fn modules_named(&self, is_module: impl Fn(&str) -> bool) -> Vec<(usize, String)> {
        let depth = self.name.trim_end_matches("/mod.rs").matches('/').count();
        let mut named = Vec::new();
        let mut line = 1;
        let mut at = 0;
        while let Some(char) = self.code[at..].chars().next() {
            let starts = !self.code[..at].ends_with(is_word);
            let here = &self.code[at..];
            if starts && here.starts_with("crate::") {
                named.extend(heads(&here["crate::".len()..]).into_iter().map(|name| (line, name)));
            } else if starts && here.starts_with("super::") && !self.code[..at].ends_with("super::")
            {
                let climbed =
                    here.split("super::").skip(1).take_while(|between| between.is_empty()).count()
                        + 1;
                let target = heads(&here["super::".len() * climbed..]);
                if climbed >= depth {
                    named.extend(
                        target.into_iter().filter(|name| is_module(name)).map(|name| (line, name)),
                    );
                }
            }
            line += usize::from(char == '\n');
            at += char.len_utf8();
        }
        named
    }
}

/// The first word of a path, or of each path of a group in braces.
fn heads(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|char| is_word(*char)).collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut depth = 1;
    let mut names = vec![word(group.trim_start())];
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(word(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

pub(crate) fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

pub(crate) fn has_word(line: &str, word: &str) -> bool {
    words(line, word) > 0
}

pub(crate) fn words(line: &str, word: &str) -> usize {
    let whole = |at: usize| {
        let begins = !line[..at].ends_with(is_word);
        let ends = !word.ends_with(is_word) || !line[at + word.len()..].starts_with(is_word);
        begins && ends
    };
    line.match_indices(word).filter(|(at, _)| whole(*at)).count()
}

/// Code (without comments and literals) less the items under `#[cfg(test)]`; lines stay where they were.
pub(crate) fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut depth = 0;
        let end = rest.char_indices().find_map(|(at, char)| {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0 && matches!(char, '}' | ';')).then_some(at + 1)
        });
        let (item, after) = rest.split_at(end.unwrap_or(rest.len()));
        kept.extend(item.chars().filter(|char| *char == '\n'));
        rest = after;
    }
    kept + rest
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Code,
    Literal,
    Comment,
}

/// Length and kind of what starts here: a whole literal or comment, or one character of code.
fn next_token(rest: &str, previous: char) -> (usize, Token) {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Token::Comment);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), Token::Comment);
    }
    if rest.starts_with('"') {
        return (closing(rest, '"'), Token::Literal);
    }
    if rest.starts_with('\'') && is_char_literal(rest) {
        return (closing(rest, '\''), Token::Literal);
    }
    if let Some(raw) = rest.strip_prefix('r').filter(|_| !is_word(previous) || previous == 'b') {
        let hashes = raw.chars().take_while(|char| *char == '#').count();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = 1 + hashes + 1;
            let end = rest[start..].find(&close).map_or(rest.len(), |at| start + at + close.len());
            return (end, Token::Literal);
        }
    }
    (first, Token::Code)
}

/// A quote opens a character if one closes it behind one character or an escape; otherwise it is a lifetime.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

fn closing(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        if !escaped && char == quote {
            return at + 1;
        }
        escaped = !escaped && char == '\\';
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}
