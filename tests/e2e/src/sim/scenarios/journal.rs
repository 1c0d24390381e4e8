//! The journal grows beyond what it keeps for itself, while its broker is away, and gives the space back afterwards.

use std::collections::BTreeSet;

use crate::sim::{Caller, Scenario, Story, World, check, output};

/// Publications that wait for the broker.
const WAITING: u64 = 14;
/// Bytes of each. The journal writes them as text and rounds up to a power of two: half a MiB.
const LARGE: usize = 250_000;
/// When the broker can be reached.
const BACK: u64 = 60_000;

fn text(n: u64) -> String {
    format!("{n:02}{}", "x".repeat(LARGE))
}

/// Which of them have arrived.
fn arrived(world: &World) -> BTreeSet<String> {
    let heads = output(world, "rogue").into_iter();
    heads
        .filter(|line| line.len() > 1_000)
        .map(|line| line[..2].to_owned())
        .collect()
}

/// Callers have an adapter publish large things while its broker is away. None is lost, and all that were held leave again.
pub fn grown() -> Scenario {
    let mut story = Story::bare("journal grows and shrinks");
    story.add_linked_rogue("rogue");
    story.world().cloud_from = BACK;
    let ask = |n| {
        let command = format!("echo {}", text(n));
        Caller::new(1_000 + n * 500, "POST", "/rogue/do", &command).until(2_000, &["200 "])
    };
    story.world().web.callers = (0..WAITING).map(ask).collect();
    story.scenario.told = |world| world.is_quiet() && arrived(world).len() as u64 >= WAITING;
    story.scenario.promises = |world, _| {
        let arrived = arrived(world);
        check(arrived.len() as u64 == WAITING, || format!("{arrived:?}"))
    };
    story.scenario
}
