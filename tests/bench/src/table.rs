//! The table: rows of lines, each a measured value of ours, perhaps beside somebody else's, perhaps with a budget.
//!
//! A ratio is only made where both sides ran, so a line of a competitor that failed says why and has no number.

use serde_json::{Value, json};

use crate::stats::{Spread, ratios};

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Things in a second.
    PerSecond,
    /// How many of something.
    Count,
    /// How many times something else.
    Times,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::PerSecond => "per_second",
            Unit::Count => "count",
            Unit::Times => "times",
        }
    }

    /// For people: three figures that mean something, and a unit of fitting size.
    pub(crate) fn show(self, value: f64) -> String {
        let (value, unit) = match self {
            Unit::Seconds if value.abs() < 1e-3 => (value * 1e6, " µs"),
            Unit::Seconds if value.abs() < 1.0 => (value * 1e3, " ms"),
            Unit::Seconds => (value, " s"),
            Unit::Bytes if value.abs() < 1e4 => (value, " B"),
            Unit::Bytes if value.abs() < 1e6 => (value / 1e3, " kB"),
            Unit::Bytes if value.abs() < 1e10 => (value / 1e6, " MB"),
            Unit::Bytes => (value / 1e9, " GB"),
            Unit::PerSecond => (value, "/s"),
            Unit::Count | Unit::Times => (value, ""),
        };
        let digits = match value.abs() {
            whole if whole.fract() == 0.0 && self != Unit::Times => 0,
            large if large >= 100.0 => 0,
            middle if middle >= 10.0 => 1,
            _ => 2,
        };
        format!("{value:.digits$}{unit}")
    }
}

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is not there to be measured: not installed, not built, not possible on this machine.
    Absent(String),
    /// It was there and did not do it.
    Failed(String),
}

impl Missing {
    fn text(&self) -> String {
        match self {
            Missing::Absent(why) => format!("not measured: {why}"),
            Missing::Failed(why) => format!("FAILED: {why}"),
        }
    }
}

/// A limit of the design.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Budget {
    /// The median ratio may be this.
    Ratio(f64),
    /// The median itself may be this.
    Value(f64),
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
    name: String,
    unit: Unit,
    values: Vec<f64>,
}

impl Sample {
    /// With nothing beside it.
    pub(crate) fn new(values: Vec<f64>) -> Self {
        Sample {
            values,
            beside: Vec::new(),
        }
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

    fn text(&self, unit: Unit) -> String {
        let mut text = show(unit, &self.values);
        for beside in &self.beside {
            let value = Spread::of(&beside.values).map(|s| beside.unit.show(s.median));
            text.push_str(&format!(
                "; {} {}",
                beside.name,
                value.unwrap_or_else(|| "none".to_owned())
            ));
        }
        text
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

/// Median, and the ends where there are several.
fn show(unit: Unit, values: &[f64]) -> String {
    match Spread::of(values) {
        None => "nothing".to_owned(),
        Some(spread) if values.len() == 1 => unit.show(spread.median),
        Some(spread) => format!(
            "{} ({} to {})",
            unit.show(spread.median),
            unit.show(spread.least),
            unit.show(spread.most)
        ),
    }
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    what: String,
    unit: Unit,
    ours: Result<Sample, Missing>,
    against: Option<(String, Result<Sample, Missing>)>,
    budget: Option<Budget>,
}

/// What a line says of its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is none.
    NoBudget,
    /// Held.
    Within,
    /// Missed.
    Over,
    /// There is no number to compare.
    NoNumber,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::NoBudget => "",
            Verdict::Within => "within",
            Verdict::Over => "**over**",
            Verdict::NoNumber => "no number",
        }
    }
}

impl Line {
    /// A value of ours alone.
    pub(crate) fn value(what: impl Into<String>, unit: Unit, ours: Sample) -> Self {
        Line {
            what: what.into(),
            unit,
            ours: Ok(ours),
            against: None,
            budget: None,
        }
    }

    /// A value that there is not.
    pub(crate) fn missing(what: impl Into<String>, unit: Unit, why: Missing) -> Self {
        Line {
            what: what.into(),
            unit,
            ours: Err(why),
            against: None,
            budget: None,
        }
    }

    /// Beside somebody else.
    #[must_use]
    pub(crate) fn against(
        mut self,
        name: impl Into<String>,
        theirs: Result<Sample, Missing>,
    ) -> Self {
        self.against = Some((name.into(), theirs));
        self
    }

    /// With a limit.
    #[must_use]
    pub(crate) fn within(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The ratios of neighbouring runs, where both sides have some.
    fn ratio(&self) -> Option<Spread> {
        let (Ok(ours), Some((_, Ok(theirs)))) = (&self.ours, &self.against) else {
            return None;
        };
        Spread::of(&ratios(&ours.values, &theirs.values))
    }

    /// Whether the budget is held.
    pub(crate) fn verdict(&self) -> Verdict {
        let (found, limit) = match self.budget {
            None => return Verdict::NoBudget,
            Some(Budget::Ratio(limit)) => (self.ratio(), limit),
            Some(Budget::Value(limit)) => {
                let ours = self.ours.as_ref().ok();
                (ours.and_then(|ours| Spread::of(&ours.values)), limit)
            }
        };
        match found {
            None => Verdict::NoNumber,
            Some(spread) if spread.median <= limit => Verdict::Within,
            Some(_) => Verdict::Over,
        }
    }

    /// Somebody was there and did not do it.
    pub(crate) fn failed(&self) -> bool {
        let failed = |side: &Result<Sample, Missing>| matches!(side, Err(Missing::Failed(_)));
        failed(&self.ours) || self.against.as_ref().is_some_and(|(_, side)| failed(side))
    }

    fn cells(&self) -> [String; 6] {
        let side = |side: &Result<Sample, Missing>| match side {
            Ok(sample) => sample.text(self.unit),
            Err(missing) => missing.text(),
        };
        let against = match &self.against {
            None => String::new(),
            Some((name, theirs)) => format!("{name}: {}", side(theirs)),
        };
        let ratio = self.ratio().map_or_else(String::new, |spread| {
            format!(
                "{:.2} ({:.2} to {:.2})",
                spread.median, spread.least, spread.most
            )
        });
        let budget = match self.budget {
            None => String::new(),
            Some(Budget::Ratio(limit)) => format!("ratio ≤ {limit:.2}"),
            Some(Budget::Value(limit)) => format!("≤ {}", self.unit.show(limit)),
        };
        [
            self.what.clone(),
            side(&self.ours),
            against,
            ratio,
            budget,
            self.verdict().word().to_owned(),
        ]
    }

    fn json(&self) -> Value {
        let side = |side: &Result<Sample, Missing>| match side {
            Ok(sample) => sample.json(),
            Err(Missing::Absent(why)) => json!({ "absent": why }),
            Err(Missing::Failed(why)) => json!({ "failed": why }),
        };
        let against = self.against.as_ref().map(|(name, theirs)| {
            let mut value = side(theirs);
            value["name"] = json!(name);
            value
        });
        let budget = self.budget.map(|budget| match budget {
            Budget::Ratio(limit) => json!({ "ratio": limit }),
            Budget::Value(limit) => json!({ "value": limit }),
        });
        let ratio = self.ratio().map(
            |spread| json!({ "median": spread.median, "least": spread.least, "most": spread.most }),
        );
        json!({
            "what": self.what,
            "unit": self.unit.word(),
            "ours": side(&self.ours),
            "against": against,
            "ratio": ratio,
            "budget": budget,
            "verdict": match self.verdict() {
                Verdict::NoBudget => Value::Null,
                Verdict::Within => json!("within"),
                Verdict::Over => json!("over"),
                Verdict::NoNumber => json!("no number"),
            },
        })
    }
}

/// What one row has come to.
#[derive(Debug)]
pub(crate) struct Row {
    /// The word that `--only` takes.
    pub(crate) name: &'static str,
    /// What is measured.
    pub(crate) title: &'static str,
    /// Its lines.
    pub(crate) lines: Vec<Line>,
}

impl Row {
    /// For people at a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.title);
        for line in &self.lines {
            let [what, ours, against, ratio, budget, verdict] = line.cells();
            text.push_str(&format!("  {what}\n    ours     {ours}\n"));
            if !against.is_empty() {
                text.push_str(&format!("    against  {against}\n"));
            }
            if !ratio.is_empty() {
                text.push_str(&format!("    ratio    {ratio}\n"));
            }
            if !budget.is_empty() {
                text.push_str(&format!(
                    "    budget   {budget}: {}\n",
                    verdict.replace('*', "")
                ));
            }
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let lines: Vec<Value> = self.lines.iter().map(Line::json).collect();
        json!({ "name": self.name, "title": self.title, "lines": lines })
    }

    /// Somebody failed in it.
    pub(crate) fn failed(&self) -> bool {
        self.lines.iter().any(Line::failed)
    }
}

/// All rows as a table of Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text =
        String::from("| what | ours | against | ratio | budget | |\n|---|---|---|---|---|---|\n");
    for row in rows {
        text.push_str(&format!("| **{}** | | | | | |\n", row.title));
        for line in &row.lines {
            let cells = line
                .cells()
                .map(|cell| cell.replace('|', "\\|").replace('\n', " "));
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn line(ours: &[f64], theirs: Result<&[f64], Missing>) -> Line {
        let theirs = theirs.map(|values| Sample::new(values.to_vec()));
        Line::value("x", Unit::Seconds, Sample::new(ours.to_vec()))
            .against("floor", theirs)
            .within(Budget::Ratio(1.1))
    }

    #[test]
    fn a_competitor_that_failed_gives_no_ratio() {
        for missing in [
            Missing::Failed("it broke".into()),
            Missing::Absent("it is not installed".into()),
        ] {
            let failed = matches!(missing, Missing::Failed(_));
            let line = line(&[1.0, 1.0], Err(missing));
            assert_eq!(line.json()["ratio"], Value::Null);
            assert_eq!(line.cells()[3], "");
            assert_eq!(line.verdict(), Verdict::NoNumber);
            assert_eq!(line.failed(), failed);
        }
    }

    #[test]
    fn without_a_number_of_ours_there_is_no_ratio_either() {
        let line = Line::missing("x", Unit::Bytes, Missing::Absent("not built".into()))
            .against("floor", Ok(Sample::new(vec![1.0])))
            .within(Budget::Value(10.0));
        assert_eq!(line.json()["ratio"], Value::Null);
        assert_eq!(line.verdict(), Verdict::NoNumber);
        assert!(line.cells()[1].contains("not built"));
    }

    #[test]
    fn a_run_that_is_no_number_gives_no_ratio() {
        assert_eq!(line(&[1.0], Ok(&[0.0])).json()["ratio"], Value::Null);
        assert_eq!(line(&[], Ok(&[])).json()["ratio"], Value::Null);
    }

    #[test]
    fn a_budget_that_is_missed_is_named() {
        let over = line(&[1.2], Ok(&[1.0]));
        assert_eq!(over.verdict(), Verdict::Over);
        let row = Row {
            name: "x",
            title: "things",
            lines: vec![over, line(&[1.1], Ok(&[1.0]))],
        };
        let table = markdown(&[row]);
        assert!(table.contains("ratio ≤ 1.10 | **over** |"), "{table}");
        assert!(table.contains("| ratio ≤ 1.10 | within |"), "{table}");
    }

    #[test]
    fn a_value_has_its_spread_and_what_is_beside_it() {
        let sample = Sample::new(vec![0.5, 0.25, 1.5]).beside("CPU", Unit::Seconds, vec![2.0]);
        assert_eq!(
            sample.text(Unit::Seconds),
            "500 ms (250 ms to 1.50 s); CPU 2 s"
        );
    }

    #[test]
    fn a_unit_is_shown_in_a_fitting_size() {
        assert_eq!(Unit::Seconds.show(45.2e-6), "45.2 µs");
        assert_eq!(Unit::Bytes.show(29_400_000.0), "29.4 MB");
        assert_eq!(Unit::Bytes.show(512.0), "512 B");
        assert_eq!(Unit::PerSecond.show(1_234.4), "1234/s");
        assert_eq!(Unit::Count.show(3.0), "3");
        assert_eq!(Unit::Times.show(1.0), "1.00");
    }

    #[test]
    fn a_cell_cannot_break_the_table() {
        let line = line(&[1.0], Err(Missing::Failed("a | b\nc".into())));
        let row = Row {
            name: "x",
            title: "things",
            lines: vec![line],
        };
        let table = markdown(&[row]);
        assert!(table.contains("a \\| b c"), "{table}");
        assert_eq!(table.lines().count(), 4);
    }
}
