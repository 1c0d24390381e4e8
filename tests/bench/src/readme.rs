//! Puts the table into the README, between two marks, so that no number there is written by hand.

use std::fs;
use std::path::Path;

use crate::Failed;
use crate::machine::Machine;
use crate::show::markdown;
use crate::table::Row;

const BEGIN: &str = "<!-- bench: written by `cargo xtask bench --readme`, not by hand -->";
const END: &str = "<!-- end of bench -->";

/// What stands below the table: whom its short names stand for.
const LEGEND: &str = "\
*script*: `curl`, or `cat` for a file, through `md5sum`, `sha256sum` and `b2sum` at once into `dd conv=fsync`: what we digest, and no more. \
*SWUpdate*, *RAUC*: as Debian packs them, with their own signatures, into the same slot. *native*: the handler without sandbox and engine, on the \
same journal and link. *shell*: `mosquitto_sub`, a loop in bash with a synced file, `mosquitto_pub`. *Pulley*: the same step in the interpreter. \
*×0.80*: ours is 0.80 of theirs. *CPU*: user and system time; *peak*: resident memory of the largest process. *work ×2*: what the value is \
multiplied by when its work (bytes, adapters, devices) doubles, from the two nearest sizes that were measured.";

/// The table with the machine and the legend.
pub(crate) fn table(machine: &Machine, rows: &[Row]) -> String {
    format!("{}.\n\n{}\n\n{LEGEND}", machine.text(), markdown(rows))
}

/// Writes it.
///
/// # Errors
/// When the README or its marks are not there.
pub(crate) fn write(table: &str) -> Result<(), Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, between(&text, table)?)?;
    println!("the table is in README.md");
    Ok(())
}

/// The text with what stands between its marks replaced.
fn between(text: &str, table: &str) -> Result<String, Failed> {
    let missing = || format!("README.md has no pair of marks {BEGIN} … {END}");
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let text = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let once = between(&text, "new").unwrap();
        assert_eq!(once, format!("above\n{BEGIN}\nnew\n{END}\nbelow\n"));
        assert_eq!(between(&once, "new").unwrap(), once);
    }

    #[test]
    fn without_its_marks_nothing_is_written() {
        assert!(between("nothing", "new").is_err());
        assert!(between(&format!("{END}{BEGIN}"), "new").is_err());
    }

    #[test]
    fn the_readme_has_its_marks() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
        between(&fs::read_to_string(path).unwrap(), "").unwrap();
    }
}
