//! One node as a child process: its log to a file and to standard error, its `ready` line, its end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::Stdio,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{ChildStdin, Command},
    sync::mpsc,
};

use super::material::DevNode;

/// A longer line of a node's log is cut into several.
const MAX_LINE: u64 = 64 * 1024;

/// What happened to a node.
#[derive(Debug)]
pub(super) enum Event {
    /// It printed `ready`.
    Ready(u64),
    /// It ended.
    Ended {
        /// Which.
        node: u64,
        /// How.
        status: String,
    },
}

/// A node that this process started.
pub(super) struct Child {
    pub(super) node: u64,
    pub(super) log: PathBuf,
    pub(super) config: PathBuf,
    pub(super) is_ready: bool,
    pid: Option<u32>,
    /// Kept open: the node ends when it is closed.
    _stdin: Option<ChildStdin>,
}

impl Child {
    /// Starts a node; what happens to it arrives as events.
    pub(super) fn spawn(node: &DevNode, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let id = node.id();
        let log = node.folder.join("log");
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&log)?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("server")
            .arg("--config")
            .arg(&node.config_path)
            .arg("--exit-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C in a terminal reaches `dev` alone, which then ends its nodes in order.
            .process_group(0)
            .spawn()?;
        let pid = process.id();
        let stdin = process.stdin.take();
        if let Some(stderr) = process.stderr.take() {
            tokio::spawn(copy_log(id, stderr, file));
        }
        if let Some(stdout) = process.stdout.take() {
            let events = events.clone();
            tokio::spawn(async move {
                let mut lines = Lines::new(stdout);
                while let Some(line) = lines.next().await {
                    if line.trim_ascii() == b"ready" && events.send(Event::Ready(id)).await.is_err() {
                        break;
                    }
                }
            });
        }
        tokio::spawn(async move {
            let status = match process.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            // Nobody listens: `dev` is ending itself.
            let _ = events.send(Event::Ended { node: id, status }).await;
        });
        Ok(Self {
            node: id,
            log,
            config: node.config_path.clone(),
            is_ready: false,
            pid,
            _stdin: stdin,
        })
    }

    /// Its process id while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Its process id is nobody's, or somebody else's, from now on.
    pub(super) fn has_ended(&mut self) {
        self.pid = None;
    }

    /// SIGTERM.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGKILL.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid.and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended in this moment; that is what was wanted.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

async fn copy_log(node: u64, from: impl AsyncRead + Unpin, mut file: File) {
    let mut lines = Lines::new(from);
    while let Some(line) = lines.next().await {
        // One write each, so that the lines of several nodes do not mix; a full disk does not end the cluster.
        let _ = file.write_all(&line);
        let mut prefixed = format!("node-{node} | ").into_bytes();
        prefixed.extend_from_slice(&line);
        let _ = io::stderr().lock().write_all(&prefixed);
    }
}

/// Lines of bounded length, each with its line end.
struct Lines<R>(BufReader<R>);

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(from: R) -> Self {
        Self(BufReader::new(from))
    }

    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        match (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => {
                if line.last() != Some(&b'\n') {
                    line.push(b'\n');
                }
                Some(line)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_bounded_and_end() {
        let mut text = b"one\ntwo\n".to_vec();
        text.extend(vec![b'x'; MAX_LINE as usize + 10]);
        let mut lines = Lines::new(text.as_slice());
        assert_eq!(lines.next().await.unwrap(), b"one\n");
        assert_eq!(lines.next().await.unwrap(), b"two\n");
        assert_eq!(lines.next().await.unwrap().len(), MAX_LINE as usize + 1);
        assert_eq!(lines.next().await.unwrap(), b"xxxxxxxxxx\n");
        assert_eq!(lines.next().await, None);
    }
}
