//! Lines of a terminal: text with styles, cut and filled to a width, beside one another, and the curves and bars of
//! `ringverb top`.
//!
//! Owns nothing between two frames, and does not write to the terminal. A character counts as one column: the program's
//! own texts are so, and names of hosts are ASCII; a wider one shifts its line, which the terminal cuts.
//! Limits: a line has as many columns as the terminal, a frame as many lines. Cost: linear in the characters of a
//! frame; some allocations for each line.

use std::iter;

use super::terminal::ScreenSize;

/// What ends a style, in numbers of "Select Graphic Rendition" (ECMA-48, 8.3.117), as the others here.
const RESET: &str = "\x1b[0m";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TextStyle {
    #[default]
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
    BlackOnRed,
    BlackOnGreen,
    BlackOnYellow,
}

impl TextStyle {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Red => "\x1b[31m",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Cyan => "\x1b[36m",
            Self::BlackOnRed => "\x1b[30;41m",
            Self::BlackOnGreen => "\x1b[30;42m",
            Self::BlackOnYellow => "\x1b[30;43m",
        }
    }
}

/// Its parts keep their styles when the line is cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StyledLine {
    parts: Vec<(TextStyle, String)>,
}

impl StyledLine {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::styled(TextStyle::Plain, text)
    }

    pub(super) fn styled(style: TextStyle, text: impl Into<String>) -> Self {
        Self { parts: vec![(style, text.into())] }
    }

    pub(super) fn and(mut self, style: TextStyle, text: impl Into<String>) -> Self {
        self.parts.push((style, text.into()));
        self
    }

    /// The line has exactly `columns` columns: it is cut, or filled with spaces.
    fn fitted(self, columns: usize) -> Self {
        let mut left = columns;
        let mut parts: Vec<(TextStyle, String)> = Vec::with_capacity(self.parts.len() + 1);
        for (style, text) in self.parts {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            parts.push((style, text));
        }
        parts.push((TextStyle::Plain, " ".repeat(left)));
        Self { parts }
    }

    fn joined(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    fn write(&self, out: &mut String) {
        for (style, text) in &self.parts {
            out.push_str(style.code());
            out.push_str(text);
            if *style != TextStyle::Plain {
                out.push_str(RESET);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        self.parts.iter().map(|(_, text)| text.as_str()).collect()
    }
}

/// Blocks of lines beside one another, each in an equal part of the columns; short ones end with empty lines.
pub(super) fn beside(blocks: Vec<Vec<StyledLine>>, columns: usize) -> Vec<StyledLine> {
    let each = columns.checked_div(blocks.len()).unwrap_or_default();
    let rows = blocks.iter().map(Vec::len).max().unwrap_or_default();
    let mut blocks: Vec<_> = blocks.into_iter().map(Vec::into_iter).collect();
    let row = |blocks: &mut Vec<std::vec::IntoIter<StyledLine>>| {
        let cells = blocks.iter_mut().map(|block| block.next().unwrap_or_default().fitted(each));
        cells.fold(StyledLine::default(), StyledLine::joined)
    };
    iter::repeat_with(|| row(&mut blocks)).take(rows).collect()
}

/// Right-aligned in the width of its column, with a space behind it.
pub(super) fn cell(text: &str, width: usize) -> String {
    format!("{text:>width$} ")
}

/// The last values, as many as there are columns, in bars of `rows` lines; the greatest of them is the full height.
pub(super) fn curve(
    values: &[u64],
    columns: usize,
    rows: usize,
    style: TextStyle,
) -> Vec<StyledLine> {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = values.get(values.len().saturating_sub(columns)..).unwrap_or_default();
    let greatest = u128::from(shown.iter().copied().max().unwrap_or(0).max(1));
    let full = rows * 8;
    let heights: Vec<usize> = shown
        .iter()
        .map(|value| {
            let height = u128::from(*value) * full as u128 / greatest;
            usize::try_from(height).unwrap_or(full)
        })
        .collect();
    let line = |row: usize| {
        let below = (rows - 1 - row) * 8;
        let cells = heights.iter().map(|height| {
            EIGHTHS.get(height.saturating_sub(below).min(8)).copied().unwrap_or_default()
        });
        StyledLine::styled(style, cells.collect::<String>())
    };
    (0..rows).map(line).collect()
}

/// `full` may be larger than `cells`: the bar is never longer.
pub(super) fn bar(full: usize, cells: usize) -> String {
    let full = full.min(cells);
    "█".repeat(full) + &"░".repeat(cells - full)
}

/// A frame: the lines that fit, from the first row on; what the last frame had behind them is erased.
pub(super) fn frame(lines: &[StyledLine], size: ScreenSize) -> String {
    let mut out = String::from("\x1b[H");
    for (row, line) in lines.iter().take(size.rows).enumerate() {
        if row > 0 {
            out.push_str("\r\n");
        }
        line.clone().fitted(size.columns).write(&mut out);
    }
    out.push_str("\x1b[J");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_size_of_the_terminal_at_most() {
        let lines = vec![StyledLine::plain("long text").and(TextStyle::Red, "red"); 5];
        let frame = frame(&lines, ScreenSize { columns: 11, rows: 2 });
        let line = "long text\x1b[31mre\x1b[0m";
        assert_eq!(frame, format!("\x1b[H{line}\r\n{line}\x1b[J"));
    }

    #[test]
    fn blocks_are_beside_one_another_and_the_shorter_one_is_filled() {
        let left = vec![StyledLine::plain("a"), StyledLine::plain("b")];
        let both = beside(vec![left, vec![StyledLine::plain("cut here")]], 8);
        let texts: Vec<String> = both.iter().map(StyledLine::text).collect();
        assert_eq!(texts, ["a   cut ", "b       "]);
        assert_eq!(beside(Vec::new(), 8), []);
    }

    #[test]
    fn a_curve_has_its_greatest_value_at_full_height_and_shows_the_last_values() {
        let curve = |values: &[u64]| -> Vec<String> {
            curve(values, 3, 2, TextStyle::Plain).iter().map(StyledLine::text).collect()
        };
        assert_eq!(curve(&[9, 0, 8, 16]), ["  █", " ██"]);
        assert_eq!(curve(&[0, 1, 16]), ["  █", " ▁█"]);
        assert_eq!(curve(&[0, 0]), ["  ", "  "]);
        assert_eq!(curve(&[u64::MAX]), ["█", "█"]);
        assert_eq!(curve(&[]), ["", ""]);
    }

    #[test]
    fn a_bar_is_never_longer_than_its_cells() {
        assert_eq!([bar(0, 2), bar(1, 2), bar(9, 2)], ["░░", "█░", "██"]);
    }
}
