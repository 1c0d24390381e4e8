//! Releases of the `dji` adapter: the shipped code under the version that `DJI_RELEASE` named when it was built, so that one can be
//! updated to the next. Nothing of this is in the shipped adapter.
//!
//! Built with `DJI_TRAPS` set it has a fault that its vendor overlooked: it panics at every command of the cloud.

use dji::Dji;
use otahost_adapter::{Adapter, Description, Effect, Event, Requirements, View, register};

/// The version of this build.
pub const VERSION: &str = match option_env!("DJI_RELEASE") {
    Some(version) => version,
    None => "0.0.0",
};

const TRAPS: bool = option_env!("DJI_TRAPS").is_some();

/// The adapter.
#[derive(Debug)]
pub struct Release;

register!(Release);

impl Adapter for Release {
    type Config = <Dji as Adapter>::Config;
    type State = <Dji as Adapter>::State;

    fn describe() -> Description {
        Description {
            version: VERSION.into(),
            ..Dji::describe()
        }
    }

    fn requirements(config: &Self::Config) -> Result<Requirements, Vec<String>> {
        Dji::requirements(config)
    }

    fn migrate(from_version: u32, state: Vec<u8>) -> Result<Vec<u8>, String> {
        Dji::migrate(from_version, state)
    }

    fn handle(
        state: &mut Self::State,
        event: Event,
        config: &Self::Config,
        view: &dyn View,
    ) -> Result<Vec<Effect>, String> {
        let commanded = matches!(&event, Event::Message(m) if m.topic == config.services());
        assert!(
            !(TRAPS && commanded),
            "index out of bounds: the len is 0 but the index is 0"
        );
        Dji::handle(state, event, config, view)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_adapter::bench::{Bench, published};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn it_answers_as_the_shipped_adapter_does_under_its_own_version() {
        assert_eq!(Release::describe().version, VERSION);
        assert_eq!(Release::describe().protocol, Dji::describe().protocol);
        let config = json!({ "gateway_sn": "SN1", "dialect": "autel" }).to_string();
        let mut bench = Bench::<Release>::new(&config).unwrap();
        let message =
            json!({ "tid": "t", "bid": "b", "method": "no_such", "data": {} }).to_string();
        let effects = bench
            .message_bytes("cloud", "thing/product/SN1/services", message)
            .unwrap();
        let reply: Value = serde_json::from_slice(&published(&effects)[0].payload).unwrap();
        assert_eq!(
            (&reply["data"]["result"], &reply["tid"]),
            (&json!(314_000), &json!("t"))
        );
    }
}
