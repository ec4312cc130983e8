//! Signatures as numbers: `arguments:4 | return type:4 | 14 times an argument's type:4`, from the top
//! down. Comparing two is one comparison.

use std::fmt;

/// What a value of a signature is.
const TYPES: [(&str, u64); 17] = [
    ("void", 1),
    ("bool", 2),
    ("i8", 3),
    ("u8", 4),
    ("i16", 5),
    ("u16", 6),
    ("i32", 7),
    ("u32", 8),
    ("i64", 9),
    ("u64", 10),
    ("f32", 11),
    ("f64", 12),
    ("ptr", 13),
    // The platform's, for reading only: formatting finds the names above first.
    ("int", 7),
    ("long", if size_of::<std::ffi::c_long>() == 8 { 9 } else { 7 }),
    ("size", if size_of::<usize>() == 8 { 10 } else { 8 }),
    ("intptr", if size_of::<isize>() == 8 { 9 } else { 7 }),
];
pub(crate) const VOID: u64 = 1;
const INTPTR: u64 = TYPES[16].1;
pub(crate) const PTR: u64 = 13;
pub(crate) const F32: u64 = 11;
pub(crate) const F64: u64 = 12;
const MAX_ARGUMENTS: usize = 14;

/// The signature of a callback, without the leading user_data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Signature(pub(crate) u64);

impl Signature {
    /// `intptr(ptr)`, what `cbr_call` calls.
    pub(crate) const DEFAULT: Self = Self(1 << 60 | INTPTR << 56 | PTR << 52);

    pub(crate) const fn of(result: u64, arguments: &[u64]) -> Self {
        let mut number = (arguments.len() as u64) << 60 | result << 56;
        let mut position = 0;
        while position < arguments.len() {
            number |= arguments[position] << (52 - 4 * position);
            position += 1;
        }
        Self(number)
    }

    pub(crate) fn arguments(self) -> impl Iterator<Item = u64> {
        (0..(self.0 >> 60) as usize).map(move |position| match position {
            14.. => 0,
            _ => self.0 >> (52 - 4 * position) & 15,
        })
    }

    pub(crate) fn result(self) -> u64 {
        self.0 >> 56 & 15
    }

    /// The bits of a C `cbr_value` as a function of this signature returns them: extended as its type
    /// asks for.
    pub(crate) fn returned(self, value: u64) -> u64 {
        match self.result() {
            VOID => 0,
            2 => u64::from(value != 0),
            3 => value as i8 as u64,
            4 => value as u8 as u64,
            5 => value as i16 as u64,
            6 => value as u16 as u64,
            7 => value as i32 as u64,
            8 | F32 => value as u32 as u64,
            _ => value,
        }
    }

    /// Is it a signature at all: known types, no void argument, nothing behind the last one?
    pub(crate) fn is_valid(self) -> bool {
        let mut arguments = [0; MAX_ARGUMENTS];
        let count = (self.0 >> 60) as usize;
        if count > MAX_ARGUMENTS || name(self.result()).is_none() {
            return false;
        }
        for (place, argument) in arguments.iter_mut().zip(self.arguments()) {
            if argument == VOID || name(argument).is_none() {
                return false;
            }
            *place = argument;
        }
        Self::of(self.result(), &arguments[..count]) == self
    }

    /// Reads `i32(ptr, ptr)`. Blanks are allowed between words.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let (result, rest) =
            text.split_once('(').ok_or("a signature is written like i32(ptr,ptr)")?;
        let list = rest.strip_suffix(')').ok_or("the signature has no closing parenthesis")?;
        let result = number(result).ok_or("the signature's return type is unknown")?;
        let mut arguments = [0; MAX_ARGUMENTS];
        let mut count = 0;
        if !list.trim().is_empty() {
            for argument in list.split(',') {
                let place =
                    arguments.get_mut(count).ok_or("a signature has at most 14 arguments")?;
                *place = number(argument).ok_or("a type in the signature is unknown")?;
                if *place == VOID {
                    return Err("void is no type of an argument");
                }
                count += 1;
            }
        }
        Ok(Self::of(result, &arguments[..count]))
    }
}

fn number(name: &str) -> Option<u64> {
    let name = name.trim();
    TYPES.iter().find(|entry| entry.0 == name).map(|entry| entry.1)
}

fn name(number: u64) -> Option<&'static str> {
    TYPES.iter().find(|entry| entry.1 == number).map(|entry| entry.0)
}

impl fmt::Display for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_valid() {
            return write!(out, "invalid({:#018x})", self.0);
        }
        write!(out, "{}(", name(self.result()).unwrap_or_default())?;
        for (position, argument) in self.arguments().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(out, "{comma}{}", name(argument).unwrap_or_default())?;
        }
        write!(out, ")")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_signature_reads_back_as_it_was_written() {
        for text in ["i32(ptr,ptr)", "void()", "f64(f32,bool,u16)", "ptr(i8)"] {
            let signature = Signature::parse(text).unwrap();
            assert!(signature.is_valid());
            assert_eq!(signature.to_string(), text);
        }
        assert_eq!(Signature::parse("i32(ptr,ptr)").unwrap().0, 0x27dd_0000_0000_0000);
        assert_eq!(Signature::parse(" intptr ( ptr ) ").unwrap(), Signature::DEFAULT);
    }

    #[test]
    fn a_value_is_extended_as_its_type_asks_for() {
        for (text, value, returned) in [
            ("bool()", 0x100, 1),
            ("i8()", 0x1ff, u64::MAX),
            ("u8()", 0x1ff, 0xff),
            ("i16()", 0x18000, -0x8000i64 as u64),
            ("u16()", u64::MAX, 0xffff),
            ("i32()", 0xffff_fffe, -2i64 as u64),
            ("u32()", u64::MAX, 0xffff_ffff),
            ("f32()", u64::MAX, 0xffff_ffff),
            ("void()", 7, 0),
            ("f64()", u64::MAX, u64::MAX),
            ("ptr()", 7, 7),
        ] {
            assert_eq!(Signature::parse(text).unwrap().returned(value), returned, "{text}");
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for text in
            ["", "i32", "i32(", "i32)", "i32(void)", "i32(,)", "u7()", "i32(ptr,)", "i32(ptr))"]
        {
            assert!(Signature::parse(text).is_err(), "{text}");
        }
        assert!(Signature::parse(&format!("void({})", ["i8"; 14].join(","))).is_ok());
        assert!(Signature::parse(&format!("void({})", ["i8"; 15].join(","))).is_err());
        for number in [
            0,
            1 << 60 | 1 << 56,
            15 << 60 | 1 << 56,
            1 << 56 | 1,
            14 << 56,
            1 << 60 | 7 << 56 | 1 << 52,
        ] {
            assert!(!Signature(number).is_valid(), "{number:#x}");
        }
    }
}
