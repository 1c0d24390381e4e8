//! What a signer says about an artifact, in the trusted comment of its signature.
//!
//! The comment is covered by the signature's own signature, so that it can be believed, and the file refused, before the payload is
//! here.

use crate::signature::SignatureError;

/// What the signer says about what is signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// The kind of device it is made for.
    pub compatible: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Never decreases over the releases that may be installed one after the other.
    pub rollback_index: Option<u64>,
}

impl Claims {
    /// Reads a trusted comment: `name=value` items with tabs between. Other items (minisign adds a timestamp and a file name by
    /// default) are passed over; a claim that comes twice or is empty is an error.
    pub fn parse(trusted_comment: &str) -> Result<Self, SignatureError> {
        let mut claims = Claims::default();
        for (name, value) in trusted_comment
            .split('\t')
            .filter_map(|item| item.split_once('='))
        {
            match name {
                "compatible" => set(
                    &mut claims.compatible,
                    "compatible",
                    value.to_owned(),
                    value,
                )?,
                "version" => set(&mut claims.version, "version", value.to_owned(), value)?,
                "rollback-index" => {
                    let digits = value.bytes().all(|b| b.is_ascii_digit());
                    let index = value.parse().ok().filter(|_| digits);
                    let index = index.ok_or(SignatureError::Claim {
                        name: "rollback-index",
                        what: "is no whole number below 2^64",
                    })?;
                    set(&mut claims.rollback_index, "rollback-index", index, value)?;
                }
                _ => {}
            }
        }
        Ok(claims)
    }

    /// The trusted comment a signer signs.
    pub fn to_trusted_comment(&self) -> Result<String, SignatureError> {
        let index = self.rollback_index.map(|index| index.to_string());
        let items = [
            ("compatible", self.compatible.as_deref()),
            ("version", self.version.as_deref()),
            ("rollback-index", index.as_deref()),
        ];
        let mut parts = Vec::new();
        for (name, value) in items {
            let Some(value) = value else { continue };
            if value.is_empty() || value.len() > 200 || value.chars().any(char::is_control) {
                return Err(SignatureError::Claim {
                    name,
                    what: "has to be 1 to 200 bytes without control characters",
                });
            }
            parts.push(format!("{name}={value}"));
        }
        Ok(parts.join("\t"))
    }
}

fn set<T>(
    claim: &mut Option<T>,
    name: &'static str,
    value: T,
    text: &str,
) -> Result<(), SignatureError> {
    if text.is_empty() {
        return Err(SignatureError::Claim {
            name,
            what: "is empty",
        });
    }
    match claim.replace(value) {
        None => Ok(()),
        Some(_) => Err(SignatureError::Claim {
            name,
            what: "is there twice",
        }),
    }
}
