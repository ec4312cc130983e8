//! A table of callbacks for people.

use super::text::{Count, Text};
use crate::error::Error;
use std::fmt::{self, Display};

/// A line of it.
pub(crate) struct Line<'a> {
    pub(crate) handle: u64,
    pub(crate) name: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) references: u32,
    pub(crate) in_flight: u64,
    /// None: not counted.
    pub(crate) calls: Option<u64>,
    pub(crate) failures: Option<u64>,
    /// Nanoseconds. None: not noted.
    pub(crate) age: Option<u64>,
    pub(crate) function: &'a dyn Display,
    pub(crate) site: Option<&'a dyn Display>,
}

/// As wide as `width`, if it is not wider; "-" for nothing. Control characters do not get into the table.
struct Cell<'a, T>(Option<&'a T>, usize);

impl<T: Display + ?Sized> Display for Cell<'_, &T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let mut plain = Plain { out, len: 0 };
        match self.0 {
            Some(it) => write!(plain, "{it}")?,
            None => plain.write_str("-")?,
        }
        let len = plain.len;
        write!(out, "{:1$}", "", self.1.saturating_sub(len))
    }
}

struct Plain<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    len: usize,
}

impl fmt::Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            self.len += 1;
            self.out.write_char(if letter.is_control() { '?' } else { letter })?;
        }
        Ok(())
    }
}

/// A time that people read at a glance.
struct Age(u64);

impl Display for Age {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0 / 1_000_000;
        match ms {
            0..1_000 => write!(out, "{ms} ms"),
            1_000..120_000 => write!(out, "{}.{} s", ms / 1_000, ms % 1_000 / 100),
            120_000..7_200_000 => write!(out, "{} min", ms / 60_000),
            7_200_000..172_800_000 => write!(out, "{} h", ms / 3_600_000),
            _ => write!(out, "{} d", ms / 86_400_000),
        }
    }
}

pub(crate) fn begin(text: &mut Text) -> Result<(), Error> {
    text.put(format_args!(
        "{:<18} {:<24} {:<16} {:>4} {:>6} {:>10} {:>8}  {:<8} {:<32} {}\n",
        "HANDLE",
        "NAME",
        "SCOPE",
        "REFS",
        "INSIDE",
        "CALLS",
        "FAILURES",
        "AGE",
        "FUNCTION",
        "REGISTERED AT"
    ))
}

pub(crate) fn line(text: &mut Text, line: &Line<'_>) -> Result<(), Error> {
    fn words(text: &str) -> Option<&str> {
        (!text.is_empty()).then_some(text)
    }
    struct Number(Option<u64>);
    impl Display for Number {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                Some(number) => number.fmt(out),
                None => out.pad("-"),
            }
        }
    }
    text.put(format_args!(
        "{:#018x} {} {} {:>4} {:>6} {:>10} {:>8}  {} {} {}\n",
        line.handle,
        Cell(words(line.name).as_ref(), 24),
        Cell(words(line.scope).as_ref(), 16),
        line.references,
        line.in_flight,
        Number(line.calls),
        Number(line.failures),
        Cell(line.age.map(Age).as_ref().as_ref(), 8),
        Cell(Some(&line.function), 32),
        Cell(line.site.as_ref(), 0),
    ))
}

pub(crate) fn end(text: &mut Text, count: u64) -> Result<(), Error> {
    text.put(format_args!("{}\n", Count(count, "live callback")))
}
