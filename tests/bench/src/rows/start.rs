//! From the start of the process to an agent that is ready: with all adapters in the cache, and with nothing in it, where every adapter
//! has to be compiled.

use crate::Failed;
use crate::agent::Spec;
use crate::devices::Device;
use crate::stats::{doubling, median};
use crate::table::{Line, Sample};
use crate::unit::Unit;

/// Measures it.
///
/// # Errors
/// When something does not start, or an adapter does not run.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    // Starts from the cache, and starts without it, each on a device of its own.
    let (rounds, colds) = if quick { (1, 1) } else { (7, 3) };
    let sizes: &[usize] = if quick { &[4] } else { &[0, 1, 4] };
    let mut lines = Vec::new();
    let mut one = [f64::NAN; 2];
    for &adapters in sizes {
        eprintln!("  {adapters} adapters");
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for n in 0..if adapters == 0 { 1 } else { colds } {
            let spec = Spec {
                cold: true,
                ..Spec::of(adapters)
            };
            let device = Device::new(spec, None)?;
            cold.push(device.agent.start()?);
            device.agent.all_run("compiled: ")?;
            if n > 0 {
                continue;
            }
            for _ in 0..rounds {
                warm.push(device.agent.restart()?);
            }
            device.agent.all_run("cached")?;
        }
        let now = [median(&warm), median(&cold)];
        let grown = |n: usize| match adapters {
            4 => doubling([1.0, 4.0], [one[n], now[n]]),
            _ => None,
        };
        let line = |what: &str, values| {
            let what = format!("{adapters} adapters{what}");
            Line::value(what, Unit::Seconds, Sample::new(values))
        };
        if adapters == 0 {
            lines.push(line("", warm));
        } else {
            lines.push(line(", from the cache", warm).doubled(grown(0)));
            lines.push(line(", each compiled first", cold).doubled(grown(1)));
        }
        if adapters == 1 {
            one = now;
        }
    }
    Ok(lines)
}
