//! A unix socket that other processes of the same user ask for something.

use super::cancel::NotNow;
use super::output::SystemError;
use crate::sync::{AtomicU32, AtomicU64, Relaxed};
use std::ffi::{CStr, c_int};
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// As much as an address has room for.
const LONGEST: usize = size_of::<[libc::c_char; 108]>() - 1;
const OWNERS: libc::mode_t = 0o600;
const TRUSTED_ROOT: libc::uid_t = 0;

/// Where a socket is: from the root, NUL-terminated.
#[derive(Clone, Copy)]
pub(crate) struct Path {
    bytes: [u8; LONGEST + 1],
}

/// Why there is no socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) what: &'static str,
    /// 0: that is all there is to say.
    pub(crate) errno: c_int,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            0 => out.write_str(self.what),
            errno => write!(out, "{}: {}", self.what, SystemError(errno)),
        }
    }
}

const TOO_LONG: Refusal = Refusal { what: "the path is longer than 107 bytes", errno: 0 };
const LIVES: Refusal = Refusal { what: "another process serves it", errno: 0 };
const NO_SOCKET: Refusal = Refusal { what: "what is there is no socket", errno: 0 };

fn errno() -> c_int {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() }
}

fn refused(what: &'static str) -> Refusal {
    Refusal { what, errno: errno() }
}

impl Path {
    /// A path that is not from the root is from where the process is now.
    pub(crate) fn new(path: &[u8]) -> Result<Self, Refusal> {
        let mut it = Self { bytes: [0; LONGEST + 1] };
        if path.is_empty() || path.contains(&0) {
            return Err(Refusal { what: "that is no path", errno: 0 });
        }
        let mut before = 0;
        if path[0] != b'/' {
            // SAFETY: as much room as there is.
            let here = unsafe { libc::getcwd(it.bytes.as_mut_ptr().cast(), it.bytes.len()) };
            if here.is_null() {
                return Err(if errno() == libc::ERANGE { TOO_LONG } else { refused("getcwd") });
            }
            before = it.as_c_str().count_bytes() + 1;
        }
        let end = before + path.len();
        if end > LONGEST {
            return Err(TOO_LONG);
        }
        if before > 0 {
            it.bytes[before - 1] = b'/';
        }
        it.bytes[before..end].copy_from_slice(path);
        Ok(it)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// The folder that it is in.
    fn folder(&self) -> Self {
        let mut it = *self;
        let name = it.bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        // The root's own slash stays.
        it.bytes[name.max(1)..].fill(0);
        it
    }

    fn address(&self) -> libc::sockaddr_un {
        let mut address = libc::sockaddr_un {
            sun_family: libc::AF_UNIX as libc::sa_family_t,
            sun_path: [0; 108],
        };
        for (to, from) in address.sun_path.iter_mut().zip(self.bytes) {
            *to = from as libc::c_char;
        }
        address
    }

    /// What is there; None: nothing.
    fn status(&self) -> Result<Option<libc::stat>, Refusal> {
        let mut status = std::mem::MaybeUninit::uninit();
        // SAFETY: a string, and room for what is read when it is 0.
        match unsafe { libc::lstat(self.as_c_str().as_ptr(), status.as_mut_ptr()) } {
            // SAFETY: filled.
            0 => Ok(Some(unsafe { status.assume_init() })),
            _ if errno() == libc::ENOENT => Ok(None),
            _ => Err(refused("lstat")),
        }
    }

    fn remove(&self) -> Result<(), Refusal> {
        // SAFETY: a string.
        match unsafe { libc::unlink(self.as_c_str().as_ptr()) } {
            0 => Ok(()),
            _ if errno() == libc::ENOENT => Ok(()),
            _ => Err(refused("unlink")),
        }
    }
}

#[cfg(test)]
impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_c_str().to_string_lossy().fmt(out)
    }
}

/// A file that a process has made, told from another one that took its place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity(libc::dev_t, libc::ino_t, libc::time_t, i64);

impl Identity {
    fn of(status: &libc::stat) -> Self {
        Self(status.st_dev, status.st_ino, status.st_mtime, status.st_mtime_nsec)
    }
}

/// A path that leads to a socket of this process.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    path: Path,
    file: Identity,
}

impl Place {
    /// Takes the path away, unless it leads to another socket by now.
    pub(crate) fn remove(&self) {
        if let Ok(Some(status)) = self.path.status()
            && Identity::of(&status) == self.file
        {
            // Refused: somebody finds it stale.
            let _ = self.path.remove();
        }
    }
}

/// All sockets below that are open, for the child of a fork.
static OPEN: [Opened; 16] =
    [const { Opened { number: AtomicU32::new(0), inode: AtomicU64::new(0) } }; 16];

struct Opened {
    /// 1 + the descriptor, 0 for none.
    number: AtomicU32,
    inode: AtomicU64,
}

impl Opened {
    /// Notes a socket here, if none is noted.
    fn take(&self, fd: c_int, inode: libc::ino_t) -> bool {
        // Relaxed: read where there is one thread.
        let took = self.number.compare_exchange(0, number_of(fd), Relaxed, Relaxed).is_ok();
        if took {
            self.inode.store(inode, Relaxed);
        }
        took
    }

    /// Forgets the socket, if it is noted here; another one may have got its descriptor since.
    fn clear(&self, fd: c_int, inode: libc::ino_t) -> bool {
        // Relaxed: as above.
        self.inode.load(Relaxed) == inode
            && self.number.compare_exchange(number_of(fd), 0, Relaxed, Relaxed).is_ok()
    }
}

fn number_of(fd: c_int) -> u32 {
    fd as u32 + 1
}

/// In the child of a fork: the sockets are the parent's.
pub(crate) fn close_all_in_child() {
    let _not_now = NotNow::begin();
    // Relaxed: there is one thread.
    for open in &OPEN {
        let number = open.number.swap(0, Relaxed);
        let fd = number.wrapping_sub(1) as c_int;
        if number != 0 && inode_of(fd) == Some(open.inode.load(Relaxed)) {
            // SAFETY: a descriptor of ours, which nobody uses in this process.
            unsafe { libc::close(fd) };
        }
    }
}

/// An open socket, non-blocking and closed on exec. To be made and dropped where no fork happens, so that
/// [`close_all_in_child`] knows it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: c_int,
    /// Tells it from what the host may have opened after it has closed every descriptor that it did not
    /// know.
    inode: libc::ino_t,
}

impl Socket {
    fn new(fd: OwnedFd) -> Result<Self, Refusal> {
        let raw = fd.as_raw_fd();
        let inode = inode_of(raw).ok_or(refused("fstat"))?;
        if !OPEN.iter().any(|open| open.take(raw, inode)) {
            return Err(Refusal { what: "too many sockets", errno: 0 });
        }
        std::mem::forget(fd);
        Ok(Self { fd: raw, inode })
    }

    /// Is the descriptor still this socket?
    pub(crate) fn is_open(&self) -> bool {
        inode_of(self.fd) == Some(self.inode)
    }

    pub(crate) fn to_poll(&self, events: libc::c_short) -> libc::pollfd {
        libc::pollfd { fd: self.fd, events, revents: 0 }
    }

    /// The next one who has connected. Fails with an errno.
    pub(crate) fn accept(&self) -> Result<Self, c_int> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes numbers; nobody wants the address.
        let fd =
            unsafe { libc::accept4(self.fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        // SAFETY: new, and nobody else's.
        let fd = own(fd).map_err(|_| errno())?;
        Self::new(fd).map_err(|refusal| refusal.errno)
    }

    /// Is the process on the other side this one's user's, or root's?
    pub(crate) fn is_from_owner(&self) -> bool {
        let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: 0 };
        let mut len = size_of_val(&peer) as libc::socklen_t;
        // SAFETY: room for as many bytes as it says.
        let got = unsafe {
            libc::getsockopt(
                self.fd,
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut peer).cast(),
                &raw mut len,
            )
        };
        // SAFETY: no preconditions.
        got == 0 && (peer.uid == unsafe { libc::geteuid() } || peer.uid == TRUSTED_ROOT)
    }

    /// How many bytes have come: 0 at the end. Fails with an errno.
    pub(crate) fn receive(&self, bytes: &mut [u8]) -> Result<usize, c_int> {
        // SAFETY: room for as many bytes.
        let got = unsafe {
            libc::recv(self.fd, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT)
        };
        usize::try_from(got).map_err(|_| errno())
    }

    /// How many bytes have gone. Fails with an errno, and raises no SIGPIPE.
    pub(crate) fn send(&self, bytes: &[u8]) -> Result<usize, c_int> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: as many bytes.
        let sent = unsafe { libc::send(self.fd, bytes.as_ptr().cast(), bytes.len(), flags) };
        usize::try_from(sent).map_err(|_| errno())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A drop must not unwind.
        let _not_now = NotNow::begin();
        let is_open = self.is_open();
        let _ = OPEN.iter().any(|open| open.clear(self.fd, self.inode));
        if is_open {
            // For the other side also where a child of this process has the descriptor, too.
            // SAFETY: a descriptor of ours.
            unsafe {
                libc::shutdown(self.fd, libc::SHUT_RDWR);
                libc::close(self.fd);
            }
        }
    }
}

fn own(fd: c_int) -> Result<OwnedFd, ()> {
    // SAFETY: what the system has just opened for the caller.
    if fd < 0 { Err(()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

/// Of a socket: no two have the same.
fn inode_of(fd: c_int) -> Option<libc::ino_t> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: room for what is read when it is 0.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: filled.
    let status = unsafe { status.assume_init() };
    (status.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some(status.st_ino)
}

fn socket() -> Result<OwnedFd, Refusal> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers.
    own(unsafe { libc::socket(libc::AF_UNIX, kind, 0) }).map_err(|()| refused("socket"))
}

/// Listens there, and nobody but the owner and root can connect. What a process that is gone has left there
/// is replaced; what another process serves, or what is no socket, stays.
pub(crate) fn listen(path: &Path) -> Result<(Socket, Place), Refusal> {
    let _not_now = NotNow::begin();
    // One process of several that start at once: two must not find the same path stale, one of them after
    // the other has replaced it.
    let _lock = lock(&path.folder());
    make_room(path)?;
    let listener = socket()?;
    // The file gets the socket's mode, less what the umask takes. (On Linux. Elsewhere it is changed before
    // anybody can connect, which is not before `listen`.)
    // SAFETY: takes numbers.
    unsafe { libc::fchmod(listener.as_raw_fd(), OWNERS) };
    let address = path.address();
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: an address of this length.
    match unsafe { libc::bind(listener.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => {}
        _ if errno() == libc::EADDRINUSE => return Err(LIVES),
        _ => return Err(refused("bind")),
    }
    let opened = open(path, listener);
    if opened.is_err() {
        let _ = path.remove();
    }
    opened
}

/// The rest of it, once it is bound.
fn open(path: &Path, listener: OwnedFd) -> Result<(Socket, Place), Refusal> {
    const GONE: Refusal = Refusal { what: "it has gone at once", errno: 0 };
    let status = path.status()?.ok_or(GONE)?;
    if status.st_mode & 0o777 != OWNERS {
        // SAFETY: a string.
        match unsafe { libc::chmod(path.as_c_str().as_ptr(), OWNERS) } {
            0 => {}
            _ => return Err(refused("chmod")),
        }
    }
    const BACKLOG: c_int = 16;
    // SAFETY: takes numbers.
    if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } != 0 {
        return Err(refused("listen"));
    }
    Ok((Socket::new(listener)?, Place { path: *path, file: Identity::of(&status) }))
}

fn make_room(path: &Path) -> Result<(), Refusal> {
    let Some(status) = path.status()? else { return Ok(()) };
    if status.st_mode & libc::S_IFMT != libc::S_IFSOCK {
        return Err(NO_SOCKET);
    }
    let probe = socket()?;
    let address = path.address();
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: an address of this length.
    if unsafe { libc::connect(probe.as_raw_fd(), (&raw const address).cast(), len) } == 0 {
        return Err(LIVES);
    }
    match errno() {
        libc::ECONNREFUSED => path.remove(),
        libc::ENOENT => Ok(()),
        // So many wait to be heard that there is no room for more.
        libc::EAGAIN => Err(LIVES),
        _ => Err(refused("connect")),
    }
}

/// Locks a folder, or goes without where that is not allowed, or somebody holds it who is not one of us: we
/// hold it for microseconds.
fn lock(folder: &Path) -> Option<OwnedFd> {
    const TRIES: u32 = 20;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a string.
    let folder = own(unsafe { libc::open(folder.as_c_str().as_ptr(), flags) }).ok()?;
    for _ in 0..TRIES {
        // SAFETY: takes numbers.
        if unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Some(folder);
        }
        if errno() != libc::EWOULDBLOCK {
            break;
        }
        super::wake::pause();
    }
    None
}
