//! The three readings of the protocol: the same standing of an update in the words of one vendor's page or another's.
//!
//! A dialect decides how something is written, never what happens: jobs, numbers and repetitions are the same in all of them. What
//! comes in is read alike in all of them too.

use serde_json::{Value, json};

use crate::wire::{Code, Standing, Status, Step};

/// Whose pages the cloud was written by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Autel's: a finer word (`sub_status`) and a number beside each step.
    Autel,
    /// DJI's up to 1.11.3: the step is named in `step_key`, at which DJI's published cloud does not look.
    DjiV1,
    /// DJI's since 2025: the step is named in `current_step`, where that cloud wants a number, and drops the event.
    Dji2026,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Dialect; 3] = [Dialect::Autel, Dialect::DjiV1, Dialect::Dji2026];

    /// The dialect with this name in the configuration.
    pub fn of(word: &str) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|d| d.word() == word)
    }

    /// Its name in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Dialect::Autel => "autel",
            Dialect::DjiV1 => "dji-v1",
            Dialect::Dji2026 => "dji-2026",
        }
    }

    /// Version of the thing model where the operator names none: for DJI that of the pages' example, because a known cloud refuses
    /// a gateway whose version it does not know.
    pub fn thing_version(self) -> &'static str {
        match self {
            Dialect::Autel => "1",
            Dialect::DjiV1 | Dialect::Dji2026 => "1.1.2",
        }
    }

    /// The `data` of a reply to a command.
    pub fn reply(self, standing: Standing, code: Code) -> Value {
        match self {
            // Autel's example answers with all that an event has.
            Dialect::Autel => self.progress(standing, code),
            Dialect::DjiV1 | Dialect::Dji2026 => {
                json!({ "result": code, "output": { "status": self.status(standing.status) } })
            }
        }
    }

    /// The `data` of an `ota_progress`.
    pub fn progress(self, standing: Standing, code: Code) -> Value {
        let (step, percent) = (self.step(standing.step), standing.percent);
        let progress = match self {
            Dialect::Autel => {
                json!({ "percent": percent, "step": step.number(), "step_key": step })
            }
            Dialect::DjiV1 => json!({ "percent": percent, "step_key": step }),
            Dialect::Dji2026 => json!({ "percent": percent, "current_step": step }),
        };
        let mut output = json!({ "status": self.status(standing.status), "progress": progress });
        if self == Dialect::Autel {
            output["sub_status"] = json!(standing.sub_status);
        }
        json!({ "result": code, "output": output })
    }

    /// DJI's pages answer an accepted command with `in_progress` at once, and nothing falls back behind that.
    fn status(self, status: Status) -> Status {
        match (self, status) {
            (Dialect::DjiV1 | Dialect::Dji2026, Status::Sent) => Status::InProgress,
            (
                Dialect::Autel | Dialect::DjiV1 | Dialect::Dji2026,
                Status::Sent
                | Status::InProgress
                | Status::Paused
                | Status::Ok
                | Status::Rejected
                | Status::Failed
                | Status::Canceled
                | Status::Timeout,
            ) => status,
        }
    }

    /// DJI's list of steps has no empty one.
    fn step(self, step: Step) -> Step {
        match (self, step) {
            (Dialect::DjiV1 | Dialect::Dji2026, Step::Blank) => Step::Download,
            (
                Dialect::Autel | Dialect::DjiV1 | Dialect::Dji2026,
                Step::Blank | Step::Download | Step::Upgrade,
            ) => step,
        }
    }

    /// What a device says of itself in `update_topo`, without its serial number. Secrets are empty: an adapter holds none.
    pub fn product(self, domain: u32, kind: u32, sub_type: u32, version: &str) -> Value {
        let mut product =
            json!({ "type": kind, "sub_type": sub_type, "device_secret": "", "nonce": "" });
        match self {
            Dialect::Autel => {
                product["domain"] = json!(domain);
                product["version"] = json!(version);
            }
            // Two pages of the same release differ: the overview has `version` and no `domain`, the device's page `thing_version`
            // and `domain` as text. A cloud by either finds its own.
            Dialect::DjiV1 => {
                product["domain"] = json!(domain.to_string());
                product["version"] = json!(version);
                product["thing_version"] = json!(version);
            }
            Dialect::Dji2026 => {
                product["domain"] = json!(domain.to_string());
                product["thing_version"] = json!(version);
            }
        }
        product
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::wire::SubStatus;

    fn page(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn standing(status: Status, sub_status: SubStatus, step: Step, percent: u8) -> Standing {
        Standing {
            status,
            sub_status,
            step,
            percent,
        }
    }

    fn downloading(percent: u8) -> Standing {
        standing(
            Status::InProgress,
            SubStatus::Downloading,
            Step::Download,
            percent,
        )
    }

    #[test]
    fn a_dialect_is_found_by_its_word() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::of(dialect.word()), Some(dialect));
        }
        assert_eq!(Dialect::of("Autel"), None);
    }

    #[test]
    fn an_accepted_command_is_answered_as_each_page_shows_it() {
        let autel = page(include_str!(
            "../fixtures/autel_page_ota_create_reply_sent.json"
        ));
        let v1 = page(include_str!("../fixtures/dji_1_11_3_ota_create_reply.json"));
        let of_2026 = page(include_str!("../fixtures/dji_2026_ota_create_reply.json"));
        for (dialect, page) in [
            (Dialect::Autel, autel),
            (Dialect::DjiV1, v1),
            (Dialect::Dji2026, of_2026),
        ] {
            assert_eq!(
                dialect.reply(Standing::SENT, Code::OK),
                page["data"],
                "{dialect:?}"
            );
        }
    }

    #[test]
    fn progress_has_the_shape_of_each_page() {
        let v1 = page(include_str!(
            "../fixtures/dji_1_11_3_ota_progress_step_key.json"
        ));
        assert_eq!(
            Dialect::DjiV1.progress(downloading(10), Code::OK),
            v1["data"]
        );
        // The 2026 page names the step in `current_step`; this payload is an independent SDK's.
        let of_2026 = page(include_str!(
            "../fixtures/dji_thirdparty_cdmi_progress_data.json"
        ));
        assert_eq!(
            Dialect::Dji2026.progress(downloading(50), Code::OK),
            of_2026
        );
    }

    #[test]
    fn a_failed_event_has_the_shape_of_autels_page_but_no_result_of_success() {
        let page = page(include_str!(
            "../fixtures/autel_page_ota_progress_failed.json"
        ));
        let failed = standing(Status::Failed, SubStatus::DownloadFailed, Step::Download, 0);
        assert_eq!(
            Dialect::Autel.progress(failed, Code::FAILED)["output"],
            page["data"]["output"]
        );
        assert_eq!(
            page["data"]["result"], 0,
            "the page's own example pairs failed with 0; ours never does"
        );
    }

    #[test]
    fn the_dji_dialects_know_no_sent_and_no_empty_step() {
        for (dialect, key) in [
            (Dialect::DjiV1, "step_key"),
            (Dialect::Dji2026, "current_step"),
        ] {
            for step in [Step::Blank, Step::Download, Step::Upgrade] {
                let said =
                    dialect.progress(standing(Status::Sent, SubStatus::Blank, step, 0), Code::OK);
                let output = &said["output"];
                assert_eq!(output["status"], "in_progress");
                assert!(output.get("sub_status").is_none());
                let progress = output["progress"].as_object().unwrap();
                assert_eq!(progress.len(), 2, "{progress:?}");
                let word = if step == Step::Upgrade {
                    "upgrade_firmware"
                } else {
                    "download_firmware"
                };
                assert_eq!(progress[key], word);
            }
        }
    }

    #[test]
    fn a_refusal_says_rejected_with_its_number_in_every_dialect() {
        for dialect in Dialect::ALL {
            let said = dialect.reply(Standing::REJECTED, Code::BUSY);
            assert_eq!(said["result"], 312_015);
            assert_eq!(said["output"]["status"], "rejected");
        }
    }
}
