//! JSON, written from the front to the end: the caller opens and closes, commas come by themselves.

use super::text::Text;
use crate::error::Error;
use std::fmt::{self, Display, Write};

pub(crate) struct Json<'a> {
    text: &'a mut Text,
    /// Something stands before, in the same object or array.
    follows: bool,
}

/// A value that has nothing inside.
pub(crate) enum Value<'a> {
    Nothing,
    Number(u64),
    Words(&'a str),
    /// Words that may be no UTF-8: what is none is replaced.
    Bytes(&'a [u8]),
    /// A number that is not exact in what reads all of JSON's numbers as floating point.
    Hex(u64),
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(words: &'a str) -> Self {
        Self::Words(words)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Into::into)
    }
}

impl Display for Value<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => out.write_str("null"),
            Self::Number(number) => number.fmt(out),
            Self::Hex(number) => write!(out, "\"{number:#018x}\""),
            Self::Words(words) => write!(out, "\"{}\"", Escaped(words)),
            Self::Bytes(bytes) => {
                out.write_char('"')?;
                for chunk in bytes.utf8_chunks() {
                    Escaped(chunk.valid()).fmt(out)?;
                    if !chunk.invalid().is_empty() {
                        out.write_char(char::REPLACEMENT_CHARACTER)?;
                    }
                }
                out.write_char('"')
            }
        }
    }
}

/// What may stand between quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let must_not = |letter: char| letter < ' ' || letter == '"' || letter == '\\';
        for part in self.0.split_inclusive(must_not) {
            match part.char_indices().next_back() {
                Some((end, letter)) if must_not(letter) => {
                    write!(out, "{}\\u{:04x}", &part[..end], u32::from(letter))?;
                }
                _ => out.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl<'a> Json<'a> {
    pub(crate) fn new(text: &'a mut Text) -> Self {
        Self { text, follows: false }
    }

    fn put(&mut self, words: fmt::Arguments<'_>) -> Result<(), Error> {
        let comma = if self.follows { "," } else { "" };
        self.follows = true;
        self.text.put(format_args!("{comma}{words}"))
    }

    /// A member of the object that is open.
    pub(crate) fn field<'v>(
        &mut self,
        name: &str,
        value: impl Into<Value<'v>>,
    ) -> Result<(), Error> {
        self.put(format_args!("\"{name}\":{}", value.into()))
    }

    /// Numbers, as a member.
    pub(crate) fn numbers(
        &mut self,
        name: &str,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Result<(), Error> {
        self.begin(name, '[')?;
        for number in numbers {
            self.put(format_args!("{number}"))?;
        }
        self.end(']')
    }

    /// An object or an array begins: a member called `name`, or, if that is empty, an element.
    pub(crate) fn begin(&mut self, name: &str, bracket: char) -> Result<(), Error> {
        match name {
            "" => self.put(format_args!("{bracket}"))?,
            name => self.put(format_args!("\"{name}\":{bracket}"))?,
        }
        self.follows = false;
        Ok(())
    }

    pub(crate) fn end(&mut self, bracket: char) -> Result<(), Error> {
        self.follows = true;
        self.text.put(format_args!("{bracket}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Json<'_>) -> Result<(), Error>) -> String {
        let mut text = Text::new();
        write(&mut Json::new(&mut text)).unwrap();
        String::from_utf8(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn what_is_inside_is_separated() {
        let text = written(|json| {
            json.begin("", '{')?;
            json.field("a", 1)?;
            json.field("b", None::<u64>)?;
            json.begin("c", '[')?;
            json.begin("", '{')?;
            json.end('}')?;
            json.begin("", '{')?;
            json.field("d", "e")?;
            json.end('}')?;
            json.end(']')?;
            json.numbers("f", [1, u64::MAX])?;
            json.numbers("g", [])?;
            json.field("h", Value::Hex(10))?;
            json.end('}')
        });
        assert_eq!(
            text,
            r#"{"a":1,"b":null,"c":[{},{"d":"e"}],"f":[1,18446744073709551615],"g":[],"h":"0x000000000000000a"}"#
        );
    }

    #[test]
    fn words_cannot_break_out_of_their_quotes() {
        let quoted = |words: &str| Value::Words(words).to_string();
        assert_eq!(quoted(""), r#""""#);
        assert_eq!(quoted("plain, Grüße 🎈"), r#""plain, Grüße 🎈""#);
        assert_eq!(
            quoted("a\"b\\c\n\u{1}\u{1f}é\""),
            r#""a\u0022b\u005cc\u000a\u0001\u001fé\u0022""#
        );
        assert_eq!(
            Value::Bytes(b"a\xff\xfe\"b\xc3").to_string(),
            "\"a\u{fffd}\u{fffd}\\u0022b\u{fffd}\""
        );
    }
}
