//! W3C trace context: which texts are one.

use crate::engine::{Engine, NAME_MAX, Record, Text};
use crate::error::Error;

/// `version:2 - trace-id:32 - parent-id:16 - flags:2`, in digits.
const LENGTH: usize = 55;

/// Sets the calling thread's context; "" is no text that is one.
pub(crate) fn set(engine: &Engine, record: &Record, text: Option<&[u8]>) -> Result<(), Error> {
    let context = text.map(parse).transpose()?.map(Text::copy).transpose()?;
    engine.set_context(record, context);
    Ok(())
}

/// The text, if it is a traceparent of version 00, or of a later one as far as it can be known.
fn parse(text: &[u8]) -> Result<&str, Error> {
    let wrong = |why| Err(Error::Invalid(why));
    let Some((known, rest)) = text.split_at_checked(LENGTH) else {
        return wrong("traceparent has fewer than 55 characters");
    };
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_dash = |place: usize| matches!(place, 2 | 35 | 52);
    let is_right = |(place, byte): (usize, &u8)| match is_dash(place) {
        true => *byte == b'-',
        false => is_digit(byte),
    };
    if !known.iter().enumerate().all(is_right) {
        return wrong("traceparent is not 2-32-16-2 hexadecimal digits in lower case");
    }
    let is_zero = |range: std::ops::Range<usize>| known[range].iter().all(|byte| *byte == b'0');
    match &known[..2] {
        b"ff" => return wrong("traceparent has version ff, which is none"),
        b"00" if !rest.is_empty() => return wrong("traceparent of version 00 has 55 characters"),
        _ => {}
    }
    if is_zero(3..35) {
        return wrong("traceparent has a trace-id of zeros");
    }
    if is_zero(36..52) {
        return wrong("traceparent has a parent-id of zeros");
    }
    if rest.first().is_some_and(|byte| *byte != b'-') {
        return wrong("traceparent has other than '-' behind its flags");
    }
    if !rest.iter().all(u8::is_ascii_graphic) {
        return wrong("traceparent has a character that is not to be printed");
    }
    if text.len() > NAME_MAX {
        return wrong("traceparent has more than 255 characters");
    }
    str::from_utf8(text).map_err(|_| Error::Invalid("traceparent is not ASCII"))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::error::Error;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn why(text: &str) -> &'static str {
        match parse(text.as_bytes()) {
            Err(Error::Invalid(why)) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn with(place: usize, replacement: &str) -> String {
        let mut text = GOOD.to_owned();
        text.replace_range(place..place + replacement.len(), replacement);
        text
    }

    #[test]
    fn what_is_right_is_kept_as_it_is() {
        let later = [with(0, "01"), with(0, "fe") + "-", with(0, "cc") + "-a,b=c"];
        for text in [GOOD.to_owned(), with(53, "00"), with(53, "ff")].iter().chain(&later) {
            assert_eq!(parse(text.as_bytes()), Ok(text.as_str()));
        }
    }

    #[test]
    fn every_character_of_the_55_is_looked_at() {
        for place in 0..GOOD.len() {
            for wrong in ["g", "A", "F", "-", " ", "\u{1}", "/", ":", "`"] {
                if !GOOD[place..].starts_with(wrong) {
                    assert!(why(&with(place, wrong)).contains("hexadecimal"), "{place} {wrong}");
                }
            }
        }
    }

    #[test]
    fn each_mistake_has_its_words() {
        assert!(why("").contains("fewer"));
        assert!(why(&GOOD[..54]).contains("fewer"));
        assert!(why(&with(0, "ff")).contains("ff"));
        assert!(why(&with(3, &"0".repeat(32))).contains("trace-id"));
        assert!(why(&with(36, &"0".repeat(16))).contains("parent-id"));
        assert!(why(&(GOOD.to_owned() + "-")).contains("version 00"));
        assert!(why(&(with(0, "01") + "0")).contains("'-'"));
        assert!(why(&(with(0, "01") + "-\n")).contains("printed"));
        assert!(why(&(with(0, "01") + "-\u{e4}")).contains("printed"));
        let longest = with(0, "01") + "-" + &"x".repeat(199);
        assert_eq!(parse(longest.as_bytes()).map(str::len), Ok(255));
        assert!(why(&(longest + "x")).contains("255"));
    }
}
