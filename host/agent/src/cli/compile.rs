//! `otahost compile`, and the compiler's process of the agent's own.

use std::path::{Path, PathBuf};

use otahost_sandbox::{Target, precompile};
use serde_json::json;

use super::{Cli, Failure, args, show, words};
use crate::assemble::read_component;
use crate::exit::{Exit, ExitError};

/// All of the compiler's process. It limits itself for good, and its standard output is the compiler's alone.
pub(super) fn child() -> Exit {
    match otahost_sandbox::child_main(std::io::stdin(), std::io::stdout()) {
        0 => Exit::Ok,
        _ => Exit::Failure,
    }
}

pub(super) fn compile(cli: &Cli, arguments: &args::Compile) -> Result<Exit, Failure> {
    let input = &arguments.component;
    let fault = |what: String, advice: &str| Failure::from(ExitError::failure(what, advice));
    let target = arguments.target.unwrap_or_else(Target::host);
    let component =
        read_component(input).map_err(|what| fault(what, "build it with `adapter build`"))?;
    let name = input.file_stem().unwrap_or_default().to_string_lossy();
    let file = precompile(&words::clean(&name), &component, target)
        .map_err(|e| fault(e.to_string(), ""))?;
    let out = &arguments.out;
    replace(out, &file).map_err(|e| fault(format!("cannot write {}: {e}", out.display()), ""))?;
    let document = json!({
        "ok": true,
        "file": out.display().to_string(),
        "size": file.len(),
        "target": target.word(),
        "component": otahost_sandbox::precompiled_from(&file),
    });
    show(cli, &document, || {
        let out = out.display();
        format!(
            "{out}: native code for {target}, {}\nsign it, and name the signed file as `component`: otahost sign {out} --key VENDOR.key --out {out}.signed\n",
            words::bytes(file.len() as u64)
        )
    });
    Ok(Exit::Ok)
}

/// Half a file never has the name.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
}
