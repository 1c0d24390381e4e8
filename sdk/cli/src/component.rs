//! Makes a component of a core module, and audits what it imports.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};
use wit_component::ComponentEncoder;

use crate::error::Error;

/// All that a component may import begins so.
const CONTRACT: &str = "otahost:adapter/";
/// The interface an adapter exports begins so; a version follows.
const ADAPTER: &str = "otahost:adapter/adapter";

/// A component and its two lists.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Encodes and audits. The audit comes twice: on the module, where a foreign import still has the name that leads to its
/// origin, and on the component, which is what a host will see.
pub(crate) fn encode(module: &[u8]) -> Result<Encoded, Error> {
    audit_module(module)?;
    let bytes = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|e| Error::Encode(format!("{e:#}")))?;
    let (imports, exports) = audit_component(&bytes)?;
    Ok(Encoded {
        bytes,
        imports,
        exports,
    })
}

fn audit_module(module: &[u8]) -> Result<(), Error> {
    let mut foreign = Vec::new();
    let mut is_adapter = false;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(malformed)? {
            Payload::Version {
                encoding: Encoding::Component,
                ..
            } => {
                return Err(Error::Encode(
                    "it is a component already; an adapter is built for wasm32-unknown-unknown"
                        .to_owned(),
                ));
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(malformed)?;
                    if !import.module.starts_with(CONTRACT) {
                        foreign.push(format!("{}.{}", import.module, import.name));
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    is_adapter |= export.map_err(malformed)?.name.starts_with(ADAPTER);
                }
            }
            _ => {}
        }
    }
    if !foreign.is_empty() {
        return Err(Error::ForeignImports(foreign));
    }
    if is_adapter {
        Ok(())
    } else {
        Err(Error::NoAdapter)
    }
}

pub(crate) fn audit_component(component: &[u8]) -> Result<(Vec<String>, Vec<String>), Error> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(malformed)?;
                    if export.kind == ComponentExternalKind::Instance {
                        exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    let foreign: Vec<String> = imports
        .iter()
        .filter(|name| !name.starts_with(CONTRACT))
        .cloned()
        .collect();
    if !foreign.is_empty() {
        return Err(Error::ForeignImports(foreign));
    }
    if exports.iter().any(|name| name.starts_with(ADAPTER)) {
        Ok((imports, exports))
    } else {
        Err(Error::NoAdapter)
    }
}

fn malformed(error: wasmparser::BinaryReaderError) -> Error {
    Error::Encode(format!("it is malformed: {error}"))
}

/// The component's identity.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// Puts the component in its place whole or not at all: somebody may be reading the former one.
pub(crate) fn write(out: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Machine {
        what: format!("write {}", out.display()),
        source,
    };
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    // Two builds may end at once, in two processes or in one.
    static DRAFTS: AtomicU64 = AtomicU64::new(0);
    let draft = folder.join(format!(
        ".{name}.{}.{}",
        std::process::id(),
        DRAFTS.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::File::create(&draft)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            // It may be a medium that is pulled out in a minute.
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&draft, out))
        .inspect_err(|_| {
            // The first error is the one to tell; a draft that cannot be removed either is only left over.
            let _ = std::fs::remove_file(&draft);
        })
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// An empty core module.
    const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

    /// A core module that imports a function without parameters and results.
    fn importing(module: &str, name: &str) -> Vec<u8> {
        let mut import = vec![1, module.len() as u8];
        import.extend_from_slice(module.as_bytes());
        import.push(name.len() as u8);
        import.extend_from_slice(name.as_bytes());
        import.extend_from_slice(&[0, 0]);
        let mut bytes = EMPTY.to_vec();
        bytes.extend_from_slice(&[1, 4, 1, 0x60, 0, 0]);
        bytes.extend_from_slice(&[2, import.len() as u8]);
        bytes.extend_from_slice(&import);
        bytes
    }

    #[test]
    fn an_import_beyond_the_contract_is_an_error_that_names_it() {
        let error = encode(&importing("wasi_snapshot_preview1", "fd_write")).unwrap_err();
        assert!(
            matches!(&error, Error::ForeignImports(names) if names == &["wasi_snapshot_preview1.fd_write"]),
            "{error}"
        );
        assert_eq!(error.exit_code(), 6);
        assert!(matches!(
            encode(&importing("otahost:adapterx/host", "now")),
            Err(Error::ForeignImports(_))
        ));
        assert!(matches!(
            encode(&importing("otahost:adapter/host@0.1.0", "now")),
            Err(Error::NoAdapter)
        ));
    }

    #[test]
    fn a_module_that_exports_no_adapter_is_told_how_to_register_one() {
        let error = encode(EMPTY).unwrap_err();
        assert!(error.to_string().contains("register!"), "{error}");
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn rubbish_and_a_finished_component_are_errors_and_no_panic() {
        assert!(matches!(
            encode(b""),
            Err(Error::Encode(_) | Error::NoAdapter)
        ));
        assert!(matches!(encode(b"MZ rubbish"), Err(Error::Encode(_))));
        let error = encode(b"\0asm\x0d\0\x01\0").unwrap_err();
        assert!(error.to_string().contains("a component already"), "{error}");
    }

    #[test]
    fn a_digest_is_written_as_the_contract_writes_it() {
        assert_eq!(
            digest(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_write_replaces_the_former_file_and_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("deep/er/x.wasm");
        write(&out, b"one").unwrap();
        write(&out, b"two").unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(out.parent().unwrap()).unwrap().count(), 1);
    }
}
