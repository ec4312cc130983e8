//! Numbers as people read them at a glance, and others' words as a terminal may show them.

/// Nothing in it moves the cursor, changes colours or turns the writing around.
pub(crate) fn plain(words: &str) -> String {
    let turns = |letter| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    words.chars().map(|it| if it.is_control() || turns(it) { '?' } else { it }).collect()
}

/// 1234567 is 1,234,567.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many a second, in at most 6 characters.
pub(crate) fn rate(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        ..9.95 => format!("{number:.1}"),
        ..9_999.5 => format!("{number:.0}"),
        ..999_950.0 => format!("{:.1}k", number / 1e3),
        ..999_950_000.0 => format!("{:.1}M", number / 1e6),
        _ => format!("{:.1}G", number / 1e9),
    }
}

/// How long something took, in at most 6 characters.
pub(crate) fn time(nanoseconds: u64) -> String {
    let number = nanoseconds as f64;
    let (number, unit) = match nanoseconds {
        ..1_000 => return format!("{nanoseconds}ns"),
        1_000..999_500 => (number / 1e3, "µs"),
        999_500..999_500_000 => (number / 1e6, "ms"),
        _ => (number / 1e9, "s"),
    };
    let digits = usize::from(number < 9.95);
    format!("{number:.digits$}{unit}")
}

/// How long something lasts.
pub(crate) fn age(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_words_are_words_alone() {
        assert_eq!(plain("a\x1b[31mb\nc\u{9b}d\u{202e}é 🎈"), "a?[31mb?c?d?é 🎈");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0, 12, 123, 1234, 1_234_567].map(count),
            ["0", "12", "123", "1,234", "1,234,567"]
        );
        assert_eq!(
            [0.0, 0.04, 9.94, 9.96, 1234.4, 9999.4, 9999.6, 999_949.0, 2.5e6, 3e9].map(rate),
            ["0", "0.0", "9.9", "10", "1234", "9999", "10.0k", "999.9k", "2.5M", "3.0G"]
        );
        assert_eq!(
            [0, 999, 1_000, 9_949, 9_960, 999_499, 999_500, 12_000_000, 2_500_000_000].map(time),
            ["0ns", "999ns", "1.0µs", "9.9µs", "10µs", "999µs", "1.0ms", "12ms", "2.5s"]
        );
        let ages = [5, 61, 3_661, 90_061].map(|seconds| age(seconds * 1_000_000_000));
        assert_eq!(ages, ["5s", "1m01s", "1h01m", "1d01h"]);
    }
}
