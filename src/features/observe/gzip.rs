//! gzip (RFC 1952) around data as it is: in stored blocks. What is written here is small, and whoever stores or
//! sends it can compress it better.

use crate::error::Error;

/// As much as a stored block takes.
const BLOCK: usize = 0xffff;
/// A block's header, and those of the whole at its ends.
const BLOCK_HEADER: usize = 5;
const ENDS: usize = 10 + 8;

const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| CRC[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

pub(crate) fn gzip(data: &[u8]) -> Result<Vec<u8>, Error> {
    let blocks = data.len().div_ceil(BLOCK).max(1);
    let mut out = Vec::new();
    out.try_reserve_exact(data.len() + blocks * BLOCK_HEADER + ENDS)
        .map_err(|_| Error::NoMemory)?;
    // Deflate, no name, no time, whatever system.
    out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    for number in 0..blocks {
        let block = &data[number * BLOCK..data.len().min((number + 1) * BLOCK)];
        let len = block.len() as u16;
        out.push((number + 1 == blocks).into());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc(data).to_le_bytes());
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    Ok(out)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn gzip_itself_reads_it() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let data: Vec<u8> = (0..len).map(|place| (place * place / 7) as u8).collect();
            let mut gunzip = Command::new("gzip")
                .arg("-dc")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let (mut to, mut from) = (gunzip.stdin.take().unwrap(), gunzip.stdout.take().unwrap());
            let zipped = gzip(&data).unwrap();
            let writer = std::thread::spawn(move || to.write_all(&zipped));
            let mut back = Vec::new();
            from.read_to_end(&mut back).unwrap();
            writer.join().unwrap().unwrap();
            assert!(gunzip.wait().unwrap().success());
            assert!(back == data, "{len} bytes");
        }
    }
}
