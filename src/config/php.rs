//! Reads the array that a PHP configuration file returns, without running PHP. PURE.
//!
//! Owns no state. A file of Laravel's `config/` folder is `return [...]` of nested arrays whose values are literals,
//! calls of `env()` or other code. This reader knows literals and `env()`; everything else becomes `PhpValue::Code`,
//! with the calls of `env()` in it. It never fails: text that is no such file gives `None`. Does not know which keys
//! Reverb has.
//!
//! Limits: `BYTES_MAX` of input, `DEPTH_MAX` nested arrays. Cost: linear in the text, with one allocation for each
//! token; once at the start and at each reload.

/// Longest file that is read. Reverb's has 3 KiB, so a longer one is no configuration file.
pub(super) const BYTES_MAX: usize = 256 << 10;
/// Most arrays within arrays; Reverb's file has seven levels.
const DEPTH_MAX: usize = 24;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum PhpValue {
    /// A text, a number as it is written without `_`, or `true` and `false`.
    Scalar(String),
    Null,
    /// Elements in their order; those without a key have none.
    Array(Vec<(Option<String>, PhpValue)>),
    /// `env('NAME', default)` alone, so that its value is known.
    Env(EnvCall),
    /// Anything else, with the calls of `env()` in it.
    Code(Vec<EnvCall>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct EnvCall {
    pub(super) name: String,
    pub(super) default: Box<PhpValue>,
}

#[derive(Clone, Debug, PartialEq)]
enum PhpToken {
    Text(String),
    /// A number as it is written without `_`.
    Number(String),
    /// A name of a function, class or constant, in lower case.
    Word(String),
    /// `$variable`, text with variables in it, and heredocs.
    Dynamic,
    Arrow,
    Sign(char),
}

/// The array that the file returns. `None` if the file does not start with `<?php`, is too long, or returns no array.
pub(super) fn parse_returned_array(text: &str) -> Option<PhpValue> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let mut tokens = Vec::new();
    let mut lexer = Lexer { rest: text.split_once("<?php")?.1 };
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    let mut depth = 0_usize;
    let at = tokens.iter().position(|token| match token {
        PhpToken::Sign('(' | '[' | '{') => {
            depth += 1;
            false
        }
        PhpToken::Sign(')' | ']' | '}') => {
            depth = depth.saturating_sub(1);
            false
        }
        PhpToken::Word(word) => depth == 0 && word == "return",
        _ => false,
    })?;
    let mut parser = Parser { tokens: &tokens, at: at + 1 };
    let value = parser.expression(0);
    matches!(value, PhpValue::Array(_)).then_some(value)
}

struct Lexer<'a> {
    rest: &'a str,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<PhpToken> {
        loop {
            self.rest = self.rest.trim_start();
            let rest = self.rest;
            if let Some(comment) = rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, after)| after);
            } else if rest.starts_with("//") || (rest.starts_with('#') && !rest.starts_with("#[")) {
                self.rest = rest.split_once(['\n', '\r']).map_or("", |(_, after)| after);
            } else {
                break;
            }
        }
        let rest = self.rest;
        let first = rest.chars().next()?;
        // What follows is text for the output and no PHP.
        if rest.starts_with("?>") {
            self.rest = "";
            return None;
        }
        if let Some(after) = rest.strip_prefix("=>") {
            self.rest = after;
            return Some(PhpToken::Arrow);
        }
        if rest.starts_with("<<<") {
            return Some(self.heredoc());
        }
        Some(match first {
            '\'' => self.single_quoted(),
            '"' => self.double_quoted(),
            '0'..='9' => {
                PhpToken::Number(self.word_while(is_of_number).replace('_', "").to_lowercase())
            }
            '$' => {
                self.rest = &rest[1..];
                self.word_while(is_of_word);
                PhpToken::Dynamic
            }
            _ if is_of_word(first) => {
                PhpToken::Word(self.word_while(is_of_word).trim_start_matches('\\').to_lowercase())
            }
            _ => {
                self.rest = &rest[first.len_utf8()..];
                PhpToken::Sign(first)
            }
        })
    }

    fn word_while(&mut self, is_part: fn(char) -> bool) -> String {
        let end = self.rest.find(|char| !is_part(char)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn single_quoted(&mut self) -> PhpToken {
        let mut text = String::new();
        let mut chars = self.rest[1..].chars();
        while let Some(char) = chars.next() {
            match char {
                '\'' => break,
                '\\' => match chars.next() {
                    Some(escaped @ ('\'' | '\\')) => text.push(escaped),
                    Some(other) => text.extend(['\\', other]),
                    None => break,
                },
                _ => text.push(char),
            }
        }
        self.rest = chars.as_str();
        PhpToken::Text(text)
    }

    /// Escapes of numbers (`\x41`) stay as they are, because no option is written with them.
    fn double_quoted(&mut self) -> PhpToken {
        let mut text = String::new();
        let mut is_dynamic = false;
        let mut chars = self.rest[1..].chars();
        while let Some(char) = chars.next() {
            match char {
                '"' => break,
                '\\' => match chars.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(escaped @ ('"' | '\\' | '$')) => text.push(escaped),
                    Some(other) => text.extend(['\\', other]),
                    None => break,
                },
                '$' => {
                    is_dynamic |=
                        chars.as_str().starts_with(|next: char| next == '{' || is_of_word(next));
                    text.push(char);
                }
                '{' => {
                    is_dynamic |= chars.as_str().starts_with('$');
                    text.push(char);
                }
                _ => text.push(char),
            }
        }
        self.rest = chars.as_str();
        if is_dynamic { PhpToken::Dynamic } else { PhpToken::Text(text) }
    }

    /// Skips a heredoc: up to the line that starts with its label, which may be indented (PHP 7.3).
    fn heredoc(&mut self) -> PhpToken {
        let after = self.rest[3..].trim_start_matches([' ', '\t', '\'', '"']);
        let end = after.find(|char| !is_of_word(char)).unwrap_or(after.len());
        let (label, mut rest) = after.split_at(end);
        if label.is_empty() {
            self.rest = after;
            return PhpToken::Dynamic;
        }
        while let Some((_, next)) = rest.split_once('\n') {
            rest = next;
            if let Some(after) = next.trim_start_matches([' ', '\t']).strip_prefix(label)
                && !after.starts_with(is_of_word)
            {
                self.rest = after;
                return PhpToken::Dynamic;
            }
        }
        self.rest = "";
        PhpToken::Dynamic
    }
}

fn is_of_word(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '\\')
}

fn is_of_number(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '.')
}

struct Parser<'a> {
    tokens: &'a [PhpToken],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self, ahead: usize) -> Option<&PhpToken> {
        self.tokens.get(self.at + ahead)
    }

    fn is_sign(&self, ahead: usize, sign: char) -> bool {
        self.peek(ahead) == Some(&PhpToken::Sign(sign))
    }

    /// Whether the next token ends an expression, or none follows.
    fn is_at_end(&self) -> bool {
        matches!(
            self.peek(0),
            None | Some(PhpToken::Arrow | PhpToken::Sign(',' | ')' | ']' | '}' | ';'))
        )
    }

    /// One expression, up to the sign that ends it. An unknown one, or one that is nested too deeply, becomes `Code`.
    fn expression(&mut self, depth: usize) -> PhpValue {
        let start = self.at;
        let value = if depth < DEPTH_MAX { self.operand(depth) } else { None };
        match value {
            Some(value) if self.is_at_end() => value,
            _ => {
                self.at = start;
                self.skip_unknown_expression();
                PhpValue::Code(self.calls_of_env(start))
            }
        }
    }

    fn operand(&mut self, depth: usize) -> Option<PhpValue> {
        let token = self.peek(0)?.clone();
        if let PhpToken::Word(word) = &token
            && word == "env"
            && self.is_sign(1, '(')
        {
            return self.env(depth);
        }
        if let PhpToken::Word(word) = &token
            && word == "array"
            && self.is_sign(1, '(')
        {
            self.at += 2;
            return self.array(')', depth);
        }
        self.at += 1;
        match token {
            PhpToken::Text(text) => Some(PhpValue::Scalar(text)),
            PhpToken::Number(number) => Some(PhpValue::Scalar(self.product(number))),
            PhpToken::Word(word) => match word.as_str() {
                "true" | "false" => Some(PhpValue::Scalar(word)),
                "null" => Some(PhpValue::Null),
                _ => None,
            },
            PhpToken::Sign('-') => match self.peek(0)?.clone() {
                PhpToken::Number(number) => {
                    self.at += 1;
                    Some(PhpValue::Scalar(format!("-{number}")))
                }
                _ => None,
            },
            PhpToken::Sign('[') => self.array(']', depth),
            _ => None,
        }
    }

    /// A number, and numbers that follow as factors: people write times and sizes as `60 * 60`.
    fn product(&mut self, first: String) -> String {
        let mut product = first;
        while self.is_sign(0, '*') {
            let Some(PhpToken::Number(next)) = self.peek(1) else { break };
            let factors = (product.parse::<u64>().ok(), next.parse::<u64>().ok());
            let (Some(left), Some(right)) = factors else { break };
            let Some(result) = left.checked_mul(right) else { break };
            product = result.to_string();
            self.at += 2;
        }
        product
    }

    fn env(&mut self, depth: usize) -> Option<PhpValue> {
        let Some(PhpToken::Text(name)) = self.peek(2).cloned() else { return None };
        self.at += 3;
        let mut default = PhpValue::Null;
        if self.is_sign(0, ',') {
            self.at += 1;
            if !self.is_sign(0, ')') {
                default = self.expression(depth + 1);
            }
            if self.is_sign(0, ',') {
                self.at += 1;
            }
        }
        if !self.is_sign(0, ')') {
            return None;
        }
        self.at += 1;
        Some(PhpValue::Env(EnvCall { name, default: Box::new(default) }))
    }

    fn array(&mut self, end: char, depth: usize) -> Option<PhpValue> {
        let mut elements = Vec::new();
        loop {
            if self.is_sign(0, end) {
                self.at += 1;
                return Some(PhpValue::Array(elements));
            }
            let before = self.at;
            let mut value = self.expression(depth + 1);
            let mut key = None;
            if self.peek(0) == Some(&PhpToken::Arrow) {
                self.at += 1;
                key = Some(match value {
                    PhpValue::Scalar(text) => text,
                    // A key that only PHP knows is none of Reverb's.
                    _ => String::new(),
                });
                value = self.expression(depth + 1);
            }
            if self.peek(0) == Some(&PhpToken::Arrow) {
                // `fn () => ...`, and functions that return functions.
                let function = self.at;
                while self.peek(0) == Some(&PhpToken::Arrow) {
                    self.at += 1;
                    self.skip_unknown_expression();
                }
                value = PhpValue::Code(self.calls_of_env(function));
            }
            elements.push((key, value));
            if self.is_sign(0, ',') {
                self.at += 1;
            } else if !self.is_sign(0, end) || self.at == before {
                return None;
            }
        }
    }

    /// Skips an expression of any kind, up to the sign that ends it outside of all brackets.
    fn skip_unknown_expression(&mut self) {
        let mut depth = 0_usize;
        while let Some(token) = self.peek(0) {
            match token {
                PhpToken::Sign('(' | '[' | '{') => depth += 1,
                PhpToken::Sign(')' | ']' | '}') if depth > 0 => depth -= 1,
                _ if depth == 0 && self.is_at_end() => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// The calls of `env()` among the tokens from there to here, wherever they are. A default that is no literal
    /// becomes code. Calls within calls are found by the same pass.
    fn calls_of_env(&self, start: usize) -> Vec<EnvCall> {
        let tokens = &self.tokens[start..self.at];
        let is_call = |at: &usize| {
            let is_env = matches!(&tokens[*at], PhpToken::Word(word) if word == "env");
            is_env && tokens.get(at + 1) == Some(&PhpToken::Sign('('))
        };
        let calls = (0..tokens.len()).filter(is_call).filter_map(|at| {
            let Some(PhpToken::Text(name)) = tokens.get(at + 2) else { return None };
            let default = match (tokens.get(at + 3), tokens.get(at + 4), tokens.get(at + 5)) {
                (Some(PhpToken::Sign(')')), _, _) => PhpValue::Null,
                (Some(PhpToken::Sign(',')), Some(literal), Some(PhpToken::Sign(')' | ','))) => {
                    literal_of_token(literal)
                }
                _ => PhpValue::Code(Vec::new()),
            };
            Some(EnvCall { name: name.clone(), default: Box::new(default) })
        });
        calls.collect()
    }
}

fn literal_of_token(token: &PhpToken) -> PhpValue {
    match token {
        PhpToken::Text(text) | PhpToken::Number(text) => PhpValue::Scalar(text.clone()),
        PhpToken::Word(word) if word == "null" => PhpValue::Null,
        PhpToken::Word(word) if word == "true" || word == "false" => PhpValue::Scalar(word.clone()),
        _ => PhpValue::Code(Vec::new()),
    }
}

#[cfg(test)]
mod tests;
