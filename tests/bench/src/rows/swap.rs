//! Another version of an adapter takes over while a thousand messages a second come in: what is lost, what is handled twice, how long
//! nothing is answered.
//!
//! The adapter counts, so its answers show everything: each is one more than the one before, but for the first of the new version, whose
//! migration adds a thousand.

use std::thread;
use std::time::{Duration, Instant};

use otahost_lab::mosquitto::Mosquitto;
use serde_json::json;

use crate::Failed;
use crate::agent::{Agent, component};
use crate::client::Client;
use crate::stats::{doubling, median};
use crate::table::{Line, Sample};
use crate::unit::Unit;

/// Of §10 of the design, in seconds.
const BUDGET: f64 = 0.005;
/// Messages a second.
const RATE: u32 = 1_000;
/// What the next release's migration adds to the count.
const JUMP: u64 = 1_000;
/// For an answer to the last message.
const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "rogue0/do";

/// What one swap came to.
#[derive(Debug, PartialEq)]
struct Swap {
    lost: u64,
    twice: u64,
    /// Between the last answer of the old version and the first of the new one.
    pause: Duration,
    /// The longest time between two answers otherwise.
    longest: Duration,
}

/// Measures it.
///
/// # Errors
/// When something does not run, or the swap does not happen.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    let (rounds, seconds) = if quick { (1, 1) } else { (5, 2) };
    let swaps = several(RATE, rounds, seconds)?;
    let all = |pick: fn(&Swap) -> f64| Sample::new(swaps.iter().map(pick).collect());
    let pause = all(|swap| swap.pause.as_secs_f64());
    let grown = if quick {
        None
    } else {
        let half = several(RATE / 2, 3, seconds)?;
        let half: Vec<f64> = half.iter().map(|s| s.pause.as_secs_f64()).collect();
        doubling([0.5, 1.0], [median(&half), median(&pause.values)])
    };
    let longest = all(|swap| swap.longest.as_secs_f64()).values;
    let pause = pause.beside("longest gap otherwise", Unit::Seconds, longest);
    let what = "last answer of the old to the first of the new";
    Ok(vec![
        Line::value("messages lost", Unit::Count, all(|s| s.lost as f64)).at_most(0.0),
        Line::value("handled twice", Unit::Count, all(|s| s.twice as f64)).at_most(0.0),
        Line::value(what, Unit::Seconds, pause)
            .at_most(BUDGET)
            .doubled(grown),
    ])
}

fn several(rate: u32, rounds: usize, seconds: u32) -> Result<Vec<Swap>, Failed> {
    let mut swaps = Vec::new();
    for _ in 0..rounds {
        let swap = one(rate, seconds)?;
        eprintln!("  {rate} messages a second: {swap:?}");
        swaps.push(swap);
    }
    Ok(swaps)
}

fn one(rate: u32, before_and_after: u32) -> Result<Swap, Failed> {
    let broker = Mosquitto::start()?;
    let agent = Agent::rogues(1, broker.port())?;
    agent.start()?;
    let client = Client::connect(broker.port(), &["rogue0/out".to_owned()])?;
    client.await_listener(TOPIC, "count", PATIENCE)?;
    client.publish(TOPIC, "count")?;
    let before = count(&client.next(PATIENCE)?.payload)?;

    let step = Duration::from_secs(1) / rate;
    let around = rate * before_and_after;
    let mut heard: Vec<(Instant, u64)> = Vec::new();
    let mut sent = 0;
    let path = component("rogue-next");
    let request = json!({ "request": "adapter-install", "adapter": "rogue0", "path": path });
    thread::scope(|scope| -> Result<(), Failed> {
        let mut install = None;
        let mut last = None;
        let start = Instant::now();
        // The new version is compiled and tried out meanwhile; messages flow until it has run for a while.
        while last.is_none_or(|last| sent < last) {
            let due = start + step * sent;
            while Instant::now() < due {
                match client.at_hand() {
                    Some(answer) => note(&mut heard, &answer)?,
                    None => thread::sleep(Duration::from_micros(200)),
                }
            }
            client.publish(TOPIC, "count")?;
            sent += 1;
            if sent == around {
                install = Some(scope.spawn(|| agent.ask(&request).map_err(|e| e.to_string())));
            }
            if let Some(asked) = install.take_if(|asked| asked.is_finished()) {
                let reply = asked.join().map_err(|_| "the installation panicked")??;
                if reply["reply"] != "taken" {
                    return Err(format!("the agent answered {:.300}", reply.to_string()).into());
                }
                last = Some(sent + around);
            }
            if start.elapsed() > PATIENCE {
                return Err("the new version is not taken".into());
            }
        }
        while heard.len() < sent as usize {
            match client.next(PATIENCE) {
                Ok(answer) => note(&mut heard, &answer)?,
                Err(_) => break,
            }
        }
        // What comes after the last of them came twice.
        while let Ok(answer) = client.next(Duration::from_secs(1)) {
            note(&mut heard, &answer)?;
        }
        Ok(())
    })?;
    judge(&heard, before, u64::from(sent))
}

/// Keeps an answer to `count`; the new version also says that it has started.
fn note(heard: &mut Vec<(Instant, u64)>, answer: &crate::client::Heard) -> Result<(), Failed> {
    if !answer.payload.starts_with(b"started") {
        heard.push((answer.at, count(&answer.payload)?));
    }
    Ok(())
}

fn count(payload: &[u8]) -> Result<u64, Failed> {
    Ok(std::str::from_utf8(payload)?.parse()?)
}

/// What these answers say, when the count stood at `before` and so many messages were sent.
fn judge(heard: &[(Instant, u64)], before: u64, sent: u64) -> Result<Swap, Failed> {
    let mut swap = Swap {
        lost: 0,
        twice: 0,
        pause: Duration::ZERO,
        longest: Duration::ZERO,
    };
    let (mut last, mut jumps) = (before, 0);
    let mut counts: Vec<u64> = Vec::new();
    let mut at: Option<Instant> = None;
    for (when, found) in heard {
        let gap = at.map_or(Duration::ZERO, |at| *when - at);
        at = Some(*when);
        if *found > last + JUMP {
            jumps += 1;
            swap.pause = gap;
        } else {
            swap.longest = swap.longest.max(gap);
        }
        last = (*found).max(last);
        // Without the jump, so that the counts of both versions are one row.
        counts.push(if jumps == 0 {
            *found
        } else {
            found.saturating_sub(JUMP)
        });
    }
    if jumps != 1 {
        return Err(format!("the new version took over {jumps} times").into());
    }
    counts.sort_unstable();
    let all = counts.len() as u64;
    counts.dedup();
    swap.twice = all - counts.len() as u64;
    // A message that nobody handled shows as a count that was never reached; one whose answer was lost, as a hole.
    let expected = before + 1..=before + sent;
    swap.lost = expected
        .filter(|wanted| counts.binary_search(wanted).is_err())
        .count() as u64;
    Ok(swap)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn judged(counts: &[u64], sent: u64) -> Swap {
        let start = Instant::now();
        let at = |(n, count): (usize, &u64)| (start + Duration::from_millis(n as u64), *count);
        let heard: Vec<_> = counts.iter().enumerate().map(at).collect();
        judge(&heard, 10, sent).unwrap()
    }

    #[test]
    fn counts_without_a_hole_lose_nothing() {
        let swap = judged(&[11, 12, 1013, 1014], 4);
        let ms = Duration::from_millis(1);
        assert_eq!(
            swap,
            Swap {
                lost: 0,
                twice: 0,
                pause: ms,
                longest: ms
            }
        );
    }

    #[test]
    fn what_is_missing_is_lost_and_what_comes_again_came_twice() {
        assert_eq!(judged(&[11, 12, 1014], 4).lost, 1, "a hole");
        assert_eq!(judged(&[11, 12, 1013], 4).lost, 1, "at the end");
        let again = judged(&[11, 12, 12, 1013, 1014], 4);
        assert_eq!((again.twice, again.lost), (1, 0));
    }

    #[test]
    fn a_swap_that_did_not_happen_has_no_numbers() {
        assert!(judge(&[(Instant::now(), 11)], 10, 1).is_err());
    }
}
