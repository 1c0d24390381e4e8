//! What the agent's binary takes on the device, without symbols.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use otahost_lab::machine::{built_program, target_dir};

use crate::Failed;
use crate::table::{Line, Missing, Sample};
use crate::unit::Unit;

/// Of §10 of the design, without the compiler.
const BUDGET: f64 = 10e6;

/// Measures it.
///
/// # Errors
/// When a binary that is there cannot be stripped.
pub(crate) fn measure(_quick: bool) -> Result<Vec<Line>, Failed> {
    let default = built_program("otahost");
    let slim = target_dir().join("slim/slim/otahost");
    let pulley = target_dir().join("pulley/otahost");
    let advice = "`cargo xtask slim` builds it";
    Ok(vec![
        line("with the compiler", &default, "")?,
        line("without the compiler", &slim, advice)?.at_most(BUDGET),
        line("with the interpreter alone", &pulley, advice)?,
    ])
}

fn line(what: &str, program: &PathBuf, advice: &str) -> Result<Line, Failed> {
    if !program.is_file() {
        let why = Missing::Absent(format!("it is not built; {advice}"));
        return Ok(Line::of(what, Unit::Bytes, Err(why)));
    }
    let dir = tempfile::tempdir()?;
    let stripped = dir.path().join("otahost");
    let status = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(program)
        .status()?;
    if !status.success() {
        return Err(format!("strip ended with {status}").into());
    }
    let bytes = fs::metadata(&stripped)?.len() as f64;
    Ok(Line::value(what, Unit::Bytes, Sample::one(bytes)))
}
