//! The gateway's presence: it announces itself until the cloud accepts it, then says what it is (`state`) when that changes and
//! how it is (`osd`) all the time. A known cloud sends no command to a gateway it has not heard of in the last minute.
//!
//! All of it is `latest`: what the cloud did not get while the link was down is no longer true.

use otahost_adapter::effects::{cancel_timer, publish, timer_every};
use otahost_adapter::{Effect, Health, Level, Phase, Target, View, uuid};
use serde_json::{Value, json};

use crate::command::{Fnv, SN};
use crate::config::{self, Config, state_of};
use crate::state::{Presence, Shown, ShownOf, State};
use crate::wire::{Inbound, Outbound, result_of};

/// The timer that repeats the announcement.
pub(crate) const TOPO_TIMER: &str = "topo";
/// The timer that sends `osd`.
pub(crate) const OSD_TIMER: &str = "osd";
/// How often an announcement is repeated until it is accepted, in milliseconds.
const TOPO_PERIOD: u64 = 5_000;
/// How often `osd` is sent: the vendor's 0.5 Hz, in milliseconds.
const OSD_PERIOD: u64 = 2_000;
/// The longest `firmware_version` in characters, as the vendor's table says.
const VERSION_MAX: usize = 64;
/// `mode_code` of a dock: nothing to do.
const IDLE: u8 = 0;
/// `mode_code` of a dock: upgrading.
const UPGRADING: u8 = 3;

/// The link is up: announces the gateway, until the cloud accepts it.
pub fn announce(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    if config.presence == config::Presence::None {
        return withdraw(state);
    }
    let mut effects = Vec::new();
    if matches!(state.presence, Presence::Online { .. }) {
        effects.push(cancel_timer(OSD_TIMER));
    }
    let bid = uuid(view);
    effects.push(update_topo(&bid, config, view));
    effects.push(timer_every(TOPO_TIMER, TOPO_PERIOD, TOPO_PERIOD));
    state.presence = Presence::Announcing { bid };
    effects
}

/// The link is down: there is nobody to tell.
pub fn withdraw(state: &mut State) -> Vec<Effect> {
    match std::mem::take(&mut state.presence) {
        Presence::Away => Vec::new(),
        Presence::Announcing { .. } => vec![cancel_timer(TOPO_TIMER)],
        Presence::Online { .. } => vec![cancel_timer(OSD_TIMER)],
    }
}

/// The cloud answers the announcement. `None` when it did not accept the one that was waited for.
pub fn on_status_reply(
    state: &mut State,
    reply: &Inbound,
    config: &Config,
    view: &dyn View,
) -> Option<Vec<Effect>> {
    match &state.presence {
        Presence::Announcing { bid } if *bid == reply.bid => {}
        Presence::Announcing { .. } | Presence::Away | Presence::Online { .. } => return None,
    }
    let result = result_of(&reply.data);
    if result != 0 {
        view.log(Level::Warn, &format!("the cloud refuses the gateway's topology with result {result}; it is announced again"));
        return None;
    }
    let targets = view.targets();
    let shown = shown(&targets, config, None, view);
    let others = others(&targets, config, None, view);
    let mut effects = vec![
        cancel_timer(TOPO_TIMER),
        properties(&config.gateway_sn, &shown, config, view),
    ];
    effects.extend(
        others
            .iter()
            .map(|o| properties(&o.sn, &o.shown, config, view)),
    );
    effects.push(osd(shown.upgrading, config, view));
    effects.push(timer_every(OSD_TIMER, OSD_PERIOD, OSD_PERIOD));
    state.presence = Presence::Online {
        topology: checksum(&targets, config),
        shown,
        others,
    };
    Some(effects)
}

/// The announcement is repeated, with a transaction of its own.
pub fn on_topo_timer(state: &State, config: &Config, view: &dyn View) -> Vec<Effect> {
    match &state.presence {
        Presence::Announcing { bid } => vec![update_topo(bid, config, view)],
        Presence::Away | Presence::Online { .. } => vec![cancel_timer(TOPO_TIMER)],
    }
}

/// `osd` is due. Changes no state, so that it costs no write.
pub fn on_osd_timer(state: &State, config: &Config, view: &dyn View) -> Vec<Effect> {
    match state.presence {
        Presence::Online { .. } => vec![osd(is_upgrading(None, None, view), config, view)],
        Presence::Away | Presence::Announcing { .. } => vec![cancel_timer(OSD_TIMER)],
    }
}

/// A target or a job changed: sends `state` if it differs from what was sent, and announces anew if the sub-devices do.
///
/// `ended` is the job that this very event is the end of.
pub fn refresh(
    state: &mut State,
    ended: Option<&str>,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let Presence::Online {
        topology,
        shown: sent,
        others: others_sent,
    } = &mut state.presence
    else {
        return Vec::new();
    };
    let targets = view.targets();
    if *topology != checksum(&targets, config) {
        return announce(state, config, view);
    }
    let mut effects = Vec::new();
    let now = shown(&targets, config, ended, view);
    if *sent != now {
        effects.push(properties(&config.gateway_sn, &now, config, view));
        *sent = now;
    }
    let now = others(&targets, config, ended, view);
    for other in now.iter().filter(|other| !others_sent.contains(other)) {
        effects.push(properties(&other.sn, &other.shown, config, view));
    }
    *others_sent = now;
    effects
}

/// An update works on this device, or on any at all, whoever asked for it. One that waits for its turn does not.
fn is_upgrading(target: Option<&str>, ended: Option<&str>, view: &dyn View) -> bool {
    view.active_jobs().iter().any(|job| {
        !matches!(job.phase, Phase::Queued | Phase::Waiting)
            && ended.is_none_or(|key| key != job.key)
            && target.is_none_or(|id| job.targets.iter().any(|t| t == id))
    })
}

/// The properties of the gateway. It is upgrading while anything behind it is: `mode_code` says the same.
fn shown(targets: &[Target], config: &Config, ended: Option<&str>, view: &dyn View) -> Shown {
    let own = targets
        .iter()
        .find(|t| t.attribute(SN) == Some(config.gateway_sn.as_str()));
    Shown {
        version: own.and_then(version),
        upgrading: is_upgrading(None, ended, view),
    }
}

/// The properties of the sub-devices that can be reached.
fn others(
    targets: &[Target],
    config: &Config,
    ended: Option<&str>,
    view: &dyn View,
) -> Vec<ShownOf> {
    config
        .sub_devices
        .iter()
        .filter_map(|sn| {
            let target = targets.iter().find(|t| t.attribute(SN) == Some(sn))?;
            (target.health != Health::Offline).then(|| ShownOf {
                sn: sn.clone(),
                shown: Shown {
                    version: version(target),
                    upgrading: is_upgrading(Some(&target.id), ended, view),
                },
            })
        })
        .collect()
}

fn version(target: &Target) -> Option<String> {
    let version = target.version.as_deref()?;
    Some(version.chars().take(VERSION_MAX).collect())
}

fn properties(sn: &str, shown: &Shown, config: &Config, view: &dyn View) -> Effect {
    // `compatible_status` stands beside `firmware_version` always: a known consumer cannot do without. 0: no consistency upgrade
    // is needed.
    let mut data =
        json!({ "compatible_status": 0, "firmware_upgrade_status": u8::from(shown.upgrading) });
    if let Some(version) = &shown.version {
        data["firmware_version"] = json!(version);
    }
    let topic = state_of(sn);
    let bytes = message(&uuid(view), None, data, config, view);
    // One key for each device: a device's newest must not take the place of another's.
    publish(&config.link, &topic).payload(bytes).latest(&topic)
}

fn osd(upgrading: bool, config: &Config, view: &dyn View) -> Effect {
    let data = json!({
        "mode_code": if upgrading { UPGRADING } else { IDLE },
        // otahost knows of no emergency stop; a known cloud sends no command where the field is missing.
        "emergency_stop_state": 0,
    });
    publish(&config.link, &config.osd())
        .payload(message(&uuid(view), None, data, config, view))
        .qos0()
        .latest(OSD_TIMER)
}

fn update_topo(bid: &str, config: &Config, view: &dyn View) -> Effect {
    let sub_devices: Vec<Value> = sub_devices(&view.targets(), config)
        .enumerate()
        .map(|(i, (sn, target))| sub_device(i, sn, target, config))
        .collect();
    let topo = &config.topo;
    let mut data = config.dialect().product(
        topo.domain,
        topo.kind,
        topo.sub_type,
        config.thing_version(),
    );
    data["sub_devices"] = json!(sub_devices);
    let bytes = message(bid, Some("update_topo"), data, config, view);
    publish(&config.link, &config.status())
        .payload(bytes)
        .latest(TOPO_TIMER)
}

/// The devices behind the gateway that can be reached, with their serial numbers.
fn sub_devices<'a>(
    targets: &'a [Target],
    config: &'a Config,
) -> impl Iterator<Item = (&'a str, &'a Target)> {
    targets
        .iter()
        .filter(|t| t.health != Health::Offline)
        .filter_map(|t| Some((t.attribute(SN)?, t)))
        .filter(|(sn, _)| *sn != config.gateway_sn)
        .take(SUB_DEVICES_MAX)
}

/// The most sub-devices in one announcement, so that it stays far below 256 KiB. The vendors' pages allow one.
const SUB_DEVICES_MAX: usize = 200;

fn sub_device(index: usize, sn: &str, target: &Target, config: &Config) -> Value {
    let number = |name: &str| {
        target
            .attribute(name)
            .and_then(|v| v.parse::<u32>().ok())
            .unwrap_or(0)
    };
    let letter = char::from(b'A' + (index % 26) as u8);
    let version = target
        .attribute("thing_version")
        .unwrap_or(config.thing_version());
    let mut device = config.dialect().product(
        number("domain"),
        number("type"),
        number("sub_type"),
        version,
    );
    device["sn"] = json!(sn);
    device["index"] = json!(target.attribute("index").unwrap_or(&letter.to_string()));
    device
}

fn checksum(targets: &[Target], config: &Config) -> u64 {
    let mut sum = Fnv::new();
    for (sn, _) in sub_devices(targets, config) {
        sum.text(sn);
    }
    sum.0
}

fn message(
    bid: &str,
    method: Option<&str>,
    data: Value,
    config: &Config,
    view: &dyn View,
) -> Vec<u8> {
    Outbound {
        tid: &uuid(view),
        bid,
        timestamp: view.now(),
        gateway: &config.gateway_sn,
        method,
        need_reply: None,
        data,
    }
    .bytes()
}
