//! Asking: a line there, a line back.

use crate::document::{Answer, Document, FORMAT};
use crate::target::{Target, is_long};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A process that does not answer for so long is stopped, or hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer is longer: the library sends at most 10,000 rows.
const LONGEST: u64 = 256 << 20;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) rows: usize,
    pub(crate) order: &'static str,
    pub(crate) part: String,
}

impl Question {
    fn line(&self) -> String {
        let mut line = format!("snapshot limit={} order={}", self.rows, self.order);
        if !self.part.is_empty() {
            line += " match=";
            line += &self.part;
        }
        line + "\n"
    }
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The connection is gone; another one may do.
    Closed,
    /// Words for people.
    Because(String),
}

impl NoAnswer {
    pub(crate) fn words(self) -> String {
        match self {
            Self::Closed => "the connection was closed without an answer".to_owned(),
            Self::Because(words) => words,
        }
    }
}

pub(crate) struct Client {
    stream: BufReader<UnixStream>,
    /// Who answers, as this process knows it.
    pub(crate) pid: Option<u32>,
}

impl Client {
    /// Fails with words for people.
    pub(crate) fn connect(target: &Target) -> Result<Self, String> {
        let mut refusal = String::new();
        for path in &target.paths {
            match open(path) {
                Ok(stream) => return Self::new(stream, target.pid),
                // What the first one says is what the user knows.
                Err(error) if refusal.is_empty() => refusal = explain(path, &error),
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    fn new(stream: UnixStream, wanted: Option<u32>) -> Result<Self, String> {
        let pid = rustix::net::sockopt::socket_peercred(&stream)
            .ok()
            .and_then(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()).ok());
        if let (Some(pid), Some(wanted)) = (pid, wanted)
            && pid != wanted
        {
            return Err(format!(
                "it is process {pid} that serves the socket of process {wanted}: \
                 the path was in use (with %p in it every process has its own)"
            ));
        }
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(|error| error.to_string())?;
        Ok(Self { stream: BufReader::new(stream), pid })
    }

    /// One answer.
    pub(crate) fn ask(&mut self, question: &Question) -> Result<Document, NoAnswer> {
        let lost = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => NoAnswer::Because(format!(
                "no answer within {} s: is the process stopped?",
                PATIENCE.as_secs()
            )),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => NoAnswer::Closed,
            _ => NoAnswer::Because(error.to_string()),
        };
        self.stream.get_mut().write_all(question.line().as_bytes()).map_err(lost)?;
        let mut line = Vec::new();
        (&mut self.stream).take(LONGEST).read_until(b'\n', &mut line).map_err(lost)?;
        if line.last() != Some(&b'\n') {
            return Err(NoAnswer::Closed);
        }
        read(&line).map_err(NoAnswer::Because)
    }
}

fn read(line: &[u8]) -> Result<Document, String> {
    let foreign = |error: serde_json::Error| format!("that is no answer of callbridge: {error}");
    let answer: Answer = serde_json::from_slice(line).map_err(foreign)?;
    if answer.callbridge != FORMAT {
        let other = answer.callbridge;
        return Err(format!("the process speaks format {other}, and this program {FORMAT}"));
    }
    match answer.error {
        Some(words) => Err(words),
        None => serde_json::from_slice(line).map_err(foreign),
    }
}

fn open(path: &Path) -> io::Result<UnixStream> {
    if !is_long(path) {
        return UnixStream::connect(path);
    }
    let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn explain(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no {path}: the process has not used the library yet, or has ended, or its log says why"
        ),
        io::ErrorKind::ConnectionRefused => format!("nobody serves {path}: the process has ended"),
        io::ErrorKind::PermissionDenied => {
            format!("{path} is another user's: only that one and root may look")
        }
        _ => format!("{path}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_line() {
        let mut question = Question { rows: 7, order: "rate", part: String::new() };
        assert_eq!(question.line(), "snapshot limit=7 order=rate\n");
        question.part = "a b".to_owned();
        assert_eq!(question.line(), "snapshot limit=7 order=rate match=a b\n");
    }

    #[test]
    fn only_answers_of_this_format_are_read() {
        let words = |line: &str| read(line.as_bytes()).err().unwrap();
        assert!(words("220 smtp ready\n").starts_with("that is no answer of callbridge"));
        assert!(words("{}\n").starts_with("that is no answer of callbridge"));
        assert_eq!(
            words("{\"callbridge\":2,\"stats\":7}\n"),
            "the process speaks format 2, and this program 1"
        );
        assert_eq!(words("{\"callbridge\":1,\"error\":\"unknown order\"}\n"), "unknown order");
        // Fields of later versions are no mistake.
        let document = read(b"{\"callbridge\":1,\"pid\":3,\"new\":[1],\"stats\":{\"calls\":4}}\n");
        let document = document.unwrap_or_else(|words| panic!("{words}"));
        assert_eq!((document.pid, document.stat("calls"), document.stat("later")), (3, 4, 0));
    }
}
