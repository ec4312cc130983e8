//! Answers over a socket, on a thread of the library's own. Whoever connects sends a line and gets a line,
//! as often as they like. They are served beside one another: who does not read, sends nothing, or
//! leaves, keeps nobody waiting, this thread least of all.

use super::request::{LONGEST, Request};
use super::snapshot;
use super::text::Text;
use crate::engine::{ENGINE, Record};
use crate::error::Error;
use crate::platform::unix_socket::{Path, Refusal, Socket};
use crate::platform::wake;
use std::time::{Duration, Instant};

/// Who can be connected at once. One more takes the place of who has been still the longest.
const CLIENTS: usize = 8;
/// How long somebody may send nothing between two requests, in a request, and take nothing of an answer.
const STILL: Duration = Duration::from_secs(60);
const STUCK: Duration = Duration::from_secs(2);
/// How long nobody is let in after somebody could not be, for want of descriptors.
const SHORTAGE: Duration = Duration::from_millis(100);
/// Of the time that this thread works, so many times as much it rests.
const REST: u32 = 3;

/// Where the socket is to be, `%p` being the process's number, and `%%` a `%`.
pub(crate) fn place(template: &[u8], process: u32) -> Result<Path, Refusal> {
    const UNKNOWN: Refusal =
        Refusal { what: "it has a % that is neither %p, the process's number, nor %%", errno: 0 };
    let (mut digits, mut first) = ([b'0'; 10], 10);
    let mut rest = process;
    while rest > 0 || first == 10 {
        first -= 1;
        digits[first] += (rest % 10) as u8;
        rest /= 10;
    }
    // More than a path has room for: then that is what is wrong with it.
    let mut path = [0; 256];
    let mut len = 0;
    let mut bytes = template.iter();
    while let Some(byte) = bytes.next() {
        let single = [*byte];
        let piece = match byte {
            b'%' => match bytes.next() {
                Some(b'p') => &digits[first..],
                Some(b'%') => &single[..],
                _ => return Err(UNKNOWN),
            },
            _ => &single[..],
        };
        if len + piece.len() <= path.len() {
            path[len..len + piece.len()].copy_from_slice(piece);
        }
        len = (len + piece.len()).min(path.len());
    }
    Path::new(&path[..len])
}

/// Makes an answer; `M` is what is remembered of a connection.
pub(crate) type Answer<M> = fn(&Record, &Request<'_>, &mut M) -> Result<Text, Error>;

struct Client<M> {
    socket: Socket,
    /// When it last did something.
    active: Instant,
    line: [u8; LONGEST + 1],
    len: usize,
    answer: Option<Text>,
    sent: usize,
    memory: M,
}

/// Those who are connected. In static memory, where who looks for leaks in the child of a fork finds what
/// they own.
pub(crate) struct Clients<M>([Option<Client<M>>; CLIENTS]);

impl<M> Clients<M> {
    pub(crate) const NONE: Self = Self([const { None }; CLIENTS]);
}

/// It is to go.
struct Gone;

impl<M: Default> Client<M> {
    fn new(socket: Socket, now: Instant) -> Self {
        let line = [0; LONGEST + 1];
        Self { socket, active: now, line, len: 0, answer: None, sent: 0, memory: M::default() }
    }

    /// Where its request ends, if it has sent all of it.
    fn end_of_line(&self) -> Option<usize> {
        self.line[..self.len].iter().position(|byte| *byte == b'\n')
    }

    fn is_ready(&self) -> bool {
        self.answer.is_none() && self.end_of_line().is_some()
    }

    /// When it is to go, unless it does something until then.
    fn deadline(&self) -> Option<Instant> {
        let limit = match self.answer {
            // It waits for us.
            None if self.is_ready() => return None,
            None if self.len == 0 => STILL,
            _ => STUCK,
        };
        Some(self.active + limit)
    }

    /// None: it waits for us. (What it sends besides is not read: there is a bound to what it makes us
    /// remember.)
    fn to_poll(&self) -> Option<libc::pollfd> {
        match self.answer {
            Some(_) => Some(self.socket.to_poll(libc::POLLOUT)),
            None if self.is_ready() => None,
            None => Some(self.socket.to_poll(libc::POLLIN)),
        }
    }

    /// Takes and gives as much as can be had at once.
    fn go_on(&mut self, now: Instant) -> Result<(), Gone> {
        if !self.socket.is_open() {
            return Err(Gone);
        }
        if let Some(answer) = &self.answer {
            let rest = &answer.as_bytes()[self.sent..];
            self.sent += match self.socket.send(rest) {
                Ok(sent) => sent,
                Err(libc::EAGAIN | libc::EINTR) => return Ok(()),
                Err(_) => return Err(Gone),
            };
            if self.sent == answer.as_bytes().len() {
                self.answer = None;
                self.sent = 0;
            }
        } else if !self.is_ready() {
            self.len += match self.socket.receive(&mut self.line[self.len..]) {
                Ok(0) => return Err(Gone),
                Ok(got) => got,
                Err(libc::EAGAIN | libc::EINTR) => return Ok(()),
                Err(_) => return Err(Gone),
            };
            if self.len == self.line.len() && !self.is_ready() {
                return Err(Gone);
            }
        }
        self.active = now;
        Ok(())
    }

    /// Makes the answer to the request that is ready.
    fn answer(&mut self, record: &Record, answer: Answer<M>) -> Result<(), Gone> {
        let Some(end) = self.end_of_line() else { return Ok(()) };
        let made = match Request::parse(&self.line[..end]) {
            Ok(request) => answer(record, &request, &mut self.memory),
            Err(words) => snapshot::error(words),
        };
        self.line.copy_within(end + 1..self.len, 0);
        self.len -= end + 1;
        self.answer = Some(made.map_err(|_| Gone)?);
        Ok(())
    }
}

/// Serves until the host has closed the socket behind the library's back.
pub(crate) fn serve<M: Default>(
    record: &Record,
    listener: Socket,
    Clients(clients): &mut Clients<M>,
    answer: Answer<M>,
) {
    let mut listens_from = Instant::now();
    let mut works_from = listens_from;
    while listener.is_open() {
        let now = Instant::now();
        let mut polled = [libc::pollfd { fd: -1, events: 0, revents: 0 }; CLIENTS + 1];
        let mut until = None;
        let mut wake_at = |moment: Instant| {
            until = Some(until.map_or(moment, |other: Instant| other.min(moment)));
        };
        if listens_from <= now {
            polled[CLIENTS] = listener.to_poll(libc::POLLIN);
        } else {
            wake_at(listens_from);
        }
        for (client, polled) in clients.iter().zip(&mut polled) {
            let Some(client) = client else { continue };
            if let Some(to_poll) = client.to_poll() {
                *polled = to_poll;
            }
            wake_at(client.deadline().unwrap_or(works_from));
        }
        wake::sleep(&mut polled, until);

        let now = Instant::now();
        for (place, polled) in clients.iter_mut().zip(&polled) {
            let Some(client) = place else { continue };
            let mut result = Ok(());
            if polled.revents != 0 {
                result = client.go_on(now);
            }
            if result.is_ok() && client.is_ready() && works_from <= now {
                let began = Instant::now();
                result = client.answer(record, answer).and_then(|()| client.go_on(now));
                let ended = Instant::now();
                works_from = ended + (ended - began) * REST;
            }
            if result.is_err() || client.deadline().is_some_and(|deadline| deadline <= now) {
                let _section = ENGINE.section(record);
                *place = None;
            }
        }
        if polled[CLIENTS].revents != 0 && listener.is_open() {
            match let_in(record, &listener, clients, now) {
                // Closed again before we came.
                Ok(()) | Err(libc::EAGAIN | libc::ECONNABORTED | libc::EINTR) => {}
                Err(_) => listens_from = now + SHORTAGE,
            }
        }
    }
    let _section = ENGINE.section(record);
    clients.fill_with(|| None);
    drop(listener);
}

fn let_in<M: Default>(
    record: &Record,
    listener: &Socket,
    clients: &mut [Option<Client<M>>],
    now: Instant,
) -> Result<(), i32> {
    // No child of a fork gets a descriptor that it does not know of.
    let _section = ENGINE.section(record);
    let socket = listener.accept()?;
    if !socket.is_from_owner() {
        return Ok(());
    }
    // None is before every moment.
    let place = clients.iter_mut().min_by_key(|place| place.as_ref().map(|client| client.active));
    if let Some(place) = place {
        *place = Some(Client::new(socket, now));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_may_have_the_processs_number() {
        let path = |template: &[u8], process| place(template, process).map(|path| path.to_string());
        assert_eq!(path(b"/run/a", 12).as_deref(), Ok("/run/a"));
        assert_eq!(path(b"/%p/a%p", 1204).as_deref(), Ok("/1204/a1204"));
        assert_eq!(path(b"/100%%%p", u32::MAX).as_deref(), Ok("/100%4294967295"));
        assert_eq!(path(b"/%p", 0).as_deref(), Ok("/0"));
        for wrong in [&b"/%"[..], b"/%d", b"", b"/a%x"] {
            assert!(path(wrong, 1).is_err());
        }
    }

    #[test]
    fn a_place_has_to_fit_into_an_address() {
        let template = |len: usize| [b"/".to_vec(), vec![b'a'; len - 1]].concat();
        assert!(place(&template(107), 1).is_ok());
        for len in [108, 256, 257, 1000] {
            let refusal = place(&template(len), 1).err().unwrap();
            assert_eq!(refusal.what, "the path is longer than 107 bytes");
        }
        let here = std::env::current_dir().unwrap();
        let relative = place(b"a", 1).unwrap().to_string();
        assert_eq!(relative, here.join("a").to_str().unwrap());
    }
}
