//! Where blocking work happens.

use std::time::Duration;

/// The one seam between async code and blocking work (disk, guest calls, digests): threads in production, inline in
/// simulation, where every run has to take the same course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seam {
    /// On tokio's blocking threads.
    Threads,
    /// At once, on the caller's thread.
    Inline,
    /// On the caller's thread, after so much of tokio's time. In virtual time every run takes the same course, and what leaves before the
    /// work is done has time to arrive.
    After(Duration),
}

impl Seam {
    /// Runs blocking work and waits for its result. A panic in the work goes on in the caller.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Seam::Inline => work(),
            Seam::After(time) => {
                tokio::time::sleep(time).await;
                work()
            }
            Seam::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(stopped) => match stopped.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down: nobody will look at a result any more.
                    Err(_) => std::future::pending().await,
                },
            },
        }
    }
}
