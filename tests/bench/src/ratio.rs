//! What a row of the table is made of.

use std::time::Duration;

use serde_json::{Value, json};

/// One budget, measured.
#[derive(Debug)]
pub(crate) struct Row {
    /// What is done.
    pub(crate) name: String,
    /// Against what.
    pub(crate) floor: String,
    /// Bytes moved in each run.
    pub(crate) bytes: u64,
    /// Our time and the floor's, of neighbouring runs.
    pub(crate) pairs: Vec<(Duration, Duration)>,
    /// The largest ratio that is within the budget.
    pub(crate) budget: f64,
    /// Times that are told beside the ratio and not part of it.
    pub(crate) beside: Vec<(String, Vec<Duration>)>,
}

impl Row {
    fn ratios(&self) -> Vec<f64> {
        self.pairs
            .iter()
            .map(|(ours, floor)| ours.as_secs_f64() / floor.as_secs_f64())
            .collect()
    }

    fn speed(&self, seconds: f64) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let mib = self.bytes as f64 / f64::from(1 << 20);
        mib / seconds
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let side = |pick: fn(&(Duration, Duration)) -> Duration| {
            let times: Vec<f64> = self
                .pairs
                .iter()
                .map(|pair| pick(pair).as_secs_f64())
                .collect();
            let middle = median(&times);
            format!(
                "{middle:.3} s ({:.0} MiB/s), {:.3} to {:.3} s",
                self.speed(middle),
                least(&times),
                most(&times)
            )
        };
        let ratios = self.ratios();
        let middle = median(&ratios);
        let verdict = if middle <= self.budget {
            "within"
        } else {
            "OVER"
        };
        let mut text = format!(
            "{}\n  ours   {}\n  floor  {}\n         {}\n  ratio  {middle:.3}, {:.3} to {:.3} in {} pairs of runs: {verdict} the budget of {:.2}",
            self.name,
            side(|pair| pair.0),
            side(|pair| pair.1),
            self.floor,
            least(&ratios),
            most(&ratios),
            ratios.len(),
            self.budget,
        );
        for (name, times) in &self.beside {
            let times: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
            text.push_str(&format!("\n  beside {name}: {:.3} s", median(&times)));
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let ratios = self.ratios();
        let middle = median(&ratios);
        let runs: Vec<Value> = self
            .pairs
            .iter()
            .map(|(ours, floor)| json!({ "ours_seconds": ours.as_secs_f64(), "floor_seconds": floor.as_secs_f64() }))
            .collect();
        let beside: serde_json::Map<String, Value> = self
            .beside
            .iter()
            .map(|(name, times)| {
                (
                    name.clone(),
                    json!(times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()),
                )
            })
            .collect();
        json!({
            "name": self.name,
            "floor": self.floor,
            "bytes": self.bytes,
            "runs": runs,
            "ratio": { "median": middle, "least": least(&ratios), "most": most(&ratios) },
            "budget": self.budget,
            "within": middle <= self.budget,
            "beside_seconds": beside,
        })
    }
}

/// The middle one, or the middle of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pairs: &[(u64, u64)]) -> Row {
        let ms = Duration::from_millis;
        let pairs = pairs
            .iter()
            .map(|(ours, floor)| (ms(*ours), ms(*floor)))
            .collect();
        Row {
            name: "x".into(),
            floor: "y".into(),
            bytes: 1 << 20,
            pairs,
            budget: 1.1,
            beside: Vec::new(),
        }
    }

    #[test]
    fn the_ratio_is_the_median_of_neighbouring_runs() {
        // The medians of each side alone would give 200 / 100.
        let json = row(&[(100, 100), (200, 100), (300, 300)]).json();
        assert_eq!(json["ratio"]["median"], 1.0);
        assert_eq!(
            (&json["ratio"]["least"], &json["ratio"]["most"]),
            (&json!(1.0), &json!(2.0))
        );
        assert_eq!(json["within"], true);
    }

    #[test]
    fn an_even_number_of_runs_has_the_middle_of_two() {
        assert!((median(&[1.0, 2.0, 4.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_over_the_budget_is_said_so() {
        assert!(
            row(&[(120, 100)])
                .text()
                .contains("OVER the budget of 1.10")
        );
        assert!(row(&[(110, 100)]).text().contains("within the budget"));
    }
}
