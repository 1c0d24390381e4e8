//! From the start of the process to an agent that is ready: with nothing in the cache, where every adapter has to be compiled, and with
//! all of them in it.

use crate::Failed;
use crate::devices::Device;
use crate::table::{Line, Missing, Row, Sample, Unit};

/// Measures it.
///
/// # Errors
/// When something does not start.
pub(crate) fn measure(quick: bool) -> Result<Row, Failed> {
    let rounds = if quick { 1 } else { 7 };
    let mut lines = Vec::new();
    let sizes: &[usize] = if quick { &[0, 4] } else { &[0, 1, 4] };
    for &adapters in sizes {
        let device = Device::with(adapters)?;
        let first = device.agent.start()?;
        let mut again = Vec::new();
        for _ in 0..rounds {
            again.push(device.agent.restart()?);
        }
        let loaded = device.agent.loaded()?;
        let what = format!("{adapters} adapters");
        let again = Sample::new(again);
        if adapters == 0 {
            lines.push(Line::value(what, Unit::Seconds, again));
            continue;
        }
        let from_cache = format!("{what}, from the cache");
        lines.push(if loaded.iter().all(|how| how == "cached") {
            Line::value(from_cache, Unit::Seconds, again)
        } else {
            let why = Missing::Absent(format!(
                "the adapters were loaded otherwise: {}",
                loaded.join(", ")
            ));
            Line::missing(from_cache, Unit::Seconds, why)
        });
        lines.push(Line::value(
            format!("{what}, each compiled first"),
            Unit::Seconds,
            Sample::new(vec![first]),
        ));
    }
    Ok(Row {
        name: "start",
        title: "From start to ready",
        lines,
    })
}
