//! What a component imports, read from the file before anything is compiled.
//!
//! The linker would refuse an unknown import too, but only after the compiler has worked on a file that nobody may trust
//! yet, and in the compiler's words. This reads the import list and nothing else.

use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload};

use crate::failure::LoadError;
use crate::worlds;

/// Refuses what is no component, what is cut off, and what imports anything but the contract.
pub(crate) fn audit(adapter: &str, component: &[u8]) -> Result<(), LoadError> {
    let invalid = |reason: String| LoadError::Invalid {
        adapter: adapter.into(),
        reason,
    };
    // Components nest; only what the outermost one imports comes from the host.
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|e| invalid(e.to_string()))? {
            Payload::Version { encoding, .. } => {
                if depth == 0 && encoding == Encoding::Module {
                    return Err(LoadError::CoreModule {
                        adapter: adapter.into(),
                    });
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    let import = import.map_err(|e| invalid(e.to_string()))?;
                    check(
                        adapter,
                        import.name.name,
                        matches!(import.ty, ComponentTypeRef::Instance(_)),
                    )?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check(adapter: &str, import: &str, is_interface: bool) -> Result<(), LoadError> {
    let alien = || LoadError::AlienImport {
        adapter: adapter.into(),
        import: import.into(),
    };
    let (interface, version) = import
        .strip_prefix("otahost:adapter/")
        .and_then(|rest| rest.split_once('@'))
        .ok_or_else(alien)?;
    if !is_interface {
        return Err(alien());
    }
    if !worlds::serves(version) {
        return Err(LoadError::OtherContract {
            adapter: adapter.into(),
            interface: import.into(),
            served: worlds::SERVED,
        });
    }
    if !matches!(interface, "host" | "types") {
        return Err(alien());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_the_contracts_interfaces_pass() {
        for good in [
            "otahost:adapter/host@0.1.0",
            "otahost:adapter/types@0.1.0",
            "otahost:adapter/host@0.1.12",
        ] {
            assert_eq!(check("a", good, true), Ok(()), "{good}");
        }
        for alien in [
            "wasi:cli/environment@0.2.0",
            "otahost:adapter/secrets@0.1.0",
            "otahost:adapter/host",
            "otahost:adapters/host@0.1.0",
            "host",
            "",
        ] {
            let error = check("a", alien, true).unwrap_err();
            assert_eq!(
                error,
                LoadError::AlienImport {
                    adapter: "a".into(),
                    import: alien.into()
                }
            );
        }
        assert!(matches!(
            check("a", "otahost:adapter/host@0.1.0", false),
            Err(LoadError::AlienImport { .. })
        ));
    }

    #[test]
    fn another_contract_version_is_named_as_such() {
        for other in [
            "otahost:adapter/host@0.2.0",
            "otahost:adapter/host@1.0.0",
            "otahost:adapter/host@0.1",
            "otahost:adapter/host@0.1.x",
        ] {
            let error = check("a", other, true).unwrap_err();
            assert!(
                matches!(&error, LoadError::OtherContract { interface, .. } if interface == other),
                "{error}"
            );
        }
    }
}
