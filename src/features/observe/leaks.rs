//! What is left at the process's end, for people: callbacks by where they were registered, and the rest.

use super::text::{Count, Text};
use crate::error::Error;
use crate::platform::symbols::{Readable, Symbols};
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::fmt::{self, Display};

/// So many of each kind are named; of further ones the number is said.
const NAMED: u64 = 8;

/// A callback that is left.
pub(crate) struct Callback<'a> {
    pub(crate) handle: u64,
    pub(crate) name: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) references: u32,
    pub(crate) in_flight: u64,
    pub(crate) function: u64,
    /// As in a profile.
    pub(crate) frames: &'static [u64],
}

/// Some of something: how many, and the first of them in words.
struct Group {
    count: u64,
    words: Text,
}

impl Group {
    fn new() -> Self {
        Self { count: 0, words: Text::new() }
    }

    fn add(&mut self, line: fmt::Arguments<'_>) -> Result<(), Error> {
        self.count += 1;
        match self.count <= NAMED {
            true => self.words.put(format_args!("  {line}\n")),
            false => Ok(()),
        }
    }

    fn write(&self, text: &mut Text) -> Result<(), Error> {
        text.put(format_args!("{}", self.words.as_str()))?;
        match self.count.saturating_sub(NAMED) {
            0 => Ok(()),
            more => text.put(format_args!("  and {more} more\n")),
        }
    }
}

/// What is left.
pub(crate) struct Leaks {
    groups: HashMap<(*const u64, usize), Group, FixedState>,
    callbacks: u64,
    /// Callbacks that have ended, and whose destroy has not run.
    pub(crate) ending: u64,
    scopes: Group,
    queues: Group,
    thunks: Group,
    holds: Group,
}

/// A name in quotes, if there is one.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            name => write!(out, " '{}'", name.escape_debug()),
        }
    }
}

impl Leaks {
    pub(crate) fn new() -> Self {
        Self {
            groups: HashMap::with_hasher(FixedState::default()),
            callbacks: 0,
            ending: 0,
            scopes: Group::new(),
            queues: Group::new(),
            thunks: Group::new(),
            holds: Group::new(),
        }
    }

    pub(crate) fn callback(
        &mut self,
        it: &Callback<'_>,
        symbols: &mut Symbols,
    ) -> Result<(), Error> {
        self.callbacks += 1;
        self.groups.try_reserve(1).map_err(|_| Error::NoMemory)?;
        let group =
            self.groups.entry((it.frames.as_ptr(), it.frames.len())).or_insert_with(Group::new);
        if group.count >= NAMED {
            group.count += 1;
            return Ok(());
        }
        let mut more = Text::new();
        if !it.scope.is_empty() {
            more.put(format_args!(" of scope{}", Quoted(it.scope)))?;
        }
        if it.references != 1 {
            more.put(format_args!(", {}", Count(it.references.into(), "reference")))?;
        }
        if it.in_flight > 0 {
            more.put(format_args!(", {} inside", it.in_flight))?;
        }
        let function = Place::of(it.function, symbols)?;
        group.add(format_args!(
            "{:#018x}{}{}: {}",
            it.handle,
            Quoted(it.name),
            more.as_str(),
            function.as_str()
        ))
    }

    pub(crate) fn scope(&mut self, handle: u64, name: &str) -> Result<(), Error> {
        self.scopes.add(format_args!("scope {handle:#018x}{}", Quoted(name)))
    }

    pub(crate) fn queue(&mut self, handle: u64, name: &str, queued: u64) -> Result<(), Error> {
        let queued = Count(queued, "event");
        self.queues.add(format_args!("queue {handle:#018x}{} with {queued}", Quoted(name)))
    }

    pub(crate) fn thunk(
        &mut self,
        handle: u64,
        signature: &dyn Display,
        name: &str,
    ) -> Result<(), Error> {
        let of = if name.is_empty() { "" } else { " of the callback" };
        self.thunks.add(format_args!("thunk {handle:#018x} {signature}{of}{}", Quoted(name)))
    }

    pub(crate) fn hold(&mut self, callback: u64, name: &str) -> Result<(), Error> {
        self.holds.add(format_args!("hold of the callback {callback:#018x}{}", Quoted(name)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        let rest = [&self.scopes, &self.queues, &self.thunks, &self.holds];
        self.callbacks == 0 && self.ending == 0 && rest.iter().all(|group| group.count == 0)
    }

    /// All of it.
    pub(crate) fn write(&self, symbols: &mut Symbols) -> Result<Text, Error> {
        let mut text = Text::new();
        text.put(format_args!("callbridge: live at exit: "))?;
        let counts = [
            Count(self.callbacks, "callback"),
            Count(self.scopes.count, "scope"),
            Count(self.queues.count, "queue"),
            Count(self.thunks.count, "thunk"),
            Count(self.holds.count, "hold"),
        ];
        let mut comma = "";
        for count in counts.iter().filter(|count| count.0 > 0) {
            text.put(format_args!("{comma}{count}"))?;
            comma = ", ";
        }
        if self.ending > 0 {
            let ending = Count(self.ending, "callback");
            text.put(format_args!("{comma}{ending} ended and not destroyed"))?;
        }
        text.put(format_args!("\n"))?;
        let mut groups = Vec::new();
        groups.try_reserve_exact(self.groups.len()).map_err(|_| Error::NoMemory)?;
        groups.extend(&self.groups);
        // The largest first.
        groups.sort_unstable_by_key(|(frames, group)| (std::cmp::Reverse(group.count), **frames));
        for ((frames, len), group) in groups {
            let at = if *len > 0 { " registered at" } else { ", where is not recorded" };
            text.put(format_args!("\n{}{at}\n", Count(group.count, "callback")))?;
            // SAFETY: of a callback's, which stay where they are.
            let frames = unsafe { std::slice::from_raw_parts(*frames, *len) };
            for (number, frame) in frames.iter().enumerate() {
                // In the call, which may be its function's last instruction.
                let place = Place::of(frame.wrapping_sub(1), symbols)?;
                text.put(format_args!("    #{number:<2} {}\n", place.as_str()))?;
            }
            group.write(&mut text)?;
        }
        for group in [&self.scopes, &self.queues, &self.thunks, &self.holds] {
            if group.count > 0 {
                text.put(format_args!("\n"))?;
                group.write(&mut text)?;
            }
        }
        Ok(text)
    }
}

struct Place;

impl Place {
    /// `function+0x12 (path+0x34)`; the second is what addr2line takes.
    fn of(address: u64, symbols: &mut Symbols) -> Result<Text, Error> {
        let mut text = Text::new();
        let symbol = symbols.find(address);
        if symbol.path.is_empty() {
            text.put(format_args!("{address:#x}"))?;
            return Ok(text);
        }
        if !symbol.function.is_empty() {
            text.put(format_args!("{}", Readable(symbol.function)))?;
            match symbol.in_function {
                0 => text.put(format_args!(" "))?,
                offset => text.put(format_args!("+{offset:#x} "))?,
            }
        }
        text.put(format_args!("({}+{:#x})", symbol.path, symbol.in_object))?;
        Ok(text)
    }
}
