//! The adapter of an imaginary vendor: one command that updates the dock, progress on the way, one result.

use otahost_adapter::effects::{publish, start_job};
use otahost_adapter::{
    Adapter, ArtifactSource, Description, Effect, Event, Install, JobReport, Phase, Requirements,
    TopicNeeds, View, register,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The operator's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    link: String,
    target: String,
}

/// What it remembers between two events.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    commands: u64,
}

/// What the vendor's cloud sends.
#[derive(Deserialize)]
struct Command {
    id: String,
    version: String,
    url: String,
    md5: String,
}

/// The adapter.
pub struct Acme;

register!(Acme);

impl Adapter for Acme {
    type Config = Config;
    type State = State;

    fn describe() -> Description {
        Description {
            protocol: "Acme OTA".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            config_schema: json!({
                "type": "object",
                "required": ["link", "target"],
                "additionalProperties": false,
                "properties": { "link": { "type": "string" }, "target": { "type": "string" } },
            })
            .to_string(),
            state_version: 1,
        }
    }

    fn requirements(config: &Config) -> Result<Requirements, Vec<String>> {
        Ok(Requirements {
            topics: vec![TopicNeeds {
                link: config.link.clone(),
                subscribe: vec!["acme/update".into()],
                publish: vec!["acme/progress".into(), "acme/result".into()],
            }],
            targets: vec![config.target.clone()],
            ..Requirements::default()
        })
    }

    fn handle(
        state: &mut State,
        event: Event,
        config: &Config,
        _: &dyn View,
    ) -> Result<Vec<Effect>, String> {
        match event {
            Event::Message(message) => {
                let command: Command = message.json()?;
                state.commands += 1;
                let source = ArtifactSource::Url(command.url);
                let install =
                    Install::new(&config.target, &command.version, source).md5(&command.md5);
                Ok(vec![
                    start_job(&format!("acme/{}", command.id))
                        .context(&command.id)
                        .install(install)
                        .start(),
                ])
            }
            Event::Job(report) if !report.foreign => tell(&report, config),
            _ => Ok(vec![]),
        }
    }
}

/// Passes a job's report on: progress may get lost on the way, the result may not.
fn tell(report: &JobReport, config: &Config) -> Result<Vec<Effect>, String> {
    let id: String = report.context_json()?;
    if !report.phase.is_final() {
        let percent = report.installs.first().map_or(0, |install| install.percent);
        let progress = json!({ "id": id, "phase": report.phase.word(), "percent": percent });
        return Ok(vec![
            publish(&config.link, "acme/progress")
                .json(&progress)
                .qos0()
                .latest(&id),
        ]);
    }
    let reason = report.reason.as_ref().map(|reason| reason.text.as_str());
    let result = json!({ "id": id, "ok": report.phase == Phase::Succeeded, "reason": reason });
    Ok(vec![
        publish(&config.link, "acme/result").json(&result).durable(),
    ])
}

#[cfg(test)]
mod tests {
    use otahost_adapter::Reason;
    use otahost_adapter::bench::{Bench, published, report, started};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_command_becomes_a_job_and_its_failure_a_result_with_the_reason() -> Result<(), String> {
        let mut bench = Bench::<Acme>::new(r#"{"link":"cloud","target":"dock"}"#)
            .map_err(|faults| faults.join("\n"))?;
        let command = json!({ "id": "17", "version": "2.0.0", "url": "https://files.example/dock.img",
            "md5": "9e107d9d372bb6826bd81d3542a419d6" });

        let effects = bench.message("cloud", "acme/update", &command)?;
        let plan = started(&effects)[0].clone();
        assert_eq!(plan.installs[0].target, "dock");

        let mut ended = report(&plan, Phase::Failed);
        ended.reason = Some(Reason::new("digest", "verify", "the MD5 does not match"));
        let effects = bench.report(ended)?;
        let result: Value = published(&effects)[0].payload_json()?;
        assert_eq!(
            result,
            json!({ "id": "17", "ok": false, "reason": "the MD5 does not match" })
        );
        Ok(())
    }
}
