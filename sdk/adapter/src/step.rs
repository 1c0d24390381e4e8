//! One step with bytes on both sides, the way the host calls it. The component and the bench share this, so that what a test
//! sees is what a device does.

use crate::{Adapter, Effect, Event, View, config};

/// Runs one step: JSON configuration and state in, JSON state and effects out; or the sentence why not.
pub(crate) fn handle<A: Adapter>(
    state: &[u8],
    event: Event,
    config: &str,
    view: &dyn View,
) -> Result<(Vec<u8>, Vec<Effect>), String> {
    let config: A::Config = config::parse(config)
        .map_err(|faults| format!("the configuration cannot be read: {}", faults.join("; ")))?;
    let mut state = read_state::<A>(state)?;
    let effects = A::handle(&mut state, event, &config, view)?;
    let state = serde_json::to_vec(&state)
        .map_err(|e| format!("the state cannot be written as JSON: {e}"))?;
    Ok((state, effects))
}

/// Reads what the last step left; nothing at all is the state before the first event.
pub(crate) fn read_state<A: Adapter>(state: &[u8]) -> Result<A::State, String> {
    if state.is_empty() {
        return Ok(A::State::default());
    }
    serde_json::from_slice(state).map_err(|e| {
        format!(
            "the stored state ({} bytes) cannot be read: {e}; a release that changes the state's layout raises \
             `state_version` and migrates",
            state.len()
        )
    })
}

/// Answer to `requirements`: faults of the text first, then what the adapter finds.
pub(crate) fn requirements<A: Adapter>(config: &str) -> Result<crate::Requirements, Vec<String>> {
    A::requirements(&config::parse(config)?)
}
