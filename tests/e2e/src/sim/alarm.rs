//! Who is told of alerts, and when he listens.

use std::time::Duration;

use otahost::alerts::{Alarm, Notice};
use otahost_core::model::Level;
use otahost_transfer::BoxFuture;

use super::outer::{Shared, VirtualTime};

/// Virtual time it takes to tell a sink something.
const TELLING: Duration = Duration::from_millis(300);

/// A sink of alerts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// It wants no less than errors.
    pub errors_only: bool,
    /// It takes nothing before this virtual time.
    pub takes_after: u64,
}

impl Sink {
    /// One that takes everything at once.
    pub fn new(name: &str) -> Self {
        Sink {
            name: name.to_owned(),
            errors_only: false,
            takes_after: 0,
        }
    }
}

/// What a sink was told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rung {
    /// When, in virtual time.
    pub at: u64,
    /// The sink.
    pub sink: String,
    /// Who raised it.
    pub source: String,
    /// Its word.
    pub code: String,
    /// Its sentence.
    pub text: String,
    /// It was taken.
    pub taken: bool,
}

#[derive(Debug)]
pub(super) struct SimAlarm {
    pub world: Shared,
    pub time: VirtualTime,
}

impl Alarm for SimAlarm {
    fn sinks(&self, level: Level) -> Vec<String> {
        let world = self.world.lock().unwrap();
        let wants = |sink: &&Sink| !sink.errors_only || level == Level::Error;
        let wanting = world.sinks.iter().filter(wants);
        wanting.map(|sink| sink.name.clone()).collect()
    }

    fn send(&self, sink: &str, notice: Notice) -> BoxFuture<'static, Result<(), String>> {
        let (world, time, sink) = (self.world.clone(), self.time, sink.to_owned());
        Box::pin(async move {
            tokio::time::sleep(TELLING).await;
            let mut world = world.lock().unwrap();
            let known = world.sinks.iter().find(|known| known.name == sink);
            let taken = known.is_some_and(|known| known.takes_after <= time.now());
            world.rung.push(Rung {
                at: time.now(),
                sink,
                source: notice.source,
                code: notice.code,
                text: notice.text,
                taken,
            });
            taken.then_some(()).ok_or_else(|| "it is away".into())
        })
    }
}
