//! What a component imports, read from the file before anything is compiled.
//!
//! The linker would refuse an unknown import too, but only after the compiler has worked on a file that nobody may trust
//! yet, and in the compiler's words. This reads the import list and the types it is made of, and nothing else.

use wasmparser::component_types::ComponentEntityType;
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, ValidPayload, Validator};

use crate::failure::LoadError;
use crate::text::plain;
use crate::worlds;

/// Most functions named in one error, and most bytes of a name that a component chose.
const NAMED: usize = 20;
const MAX_NAME: usize = 200;

/// Refuses what is no component, what is cut off, and what imports anything but what this host serves.
pub(crate) fn audit(adapter: &str, component: &[u8]) -> Result<(), LoadError> {
    let invalid = |reason: String| LoadError::Invalid {
        adapter: adapter.into(),
        reason,
    };
    // Components nest; only what the outermost one imports comes from the host.
    let mut depth = 0usize;
    let mut interfaces = Vec::new();
    let mut refusals = Vec::new();
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
                    let is_interface = matches!(import.ty, ComponentTypeRef::Instance(_));
                    interfaces.push(import.name.name.to_owned());
                    match check(adapter, import.name.name, is_interface) {
                        Ok(()) => {}
                        // Of several, the one that no contract explains tells most.
                        Err(alien @ LoadError::AlienImport { .. }) => return Err(alien),
                        Err(other) => refusals.push(other),
                    }
                }
            }
            _ => {}
        }
    }
    let functions = functions(component, &interfaces);
    let refusals = refusals
        .into_iter()
        .map(|refusal| with_functions(refusal, &functions));
    // `types` is refused beside `host`, and has nothing that could be called.
    match refusals.min_by_key(|(_, named)| !named) {
        Some((refusal, _)) => Err(refusal),
        None => later_function(adapter, functions),
    }
}

/// The refusal of an interface with the functions that are called there, and whether there are any.
fn with_functions(refusal: LoadError, functions: &[(String, String)]) -> (LoadError, bool) {
    let of = |interface: &str| {
        let of: Vec<_> = functions.iter().filter(|(of, _)| of == interface).collect();
        of.into_iter().map(|(_, function)| function.clone())
    };
    match refusal {
        LoadError::OtherContract {
            adapter,
            interface,
            served,
            ..
        } => {
            let unknown = of(&interface).filter(|function| !worlds::has_function(function));
            let missing: Vec<_> = unknown.take(NAMED).collect();
            let named = !missing.is_empty();
            let refusal = LoadError::OtherContract {
                adapter,
                interface,
                served,
                missing,
            };
            (refusal, named)
        }
        LoadError::LaterInterface {
            adapter, interface, ..
        } => {
            let functions: Vec<_> = of(&interface).take(NAMED).collect();
            let named = !functions.is_empty();
            let refusal = LoadError::LaterInterface {
                adapter,
                interface,
                functions,
            };
            (refusal, named)
        }
        other => (other, false),
    }
}

fn later_function(adapter: &str, functions: Vec<(String, String)>) -> Result<(), LoadError> {
    match functions
        .into_iter()
        .find(|(_, function)| !worlds::has_function(function))
    {
        Some((interface, item)) => Err(LoadError::LaterContract {
            adapter: adapter.into(),
            interface,
            item,
        }),
        None => Ok(()),
    }
}

/// The functions and resources of these imported interfaces that a component uses, with their interface. None where the types do not
/// fit together: the compiler refuses such a file, in better words.
fn functions(component: &[u8], interfaces: &[String]) -> Vec<(String, String)> {
    // The bodies of functions are the compiler's matter.
    let mut validator = Validator::new();
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let Ok(payload) = payload else {
            return Vec::new();
        };
        let types = match validator.payload(&payload) {
            Ok(ValidPayload::End(types)) => types,
            Ok(_) => continue,
            Err(_) => return Vec::new(),
        };
        // Each nested component and module ends too; the outermost, whose imports these are, ends last.
        found.clear();
        for interface in interfaces {
            let import = types.component_item_for_import(interface);
            let Some(ComponentEntityType::Instance(instance)) = import.map(|item| item.ty) else {
                continue;
            };
            found.extend(
                types[instance]
                    .exports
                    .iter()
                    .filter(|(_, item)| is_used(&item.ty))
                    .map(|(name, _)| (interface.clone(), plain(name, MAX_NAME))),
            );
        }
    }
    found
}

/// Functions and resources have to be there; a type is only a way to write.
fn is_used(item: &ComponentEntityType) -> bool {
    match item {
        ComponentEntityType::Func(_) => true,
        ComponentEntityType::Type { created, .. } => {
            matches!(
                created,
                wasmparser::component_types::ComponentAnyTypeId::Resource(_)
            )
        }
        _ => false,
    }
}

fn check(adapter: &str, import: &str, is_interface: bool) -> Result<(), LoadError> {
    let shown = plain(import, MAX_NAME);
    let alien = || LoadError::AlienImport {
        adapter: adapter.into(),
        import: shown.clone(),
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
            interface: shown,
            served: worlds::SERVED,
            missing: Vec::new(),
        });
    }
    match interface {
        "host" | "types" => Ok(()),
        _ if worlds::is_current(version) => Err(alien()),
        _ => Err(LoadError::LaterInterface {
            adapter: adapter.into(),
            interface: shown,
            functions: Vec::new(),
        }),
    }
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
    fn an_interface_of_a_later_release_is_no_alien() {
        let error = check("a", "otahost:adapter/weather@0.1.7", true).unwrap_err();
        assert!(
            matches!(&error, LoadError::LaterInterface { interface, .. } if interface.ends_with("weather@0.1.7")),
            "{error}"
        );
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
