//! The table: rows of lines, each a measured value of ours, perhaps beside others', perhaps with a budget.
//!
//! A ratio is only made where both sides ran, so beside a competitor that failed stands why, and no number.

use serde_json::{Value, json};

use crate::stats::{Spread, ratios};
use crate::unit::Unit;

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is not there to be measured: not installed, not built, not possible on this machine.
    Absent(String),
    /// It was there and did not do it.
    Failed(String),
}

impl Missing {
    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Missing::Absent(why) => format!("not measured: {why}"),
            Missing::Failed(why) => format!("FAILED: {why}"),
        }
    }
}

/// Values of one contestant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// One for each run.
    pub(crate) values: Vec<f64>,
    /// What else was seen, told and not compared.
    pub(crate) beside: Vec<Beside>,
}

/// Something told beside the values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Beside {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) values: Vec<f64>,
}

impl Sample {
    /// With nothing beside it.
    pub(crate) fn new(values: Vec<f64>) -> Self {
        Sample {
            values,
            beside: Vec::new(),
        }
    }

    /// Of a single run.
    pub(crate) fn one(value: f64) -> Self {
        Self::new(vec![value])
    }

    /// Tells something beside it.
    #[must_use]
    pub(crate) fn beside(mut self, name: &str, unit: Unit, values: Vec<f64>) -> Self {
        self.beside.push(Beside {
            name: name.to_owned(),
            unit,
            values,
        });
        self
    }

    fn json(&self) -> Value {
        let beside: Vec<Value> = self
            .beside
            .iter()
            .map(|b| json!({ "name": b.name, "unit": b.unit.word(), "values": b.values }))
            .collect();
        json!({ "values": self.values, "beside": beside })
    }
}

/// One side of a comparison.
pub(crate) type Side = Result<Sample, Missing>;

/// Somebody whom ours is compared with.
#[derive(Debug, Clone)]
pub(crate) struct Rival {
    /// What the table calls it.
    pub(crate) name: String,
    /// What it did.
    pub(crate) side: Side,
    /// The ratio of ours to its own may be this.
    pub(crate) limit: Option<f64>,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) ours: Side,
    pub(crate) rivals: Vec<Rival>,
    /// The median itself may be this.
    pub(crate) limit: Option<f64>,
    /// By how much ours grows when the work doubles.
    pub(crate) doubled: Option<f64>,
}

/// What a limit says of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Held.
    Kept,
    /// Not held.
    Missed,
    /// There is no number to compare.
    NoNumber,
}

impl Verdict {
    /// Of this limit.
    pub(crate) fn of(found: Option<Spread>, limit: f64) -> Self {
        match found {
            None => Verdict::NoNumber,
            Some(spread) if spread.median <= limit => Verdict::Kept,
            Some(_) => Verdict::Missed,
        }
    }

    /// For people and for programs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Kept => "kept",
            Verdict::Missed => "missed",
            Verdict::NoNumber => "no number",
        }
    }
}

impl Line {
    /// Ours, or why there is nothing.
    pub(crate) fn of(what: impl Into<String>, unit: Unit, ours: Side) -> Self {
        Line {
            what: what.into(),
            unit,
            ours,
            rivals: Vec::new(),
            limit: None,
            doubled: None,
        }
    }

    /// A value of ours.
    pub(crate) fn value(what: impl Into<String>, unit: Unit, ours: Sample) -> Self {
        Self::of(what, unit, Ok(ours))
    }

    /// Beside somebody else.
    #[must_use]
    pub(crate) fn against(mut self, name: impl Into<String>, side: Side) -> Self {
        self.rivals.push(Rival {
            name: name.into(),
            side,
            limit: None,
        });
        self
    }

    /// With a limit of the ratio to whom it was last put beside.
    #[must_use]
    pub(crate) fn ratio_at_most(mut self, limit: f64) -> Self {
        if let Some(rival) = self.rivals.last_mut() {
            rival.limit = Some(limit);
        }
        self
    }

    /// With a limit of its own.
    #[must_use]
    pub(crate) fn at_most(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// With what becomes of it when the work doubles.
    #[must_use]
    pub(crate) fn doubled(mut self, factor: Option<f64>) -> Self {
        self.doubled = factor;
        self
    }

    /// The ratios of neighbouring runs, where both sides have some.
    pub(crate) fn ratio(&self, rival: &Rival) -> Option<Spread> {
        let (Ok(ours), Ok(theirs)) = (&self.ours, &rival.side) else {
            return None;
        };
        Spread::of(&ratios(&ours.values, &theirs.values))
    }

    /// Middle and ends of ours.
    fn spread(&self) -> Option<Spread> {
        Spread::of(&self.ours.as_ref().ok()?.values)
    }

    /// Every limit, in words, and what it says.
    pub(crate) fn verdicts(&self) -> Vec<(String, Verdict)> {
        let own = self.limit.map(|limit| {
            let words = format!("≤ {}", self.unit.show(limit));
            (words, Verdict::of(self.spread(), limit))
        });
        let beside = self.rivals.iter().filter_map(|rival| {
            let limit = rival.limit?;
            let words = format!("≤ {limit:.2} × {}", rival.name);
            Some((words, Verdict::of(self.ratio(rival), limit)))
        });
        own.into_iter().chain(beside).collect()
    }

    /// Somebody was there and did not do it.
    pub(crate) fn failed(&self) -> bool {
        let sides = self.rivals.iter().map(|rival| &rival.side);
        sides
            .chain([&self.ours])
            .any(|side| matches!(side, Err(Missing::Failed(_))))
    }

    fn json(&self) -> Value {
        let side = |side: &Side| match side {
            Ok(sample) => sample.json(),
            Err(Missing::Absent(why)) => json!({ "absent": why }),
            Err(Missing::Failed(why)) => json!({ "failed": why }),
        };
        let rivals: Vec<Value> = self
            .rivals
            .iter()
            .map(|rival| {
                let mut value = side(&rival.side);
                value["name"] = json!(rival.name);
                value["ratio"] = self.ratio(rival).map_or(
                    Value::Null,
                    |s| json!({ "median": s.median, "least": s.least, "most": s.most }),
                );
                value["limit"] = json!(rival.limit);
                value
            })
            .collect();
        let verdicts: Vec<Value> = self
            .verdicts()
            .iter()
            .map(|(limit, verdict)| json!({ "limit": limit, "verdict": verdict.word() }))
            .collect();
        json!({
            "what": self.what,
            "unit": self.unit.word(),
            "ours": side(&self.ours),
            "against": rivals,
            "limit": self.limit,
            "doubled": self.doubled,
            "verdicts": verdicts,
        })
    }
}

/// What one row has come to.
#[derive(Debug)]
pub(crate) struct Row {
    /// The word that `--only` takes.
    pub(crate) name: String,
    /// What is measured.
    pub(crate) title: &'static str,
    /// Its lines.
    pub(crate) lines: Vec<Line>,
    /// What it took, in seconds.
    pub(crate) took: f64,
}

impl Row {
    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let lines: Vec<Value> = self.lines.iter().map(Line::json).collect();
        json!({ "name": self.name, "title": self.title, "seconds": self.took, "lines": lines })
    }

    /// Somebody failed in it.
    pub(crate) fn failed(&self) -> bool {
        self.lines.iter().any(Line::failed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn line(ours: &[f64], theirs: Result<&[f64], Missing>) -> Line {
        let theirs = theirs.map(|values| Sample::new(values.to_vec()));
        Line::value("x", Unit::Seconds, Sample::new(ours.to_vec()))
            .against("script", theirs)
            .ratio_at_most(1.1)
    }

    fn verdict(line: &Line) -> Verdict {
        line.verdicts()[0].1
    }

    #[test]
    fn a_competitor_that_failed_gives_no_ratio() {
        for missing in [
            Missing::Failed("it broke".into()),
            Missing::Absent("it is not installed".into()),
        ] {
            let failed = matches!(missing, Missing::Failed(_));
            let line = line(&[1.0, 1.0], Err(missing));
            assert_eq!(line.json()["against"][0]["ratio"], Value::Null);
            assert_eq!(verdict(&line), Verdict::NoNumber);
            assert_eq!(line.failed(), failed);
        }
    }

    #[test]
    fn who_failed_takes_no_ratio_from_the_others() {
        let line = line(&[1.0], Err(Missing::Failed("it broke".into())))
            .against("SWUpdate", Ok(Sample::one(2.0)))
            .ratio_at_most(1.0);
        assert_eq!(line.json()["against"][1]["ratio"]["median"], 0.5);
        let verdicts: Vec<_> = line.verdicts().into_iter().map(|(_, v)| v).collect();
        assert_eq!(verdicts, [Verdict::NoNumber, Verdict::Kept]);
        assert!(line.failed());
    }

    #[test]
    fn without_a_number_of_ours_there_is_no_ratio_either() {
        let line = Line::of("x", Unit::Bytes, Err(Missing::Absent("not built".into())))
            .against("script", Ok(Sample::one(1.0)))
            .at_most(10.0);
        assert_eq!(line.json()["against"][0]["ratio"], Value::Null);
        assert_eq!(verdict(&line), Verdict::NoNumber);
        assert!(!line.failed());
    }

    #[test]
    fn a_run_that_is_no_number_gives_no_ratio() {
        for line in [line(&[1.0], Ok(&[0.0])), line(&[], Ok(&[]))] {
            assert_eq!(line.json()["against"][0]["ratio"], Value::Null);
        }
    }

    #[test]
    fn a_limit_is_held_up_to_its_very_value() {
        assert_eq!(verdict(&line(&[1.1], Ok(&[1.0]))), Verdict::Kept);
        assert_eq!(verdict(&line(&[1.2], Ok(&[1.0]))), Verdict::Missed);
        let own = |value| Line::value("x", Unit::Bytes, Sample::one(value)).at_most(10.0);
        assert_eq!(verdict(&own(10.0)), Verdict::Kept);
        assert_eq!(verdict(&own(11.0)), Verdict::Missed);
    }
}
