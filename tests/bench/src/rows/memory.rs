//! Memory of an idle agent with none, one and four adapters, loaded from the cache; and the most it ever had, of which compiling is no
//! part when the cache serves.

use std::thread;
use std::time::Duration;

use crate::Failed;
use crate::devices::Device;
use crate::table::{Budget, Line, Row, Sample, Unit};

/// Of §10 of the design, with the compiler in the binary.
const BUDGET: f64 = 30e6;

/// Measures it.
///
/// # Errors
/// When something does not start.
pub(crate) fn measure(quick: bool) -> Result<Row, Failed> {
    let (rounds, settled) = if quick { (1, 1) } else { (3, 10) };
    let mut lines = Vec::new();
    let sizes: &[usize] = if quick { &[0, 4] } else { &[0, 1, 4] };
    for &adapters in sizes {
        let device = Device::with(adapters)?;
        device.agent.start()?;
        let mut all: [Vec<f64>; 4] = Default::default();
        for _ in 0..rounds {
            // What was compiled at the first start is in the cache now.
            device.agent.restart()?;
            thread::sleep(Duration::from_secs(settled));
            let process = device.agent.process()?;
            let memory = process.memory()?;
            let found = [memory.rss, memory.pss, memory.anonymous, process.peak()?];
            for (values, found) in all.iter_mut().zip(found) {
                values.push(found as f64);
            }
        }
        let loaded = device.agent.loaded()?.join(", ");
        let how = if adapters == 0 {
            String::new()
        } else {
            format!(" ({loaded})")
        };
        let [rss, pss, anonymous, peak] = all;
        let sample = Sample::new(rss)
            .beside("PSS", Unit::Bytes, pss)
            .beside("anonymous", Unit::Bytes, anonymous)
            .beside("at the most", Unit::Bytes, peak);
        let line = Line::value(
            format!("idle RSS, {adapters} adapters{how}"),
            Unit::Bytes,
            sample,
        );
        lines.push(if adapters == 4 {
            line.within(Budget::Value(BUDGET))
        } else {
            line
        });
    }
    Ok(Row {
        name: "memory",
        title: "Memory when idle",
        lines,
    })
}
