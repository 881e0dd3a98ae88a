//! Keeps what is in memory out of files: no core dumps, no other process of the same user looking in.

use nix::{
    errno::Errno,
    sys::resource::{Resource, setrlimit},
};

/// Turns core dumps off for this process and what it starts, and marks it as not dumpable (prctl(2)), so that no
/// debugger of the same user attaches. Call it before any secret is read.
pub fn keep_memory_private() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_core_is_written_afterwards() {
        keep_memory_private().unwrap();
        assert_eq!(
            nix::sys::resource::getrlimit(Resource::RLIMIT_CORE).unwrap(),
            (0, 0)
        );
        #[cfg(target_os = "linux")]
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
    }
}
