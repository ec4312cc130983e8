//! What can go wrong, one variant for each decision that a caller can take. Small and `Copy`: a
//! failure stores codes, the words are made when somebody asks.

/// Why a call of the library failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A NULL function where one is needed.
    Null,
    /// The object is gone, or never was.
    Stale,
    /// An argument is out of its range; the words say which.
    Invalid(&'static str),
    /// The handle is of another kind of object.
    Kind,
    /// The callback was registered with the signature `have`; the caller expects `want`.
    Signature {
        /// The callback's.
        have: u64,
        /// The caller's.
        want: u64,
    },
    /// The object belongs to the thread `owner`, the call came on `caller` (kernel thread numbers).
    Thread {
        /// Whose it is.
        owner: u32,
        /// Who called.
        caller: u32,
    },
    /// The wait could never end: the caller is, directly or through others, inside what it waits for.
    Deadlock,
    /// The deadline passed.
    Timeout,
    /// The queue is full.
    Full,
    /// The queue has nothing to dispatch.
    Empty,
    /// The queue or scope no longer takes work.
    Closed,
    /// Already set, and the first one stays.
    Exists,
    /// Nothing is known under this name or key, or in this hook.
    NotFound,
    /// A stated limit is reached; the words say which.
    Limit(&'static str),
    /// Out of memory.
    NoMemory,
    /// The operating system refused `what` with `errno`.
    System {
        /// The operation.
        what: &'static str,
        /// Its error number.
        errno: i32,
    },
    /// Not in this version; the words say what.
    Unsupported(&'static str),
    /// The callback ran and reported failure.
    Callback,
    /// The callback ran, and its wrapper caught a panic or an exception.
    Panic,
}

/// Something went wrong, and the thread's record says what (`Record::fault`). Being empty, it keeps
/// the results of hot functions in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault;
