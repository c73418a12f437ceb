//! Messages as text for a person at a terminal, in the form of `reverb:start --debug` (docs/PROTOCOL.md rule 123).
//! PURE: appends to a string that the caller shows.
//!
//! Owns the layout. Never writes a character that is not visible as it is: the text comes from clients and publishers
//! and must not control the terminal, so it is escaped. Signatures are cut. Limits: the constants below. Cost: linear
//! in the message, in time and in bytes of text; only with `--debug`.

use super::json::{self, Validator};
use crate::text::visible;

/// The width of Laravel's lines, even on a wider terminal.
const WIDTH_MAX: usize = 150;
/// Characters shown of one name or value.
const VALUE_MAX: usize = 200;
/// Deeper values are written on one line: each level is read once more, and each line is indented.
const DEPTH_MAX: usize = 16;
/// Lines shown of one message.
const LINES_MAX: usize = 500;
/// Characters of a signature that are enough to compare two of them by eye.
const SIGNATURE_SHOWN: usize = 8;

const BOLD_GREEN: &str = "\x1b[1;32m";
const CYAN: &str = "\x1b[36m";
const GRAY: &str = "\x1b[90m";
const PLAIN: &str = "\x1b[0m";

/// Appends a line of two columns, dots between them: `  Title ......... detail`.
pub fn two_columns(title: &str, detail: &str, width: usize, color: bool, out: &mut String) {
    const DOTS_MIN: usize = 3;
    let (mut left, mut right) = (String::new(), String::new());
    visible(title, usize::MAX, &mut left);
    visible(detail, usize::MAX, &mut right);
    let columns = |text: &str| text.chars().count();
    // Two spaces on each side, and one before and after the dots.
    let taken = 4 + columns(&left) + 1 + if right.is_empty() { 0 } else { columns(&right) + 1 };
    let dots = width.min(WIDTH_MAX).saturating_sub(taken).max(DOTS_MIN);
    out.push_str("  ");
    write_painted(&left, BOLD_GREEN, color, out);
    out.push(' ');
    write_painted(&".".repeat(dots), GRAY, color, out);
    if !right.is_empty() {
        out.push(' ');
        out.push_str(&right);
    }
    out.push('\n');
}

/// Appends a message as numbered lines of JSON, each with its line break. `data`, and `channel_data` and `user_data` in
/// it, are decoded if they are strings that contain JSON. Text that is not JSON is one line.
pub fn pretty_frame(frame: &[u8], color: bool, out: &mut String) {
    let mut validator = Validator::default();
    let text = validator.check(frame);
    let mut printer = Printer { out, color, margin: Margin::Numbers, lines: 0, validator };
    printer.line(0);
    match text {
        Some(text) => printer.value(text.trim_ascii(), 0, Place::Message),
        None => visible(&String::from_utf8_lossy(frame), VALUE_MAX, printer.out),
    }
    printer.out.push('\n');
}

/// Appends the `data` of a message as indented lines of JSON, decoded if it is a string that contains JSON. `data` is a
/// span of text that `Validator` has accepted.
pub fn pretty_data(data: &str, color: bool, out: &mut String) {
    let validator = Validator::default();
    let mut printer = Printer { out, color, margin: Margin::Spaces, lines: 0, validator };
    printer.line(0);
    printer.decoded(data, 0, Place::Data);
    printer.out.push('\n');
}

fn write_painted(text: &str, paint: &str, color: bool, out: &mut String) {
    if color {
        out.push_str(paint);
        out.push_str(text);
        out.push_str(PLAIN);
    } else {
        out.push_str(text);
    }
}

#[derive(Clone, Copy)]
enum Margin {
    Numbers,
    Spaces,
}

/// Where a value is, which decides which of its members may be JSON in a string.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Message,
    Data,
    Inside,
}

impl Place {
    /// The place of the member's value, if that is decoded.
    fn decodes(self, name: &str) -> Option<Self> {
        let is_one_of = |names: &[&str]| names.iter().any(|known| json::is_name(name, known));
        match self {
            Self::Message if is_one_of(&["data"]) => Some(Self::Data),
            Self::Data if is_one_of(&["channel_data", "user_data"]) => Some(Self::Inside),
            _ => None,
        }
    }
}

struct Printer<'a> {
    out: &'a mut String,
    color: bool,
    margin: Margin,
    /// Lines begun so far. Over `LINES_MAX` the rest of the message is left out.
    lines: usize,
    validator: Validator,
}

impl Printer<'_> {
    /// Starts a line, and ends the one before.
    fn line(&mut self, depth: usize) {
        if self.lines > 0 {
            self.out.push('\n');
        }
        self.lines += 1;
        match self.margin {
            Margin::Numbers => {
                write_painted(&format!("{:>3}▕", self.lines), GRAY, self.color, self.out);
                self.out.push(' ');
            }
            Margin::Spaces => self.out.push_str("  "),
        }
        self.out.extend(std::iter::repeat_n("    ", depth));
    }

    fn value(&mut self, span: &str, depth: usize, place: Place) {
        if depth == DEPTH_MAX {
            return visible(span, VALUE_MAX, self.out);
        }
        match span.as_bytes().first() {
            Some(b'{') => self.object(span, depth, place),
            Some(b'[') => self.array(span, depth),
            Some(b'"') => write_quoted(span, self.out),
            _ => visible(span, VALUE_MAX, self.out),
        }
    }

    fn object(&mut self, span: &str, depth: usize, place: Place) {
        self.out.push('{');
        let mut has_content = false;
        for (name, value) in json::members(span).into_iter().flatten() {
            if has_content {
                self.out.push(',');
            }
            has_content = true;
            self.line(depth + 1);
            if self.lines > LINES_MAX {
                self.out.push('…');
                break;
            }
            self.member(name, value, depth + 1, place);
        }
        self.close('}', has_content, depth);
    }

    fn array(&mut self, span: &str, depth: usize) {
        self.out.push('[');
        let mut has_content = false;
        for value in json::elements(span).into_iter().flatten() {
            if has_content {
                self.out.push(',');
            }
            has_content = true;
            self.line(depth + 1);
            if self.lines > LINES_MAX {
                self.out.push('…');
                break;
            }
            self.value(value, depth + 1, Place::Inside);
        }
        self.close(']', has_content, depth);
    }

    /// An empty object or array stays on its line, as PHP writes it.
    fn close(&mut self, bracket: char, has_content: bool, depth: usize) {
        if has_content {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn member(&mut self, name: &str, value: &str, depth: usize, place: Place) {
        let mut shown = String::new();
        write_quoted(name, &mut shown);
        write_painted(&shown, CYAN, self.color, self.out);
        self.out.push_str(": ");
        if json::is_name(name, "auth") && value.starts_with('"') {
            self.signature(value);
        } else if let Some(place) = place.decodes(name) {
            self.decoded(value, depth, place);
        } else {
            self.value(value, depth, Place::Inside);
        }
    }

    /// A value that may be JSON in a string.
    fn decoded(&mut self, value: &str, depth: usize, place: Place) {
        let text = json::string(value);
        match text.as_ref().and_then(|text| self.validator.check(text.as_bytes())) {
            Some(text) => self.value(text.trim_ascii(), depth, place),
            None => self.value(value, depth, place),
        }
    }

    /// Cut to `key:58df8b0c…`, so that a reader of the log cannot use the signature.
    fn signature(&mut self, value: &str) {
        let text = json::string(value).unwrap_or_default();
        let (key, signature) = text.rsplit_once(':').unwrap_or(("", &text));
        self.out.push('"');
        visible(key, VALUE_MAX, self.out);
        if text.contains(':') {
            self.out.push(':');
        }
        visible(signature, SIGNATURE_SHOWN, self.out);
        self.out.push('"');
    }
}

/// A string without being decoded: at most `VALUE_MAX` characters of its span.
fn write_quoted(span: &str, out: &mut String) {
    let inside = span.strip_prefix('"').and_then(|span| span.strip_suffix('"'));
    out.push('"');
    visible(inside.unwrap_or(span), VALUE_MAX, out);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::is_hidden;
    use proptest::prelude::*;

    fn frame(text: &str) -> String {
        let mut out = String::new();
        pretty_frame(text.as_bytes(), false, &mut out);
        out
    }

    fn columns(title: &str, detail: &str, width: usize, color: bool) -> String {
        let mut out = String::new();
        two_columns(title, detail, width, color, &mut out);
        out
    }

    #[test]
    fn columns_are_joined_by_dots() {
        assert_eq!(
            columns("Message Received", "1.2", 40, false),
            "  Message Received ............... 1.2\n"
        );
        assert_eq!(columns("Pruning", "", 20, false), "  Pruning ........\n");
        assert_eq!(columns("A", "B", 1000, false).trim_end().len(), WIDTH_MAX - 2);
        // What does not fit is longer, not cut.
        assert_eq!(
            columns("Broadcasting To room", "1.2", 10, false),
            "  Broadcasting To room ... 1.2\n"
        );
        assert_eq!(columns("A", "B", 12, true), "  \x1b[1;32mA\x1b[0m \x1b[90m....\x1b[0m B\n");
        assert_eq!(columns("a\nb", "\x1b[2J", 0, false), "  a\\nb ... \\u001b[2J\n");
    }

    #[test]
    fn a_subscription_is_decoded_and_its_signature_cut() {
        let text = concat!(
            r#"{"event":"pusher:subscribe","data":"{\"auth\":\"app-key:58df8b0c36d6982b82\","#,
            r#"\"channel_data\":\"{\\\"user_id\\\":7,\\\"user_info\\\":{}}\",\"channel\":\"presence-r\"}"}"#
        );
        let expected = r#"  1▕ {
  2▕     "event": "pusher:subscribe",
  3▕     "data": {
  4▕         "auth": "app-key:58df8b0c…",
  5▕         "channel_data": {
  6▕             "user_id": 7,
  7▕             "user_info": {}
  8▕         },
  9▕         "channel": "presence-r"
 10▕     }
 11▕ }
"#;
        assert_eq!(frame(text), expected);
    }

    #[test]
    fn only_the_named_strings_are_decoded() {
        let text = r#"{"data":{"user_data":"{\"id\":\"7\"}","data":"{}","list":[1, [ ] ,"[1]"]},"other":"{}"}"#;
        let expected = r#"  1▕ {
  2▕     "data": {
  3▕         "user_data": {
  4▕             "id": "7"
  5▕         },
  6▕         "data": "{}",
  7▕         "list": [
  8▕             1,
  9▕             [],
 10▕             "[1]"
 11▕         ]
 12▕     },
 13▕     "other": "{}"
 14▕ }
"#;
        assert_eq!(frame(text), expected);
        assert_eq!(
            frame(r#"{"data":"plain \"text\""}"#),
            "  1▕ {\n  2▕     \"data\": \"plain \\\"text\\\"\"\n  3▕ }\n"
        );
    }

    #[test]
    fn names_of_members_are_colored() {
        let mut out = String::new();
        pretty_frame(br#"{"event":"x"}"#, true, &mut out);
        let number = |number| format!("\x1b[90m  {number}▕\x1b[0m ");
        let expected = [
            number(1) + "{\n",
            number(2) + "    \x1b[36m\"event\"\x1b[0m: \"x\"\n",
            number(3) + "}\n",
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn long_values_are_cut() {
        let text = format!(r#"{{"{0}":"{0}","n":{1}}}"#, "é".repeat(201), "1".repeat(300));
        let cut = format!("{}…", "é".repeat(200));
        let expected = format!(
            "  1▕ {{\n  2▕     \"{cut}\": \"{cut}\",\n  3▕     \"n\": {}…\n  4▕ }}\n",
            "1".repeat(200)
        );
        assert_eq!(frame(&text), expected);
        assert_eq!(frame(&"x".repeat(201)), format!("  1▕ {}…\n", "x".repeat(200)));
        let many = frame(&format!("[{}1]", "1,".repeat(10_000)));
        assert_eq!(many.lines().count(), LINES_MAX + 2);
        assert!(
            many.ends_with("500▕     1,\n501▕     …\n502▕ ]\n"),
            "{}",
            &many[many.len() - 60..]
        );
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(
            frame("\u{1b}[2J\r\n\u{9b}31m\u{202e}x"),
            "  1▕ \\u001b[2J\\r\\n\\u009b31m\\u202ex\n"
        );
        assert_eq!(frame("\"\u{7f}\u{85}\\u001b\""), "  1▕ \"\\u007f\\u0085\\u001b\"\n");
        assert_eq!(frame(""), "  1▕ \n");
        let mut out = String::new();
        pretty_frame(b"\xff\x00", false, &mut out);
        assert_eq!(out, "  1▕ \u{fffd}\\u0000\n");
    }

    #[test]
    fn deep_values_stay_small() {
        let deep = frame(&format!("{}{}", "[".repeat(1000), "]".repeat(1000)));
        assert_eq!(deep.lines().count(), 2 * DEPTH_MAX + 1);
        let named = format!("{}1{}", r#"{"data":"#.repeat(300), "}".repeat(300));
        assert!(frame(&named).len() < 5_000);
    }

    #[test]
    fn data_is_printed_without_its_frame() {
        let shown = |data: &str| {
            let mut out = String::new();
            pretty_data(data, false, &mut out);
            out
        };
        assert_eq!(shown(r#""{\"id\":1}""#), "  {\n      \"id\": 1\n  }\n");
        assert_eq!(shown(r#"[1]"#), "  [\n      1\n  ]\n");
        assert_eq!(shown(r#""hello""#), "  \"hello\"\n");
    }

    /// The characters that text for a terminal is made of.
    fn is_clean(text: &str) -> bool {
        !text.chars().any(|character| character != '\n' && is_hidden(character))
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_shown(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = String::new();
            pretty_frame(&bytes, false, &mut out);
            let sound = is_clean(&out) && out.ends_with('\n');
            prop_assert!(sound, "{}", out);
        }

        #[test]
        fn arbitrary_messages_are_shown(name in ".*", value in ".*", text in "[\\[\\]{}:,\" \\\\a-z0-9]{0,60}") {
            let inner = serde_json::json!({ &name: &value, "channel_data": &text, "auth": &value });
            let message = serde_json::json!({ "event": &name, "data": inner.to_string() });
            let out = frame(&message.to_string());
            prop_assert!(is_clean(&out), "{}", out);
            prop_assert!(out.len() < 40 * (message.to_string().len() + 40));
            let _ = frame(&text);
        }

        #[test]
        fn a_short_text_is_shown_with_the_same_value(
            numbers in prop::collection::vec(any::<i64>(), 0..20),
            text in "[a-z\"\\\\/é]{0,50}",
        ) {
            let value = serde_json::json!({ "numbers": numbers, &text: { "b": [&text, null, true] } });
            let shown = frame(&value.to_string());
            let bare: String = shown.lines().map(|line| line.split_once('▕').unwrap().1).collect();
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&bare).unwrap(), value);
        }
    }
}
