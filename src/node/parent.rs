//! The other end of the pipe: a node that `dev` started ends when `dev` is gone, however that ended.
//!
//! `dev` holds the writing end of the node's standard input and never writes. The kernel closes it with the process,
//! after SIGKILL too, so the node reads the end of the file.

use std::io::Read as _;

use tokio::sync::oneshot;

/// Resolves when standard input has ended. `conclave server --exit-with-stdin` stops then as after SIGTERM.
///
/// A thread waits in a blocking read; it ends with the process.
pub(super) async fn gone() {
    let (ended, end) = oneshot::channel::<()>();
    let wait = move || {
        let mut byte = [0; 64];
        while std::io::stdin()
            .lock()
            .read(&mut byte)
            .is_ok_and(|count| count > 0)
        {}
        let _ = ended.send(());
    };
    match std::thread::Builder::new().name("parent".to_owned()).spawn(wait) {
        Ok(_) => drop(end.await),
        // Without the thread the node cannot know; it goes on and ends by signal.
        Err(error) => {
            tracing::warn!(%error, "cannot watch standard input");
            std::future::pending::<()>().await;
        }
    }
}
