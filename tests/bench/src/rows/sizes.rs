//! What the agent's binary takes on the device, without symbols.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use otahost_lab::machine::{built_program, target_dir};

use crate::Failed;
use crate::table::{Budget, Line, Missing, Row, Sample, Unit};

/// Of §10 of the design, without the compiler.
const BUDGET: f64 = 10e6;

/// Measures it.
///
/// # Errors
/// When a binary that is there cannot be stripped.
pub(crate) fn measure(_quick: bool) -> Result<Row, Failed> {
    let default = built_program("otahost");
    let slim = target_dir().join("slim/slim/otahost");
    let pulley = target_dir().join("pulley/otahost");
    Ok(Row {
        name: "sizes",
        title: "The binary, stripped",
        lines: vec![
            line("with the compiler", &default, "")?,
            line(
                "without the compiler",
                &slim,
                "`cargo xtask slim` builds it",
            )?
            .within(Budget::Value(BUDGET)),
            line(
                "with the interpreter alone",
                &pulley,
                "no build of it is part of this repository yet",
            )?,
        ],
    })
}

fn line(what: &str, program: &PathBuf, advice: &str) -> Result<Line, Failed> {
    if !program.is_file() {
        let why = Missing::Absent(format!("it is not built; {advice}"));
        return Ok(Line::missing(what, Unit::Bytes, why));
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
    Ok(Line::value(what, Unit::Bytes, Sample::new(vec![bytes])))
}
