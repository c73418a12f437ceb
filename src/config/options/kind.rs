//! What the value of an option may be: how it is read, described and shown. PURE.
//!
//! Owns the ranges, units and words of all options, so that the check of a value, the text of an error, `--help`,
//! `ringverb check` and docs/OPTIONS.md cannot disagree. Does not read values of other shapes than numbers and words
//! (addresses, URLs, lists): `validate.rs` does; here are their descriptions, and how they are shown without
//! credentials.
//!
//! Limits: the range of each number; the texts have none here, `load.rs` bounds the files. Cost: one allocation for a
//! description or a shown value; once at the start and for each command.

use super::super::sizes;

/// A maximum of this size or more is not named: such a number never stops an operator.
const NAMED_MAX: u64 = u32::MAX as u64;

#[derive(Clone, Copy, Debug)]
pub enum OptionKind {
    /// `true` or `false`, and the other forms that Laravel and PHP have for them.
    Bool,
    /// A whole number of `unit`, which is empty for a plain number.
    Number {
        unit: &'static str,
        min: u64,
        max: u64,
    },
    /// A number of bytes, which may have a unit: `64K`. `or_zero`: 0 is accepted too, below the minimum.
    Size {
        min: u64,
        max: u64,
        or_zero: bool,
    },
    Choice(&'static [&'static str]),
    /// Text of another shape, which `validate.rs` reads. The description completes "it takes ...".
    Text(&'static str),
    /// Text that is used exactly as it is, blanks and all, and is shown in quotes: an app's id or key, a user's name.
    Exact(&'static str),
    /// Exact text that nothing shows, not even its length.
    Secret(&'static str),
    /// Text that may contain credentials. `shown` leaves them out.
    Masked {
        accepts: &'static str,
        shown: fn(&str) -> String,
    },
    /// Texts separated by commas. The description is about one of them, or about all.
    List(&'static str),
}

/// A kind, with a note about special values.
#[derive(Clone, Copy, Debug)]
pub struct Accepts {
    pub kind: OptionKind,
    /// What an empty value or zero means; empty if nothing special.
    pub note: &'static str,
}

pub(super) const BOOL: Accepts = kind_alone(OptionKind::Bool);

pub(super) const fn kind_alone(kind: OptionKind) -> Accepts {
    Accepts { kind, note: "" }
}

pub(super) const fn number(min: u64, max: u64) -> Accepts {
    kind_alone(OptionKind::Number { unit: "", min, max })
}

pub(super) const fn seconds(min: u64, max: u64) -> Accepts {
    kind_alone(OptionKind::Number { unit: "seconds", min, max })
}

pub(super) const fn units(unit: &'static str, min: u64, max: u64) -> Accepts {
    kind_alone(OptionKind::Number { unit, min, max })
}

pub(super) const fn size(min: u64, max: u64) -> Accepts {
    kind_alone(OptionKind::Size { min, max, or_zero: false })
}

pub(super) const fn size_or_zero(min: u64, max: u64) -> Accepts {
    kind_alone(OptionKind::Size { min, max, or_zero: true })
}

pub(super) const fn choice(words: &'static [&'static str]) -> Accepts {
    kind_alone(OptionKind::Choice(words))
}

pub(super) const fn text(accepts: &'static str) -> Accepts {
    kind_alone(OptionKind::Text(accepts))
}

pub(super) const fn exact_text(accepts: &'static str) -> Accepts {
    kind_alone(OptionKind::Exact(accepts))
}

pub(super) const fn secret(accepts: &'static str) -> Accepts {
    kind_alone(OptionKind::Secret(accepts))
}

pub(super) const fn masked(shown: fn(&str) -> String, accepts: &'static str) -> Accepts {
    kind_alone(OptionKind::Masked { accepts, shown })
}

pub(super) const fn list(accepts: &'static str) -> Accepts {
    kind_alone(OptionKind::List(accepts))
}

impl Accepts {
    pub(super) const fn note(self, note: &'static str) -> Self {
        Self { kind: self.kind, note }
    }

    /// What is accepted, for error texts and `--help`: "seconds, 1 to 3600".
    #[must_use]
    pub fn sentence(&self) -> String {
        let sentence = match self.kind {
            OptionKind::Bool => "true or false".to_owned(),
            OptionKind::Number { unit: "", min, max } if max >= NAMED_MAX => {
                format!("a number, {min} or more")
            }
            OptionKind::Number { unit: "", min, max } => format!("a number from {min} to {max}"),
            OptionKind::Number { unit, min, max } if max >= NAMED_MAX => {
                format!("{unit}, {min} or more")
            }
            OptionKind::Number { unit, min, max } => format!("{unit}, {min} to {max}"),
            OptionKind::Size { min, max, .. } if max >= NAMED_MAX => {
                format!("bytes, or a size such as 64K: at least {}", sizes::format_short(min))
            }
            OptionKind::Size { min, max, .. } => format!(
                "bytes, or a size such as 64K: {} to {}",
                sizes::format_short(min),
                sizes::format_short(max)
            ),
            OptionKind::Choice(words) => alternatives(words),
            OptionKind::Text(accepts)
            | OptionKind::Exact(accepts)
            | OptionKind::Secret(accepts)
            | OptionKind::Masked { accepts, .. }
            | OptionKind::List(accepts) => accepts.to_owned(),
        };
        if self.note.is_empty() { sentence } else { format!("{sentence}; {}", self.note) }
    }
}

/// The words as a sentence has them: `a, b or c`.
fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

impl OptionKind {
    /// The number that a text stands for, if it is one of this kind and in range.
    #[must_use]
    pub fn number(&self, text: &str) -> Option<u64> {
        let (number, min, max) = match *self {
            Self::Number { min, max, .. } => (text.replace('_', "").parse::<u64>().ok()?, min, max),
            Self::Size { min, max, or_zero } => match sizes::parse(text)? {
                0 if or_zero => return Some(0),
                size => (size, min, max),
            },
            _ => return None,
        };
        (min..=max).contains(&number).then_some(number)
    }

    #[must_use]
    pub fn index_of_word(&self, text: &str) -> Option<usize> {
        match self {
            Self::Choice(words) => words.iter().position(|word| *word == text),
            _ => None,
        }
    }

    /// Whether blanks at its ends are part of the value.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_) | Self::Secret(_))
    }

    /// Whether only the owner may see the value as it is.
    #[must_use]
    pub fn is_confidential(&self) -> bool {
        matches!(self, Self::Secret(_) | Self::Masked { .. })
    }

    /// The value as anybody may see it: in messages, logs and `ringverb check`.
    #[must_use]
    pub fn shown(&self, value: &str) -> String {
        match self {
            Self::Secret(_) => "********".to_owned(),
            Self::Masked { shown, .. } => shown(value),
            _ => value.to_owned(),
        }
    }

    /// The value as it may stand in `ringverb.toml`, with secrets masked.
    #[must_use]
    pub fn toml(&self, value: &str) -> String {
        match self {
            Self::Bool => match boolean(value) {
                Some(value) => value.to_string(),
                None => format!("{value:?}"),
            },
            // Text is text, also when it looks like a number.
            Self::Exact(_) | Self::Secret(_) | Self::Masked { .. } => {
                format!("{:?}", self.shown(value))
            }
            _ if value.parse::<u64>().is_ok() => value.to_owned(),
            _ => format!("{value:?}"),
        }
    }
}

/// The forms in which PHP and Laravel write booleans. `None` for any other text.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "(true)" | "1" | "on" | "yes" => Some(true),
        "false" | "(false)" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_describes_the_values_that_it_accepts() {
        for (accepts, sentence) in [
            (BOOL, "true or false"),
            (number(0, 65_535), "a number from 0 to 65535"),
            (
                number(1, NAMED_MAX).note("empty for no limit"),
                "a number, 1 or more; empty for no limit",
            ),
            (seconds(1, 3_600), "seconds, 1 to 3600"),
            (seconds(0, NAMED_MAX), "seconds, 0 or more"),
            (size(512, 16 << 20), "bytes, or a size such as 64K: 512 to 16M"),
            (size(1 << 16, NAMED_MAX), "bytes, or a size such as 64K: at least 64K"),
            (choice(&["json"]), "json"),
            (choice(&["auto", "io_uring", "epoll"]), "auto, io_uring or epoll"),
            (secret("text"), "text"),
        ] {
            assert_eq!(accepts.sentence(), sentence);
        }
    }

    #[test]
    fn numbers_have_a_range_and_sizes_a_unit() {
        let Accepts { kind, .. } = seconds(1, 3_600);
        let numbers = ["1", "3_600", "0", "3601", "-1", "1K", ""].map(|text| kind.number(text));
        assert_eq!(numbers, [Some(1), Some(3_600), None, None, None, None, None]);
        let Accepts { kind, .. } = size(1 << 10, 1 << 20);
        let sizes = ["1024", "1M", "1023", "1025K"].map(|text| kind.number(text));
        assert_eq!(sizes, [Some(1 << 10), Some(1 << 20), None, None]);
        let Accepts { kind, .. } = size_or_zero(1 << 10, 1 << 20);
        assert_eq!(["0", "1"].map(|text| kind.number(text)), [Some(0), None]);
        assert_eq!(BOOL.kind.number("1"), None);
    }

    #[test]
    fn nothing_secret_is_shown() {
        assert_eq!(secret("text").kind.shown("hunter2"), "********");
        assert_eq!(secret("text").kind.toml("hunter2"), "\"********\"");
        let hidden = masked(|_| "host".to_owned(), "a URL").kind;
        assert_eq!(
            (hidden.shown("u:p@host"), hidden.toml("u:p@host")),
            ("host".into(), "\"host\"".into())
        );
        assert_eq!(exact_text("text").kind.toml("0815"), "\"0815\"");
        assert_eq!(
            (BOOL.kind.toml("on"), number(0, 9).kind.toml("7")),
            ("true".into(), "7".into())
        );
    }
}
