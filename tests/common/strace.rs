//! System calls of a running node that fail, are slow, or are its last: strace's injection, on some files or on all.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Calls by which data is made durable.
pub(crate) const SYNCS: &str = "fsync,fdatasync";

/// A tracer that is attached; dropping it takes it away and lets the process go on.
pub(crate) struct Tracer {
    child: Child,
}

/// What the tests need of this machine, if it is missing.
pub(crate) fn missing() -> Option<&'static str> {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => None,
        _ => Some("strace"),
    }
}

impl Tracer {
    /// Attaches to all threads of a process and does `what` (as strace's `inject` has it) to the calls of `calls`; only to
    /// those on `files`, if there are any.
    pub(crate) fn attach(pid: i32, calls: &str, what: &str, files: &[PathBuf]) -> Tracer {
        // It ends with the test, whatever becomes of that.
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "strace",
                "-f",
                "-o",
                "/dev/null",
                "-e",
            ])
            .arg(format!("trace={calls}"));
        command.arg("-e").arg(format!("inject={calls}:{what}"));
        for file in files {
            command.arg("-P").arg(file);
        }
        let mut child = command
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says `Process N attached with M threads` once it is on all of them.
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        errors.read_line(&mut told).unwrap();
        assert!(told.contains(" attached"), "{told}");
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Tracer { child }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // The kernel takes it off whatever it is attached to. Asked by SIGTERM it would wait for threads to stop, for ever
        // if they are being killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files under a folder whose names end like this.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .collect()
}
