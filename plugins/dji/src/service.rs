//! Commands of the cloud: every one gets exactly one reply at once, and `ota_create` becomes at most one job.
//!
//! The cloud sends a command again, up to three times in nine seconds and each time with new ids, when no reply came; the broker
//! may deliver the same one twice. None of that may start a second update.

use otahost_adapter::effects::{publish, start_job};
use otahost_adapter::{Effect, JobPlan, JobReport, Level, Verdict, View};
use serde_json::{Value, json};

use crate::command::{self, Refusal};
use crate::config::Config;
use crate::outcome;
use crate::progress;
use crate::state::{Context, State};
use crate::wire::{Code, Inbound, Outbound, Standing};

/// The one command that is carried out.
const OTA_CREATE: &str = "ota_create";

/// A command that arrived whole.
pub fn on_command(
    state: &mut State,
    command: &Inbound,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    if command.method != OTA_CREATE {
        view.log(
            Level::Info,
            "a command with a method that is not supported was answered with 314000",
        );
        return vec![reply(
            command,
            json!({ "result": Code::UNSUPPORTED, "output": {} }),
            view.now(),
            config,
        )];
    }
    match ota_create(state, command, config, view) {
        Ok(effects) => effects,
        Err(refusal) => {
            view.log(
                Level::Warn,
                &format!(
                    "ota_create is refused with {}: {}",
                    refusal.code.0, refusal.why
                ),
            );
            vec![reply(
                command,
                config.dialect().reply(Standing::REJECTED, refusal.code),
                view.now(),
                config,
            )]
        }
    }
}

fn ota_create(
    state: &mut State,
    command: &Inbound,
    config: &Config,
    view: &dyn View,
) -> Result<Vec<Effect>, Refusal> {
    let orders = command::read(&command.data)?;
    let installs = command::resolve(&orders, &view.targets())?;
    let key = command::fingerprint(&orders);

    // A business has one result. When the command comes again after it was told, it is that result's late twin, no new attempt.
    if let Some(ended) = state.ending(&key, &command.bid) {
        view.log(
            Level::Info,
            "an ota_create that has already ended came again; it is answered with its result",
        );
        return Ok(vec![reply(
            command,
            config.dialect().reply(ended.standing, ended.code),
            view.now(),
            config,
        )]);
    }

    // `ota_progress` names no device: a second update beside the first could not be told from it.
    let mut active = view.active_jobs();
    active.retain(|job| !job.foreign);
    if active.iter().any(|job| job.key != key) {
        return Err(Refusal {
            code: Code::UPDATING,
            why: "another update is under way".into(),
        });
    }

    let running = view.job(&key).filter(|report| !report.phase.is_final());
    let context = Context {
        tid: command.tid.clone(),
        bid: command.bid.clone(),
        answer: Standing::SENT,
        timestamp: view.now(),
    };
    let plan = installs.into_iter().fold(start_job(&key), JobPlan::install);
    if let Some(report) = running {
        return Ok(repeated(&report, plan, context, state, command, config));
    }

    let plan = plan.context(&context);
    match view.check_job(&plan) {
        // Deferred is accepted: the job waits, and the cloud hears so.
        Verdict::Allow | Verdict::Defer(_) => state.running = None,
        Verdict::Busy(holder) if holder == key => {}
        Verdict::Busy(_) => {
            return Err(Refusal {
                code: Code::UPDATING,
                why: "another update holds the device".into(),
            });
        }
        Verdict::Refuse(reason) => {
            return Err(Refusal {
                code: outcome::refusal(&reason),
                why: reason.to_string(),
            });
        }
    }
    Ok(vec![
        reply(
            command,
            config.dialect().reply(context.answer, Code::OK),
            context.timestamp,
            config,
        ),
        plan.start(),
    ])
}

/// The same command while its job is active: answered with how the job stands, and the job's events carry the new `bid` from now
/// on. Delivered twice, it gets the first answer again and changes nothing.
fn repeated(
    report: &JobReport,
    plan: JobPlan,
    context: Context,
    state: &State,
    command: &Inbound,
    config: &Config,
) -> Vec<Effect> {
    if let Ok(before) = report.context_json::<Context>()
        && before.tid == context.tid
        && before.bid == context.bid
    {
        return vec![reply(
            command,
            config.dialect().reply(before.answer, Code::OK),
            before.timestamp,
            config,
        )];
    }
    let answer = progress::standing(report, state.percent(&report.key)).unwrap_or(Standing::SENT);
    let context = Context { answer, ..context };
    let reply = reply(
        command,
        config.dialect().reply(answer, Code::OK),
        context.timestamp,
        config,
    );
    vec![reply, plan.context(&context).start()]
}

/// A reply: the ids and the method of the command, on the topic of the command with `_reply` behind it.
fn reply(command: &Inbound, data: Value, timestamp: u64, config: &Config) -> Effect {
    let message = Outbound {
        tid: &command.tid,
        bid: &command.bid,
        timestamp,
        gateway: &config.gateway_sn,
        method: Some(&command.method),
        need_reply: None,
        data,
    };
    publish(&config.link, &config.services_reply())
        .payload(message.bytes())
        .durable()
}
