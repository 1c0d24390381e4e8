//! Contestants take turns at the same work, so that what is compared was measured side by side.

use std::process::Command;

use crate::table::{Beside, Missing, Sample, Side};
use crate::timed::Cost;
use crate::unit::Unit;

/// Somebody who can do the work.
pub(crate) trait Contestant {
    /// What the table calls it.
    fn name(&self) -> String;

    /// Does the work once.
    ///
    /// # Errors
    /// When it cannot be done here, or was not done. Then it is out.
    fn run(&mut self) -> Result<Cost, Missing>;

    /// Looks, outside of the time that counts, whether the work was really done.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&mut self) -> Result<(), Missing> {
        Ok(())
    }

    /// What else it has to say of itself, at the end.
    fn more(&self) -> Vec<Beside> {
        Vec::new()
    }
}

/// Has them take turns `rounds` times; gives name and costs of each, in the order given. The first round fills caches and slots, is
/// checked, and does not count. Who goes first changes from round to round: what one leaves to the system is paid for by others.
pub(crate) fn compete(
    contestants: &mut [Box<dyn Contestant + '_>],
    rounds: usize,
) -> Vec<(String, Side)> {
    let mut costs: Vec<Result<Vec<Cost>, Missing>> =
        contestants.iter().map(|_| Ok(Vec::new())).collect();
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let who = (turn + round) % contestants.len();
            let Ok(so_far) = &mut costs[who] else {
                continue;
            };
            settle();
            let contestant = &mut contestants[who];
            let outcome = contestant.run().and_then(|cost| {
                if round == 0 {
                    contestant.check()?;
                }
                Ok(cost)
            });
            match outcome {
                Ok(cost) if round > 0 => so_far.push(cost),
                Ok(_) => {}
                Err(missing) => {
                    eprintln!("  {}: {missing:?}", contestant.name());
                    costs[who] = Err(missing);
                }
            }
        }
        if round > 0 {
            let shown: Vec<String> = costs.iter().map(last).collect();
            eprintln!("  round {round} of {rounds}: {}", shown.join(", "));
        }
    }
    let told = contestants.iter().zip(costs).map(|(contestant, costs)| {
        let side = costs.map(|costs| {
            let mut sample = sample(&costs);
            sample.beside.extend(contestant.more());
            sample
        });
        (contestant.name(), side)
    });
    told.collect()
}

fn last(costs: &Result<Vec<Cost>, Missing>) -> String {
    match costs.as_ref().ok().and_then(|costs| costs.last()) {
        Some(cost) => Unit::Seconds.show(cost.seconds),
        None => "out".to_owned(),
    }
}

fn sample(costs: &[Cost]) -> Sample {
    let each = |pick: fn(&Cost) -> f64| costs.iter().map(pick).collect::<Vec<f64>>();
    Sample::new(each(|cost| cost.seconds))
        .beside("CPU", Unit::Seconds, each(|cost| cost.cpu))
        .beside("peak", Unit::Bytes, each(|cost| cost.peak))
}

/// Lets nobody pay for what another left to be written.
pub(crate) fn settle() {
    // Without it the runs are only noisier.
    let _ = Command::new("sync").status();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::cell::RefCell;

    use super::*;

    struct One<'a> {
        name: &'static str,
        fails_at: usize,
        runs: usize,
        log: &'a RefCell<String>,
    }

    impl Contestant for One<'_> {
        fn name(&self) -> String {
            self.name.into()
        }
        fn run(&mut self) -> Result<Cost, Missing> {
            self.runs += 1;
            self.log.borrow_mut().push_str(self.name);
            if self.runs == self.fails_at {
                return Err(Missing::Failed("broken".into()));
            }
            Ok(Cost {
                seconds: 1.0,
                cpu: 1.0,
                peak: 1.0,
            })
        }
    }

    #[test]
    fn they_take_turns_at_going_first_and_the_first_round_does_not_count() {
        let log = RefCell::default();
        let one = |name, fails_at| {
            Box::new(One {
                name,
                fails_at,
                runs: 0,
                log: &log,
            }) as Box<dyn Contestant>
        };
        let results = compete(&mut [one("a", 9), one("b", 9)], 2);
        assert_eq!(*log.borrow(), "abbaab");
        assert!(
            results
                .iter()
                .all(|(_, result)| result.as_ref().unwrap().values.len() == 2)
        );
    }

    #[test]
    fn who_fails_once_is_out_with_all_that_came_before() {
        let log = RefCell::default();
        let one = |name, fails_at| {
            Box::new(One {
                name,
                fails_at,
                runs: 0,
                log: &log,
            }) as Box<dyn Contestant>
        };
        let results = compete(&mut [one("a", 9), one("b", 3)], 3);
        assert_eq!(results[1].1, Err(Missing::Failed("broken".into())));
        assert_eq!(results[0].1.as_ref().unwrap().values.len(), 3);
        assert_eq!(log.borrow().matches('b').count(), 3);
    }
}
