//! The usual home-made adapter: `mosquitto_sub`, a loop in the shell, a file for the state, `mosquitto_pub`.

use std::path::Path;
use std::process::{Command, Stdio};

use super::find;
use super::process::Ended;
use crate::table::Missing;

/// Counts, keeps the count where a power cut does not take it, and answers.
const SCRIPT: &str = r#"
port=$1 prefix=$2
count=0
mosquitto_sub -p "$port" -t "$prefix/do" -q 1 | while read -r word; do
    count=$((count + 1))
    echo "$count" > state.new
    sync state.new
    mv state.new state
    sync .
    mosquitto_pub -p "$port" -t "$prefix/out" -q 1 -m "$count"
done
"#;

/// Starts it.
pub(crate) fn start(dir: &Path, port: u16, prefix: &str) -> Result<Ended, Missing> {
    for program in ["bash", "mosquitto_sub", "mosquitto_pub"] {
        find(program)?;
    }
    let mut command = Command::new("bash");
    command
        .args(["-c", SCRIPT, "adapter", &port.to_string(), prefix])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ended::spawn(&mut command).map_err(|e| Missing::Failed(format!("bash: {e}")))
}
