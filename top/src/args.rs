//! The command line.

use crate::view::Sort;
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
callbridge-top - callbacks and queues of a running process

USAGE
  callbridge-top [OPTION]... PID|SOCKET

  Shows what a process does with callbridge: its callbacks by calls per second, how long they
  take, how many calls are inside, how many fail; its queues, how full they are and what they
  drop. The process has to be started with CALLBRIDGE_STATS_SOCKET=PATH in its environment; %p
  in the path is its number. Only its own user and root may look.

  PID       a process: the socket is the one that its environment names
  SOCKET    the path of a socket (./7 if it is called 7)

OPTIONS
  -i, --interval SECONDS  how often it looks, 0.1 to 3600 (1)
  -s, --sort KEY          rate, p99, inside, failures, calls, age or name (rate)
  -f, --filter TEXT       only callbacks with this in their name or handle
  -n, --rows N            callbacks that it asks for at a time, 1 to 10000 (200)
      --once              looks twice, an interval apart, prints the tables, and ends
      --json              with --once: prints one JSON document instead
  -h, --help              prints this
  -V, --version           prints the version

KEYS
  q, Esc, Ctrl-C          ends
  s, S                    sorts by the next column, the one before
  /                       filters: type, Enter; Esc takes the filter away
  up, down, PgUp, PgDn    scroll
  Home, End

COLUMNS
  CALLS/S, P50, P99, FAILS/S and CALLS are known of callbacks that were registered with
  CBR_METERED; \"-\" is what is not known. P50 and P99 are of the calls since the last look, or of
  all if there was none. A callback without a name is called by where its function is.
  DROPS/S are events that were accepted and not delivered, FULL/S posts that failed.

EXIT STATUS
  0    all is well, or the process that was watched has ended and you have left
  1    there is no such process or socket, it is another user's, or it does not answer
  2    the command line is wrong
  128+N  ended by signal N
";

#[derive(Debug, PartialEq)]
pub(crate) struct Args {
    pub(crate) target: PathBuf,
    pub(crate) interval: Duration,
    pub(crate) sort: Sort,
    pub(crate) filter: String,
    pub(crate) rows: usize,
    pub(crate) once: bool,
    pub(crate) json: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Watch(Args),
    Help,
    Version,
}

/// Fails with words for people.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = lexopt::Parser::from_args(words);
    let mut target = None;
    let mut args = Args {
        target: PathBuf::new(),
        interval: Duration::from_secs(1),
        sort: Sort::Rate,
        filter: String::new(),
        rows: 200,
        once: false,
        json: false,
    };
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Short('i') | Long("interval") => {
                let seconds = value(&mut parser, "the interval")?.parse().unwrap_or(0.0);
                if !(0.1..=3600.0).contains(&seconds) {
                    return Err("the interval is a number of seconds from 0.1 to 3600".to_owned());
                }
                args.interval = Duration::from_secs_f64(seconds);
            }
            Short('s') | Long("sort") => {
                args.sort = Sort::from_name(&value(&mut parser, "the key")?).ok_or(
                    "there are rate, p99, inside, failures, calls, age and name to sort by",
                )?;
            }
            Short('f') | Long("filter") => {
                args.filter = value(&mut parser, "the filter")?;
                if args.filter.contains(char::is_control) || args.filter.len() > FILTER {
                    return Err(format!("the filter is one line of at most {FILTER} bytes"));
                }
            }
            Short('n') | Long("rows") => {
                args.rows = value(&mut parser, "the number of rows")?.parse().unwrap_or(0);
                if !(1..=10_000).contains(&args.rows) {
                    return Err("the number of rows is from 1 to 10000".to_owned());
                }
            }
            Long("once") => args.once = true,
            Long("json") => args.json = true,
            Value(path) if target.is_none() => target = Some(path),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if args.json && !args.once {
        return Err("--json needs --once".to_owned());
    }
    args.target = target.ok_or("which process? Say its number or its socket")?.into();
    Ok(Command::Watch(args))
}

fn value(parser: &mut lexopt::Parser, what: &str) -> Result<String, String> {
    let value = parser.value().map_err(|error| error.to_string())?;
    value.into_string().map_err(|_| format!("{what} is not UTF-8"))
}

/// No filter is longer.
pub(crate) const FILTER: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn everything_can_be_said() {
        let args = parsed("-i 0.5 --sort p99 /run/s --filter=x -n5 --once --json").unwrap();
        let expected = Args {
            target: "/run/s".into(),
            interval: Duration::from_millis(500),
            sort: Sort::P99,
            filter: "x".to_owned(),
            rows: 5,
            once: true,
            json: true,
        };
        assert_eq!(args, Command::Watch(expected));
        assert_eq!(parsed("12 --help"), Ok(Command::Help));
        assert_eq!(parsed("-V"), Ok(Command::Version));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for line in [
            "",
            "1 2",
            "-x 1",
            "-i",
            "-i 0 1",
            "-i 4000 1",
            "-i x 1",
            "-i nan 1",
            "-s y 1",
            "-n 0 1",
            "-n 10001 1",
            "--json 1",
            "--once=1 1",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(parse(["-f", "a\nb", "1"].map(OsString::from)).is_err());
        assert!(parse(["-f", &"a".repeat(256), "1"].map(OsString::from)).is_err());
    }

    #[test]
    fn the_help_fits_a_terminal() {
        assert!(HELP.lines().all(|line| line.chars().count() <= 98));
    }
}
