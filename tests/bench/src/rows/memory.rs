//! Memory of an idle agent with none, one and four adapters, loaded from the cache; the most it ever had, of which compiling is no part
//! when the cache serves; and the same of the agent without a compiler, with adapters compiled and signed elsewhere.

use std::thread;
use std::time::Duration;

use otahost_lab::machine::target_dir;

use crate::Failed;
use crate::agent::Spec;
use crate::code::SignedCode;
use crate::devices::{ADAPTERS, Device};
use crate::stats::{doubling, median};
use crate::table::{Line, Missing, Sample};
use crate::unit::Unit;

/// Of §10 of the design: with the compiler in the binary, and without.
const BUDGETS: [f64; 2] = [30e6, 12e6];
/// The agent without a compiler, below the target directory.
const SLIM: &str = "slim/slim/otahost";

/// Measures it.
///
/// # Errors
/// When something does not start, or an adapter does not run.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    let (rounds, settled) = if quick { (1, 1) } else { (3, 10) };
    let sizes: &[usize] = if quick { &[4] } else { &[0, 1, 4] };
    let mut lines = Vec::new();
    let with_compiler = |adapters| Device::new(Spec::of(adapters), None);
    of_build("", sizes, BUDGETS[0], &mut lines, |adapters| {
        idle(&with_compiler(adapters)?, "cached", rounds, settled)
    })?;

    let program = target_dir().join(SLIM);
    if quick || !program.is_file() {
        let why = if quick {
            "not in a quick run"
        } else {
            "it is not built; `cargo xtask slim` builds it"
        };
        let missing = Err(Missing::Absent(why.to_owned()));
        let line = Line::of("without the compiler, 4 adapters", Unit::Bytes, missing);
        lines.push(line.at_most(BUDGETS[1]));
        return Ok(lines);
    }
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    let code = SignedCode::make(dir.path(), &ADAPTERS)?;
    of_build(
        "without the compiler, ",
        sizes,
        BUDGETS[1],
        &mut lines,
        |adapters| {
            let spec = Spec {
                program: program.clone(),
                cold: true,
                ..Spec::of(adapters)
            };
            idle(
                &Device::new(spec, Some(&code))?,
                "compiled elsewhere",
                rounds,
                settled,
            )
        },
    )?;
    Ok(lines)
}

/// The lines of one build of the agent.
fn of_build(
    build: &str,
    sizes: &[usize],
    budget: f64,
    lines: &mut Vec<Line>,
    idle: impl Fn(usize) -> Result<Sample, Failed>,
) -> Result<(), Failed> {
    let mut one = f64::NAN;
    for &adapters in sizes {
        eprintln!("  {build}{adapters} adapters");
        let sample = idle(adapters)?;
        let now = median(&sample.values);
        let what = format!("{build}{adapters} adapters, RSS");
        let line = Line::value(what, Unit::Bytes, sample);
        lines.push(match adapters {
            4 => line
                .at_most(budget)
                .doubled(doubling([1.0, 4.0], [one, now])),
            _ => line,
        });
        if adapters == 1 {
            one = now;
        }
    }
    Ok(())
}

/// RSS when idle, after so many starts of which the first is another one and fills the cache.
fn idle(device: &Device, how: &str, rounds: usize, settled: u64) -> Result<Sample, Failed> {
    device.agent.start()?;
    let mut all: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        device.agent.restart()?;
        thread::sleep(Duration::from_secs(settled));
        let process = device.agent.process()?;
        let memory = process.memory()?;
        let found = [memory.rss, memory.pss, memory.anonymous, process.peak()?];
        for (values, found) in all.iter_mut().zip(found) {
            values.push(found as f64);
        }
        device.agent.all_run(how)?;
    }
    let [rss, pss, anonymous, peak] = all;
    Ok(Sample::new(rss)
        .beside("PSS", Unit::Bytes, pss)
        .beside("anonymous", Unit::Bytes, anonymous)
        .beside("peak", Unit::Bytes, peak))
}
