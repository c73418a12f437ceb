//! Numbers of bytes as people write them: `65536`, `64K`, `64KB`, `64 KiB`. PURE.
//!
//! Owns no state. Each unit is a power of 1024, as in the options of Redis, nginx, PHP and the JVM. Does not know
//! ranges: the table of options has them. No limits: a number that does not fit 64 bits is no size. Cost: linear in the
//! text, one or two allocations for a call.

/// The number of bytes. `None` for a text that is no size, or does not fit 64 bits.
#[must_use]
pub(super) fn parse(text: &str) -> Option<u64> {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let digits = digits.replace('_', "");
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The shortest form that `parse` reads as the same number.
#[must_use]
pub(super) fn format_short(bytes: u64) -> String {
    let unit = |shift: u32| bytes > 0 && bytes.trailing_zeros() >= shift;
    match bytes {
        _ if unit(30) => format!("{}G", bytes >> 30),
        _ if unit(20) => format!("{}M", bytes >> 20),
        _ if unit(10) => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_have_units_in_any_case() {
        for (text, bytes) in [
            ("0", 0),
            ("10000", 10_000),
            ("10_000", 10_000),
            ("10000B", 10_000),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KB", 65_536),
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("512M", 512 << 20),
            ("512MB", 512 << 20),
            ("512MiB", 512 << 20),
            ("4g", 4 << 30),
            ("1GiB", 1 << 30),
            ("17179869183G", 17_179_869_183 << 30),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "K",
            "_",
            "-1",
            "+1",
            "1.5G",
            "1T",
            "1KK",
            "1 M B",
            "0x10",
            "1e6",
            "M512",
            "１",
            "17179869184G",
            "18446744073709551616",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,30}") {
            let _ = parse(&text);
        }

        #[test]
        fn the_short_form_is_the_same_size(number: u64, shift in 0..40u32) {
            let number = number >> shift << (shift / 2);
            prop_assert_eq!(parse(&format_short(number)), Some(number));
        }

        #[test]
        fn a_plain_number_is_itself(number: u64) {
            prop_assert_eq!(parse(&number.to_string()), Some(number));
        }
    }
}
