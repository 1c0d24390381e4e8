//! Code of adapters that is made elsewhere and signed: for the interpreter, and for the agent without a compiler.

use std::fs;
use std::path::{Path, PathBuf};

use otahost_lab::signing::{Claims, HEADER, Publisher};
use otahost_sandbox::{Signers, Target, precompile};

use crate::Failed;
use crate::agent::component;

/// Signed code of adapters in a directory, under their names.
#[derive(Debug)]
pub(crate) struct SignedCode {
    /// Where it lies.
    pub(crate) dir: PathBuf,
    /// The key it is signed with.
    pub(crate) key: String,
}

impl SignedCode {
    /// Makes it of these adapters for this processor.
    pub(crate) fn make(dir: &Path, adapters: &[&str]) -> Result<Self, Failed> {
        let publisher = Publisher::generate()?;
        for name in adapters {
            let code = precompile(name, &fs::read(component(name))?, Target::host())?;
            let plain = dir.join(format!("{name}.cwasm"));
            fs::write(&plain, code)?;
            publisher.sign(&plain, &dir.join(name), &claims())?;
        }
        Ok(SignedCode {
            dir: dir.to_owned(),
            key: publisher.public_key(),
        })
    }
}

/// A signature of this code, and who is to be trusted with it.
pub(crate) fn signed(code: &[u8]) -> Result<(String, Signers), Failed> {
    let dir = tempfile::tempdir()?;
    let (plain, signed) = (dir.path().join("plain"), dir.path().join("signed"));
    fs::write(&plain, code)?;
    let publisher = Publisher::generate()?;
    publisher.sign(&plain, &signed, &claims())?;
    let mut header = fs::read(&signed)?;
    header.truncate(HEADER);
    let header = String::from_utf8(header)?;
    let (_, signature) = header.split_once('\n').ok_or("a header has lines")?;
    let signature = signature.trim_end_matches('\0').to_owned();
    Ok((signature, Signers::new(&[publisher.public_key()])))
}

/// What a signature of code claims counts for nothing.
fn claims() -> Claims {
    Claims {
        compatible: "code".to_owned(),
        version: "1".to_owned(),
        rollback_index: 1,
    }
}
