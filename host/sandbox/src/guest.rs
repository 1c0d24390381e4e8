//! What the host holds for one call: the view it answers from, the log it keeps, and the bounds it enforces.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use otahost_core::model::Level;
use otahost_core::view::View;
use serde::{Deserialize, Serialize};
use wasmtime::ResourceLimiter;

use crate::failure::FailureKind;
use crate::limits::Limits;
use crate::text::plain;

/// Most random bytes in one call, by the contract.
const MAX_RANDOM: usize = 4096;

/// One line an adapter wrote to its log. Control characters are spelt out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How severe the adapter says it is.
    pub level: Level,
    /// The text, one line.
    pub text: String,
}

/// The data of one store.
pub(crate) struct Guest {
    /// None outside `handle`: the other functions may not ask anything.
    view: Option<Arc<View>>,
    /// The function that is being called, for messages.
    function: &'static str,
    log: Log,
    limits: Arc<Limits>,
    /// Blocks of random bytes drawn so far.
    drawn: u64,
    host_calls: u32,
    host_call_bytes: usize,
    memory: usize,
    elements: usize,
    /// The first bound that was broken. The guest is stopped at once, so there is no second.
    pub(crate) broken: Option<FailureKind>,
    /// The component is instantiated and its function is being called.
    pub(crate) entered: bool,
}

impl Guest {
    pub(crate) fn new(
        function: &'static str,
        view: Option<Arc<View>>,
        limits: Arc<Limits>,
    ) -> Self {
        Guest {
            view,
            function,
            log: Log::default(),
            limits,
            drawn: 0,
            host_calls: 0,
            host_call_bytes: 0,
            memory: 0,
            elements: 0,
            broken: None,
            entered: false,
        }
    }

    /// Counts one host call that brought so many bytes out of the guest.
    pub(crate) fn enter(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.host_calls += 1;
        self.host_call_bytes = self.host_call_bytes.saturating_add(bytes);
        if self.host_calls > self.limits.host_calls {
            let most = self.limits.host_calls;
            return Err(self.stop(FailureKind::Limit(format!(
                "more than {most} host calls in one step"
            ))));
        }
        if self.host_call_bytes > self.limits.host_call_bytes {
            let most = self.limits.host_call_bytes;
            return Err(self.stop(FailureKind::Limit(format!(
                "more than {most} bytes in host calls in one step"
            ))));
        }
        Ok(())
    }

    /// Counts a host call as [`enter`](Self::enter) does, and gives the view to answer it from.
    pub(crate) fn ask(&mut self, what: &str, bytes: usize) -> wasmtime::Result<&View> {
        self.enter(bytes)?;
        if self.view.is_none() {
            let function = self.function;
            return Err(self.stop(FailureKind::Malformed(format!(
                "`{function}` asked the host for `{what}`, and only `handle` may ask"
            ))));
        }
        Ok(self.view.as_deref().expect("checked above"))
    }

    /// The next random bytes: SHA-256 of the seed and a running block number. The same in a replay, and no two draws of
    /// one step share a block.
    pub(crate) fn random(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        let seed = self.ask("random", 0)?.seed;
        let length = usize::try_from(length)
            .unwrap_or(MAX_RANDOM)
            .min(MAX_RANDOM);
        let mut bytes = Vec::with_capacity(length.next_multiple_of(32));
        while bytes.len() < length {
            let mut block = Context::new(&SHA256);
            block.update(b"otahost random");
            block.update(&seed);
            block.update(&self.drawn.to_be_bytes());
            bytes.extend_from_slice(block.finish().as_ref());
            self.drawn += 1;
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Keeps a line of log, as far as the limit allows.
    pub(crate) fn write_log(&mut self, level: Level, message: &str) -> wasmtime::Result<()> {
        self.enter(message.len())?;
        self.log.write(level, message, self.limits.log_bytes);
        Ok(())
    }

    pub(crate) fn into_log(self) -> Vec<LogLine> {
        self.log.finish(self.limits.log_bytes)
    }

    /// Notes what was broken and gives the error that stops the guest.
    fn stop(&mut self, why: FailureKind) -> wasmtime::Error {
        let error = wasmtime::Error::msg(why.word());
        self.broken.get_or_insert(why);
        error
    }
}

/// Growth beyond a bound is a trap and not an answer the guest could act on: whether the operating system has the memory
/// would otherwise decide what a step does, and a replay could differ.
impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        let most = self.limits.memory_bytes;
        if total > most {
            return Err(self.stop(FailureKind::Limit(format!(
                "it wants {total} bytes of memory, and {most} are allowed"
            ))));
        }
        self.memory = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(self.stop(grow_failed("memory", &error)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self
            .elements
            .saturating_add(desired.saturating_sub(current));
        let most = self.limits.table_elements;
        if total > most {
            return Err(self.stop(FailureKind::Limit(format!(
                "it wants {total} table elements, and {most} are allowed"
            ))));
        }
        self.elements = total;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(self.stop(grow_failed("table", &error)))
    }

    fn instances(&self) -> usize {
        self.limits.instances
    }

    fn tables(&self) -> usize {
        self.limits.tables
    }

    fn memories(&self) -> usize {
        self.limits.memories
    }
}

/// The guest's own declared maximum is its fault; what the operating system refuses is not.
fn grow_failed(what: &str, error: &wasmtime::Error) -> FailureKind {
    if error.is::<std::io::Error>() {
        FailureKind::Engine(format!("no {what} from the operating system: {error}"))
    } else {
        FailureKind::Limit(format!("its {what} cannot grow: {error}"))
    }
}

/// The log of one call.
#[derive(Default)]
struct Log {
    lines: Vec<LogLine>,
    bytes: usize,
    cut: bool,
}

impl Log {
    fn write(&mut self, level: Level, message: &str, most: usize) {
        if self.cut {
            return;
        }
        let room = most.saturating_sub(self.bytes);
        let text = plain(message, room);
        // A line always counts: an endless run of empty ones is still a run.
        self.bytes += text.len().max(1);
        self.cut = self.bytes > most || shortened(message, &text);
        self.lines.push(LogLine { level, text });
    }

    fn finish(mut self, most: usize) -> Vec<LogLine> {
        if self.cut {
            let text = format!("(the log of this step is cut: at most {most} bytes are kept)");
            self.lines.push(LogLine {
                level: Level::Warn,
                text,
            });
        }
        self.lines
    }
}

/// Escaping only ever makes a text longer, so a shorter one was cut; one of the same length or longer was cut when it
/// is not what an unlimited escape gives.
fn shortened(message: &str, text: &str) -> bool {
    text.len() < message.len() || text.len() != plain(message, usize::MAX).len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_core::admit::Judge;
    use otahost_core::model::ClockQuality;

    use super::*;

    fn guest(seed: u8) -> Guest {
        let view = View {
            now: 0,
            clock: ClockQuality::Unset,
            uptime: 0,
            boot_id: String::new(),
            seed: [seed; 32],
            config: String::new(),
            features: vec![],
            targets: Default::default(),
            jobs: vec![],
            judge: Judge::of_nobody(),
        };
        Guest::new("handle", Some(Arc::new(view)), Arc::new(Limits::default()))
    }

    #[test]
    fn random_bytes_differ_from_call_to_call_and_not_from_replay_to_replay() {
        let mut first = guest(7);
        let mut again = guest(7);
        let a = first.random(40).unwrap();
        let b = first.random(40).unwrap();
        assert_eq!((a.len(), b.len()), (40, 40));
        assert_ne!(a, b);
        assert_ne!(a[..32], b[..32]);
        assert_eq!(again.random(40).unwrap(), a);
        assert_eq!(again.random(40).unwrap(), b);
        assert_ne!(guest(8).random(40).unwrap(), a);
    }

    #[test]
    fn more_than_4096_random_bytes_give_4096() {
        assert_eq!(guest(1).random(u32::MAX).unwrap().len(), 4096);
        assert_eq!(guest(1).random(0).unwrap().len(), 0);
    }

    #[test]
    fn the_log_is_cut_at_its_limit_and_says_so() {
        let mut log = Log::default();
        log.write(Level::Info, "0123456789", 16);
        log.write(Level::Info, "0123456789", 16);
        log.write(Level::Info, "0123456789", 16);
        let lines = log.finish(16);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].text, "012345");
        assert_eq!(lines[2].level, Level::Warn);
        assert!(lines[2].text.contains("16 bytes"), "{}", lines[2].text);
    }

    #[test]
    fn a_log_that_just_fits_is_whole() {
        let mut log = Log::default();
        log.write(Level::Info, "0123456789", 16);
        log.write(Level::Info, "0123\n", 16);
        let lines = log.finish(16);
        assert_eq!(
            lines.iter().map(|l| l.text.as_str()).collect::<Vec<_>>(),
            ["0123456789", "0123\\n"]
        );
    }

    #[test]
    fn empty_lines_do_not_escape_the_limit() {
        let mut log = Log::default();
        for _ in 0..100 {
            log.write(Level::Info, "", 16);
        }
        assert_eq!(log.finish(16).len(), 18);
    }
}
