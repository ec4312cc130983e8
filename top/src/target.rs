//! Which socket: a path, or that of a process, which has it in its environment.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const VARIABLE: &[u8] = b"CALLBRIDGE_STATS_SOCKET=";

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The first one that is there.
    pub(crate) paths: Vec<PathBuf>,
    /// Only if it is this process that answers.
    pub(crate) pid: Option<u32>,
}

impl Target {
    /// A number is a process, all else is a path. Fails with words for people.
    pub(crate) fn find(argument: &Path) -> Result<Self, String> {
        match argument.to_str().and_then(|argument| argument.parse::<u32>().ok()) {
            Some(pid) => Self::of_process(Path::new("/proc"), pid),
            None => Ok(Self { paths: vec![argument.to_owned()], pid: None }),
        }
    }

    fn of_process(proc: &Path, pid: u32) -> Result<Self, String> {
        let process = proc.join(pid.to_string());
        let environment =
            fs::read(process.join("environ")).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("there is no process {pid}"),
                _ => format!("the environment of process {pid} cannot be read: {error}"),
            })?;
        let mut variables = environment.split(|byte| *byte == 0);
        let value = variables.find_map(|it| it.strip_prefix(VARIABLE)).unwrap_or_default();
        if value.is_empty() {
            return Err(format!(
                "process {pid} was started without CALLBRIDGE_STATS_SOCKET in its environment \
                 (if it has set that itself, say where the socket is)"
            ));
        }
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let path = expand(value, own_number(&status).unwrap_or(pid));
        let path = match path.is_absolute() {
            true => path,
            false => fs::read_link(process.join("cwd")).unwrap_or_default().join(path),
        };
        // In another container the path is another file, or none, and this leads to the right one.
        let inside = path.strip_prefix("/").unwrap_or(&path);
        let from_root = process.join("root").join(inside);
        Ok(Self { paths: vec![path, from_root], pid: Some(pid) })
    }
}

/// As the library does it: `%p` is the process's number, `%%` a `%`.
fn expand(template: &[u8], pid: u32) -> PathBuf {
    let (mut path, mut rest) = (Vec::new(), template.iter());
    while let Some(byte) = rest.next() {
        match (byte, rest.as_slice().first()) {
            (b'%', Some(b'p')) => {
                path.extend(pid.to_string().bytes());
                rest.next();
            }
            (b'%', Some(b'%')) => {
                path.push(b'%');
                rest.next();
            }
            _ => path.push(*byte),
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

/// What number the process has for itself, in its container.
fn own_number(status: &str) -> Option<u32> {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().next_back()?.parse().ok()
}

/// Too long for an address, see [`crate::client`].
pub(crate) fn is_long(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() > 107
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A /proc with one process.
    fn proc(test: &str, environ: &str) -> PathBuf {
        let proc =
            std::env::temp_dir().join(format!("callbridge-top-{test}-{}", std::process::id()));
        fs::create_dir_all(proc.join("7")).unwrap();
        fs::write(proc.join("7/environ"), environ).unwrap();
        fs::write(proc.join("7/status"), "Name:\tx\nNSpid:\t7\t1\nThreads:\t1\n").unwrap();
        let _ = std::os::unix::fs::symlink("/var/tmp", proc.join("7/cwd"));
        proc
    }

    fn path_of(test: &str, environ: &str) -> Result<PathBuf, String> {
        let proc = proc(test, environ);
        let target = Target::of_process(&proc, 7);
        fs::remove_dir_all(&proc).unwrap();
        target.map(|target| {
            assert_eq!(target.pid, Some(7));
            let from_root = proc.join("7/root").join(target.paths[0].strip_prefix("/").unwrap());
            assert_eq!(target.paths[1..], [from_root]);
            target.paths[0].clone()
        })
    }

    #[test]
    fn a_processs_socket_is_where_its_environment_says() {
        let path = path_of("plain", "A=b\0CALLBRIDGE_STATS_SOCKET=/run/s\0C=d\0");
        assert_eq!(path, Ok("/run/s".into()));
        // The number that it has for itself.
        let path = path_of("number", "CALLBRIDGE_STATS_SOCKET=/run/%p%%%x%\0");
        assert_eq!(path, Ok("/run/1%%x%".into()));
        let path = path_of("relative", "CALLBRIDGE_STATS_SOCKET=s\0");
        assert_eq!(path, Ok("/var/tmp/s".into()));
    }

    #[test]
    fn what_cannot_be_found_is_said() {
        assert!(path_of("unset", "XCALLBRIDGE_STATS_SOCKET=/run/s\0").is_err());
        assert!(path_of("empty", "CALLBRIDGE_STATS_SOCKET=\0").is_err());
        let error = Target::of_process(&proc("none", ""), 8).unwrap_err();
        assert_eq!(error, "there is no process 8");
    }

    #[test]
    fn a_path_is_a_path() {
        let target = Target::find(Path::new("./12")).unwrap();
        assert_eq!(target, Target { paths: vec!["./12".into()], pid: None });
    }
}
