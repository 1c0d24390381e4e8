//! Notices that a broker has gone without a word, as one behind a router that was switched off and on has.
//!
//! The client pings only when it has sent nothing for a while, so one that publishes telemetry all the time would never learn that
//! nothing of it arrives, and be deaf for as long. Therefore, after a silence, one publication asks for an acknowledgement although
//! nobody wanted one; and a broker that leaves what it has to answer unanswered is given up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When the broker was heard last: written by who reads the wire.
#[derive(Debug, Clone)]
pub(super) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    pub(super) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn again(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The silence of the broker of one connection.
#[derive(Debug)]
pub(super) struct Silence {
    heard: Heard,
    patience: Duration,
    /// The first thing was sent that it has to answer, and has not.
    asked: Option<Instant>,
}

impl Silence {
    /// `patience`: the silence after which it is asked, and how long it may take to answer.
    pub(super) fn new(heard: Heard, patience: Duration) -> Self {
        Self {
            heard,
            patience,
            asked: None,
        }
    }

    /// The broker has been silent for so long that it should be asked whether it is there.
    pub(super) fn is_doubtful(&self) -> bool {
        self.waiting_since().is_none() && self.heard.at().elapsed() >= self.patience
    }

    /// Something was sent that the broker has to answer.
    pub(super) fn asked(&mut self) {
        if self.waiting_since().is_none() {
            self.asked = Some(Instant::now());
        }
    }

    /// Something of the broker is here, and was not read yet.
    pub(super) fn ends(&self) {
        self.heard.again();
    }

    /// When the connection is to be given up, unless something is heard before.
    pub(super) fn until(&self) -> Option<Instant> {
        self.waiting_since().map(|asked| asked + self.patience)
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.asked.filter(|asked| *asked > self.heard.at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn after(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_is_silent_is_asked_and_given_up_when_it_does_not_answer() {
        let mut silence = Silence::new(Heard::now(), PATIENCE);
        after(29).await;
        assert!(!silence.is_doubtful());
        after(1).await;
        assert!(silence.is_doubtful());
        assert_eq!(silence.until(), None, "nothing was asked yet");
        silence.asked();
        let until = Instant::now() + PATIENCE;
        assert!(!silence.is_doubtful(), "once is enough");
        after(10).await;
        silence.asked();
        assert_eq!(silence.until(), Some(until), "the first counts");
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_heard_is_an_answer() {
        let heard = Heard::now();
        let mut silence = Silence::new(heard.clone(), PATIENCE);
        for _ in 0..3 {
            after(1).await;
            silence.asked();
            assert!(silence.until().is_some());
            after(1).await;
            heard.again();
            assert_eq!(silence.until(), None);
        }
    }
}
