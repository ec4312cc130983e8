//! Live callbacks by where they were registered, as pprof has it: `profile.proto` of github.com/google/pprof,
//! whose fields are the numbers here.

use super::gzip::gzip;
use super::text::Text;
use crate::error::Error;
use crate::platform::symbols::Symbols;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::hash::Hash;

/// What stands for a stack that was not recorded.
const NOT_RECORDED: &str = "[stack not recorded]";

/// A callback to be counted.
pub(crate) struct Sample<'a> {
    /// Return addresses, the innermost first, which stay where they are; empty: not recorded.
    pub(crate) frames: &'static [u64],
    /// "" if it has none.
    pub(crate) name: &'a str,
    /// Of its scope; "" if that has none.
    pub(crate) scope: &'a str,
    /// Of cold data.
    pub(crate) bytes: usize,
}

/// What is counted together: the place and number of the frames, and two strings.
type Key = (*const u64, usize, u64, u64);

#[derive(Clone, Copy, Default)]
struct Sum {
    callbacks: u64,
    bytes: u64,
}

/// A protocol buffer.
struct Message(Vec<u8>);

impl Message {
    const NUMBER: u64 = 0;
    const BYTES: u64 = 2;

    fn varint(&mut self, mut number: u64) -> Result<(), Error> {
        self.0.try_reserve(10).map_err(|_| Error::NoMemory)?;
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
        Ok(())
    }

    fn number(&mut self, field: u64, number: u64) -> Result<(), Error> {
        self.varint(field << 3 | Self::NUMBER)?;
        self.varint(number)
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> Result<(), Error> {
        self.varint(field << 3 | Self::BYTES)?;
        self.varint(bytes.len() as u64)?;
        self.0.try_reserve(bytes.len()).map_err(|_| Error::NoMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    /// A message inside, of such numbers.
    fn numbers(&mut self, field: u64, numbers: &[(u64, u64)]) -> Result<(), Error> {
        let mut inner = Self(Vec::new());
        numbers.iter().try_for_each(|(field, number)| inner.number(*field, *number))?;
        self.bytes(field, &inner.0)
    }
}

/// Things that have a number from 1 on, in the order of their coming.
struct Numbered<K>(HashMap<K, u64, FixedState>);

impl<K: Hash + Eq> Numbered<K> {
    fn new() -> Self {
        Self(HashMap::with_hasher(FixedState::default()))
    }

    fn add(&mut self, key: K) -> Result<u64, Error> {
        self.0.try_reserve(1).map_err(|_| Error::NoMemory)?;
        let number = self.0.len() as u64 + 1;
        self.0.insert(key, number);
        Ok(number)
    }
}

/// A profile in the making.
pub(crate) struct Profile {
    out: Message,
    strings: Numbered<Vec<u8>>,
    /// By the object's number.
    mappings: Numbered<usize>,
    /// By the name and the mapping.
    functions: Numbered<(u64, u64)>,
    /// By the address.
    locations: Numbered<u64>,
    sums: HashMap<Key, Sum, FixedState>,
}

impl Profile {
    pub(crate) fn new() -> Result<Self, Error> {
        let mut it = Self {
            out: Message(Vec::new()),
            strings: Numbered::new(),
            mappings: Numbered::new(),
            functions: Numbered::new(),
            locations: Numbered::new(),
            sums: HashMap::with_hasher(FixedState::default()),
        };
        // The first string is the empty one.
        it.string("")?;
        Ok(it)
    }

    /// Counts a callback.
    pub(crate) fn add(&mut self, sample: &Sample<'_>) -> Result<(), Error> {
        let (name, scope) = (self.string(sample.name)?, self.string(sample.scope)?);
        let key = (sample.frames.as_ptr(), sample.frames.len(), name, scope);
        self.sums.try_reserve(1).map_err(|_| Error::NoMemory)?;
        let sum = self.sums.entry(key).or_default();
        sum.callbacks += 1;
        sum.bytes += sample.bytes as u64;
        Ok(())
    }

    /// The whole of it, in gzip's format, which pprof wants. `now`: nanoseconds since 1970.
    pub(crate) fn finish(mut self, symbols: &mut Symbols, now: u64) -> Result<Vec<u8>, Error> {
        let [callbacks, count] = [self.string("callbacks")?, self.string("count")?];
        let [cold, bytes] = [self.string("cold")?, self.string("bytes")?];
        let [name_key, scope_key] = [self.string("callback")?, self.string("scope")?];
        let comment = self.string(concat!(
            "callbridge ",
            env!("CARGO_PKG_VERSION"),
            ": live callbacks by where they were registered"
        ))?;
        self.out.numbers(1, &[(1, callbacks), (2, count)])?;
        self.out.numbers(1, &[(1, cold), (2, bytes)])?;
        for ((frames, len, name, scope), sum) in std::mem::take(&mut self.sums) {
            // SAFETY: of a sample's, which stay where they are.
            let frames = unsafe { std::slice::from_raw_parts(frames, len) };
            let mut locations = Message(Vec::new());
            for frame in frames {
                // In the call, which may be its function's last instruction.
                locations.varint(self.location(frame.wrapping_sub(1), symbols)?)?;
            }
            if frames.is_empty() {
                locations.varint(self.no_location()?)?;
            }
            let mut values = Message(Vec::new());
            values.varint(sum.callbacks)?;
            values.varint(sum.bytes)?;
            let mut sample = Message(Vec::new());
            sample.bytes(1, &locations.0)?;
            sample.bytes(2, &values.0)?;
            for (key, text) in [(name_key, name), (scope_key, scope)] {
                if text != 0 {
                    sample.numbers(3, &[(1, key), (2, text)])?;
                }
            }
            self.out.bytes(2, &sample.0)?;
        }
        self.out.number(9, now)?;
        self.out.numbers(11, &[(1, callbacks), (2, count)])?;
        self.out.number(12, 1)?;
        self.out.number(13, comment)?;
        self.out.number(14, callbacks)?;
        gzip(&self.out.0)
    }

    /// The number of a string, from 0 on.
    fn string(&mut self, text: &str) -> Result<u64, Error> {
        if let Some(number) = self.strings.0.get(text.as_bytes()) {
            return Ok(number - 1);
        }
        let mut copy = Vec::new();
        copy.try_reserve_exact(text.len()).map_err(|_| Error::NoMemory)?;
        copy.extend_from_slice(text.as_bytes());
        let number = self.strings.add(copy)?;
        self.out.bytes(6, text.as_bytes())?;
        Ok(number - 1)
    }

    fn location(&mut self, address: u64, symbols: &mut Symbols) -> Result<u64, Error> {
        if let Some(number) = self.locations.0.get(&address) {
            return Ok(*number);
        }
        let mapping = self.mapping(address, symbols)?;
        let symbol = symbols.find(address);
        let mut place = Text::new();
        let function = match (symbol.function.to_str(), symbol.path) {
            (Ok(""), "") => place.put(format_args!("{:#x}", symbol.in_object)),
            (Ok(""), path) => {
                let object = path.rsplit('/').next().unwrap_or_default();
                place.put(format_args!("{object}+{:#x}", symbol.in_object))
            }
            (Ok(function), _) => place.put(format_args!("{function}")),
            (Err(_), _) => place.put(format_args!("{:#x}", symbol.in_object)),
        };
        function?;
        self.place(address, mapping, place.as_str())
    }

    /// The only location of stacks that were not recorded.
    fn no_location(&mut self) -> Result<u64, Error> {
        match self.locations.0.get(&0) {
            Some(number) => Ok(*number),
            None => self.place(0, 0, NOT_RECORDED),
        }
    }

    /// A new location. `mapping`: 0 is none.
    fn place(&mut self, address: u64, mapping: u64, function: &str) -> Result<u64, Error> {
        let name = self.string(function)?;
        let function = match self.functions.0.get(&(name, mapping)) {
            Some(number) => *number,
            None => {
                let number = self.functions.add((name, mapping))?;
                self.out.numbers(5, &[(1, number), (2, name), (3, name)])?;
                number
            }
        };
        let number = self.locations.add(address)?;
        let mut line = Message(Vec::new());
        line.number(1, function)?;
        let mut location = Message(Vec::new());
        location.number(1, number)?;
        if mapping != 0 {
            location.number(2, mapping)?;
        }
        location.number(3, address)?;
        location.bytes(4, &line.0)?;
        self.out.bytes(4, &location.0)?;
        Ok(number)
    }

    /// The number of the object that the address is in; 0: in none.
    fn mapping(&mut self, address: u64, symbols: &Symbols) -> Result<u64, Error> {
        let Some((index, object)) = symbols.object_of(address) else { return Ok(0) };
        if let Some(number) = self.mappings.0.get(&index) {
            return Ok(*number);
        }
        let Some(segment) = object.segment_of(address) else { return Ok(0) };
        let mut build_id = Text::new();
        for byte in object.build_id() {
            build_id.put(format_args!("{byte:02x}"))?;
        }
        let (path, build_id) = (self.string(object.path())?, self.string(build_id.as_str())?);
        let number = self.mappings.add(index)?;
        let fields = [
            (1, number),
            (2, segment.start),
            (3, segment.end),
            (4, segment.offset),
            (5, path),
            (6, build_id),
            // Its functions have names.
            (7, 1),
        ];
        self.out.numbers(3, &fields)?;
        Ok(number)
    }
}
