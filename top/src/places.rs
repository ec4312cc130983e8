//! Where addresses of code are: `libhost.so+0x1234`, as addr2line takes it.

use std::fs;

/// The code that a process has mapped.
#[derive(Default)]
pub(crate) struct Places {
    pid: Option<u32>,
    /// Start, end, how far its start is in the file, and the file's name.
    mapped: Vec<(u64, u64, u64, String)>,
}

impl Places {
    pub(crate) fn new(pid: Option<u32>) -> Self {
        Self { pid, mapped: Vec::new() }
    }

    /// Of an address as the library writes it; that itself where nothing is known.
    pub(crate) fn name(&mut self, address: &str) -> String {
        let short = |number: u64| format!("{number:#x}");
        let Some(number) =
            address.strip_prefix("0x").and_then(|it| u64::from_str_radix(it, 16).ok())
        else {
            return address.to_owned();
        };
        if let Some(name) = self.find(number) {
            return name;
        }
        // Loaded since.
        self.load();
        self.find(number).unwrap_or_else(|| short(number))
    }

    fn find(&self, address: u64) -> Option<String> {
        let (start, _, offset, file) =
            self.mapped.iter().find(|(start, end, ..)| (*start..*end).contains(&address))?;
        Some(format!("{file}+{:#x}", address - start + offset))
    }

    fn load(&mut self) {
        // A process that is gone, or another user's: addresses stay numbers.
        let Some(pid) = self.pid.take() else { return };
        if let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) {
            self.pid = Some(pid);
            self.mapped = maps.lines().filter_map(parse).collect();
        }
    }
}

/// "7f12a000-7f12b000 r-xp 00001000 08:01 123    /usr/lib/libx.so"
fn parse(line: &str) -> Option<(u64, u64, u64, String)> {
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    let offset = words.next()?;
    let file = line.split_once('/')?.1.rsplit('/').next()?;
    (rights.as_bytes().get(2) == Some(&b'x')).then_some(())?;
    Some((hex(start)?, hex(end)?, hex(offset)?, file.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_by_its_file() {
        let mut places = Places::new(Some(std::process::id()));
        let here = format!("{:#018x}", an_address_is_named_by_its_file as fn() as usize);
        assert!(places.name(&here).starts_with("callbridge_top-"), "{}", places.name(&here));
        assert_eq!(places.name("0x0000000000000010"), "0x10");
        assert_eq!(places.name("what"), "what");
        assert_eq!(Places::new(None).name(&here), here.replace("0x0000", "0x"));
    }

    #[test]
    fn code_is_what_can_be_executed() {
        assert_eq!(
            parse("1000-2000 r-xp 00000800 08:01 12   /lib/a b/lib c.so"),
            Some((0x1000, 0x2000, 0x800, "lib c.so".to_owned()))
        );
        assert_eq!(parse("1000-2000 rw-p 00000800 08:01 12   /lib/a.so"), None);
        assert_eq!(parse("1000-2000 r-xp 00000000 00:00 0   [vdso]"), None);
        assert_eq!(parse(""), None);
    }
}
