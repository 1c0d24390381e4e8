//! A device with none, one or all four of the shipped adapters, for the rows that look at it when it does nothing.

use std::fs;

use otahost_lab::broker::free_port;
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::tls::CA_PEM;
use otahost_lab::withnox::{DEVICE, USER, Withnox};
use serde_json::json;

use crate::Failed;
use crate::agent::{Agent, SERIAL, Spec, component, link};
use crate::code::SignedCode;

/// The device, and whom it talks to.
pub(crate) struct Device {
    /// The agent, off.
    pub(crate) agent: Agent,
    // What the agent is connected to ends after it.
    /// The broker.
    pub(crate) broker: Mosquitto,
    _withnox: Withnox,
}

/// The shipped adapters. A device with one has the first.
pub(crate) const ADAPTERS: [&str; 4] = ["dji", "kit112", "withnox", "wudun"];

impl Device {
    /// With none, with `dji`, or with all four; with code that was made elsewhere in the components' place.
    pub(crate) fn new(spec: Spec, code: Option<&SignedCode>) -> Result<Self, Failed> {
        let (broker, withnox) = (Mosquitto::start()?, Withnox::start());
        let adapters = spec.adapters;
        let component = |name: &str| match code {
            Some(code) => code.dir.join(name),
            None => component(name),
        };
        let agent = Agent::new(spec, |dir| {
            let secret = |name: &str, value: &str| -> Result<String, Failed> {
                let path = dir.join(name);
                fs::write(&path, format!("{value}\n"))?;
                Ok(format!("{{ file = {} }}", json!(path)))
            };
            let mut text = link(broker.port());
            if let Some(code) = code {
                text.push_str(&format!("[compiler]\ntrust = [\"{}\"]\n", code.key));
            }
            if adapters >= 1 {
                text.push_str(&format!(
                    r#"
[adapters.dji]
component = {dji}
config = {{ gateway_sn = "{SERIAL}", dialect = "autel" }}
[adapters.dji.grants]
links.cloud.subscribe = ["thing/product/{SERIAL}/services", "thing/product/{SERIAL}/events_reply", "sys/product/{SERIAL}/status_reply"]
links.cloud.publish = ["thing/product/{SERIAL}/#", "sys/product/{SERIAL}/status"]
download = ["http://127.0.0.1:9/"]
targets = ["dock"]
"#,
                    dji = json!(component("dji"))
                ));
            }
            if adapters >= 4 {
                let (user, password) = withnox.account();
                fs::write(dir.join("ca.pem"), CA_PEM)?;
                text.push_str(&format!(
                    r#"
[links.calls]
kind = "http_server"
listen = "127.0.0.1:{port}"
users = {{ centre = {call} }}
[links.centre]
kind = "ftps"
host = "127.0.0.1"
port = 9
username = {ftps_user}
password = {ftps_password}
ca = {ca}
[links.withnox]
kind = "http_client"
url = "{api}"
auth = {{ bearer = "access_token" }}
secrets = {{ account_user = {account_user}, account_password = {account_password} }}
redirects = ["{store}/"]
[adapters.kit112]
component = {kit112}
config = {{ kit_id = "bench-kit", link = "calls", target = "dock" }}
[adapters.kit112.grants]
links.calls.serve = ["POST /updateDevice", "GET /getDeviceInfo", "POST /getDeviceInfo", "GET /healthCheck", "POST /healthCheck"]
links.centre.files = ["/"]
targets = ["dock"]
[adapters.wudun]
component = {wudun}
config = {{ device_uid = "EMS1", tenant = "acme" }}
[adapters.wudun.grants]
links.cloud.subscribe = ["v1/user/acme/EMS1/ota/+/command"]
links.cloud.publish = ["v1/user/acme/EMS1/ota/+/result"]
download = ["http://127.0.0.1:9/"]
targets = ["dock"]
[adapters.withnox]
component = {withnox}
config = {{ target = "dock", device_id = {DEVICE}, user_id = {USER} }}
[adapters.withnox.grants]
targets = ["dock"]
links.withnox.files = ["/api/v1/addnox/firmware/file/"]
links.withnox.call = [
  {{ method = "GET", path = "/api/v1/addnox/firmware/latest/*/*" }},
  {{ method = "PATCH", path = "/api/v1/addnox/firmware/update-result/*/*/*" }},
  {{ method = "POST", path = "/api/v1/addnox/auth/refresh-token", secrets = {{ refresh_token = "body" }}, capture = {{ access_token = "/access_token", refresh_token = "/refresh_token" }} }},
  {{ method = "POST", path = "/api/v1/addnox/auth/email/signin", secrets = {{ account_user = "body", account_password = "body" }}, capture = {{ access_token = "/access_token", refresh_token = "/refresh_token" }} }},
]
"#,
                    port = free_port(),
                    call = secret("call", "Call-Pass-32")?,
                    ftps_user = secret("ftps-user", "kit-user")?,
                    ftps_password = secret("ftps-password", "Kit-Pass-31")?,
                    ca = json!(dir.join("ca.pem")),
                    api = withnox.url(),
                    store = withnox.store().origin(),
                    account_user = secret("account-user", &user)?,
                    account_password = secret("account-password", &password)?,
                    kit112 = json!(component("kit112")),
                    wudun = json!(component("wudun")),
                    withnox = json!(component("withnox")),
                ));
            }
            Ok(text)
        })?;
        Ok(Device {
            agent,
            broker,
            _withnox: withnox,
        })
    }
}
