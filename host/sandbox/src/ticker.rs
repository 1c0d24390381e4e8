//! The clock behind the backstop: one thread that ticks while calls run and sleeps without a time-out when none does.
//!
//! Devices idle for weeks; a thread that wakes ten times a second for nothing would keep the processor from deep sleep.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The thread. Ends when dropped.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Calls under way.
    running: usize,
    /// The thread sleeps until it is woken.
    asleep: bool,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is three plain values, valid at every moment: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticker {
    /// Starts the thread; while calls run it calls `tick` once per `interval`.
    pub(crate) fn start(
        interval: Duration,
        tick: impl Fn() + Send + 'static,
    ) -> io::Result<Ticker> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let theirs = shared.clone();
        let thread = thread::Builder::new()
            .name("sandbox-clock".into())
            .stack_size(128 * 1024)
            .spawn(move || run(&theirs, interval, tick))?;
        Ok(Ticker {
            shared,
            thread: Some(thread),
        })
    }

    /// Says that a call runs until the guard is dropped.
    pub(crate) fn running(&self) -> Running<'_> {
        let mut state = self.shared.lock();
        state.running += 1;
        if state.asleep {
            self.shared.wake.notify_one();
        }
        Running(&self.shared)
    }
}

fn run(shared: &Shared, interval: Duration, tick: impl Fn()) {
    let mut state = shared.lock();
    while !state.stop {
        if state.running == 0 {
            state.asleep = true;
            state = shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
            continue;
        }
        let (held, waited) = shared
            .wake
            .wait_timeout(state, interval)
            .unwrap_or_else(PoisonError::into_inner);
        state = held;
        if waited.timed_out() {
            tick();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It ends by itself; a panic of it was reported on its own thread.
            let _ = thread.join();
        }
    }
}

/// One call under way.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::mpsc::{self, TryRecvError};

    use super::*;

    /// Long enough that only a fault ever reaches it.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn wait_until_asleep(ticker: &Ticker) {
        for _ in 0..3_000 {
            if ticker.shared.lock().asleep {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the clock never went to sleep");
    }

    #[test]
    fn it_ticks_while_a_call_runs_and_sleeps_when_none_does() {
        let (tell, told) = mpsc::channel();
        let ticker =
            Ticker::start(Duration::from_millis(1), move || tell.send(()).unwrap()).unwrap();
        wait_until_asleep(&ticker);
        assert_eq!(
            told.try_recv(),
            Err(TryRecvError::Empty),
            "it ticked although nothing ran"
        );

        let first = ticker.running();
        let second = ticker.running();
        told.recv_timeout(PATIENCE).unwrap();
        drop(first);
        told.recv_timeout(PATIENCE).unwrap();
        drop(second);

        wait_until_asleep(&ticker);
        while told.try_recv().is_ok() {}
        assert!(ticker.shared.lock().asleep);
    }

    #[test]
    fn the_thread_ends_with_its_owner() {
        let (tell, told) = mpsc::channel::<()>();
        let ticker = Ticker::start(Duration::from_millis(1), move || {
            let _ = &tell;
        })
        .unwrap();
        drop(ticker);
        // The sender lived on the thread.
        assert_eq!(
            told.recv_timeout(PATIENCE),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
