//! Rows for people: at a terminal with everything, in the README in one line each.

use crate::stats::Spread;
use crate::table::{Line, Rival, Row, Sample, Side, Verdict};
use crate::unit::{Unit, times};

/// A row for a terminal.
pub(crate) fn text(row: &Row) -> String {
    let mut text = format!("{}: {} ({:.0} s)\n", row.name, row.title, row.took);
    for line in &row.lines {
        text.push_str(&format!("  {}\n", line.what));
        let sides = [("otahost", side(&line.ours, line.unit))].into_iter();
        let rivals = line.rivals.iter().map(|r| (&*r.name, rival(line, r)));
        for (name, said) in sides.chain(rivals) {
            text.push_str(&format!("    {name}: {said}\n"));
        }
        if let Some(factor) = line.doubled {
            text.push_str(&format!("    work ×2: ×{factor:.2}\n"));
        }
        for (limit, verdict) in line.verdicts() {
            text.push_str(&format!("    budget {limit}: {}\n", verdict.word()));
        }
    }
    text
}

/// All rows as a table of Markdown, and before it which budgets are missed.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = budgets(rows);
    text.push_str(
        "\n\n| what | otahost | others, and ours as a multiple of theirs | work ×2 | budget |\n|---|---|---|---|---|\n",
    );
    for row in rows {
        text.push_str(&format!("| **{}** | | | | |\n", row.title));
        for line in &row.lines {
            let cells = cells(line).map(|cell| cell.replace('|', "\\|").replace('\n', " "));
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// What the limits say, in a sentence or three.
fn budgets(rows: &[Row]) -> String {
    let mut kept = 0;
    let (mut missed, mut unknown) = (Vec::new(), Vec::new());
    for row in rows {
        for line in &row.lines {
            for (limit, verdict) in line.verdicts() {
                let named = format!("{}, {} ({limit})", row.name, line.what);
                match verdict {
                    Verdict::Kept => kept += 1,
                    Verdict::Missed => missed.push(named),
                    Verdict::NoNumber => unknown.push(named),
                }
            }
        }
    }
    let mut text = format!("Budgets kept: {kept}.");
    for (what, named) in [("missed", missed), ("without a number", unknown)] {
        if !named.is_empty() {
            text.push_str(&format!(
                " Budgets {what}: {}: {}.",
                named.len(),
                named.join("; ")
            ));
        }
    }
    text
}

fn cells(line: &Line) -> [String; 5] {
    let rivals: Vec<String> = line
        .rivals
        .iter()
        .map(|r| format!("{} {}", r.name, rival(line, r)))
        .collect();
    let verdicts: Vec<String> = line
        .verdicts()
        .iter()
        .map(|(limit, verdict)| match verdict {
            Verdict::Kept => format!("{limit}: kept"),
            other => format!("{limit}: **{}**", other.word()),
        })
        .collect();
    [
        line.what.clone(),
        side(&line.ours, line.unit),
        rivals.join("<br>"),
        line.doubled
            .map_or_else(String::new, |factor| format!("×{factor:.2}")),
        verdicts.join("<br>"),
    ]
}

fn side(side: &Side, unit: Unit) -> String {
    match side {
        Ok(sample) => format!("{}{}", unit.show_all(&sample.values), beside(sample)),
        Err(missing) => missing.text(),
    }
}

fn rival(line: &Line, rival: &Rival) -> String {
    let mut text = match &rival.side {
        Ok(sample) => {
            let median = Spread::of(&sample.values).map(|s| line.unit.show(s.median));
            format!("{}{}", median.unwrap_or_default(), beside(sample))
        }
        Err(missing) => missing.text(),
    };
    if let Some(spread) = line.ratio(rival) {
        text.push_str(&format!(": {}", times(spread)));
    }
    text
}

fn beside(sample: &Sample) -> String {
    let one = |b: &crate::table::Beside| {
        let value = Spread::of(&b.values).map(|s| b.unit.show(s.median));
        format!(", {} {}", b.name, value.unwrap_or_else(|| "none".into()))
    };
    sample.beside.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Missing;

    fn row(lines: Vec<Line>) -> Row {
        Row {
            name: "x".to_owned(),
            title: "Things",
            lines,
            took: 1.0,
        }
    }

    fn line(ours: f64, theirs: Side) -> Line {
        Line::value("a thing", Unit::Seconds, Sample::one(ours))
            .against("script", theirs)
            .ratio_at_most(1.1)
    }

    #[test]
    fn a_budget_that_is_missed_is_named() {
        let table = markdown(&[row(vec![
            line(1.2, Ok(Sample::one(1.0))),
            line(1.1, Ok(Sample::one(1.0))),
            line(1.0, Err(Missing::Absent("it is not installed".into()))),
        ])]);
        assert!(table.contains("| ≤ 1.10 × script: **missed** |"), "{table}");
        assert!(table.contains("| ≤ 1.10 × script: kept |"), "{table}");
        let first = table.lines().next();
        assert_eq!(
            first,
            Some(
                "Budgets kept: 1. Budgets missed: 1: x, a thing (≤ 1.10 × script). \
                 Budgets without a number: 1: x, a thing (≤ 1.10 × script)."
            )
        );
    }

    #[test]
    fn a_competitor_that_failed_is_shown_without_a_ratio() {
        let failed = || line(1.0, Err(Missing::Failed("it broke".into())));
        let table = markdown(&[row(vec![failed()])]);
        assert!(table.contains("| script FAILED: it broke |"), "{table}");
        let text = text(&row(vec![failed()]));
        assert!(text.contains("script: FAILED: it broke\n"), "{text}");
    }

    #[test]
    fn a_value_has_its_spread_its_ratio_and_what_is_beside_it() {
        let ours = Sample::new(vec![0.5, 0.25, 1.5]).beside("CPU", Unit::Seconds, vec![2.0]);
        let theirs = Sample::new(vec![1.0, 1.0, 1.0]).beside("CPU", Unit::Seconds, vec![3.0]);
        let line = Line::value("a thing", Unit::Seconds, ours)
            .against("script", Ok(theirs))
            .doubled(Some(2.0));
        let [what, ours, others, doubled, budget] = cells(&line);
        assert_eq!((&*what, &*ours), ("a thing", "500 ms (250–1500), CPU 2 s"));
        assert_eq!(others, "script 1 s, CPU 3 s: ×0.50 (0.25–1.50)");
        assert_eq!((&*doubled, &*budget), ("×2.00", ""));
    }

    #[test]
    fn a_cell_cannot_break_the_table() {
        let line = line(1.0, Err(Missing::Failed("a | b\nc".into())));
        let table = markdown(&[row(vec![line])]);
        assert!(table.contains("a \\| b c"), "{table}");
        assert_eq!(table.lines().count(), 6, "{table}");
    }
}
