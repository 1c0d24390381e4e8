//! `ota_create`: what the cloud may ask for, and the job it becomes. Pure; who asks and who answers is in `service`.

use otahost_adapter::{ArtifactSource, Health, Install, Target};
use serde_json::Value;

use crate::config::SN_MAX;
use crate::wire::Code;

/// The target attribute by which the operator says which device has which serial number.
pub(crate) const SN: &str = "sn";
/// The most devices in one command, as the vendor's page says.
const DEVICES_MAX: usize = 2;
/// The longest version in bytes.
const VERSION_MAX: usize = 200;
/// The longest address in bytes, as the vendor's page says.
const URL_MAX: usize = 10_240;
/// Sizes stay below 2^53, so that every guest language can hold them.
const SIZE_MAX: u64 = (1 << 53) - 1;

/// One device of the command: sound in itself, not yet known to exist.
#[derive(Clone, PartialEq, Eq)]
pub struct Order {
    /// Serial number.
    pub sn: String,
    /// Version that it shall run.
    pub version: String,
    /// Where the file is. Holds a signature as a rule: never logged.
    pub url: String,
    /// 32 lower-case hexadecimal digits.
    pub md5: String,
    /// Bytes of the file.
    pub size: u64,
    /// 2 consistency upgrade, 3 regular upgrade. Both are carried out alike.
    pub kind: u64,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The number for the cloud.
    pub code: Code,
    /// A sentence for the adapter's log; holds no address.
    pub why: String,
}

fn refuse<T>(code: Code, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        code,
        why: why.into(),
    })
}

/// Reads the devices of `data`.
///
/// # Errors
/// The first thing that is wrong: 312010 for an upgrade type that is not known, 312012 for everything else.
pub fn read(data: &Value) -> Result<Vec<Order>, Refusal> {
    let Some(devices) = data.get("devices").and_then(Value::as_array) else {
        return refuse(Code::PARAMETERS, "`devices` is missing or is no list");
    };
    if devices.is_empty() || devices.len() > DEVICES_MAX {
        return refuse(
            Code::PARAMETERS,
            format!(
                "`devices` has {} entries; 1 or 2 are allowed",
                devices.len()
            ),
        );
    }
    let orders = devices.iter().map(order).collect::<Result<Vec<_>, _>>()?;
    if orders
        .iter()
        .enumerate()
        .any(|(i, a)| orders.iter().skip(i + 1).any(|b| a.sn == b.sn))
    {
        return refuse(
            Code::PARAMETERS,
            "two entries of `devices` have the same `sn`",
        );
    }
    Ok(orders)
}

fn order(device: &Value) -> Result<Order, Refusal> {
    let text = |name: &str, longest: usize| match device.get(name).and_then(Value::as_str) {
        Some(text)
            if !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control) =>
        {
            Ok(text.to_owned())
        }
        _ => refuse(
            Code::PARAMETERS,
            format!("`{name}` is missing or is no text of 1 to {longest} bytes"),
        ),
    };
    let sn = text("sn", SN_MAX)?;
    let kind = match number(device.get("firmware_upgrade_type")) {
        Some(kind @ (2 | 3)) => kind,
        Some(other) => {
            return refuse(
                Code::MISMATCH,
                format!("`firmware_upgrade_type` {other} is not supported"),
            );
        }
        None => {
            return refuse(
                Code::PARAMETERS,
                "`firmware_upgrade_type` is missing or is no number",
            );
        }
    };
    let version = text("product_version", VERSION_MAX)?;
    let url = text("file_url", URL_MAX)?;
    if !is_web_address(&url) {
        return refuse(Code::PARAMETERS, "`file_url` is no http or https address");
    }
    let mut md5 = text("md5", 32)?;
    if md5.len() != 32 || !md5.bytes().all(|b| b.is_ascii_hexdigit()) {
        return refuse(Code::PARAMETERS, "`md5` is not 32 hexadecimal digits");
    }
    md5.make_ascii_lowercase();
    let size = match number(device.get("file_size")) {
        Some(size @ 1..=SIZE_MAX) => size,
        _ => {
            return refuse(
                Code::PARAMETERS,
                "`file_size` is missing or is no positive number of bytes",
            );
        }
    };
    Ok(Order {
        sn,
        version,
        url,
        md5,
        size,
        kind,
    })
}

/// A whole number, or one that was written as text.
fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// An absolute `http` or `https` address with a host. The host program parses it in full later.
fn is_web_address(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return false;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    !host.is_empty()
        && !host.starts_with(':')
        && !url
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '\\')
}

/// The installs for the orders: what hangs farthest from the device comes first, so that the device that carries the others
/// restarts last.
///
/// # Errors
/// 312012 for a serial number that no target has, 312022 for a target that is offline.
pub fn resolve(orders: &[Order], targets: &[Target]) -> Result<Vec<Install>, Refusal> {
    let mut found = Vec::new();
    for order in orders {
        let Some(target) = targets
            .iter()
            .find(|t| t.attribute(SN) == Some(order.sn.as_str()))
        else {
            return refuse(
                Code::PARAMETERS,
                "`sn` is that of no target granted to this adapter",
            );
        };
        if target.health == Health::Offline {
            return refuse(
                Code::NOT_CONNECTED,
                format!("target {} is offline", target.id),
            );
        }
        let source = ArtifactSource::Url(order.url.clone());
        let install = Install::new(&target.id, &order.version, source)
            .size(order.size)
            .md5(&order.md5);
        found.push((depth(target, targets), install));
    }
    found.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    Ok(found.into_iter().map(|(_, install)| install).collect())
}

/// How many devices stand between the target and the host.
fn depth(target: &Target, targets: &[Target]) -> usize {
    let mut parent = target.parent.as_deref();
    // At most as deep as there are targets, so that a circle in the configuration ends.
    for depth in 0..=targets.len() {
        let Some(id) = parent else { return depth };
        parent = targets
            .iter()
            .find(|t| t.id == id)
            .and_then(|t| t.parent.as_deref());
    }
    targets.len()
}

/// The key of the job: the same for two commands that ask for the same thing, in whatever order and from whatever address.
///
/// The type, the MD5 and the serial number stand in it in full (167 bytes at most for two devices); what is left, the versions
/// among it, is condensed to 64 bits at the end, which keeps it within 200 bytes. Two commands that collide there still name the
/// same files for the same devices.
pub fn fingerprint(orders: &[Order]) -> String {
    let mut parts: Vec<_> = orders
        .iter()
        .map(|o| (&o.sn, &o.version, &o.md5, o.kind))
        .collect();
    parts.sort_unstable();
    let mut rest = Fnv::new();
    let mut key = String::new();
    for (sn, version, md5, kind) in parts {
        if !key.is_empty() {
            key.push('+');
        }
        key.push_str(&format!("{kind}{md5}{sn}"));
        rest.text(sn);
        rest.text(version);
    }
    key.push_str(&format!("#{:016x}", rest.0));
    key
}

/// FNV-1a, 64 bits: a checksum that is the same in every build.
pub(crate) struct Fnv(pub(crate) u64);

impl Fnv {
    pub(crate) fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in a text and its end, so that `ab`, `c` differs from `a`, `bc`.
    pub(crate) fn text(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_adapter::Field;
    use serde_json::json;

    use super::*;

    const PAGE: &str = include_str!("../fixtures/autel_page_ota_create.json");

    fn device() -> Value {
        serde_json::from_str::<Value>(PAGE).unwrap()["data"]["devices"][0].clone()
    }

    fn with(name: &str, value: Value) -> Value {
        let mut device = device();
        device[name] = value;
        json!({ "devices": [device] })
    }

    fn code(data: &Value) -> u32 {
        read(data).err().unwrap().code.0
    }

    fn target(id: &str, sn: &str, parent: Option<&str>, health: Health) -> Target {
        Target {
            id: id.into(),
            parent: parent.map(Into::into),
            version: None,
            health,
            observed: None,
            attributes: vec![Field {
                name: "sn".into(),
                value: sn.into(),
            }],
            busy: None,
        }
    }

    #[test]
    fn the_vendors_own_command_is_read() {
        let page: Value = serde_json::from_str(PAGE).unwrap();
        let orders = read(&page["data"]).ok().unwrap();
        assert_eq!(orders.len(), 1);
        assert_eq!(orders[0].sn, "NM1923221021");
        assert_eq!(orders[0].version, "1.2.0.69");
        assert_eq!(orders[0].md5, "d1c9dacec124abd350379eb44b9143e5");
        assert_eq!(orders[0].size, 603_696_942);
    }

    #[test]
    fn d04_an_md5_in_upper_case_is_the_same_md5() {
        let upper = read(&with("md5", json!("D1C9DACEC124ABD350379EB44B9143E5")))
            .ok()
            .unwrap();
        let lower = read(&json!({ "devices": [device()] })).ok().unwrap();
        assert_eq!(fingerprint(&upper), fingerprint(&lower));
        let installs = resolve(
            &upper,
            &[target("dock", "NM1923221021", None, Health::Healthy)],
        )
        .ok()
        .unwrap();
        assert_eq!(
            installs[0].artifact.digests,
            ["md5:d1c9dacec124abd350379eb44b9143e5"]
        );
    }

    #[test]
    fn d10_the_dji_example_without_a_usable_file_is_refused_with_312012() {
        let page: Value =
            serde_json::from_str(include_str!("../fixtures/dji_1_11_3_ota_create.json")).unwrap();
        assert_eq!(code(&page["data"]), 312_012);
        let known = [
            target("dock", "dock_sn", None, Health::Healthy),
            target("drone", "drone_sn", None, Health::Healthy),
        ];
        assert!(
            read(&page["data"])
                .and_then(|o| resolve(&o, &known))
                .is_err()
        );
    }

    #[test]
    fn d11_no_device_three_devices_or_none_that_is_known_is_refused_with_312012() {
        assert_eq!(code(&json!({ "devices": [] })), 312_012);
        assert_eq!(
            code(&json!({ "devices": [device(), device(), device()] })),
            312_012
        );
        assert_eq!(
            code(&json!({ "devices": [device(), device()] })),
            312_012,
            "the same device twice"
        );
        assert_eq!(code(&json!({ "devices": {} })), 312_012);
        assert_eq!(code(&json!({})), 312_012);
        assert_eq!(code(&Value::Null), 312_012);
        let orders = read(&json!({ "devices": [device()] })).ok().unwrap();
        let refused = resolve(&orders, &[target("dock", "OTHER", None, Health::Healthy)])
            .err()
            .unwrap();
        assert_eq!(refused.code.0, 312_012);
    }

    #[test]
    fn each_field_is_checked() {
        let cases = [
            ("sn", json!(""), 312_012),
            ("sn", json!("x".repeat(SN_MAX + 1)), 312_012),
            ("sn", json!(5), 312_012),
            ("product_version", json!(""), 312_012),
            ("product_version", json!("v".repeat(201)), 312_012),
            ("product_version", json!("1\n2"), 312_012),
            ("file_url", Value::Null, 312_012),
            ("file_url", json!("ftp://host/file"), 312_012),
            ("file_url", json!("file:///etc/passwd"), 312_012),
            ("file_url", json!("http://"), 312_012),
            ("file_url", json!("http:///file"), 312_012),
            ("file_url", json!("http://user@/file"), 312_012),
            ("file_url", json!("http://ho st/file"), 312_012),
            ("file_url", json!("//host/file"), 312_012),
            ("md5", json!("abcdefabcdefabcdef"), 312_012),
            ("md5", json!("g1c9dacec124abd350379eb44b9143e5"), 312_012),
            ("md5", Value::Null, 312_012),
            ("file_size", json!(0), 312_012),
            ("file_size", json!(-1), 312_012),
            ("file_size", json!(1.5), 312_012),
            ("file_size", json!(u64::MAX), 312_012),
            ("file_size", Value::Null, 312_012),
            ("firmware_upgrade_type", Value::Null, 312_012),
            ("firmware_upgrade_type", json!("regular"), 312_012),
            ("firmware_upgrade_type", json!(4), 312_010),
            ("firmware_upgrade_type", json!(1), 312_010),
        ];
        for (name, value, expected) in cases {
            assert_eq!(code(&with(name, value.clone())), expected, "{name} {value}");
        }
    }

    #[test]
    fn what_carries_no_weight_is_not_checked() {
        for (name, value) in [
            ("file_name", Value::Null),
            ("file_name", json!(5)),
            ("file_size", json!("603696942")),
            ("firmware_upgrade_type", json!("3")),
            ("firmware_upgrade_type", json!(2)),
            (
                "file_url",
                json!("HTTPS://bucket.example:9000/a?X-Signature=1%2F2"),
            ),
            ("new_field", json!({ "a": 1 })),
        ] {
            assert!(read(&with(name, value.clone())).is_ok(), "{name} {value}");
        }
    }

    #[test]
    fn a_known_device_that_is_offline_is_refused_with_312022() {
        let orders = read(&json!({ "devices": [device()] })).ok().unwrap();
        let refused = resolve(
            &orders,
            &[target("drone", "NM1923221021", None, Health::Offline)],
        )
        .err()
        .unwrap();
        assert_eq!(refused.code.0, 312_022);
    }

    #[test]
    fn the_farthest_device_comes_first() {
        let mut drone = device();
        drone["sn"] = json!("DRONE");
        let orders = read(&json!({ "devices": [device(), drone] })).ok().unwrap();
        let targets = [
            target("dock", "NM1923221021", None, Health::Healthy),
            target("drone", "DRONE", Some("dock"), Health::Unknown),
        ];
        let installs = resolve(&orders, &targets).ok().unwrap();
        assert_eq!(
            installs
                .iter()
                .map(|i| i.target.as_str())
                .collect::<Vec<_>>(),
            ["drone", "dock"]
        );
        let circle = [
            target("dock", "NM1923221021", Some("drone"), Health::Healthy),
            target("drone", "DRONE", Some("dock"), Health::Healthy),
        ];
        assert_eq!(resolve(&orders, &circle).ok().unwrap().len(), 2);
    }

    #[test]
    fn a_fingerprint_depends_on_device_version_md5_and_type_and_on_nothing_else() {
        let base = fingerprint(&read(&json!({ "devices": [device()] })).ok().unwrap());
        for (name, value, same) in [
            ("file_url", json!("https://elsewhere.example/f?sig=2"), true),
            ("file_name", json!("other"), true),
            ("file_size", json!(1), true),
            ("sn", json!("OTHER"), false),
            ("product_version", json!("1.2.0.70"), false),
            ("md5", json!("e1c9dacec124abd350379eb44b9143e5"), false),
            ("firmware_upgrade_type", json!(2), false),
        ] {
            assert_eq!(
                fingerprint(&read(&with(name, value)).ok().unwrap()) == base,
                same,
                "{name}"
            );
        }
        let mut other = device();
        other["sn"] = json!("A");
        let one = read(&json!({ "devices": [device(), other.clone()] }))
            .ok()
            .unwrap();
        let two = read(&json!({ "devices": [other, device()] })).ok().unwrap();
        assert_eq!(fingerprint(&one), fingerprint(&two));
    }

    #[test]
    fn the_longest_fingerprint_is_a_valid_key() {
        let mut a = device();
        a["sn"] = json!("a".repeat(SN_MAX));
        a["product_version"] = json!("v".repeat(VERSION_MAX));
        let mut b = a.clone();
        b["sn"] = json!("b".repeat(SN_MAX));
        let key = fingerprint(&read(&json!({ "devices": [a, b] })).ok().unwrap());
        assert!(key.len() <= 200, "{}", key.len());
    }
}
