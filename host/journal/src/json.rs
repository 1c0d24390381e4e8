//! Rows that are records are kept as JSON: a newer agent can add fields, and an operator can read them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{JournalError, Key};

/// A record as the bytes of a row.
///
/// # Panics
/// When the type cannot be JSON (a map whose keys are no strings, a `Serialize` that fails): a mistake in the type, not in the data.
pub fn json<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("a journal record is plain data")
}

/// The record in the bytes of a row.
///
/// # Errors
/// [`JournalError::Value`] names the row and the place of the fault, and shows nothing of the value.
pub fn from_json<T: DeserializeOwned>(key: &Key, bytes: &[u8]) -> Result<T, JournalError> {
    serde_json::from_slice(bytes).map_err(|e| JournalError::Value {
        key: key.to_string(),
        // serde_json's own message quotes the offending value.
        why: format!(
            "{:?} error at line {}, column {}",
            e.classify(),
            e.line(),
            e.column()
        ),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_record_comes_back_and_a_fault_names_the_row_but_not_the_value() {
        let key = Key::Job(7);
        let row = json(&vec![1u32, 2]);
        assert_eq!(from_json::<Vec<u32>>(&key, &row).unwrap(), vec![1, 2]);
        let fault = from_json::<Vec<u32>>(&key, br#"["hunter2"]"#)
            .unwrap_err()
            .to_string();
        assert!(fault.contains("job 7"), "{fault}");
        assert!(!fault.contains("hunter2"), "{fault}");
    }
}
