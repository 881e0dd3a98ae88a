//! How much of the disk is free, and room for a segment in advance.

use std::fs::File;
use std::io;
use std::path::Path;

/// The share of the file system that an ordinary process may still fill, in percent, rounded up: 5 are
/// 5 or less.
pub(super) fn free_percent(folder: &Path) -> io::Result<u8> {
    let found = nix::sys::statvfs::statvfs(folder)?;
    let all = u128::from(found.blocks());
    if all == 0 {
        return Ok(100);
    }
    let free = (u128::from(found.blocks_available()) * 100).div_ceil(all);
    Ok(u8::try_from(free.min(100)).unwrap_or(100))
}

/// Reserves `bytes` for the file, all zero, so that later writes find their blocks and the length never changes.
pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let length = i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(nix::fcntl::posix_fallocate(file, 0, length)?)
}
