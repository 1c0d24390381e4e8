//! What a step may do: its effects against what the adapter declared, its plans against targets, grants and jobs.
//!
//! Two kinds of "no" are kept apart. An effect the adapter never declared is a fault of the adapter: the whole step is
//! discarded. What data makes impossible (a busy target, an address outside the grant) is an answer: a verdict the adapter can ask
//! for with `check-job` and pass on to its platform.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::grants::url_within;
use crate::model::{
    ArtifactSource, ClockQuality, Effect, Fetch, Install, Instant, JobPlan, Reason, Requirements,
    Verdict,
};
use crate::paths;
use crate::policy::memory::{Pace, TargetMemory};
use crate::policy::{self, Facts, Policy};
use crate::secret;
use crate::shared;
use crate::topics;

/// Most jobs of one adapter that have not ended.
pub const MAX_ACTIVE_JOBS: usize = 1_000;
/// Most installs of one plan.
pub const MAX_INSTALLS: usize = 1_000;

/// Why an effect discards its step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("undeclared effect: {0}")]
pub struct Undeclared(pub String);

/// Checks that every effect is one the adapter declared in its requirements and this host can carry out.
pub fn declared(effects: &[Effect], requirements: &Requirements) -> Result<(), Undeclared> {
    effects.iter().try_for_each(|effect| match effect {
        Effect::Publish(p) => {
            let known = requirements.topics.iter().any(|needs| {
                needs.link == p.link
                    && needs
                        .publish
                        .iter()
                        .any(|filter| topics::covers(filter, &p.topic))
            });
            match (known, topics::topic_fault(&p.topic)) {
                (true, None) => Ok(()),
                (_, Some(fault)) => Err(Undeclared(format!(
                    "publish to `{}` on link `{}`: {fault}",
                    p.topic, p.link
                ))),
                (false, None) => Err(Undeclared(format!(
                    "publish to `{}` on link `{}`",
                    p.topic, p.link
                ))),
            }
        }
        Effect::Fetch(f) => declared_call(f, requirements),
        Effect::ListDirectory(l) if requirements.sources.contains(&l.source.link) => Ok(()),
        Effect::ListDirectory(l) => Err(Undeclared(format!(
            "list {} on link `{}`",
            l.source.path, l.source.link
        ))),
        Effect::Respond(_) if !requirements.routes.is_empty() => Ok(()),
        Effect::Respond(r) => Err(Undeclared(format!(
            "respond to request `{}`; no route is declared",
            r.request
        ))),
        Effect::Extension(e) => Err(Undeclared(format!(
            "extension `{}`, which `features` does not list",
            e.name
        ))),
        Effect::StartJob(_)
        | Effect::RetryAttempt(_)
        | Effect::ApplyJob(_)
        | Effect::PauseJob(_)
        | Effect::ResumeJob(_)
        | Effect::CancelJob(_)
        | Effect::ConfirmJob(_)
        | Effect::SetTimer(_)
        | Effect::CancelTimer(_)
        | Effect::Alert(_) => Ok(()),
    })
}

fn declared_call(fetch: &Fetch, requirements: &Requirements) -> Result<(), Undeclared> {
    let path = paths::without_query(&fetch.path);
    let asked = || {
        Undeclared(format!(
            "fetch {} {path} on link `{}`",
            fetch.method, fetch.link
        ))
    };
    let need = requirements
        .calls
        .iter()
        .filter(|need| need.link == fetch.link && need.method == fetch.method)
        .filter(|need| paths::pattern_matches(&need.path, path));
    let names: BTreeSet<String> = secret::uses(fetch)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let mut known = false;
    for need in need {
        known = true;
        if names.iter().all(|name| need.secrets.contains(name)) {
            return Ok(());
        }
    }
    if known {
        let Undeclared(call) = asked();
        return Err(Undeclared(format!(
            "{call} with the secrets {}",
            names.into_iter().collect::<Vec<_>>().join(", ")
        )));
    }
    Err(asked())
}

/// A target as far as a verdict depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JudgedTarget {
    /// Key of the job that holds it; `"-"` when the job is another adapter's or the operator's.
    pub busy: Option<String>,
    /// The owner goes before the one whose job that is, and the job can still be cancelled.
    pub preempts: bool,
    /// Known to be away.
    pub offline: bool,
    /// The version that runs.
    pub version: Option<String>,
    /// When which updates are allowed.
    pub policy: Policy,
    /// What is remembered of it.
    pub memory: TargetMemory,
}

/// Decides on plans of one adapter: the frozen facts and the rule. The same rule answers `check-job` and the commit. What has to be looked up
/// outside (lock files, readiness) is asked later, at the job's gates; until then the job waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judge {
    /// The targets granted. Shared with other steps as long as nothing of them changes.
    #[serde(with = "shared")]
    pub targets: Arc<BTreeMap<String, JudgedTarget>>,
    /// URL prefixes that may be downloaded from. `None`: the operator, who may name any file.
    pub downloads: Option<Vec<String>>,
    /// Directories whose files may be taken, by link.
    #[serde(default)]
    pub files: BTreeMap<String, Vec<String>>,
    /// Keys of this adapter that are taken: by an active job, or by an ended one whose `dedupe` lasts.
    pub taken: BTreeSet<String>,
    /// Active jobs of this adapter.
    pub active: usize,
    /// A person or platform asked just now; false when an adapter found the update by itself.
    pub commanded: bool,
    /// The wall clock.
    pub now: Instant,
    /// How far it can be trusted.
    pub clock: ClockQuality,
    /// Observed transfer rate in bytes a second; 0 when nothing was observed yet.
    pub rate: u64,
}

impl Judge {
    /// For an adapter that is granted nothing, where a view is needed and no plan is expected.
    pub fn of_nobody() -> Self {
        Judge {
            targets: Arc::default(),
            downloads: Some(Vec::new()),
            files: BTreeMap::new(),
            taken: BTreeSet::new(),
            active: 0,
            commanded: false,
            now: 0,
            clock: ClockQuality::Unset,
            rate: 0,
        }
    }

    /// The verdict on a plan. The first thing that stands against it decides; of the waits the last.
    pub fn check(&self, plan: &JobPlan) -> Verdict {
        if self.taken.contains(&plan.key) {
            return Verdict::Busy(plan.key.clone());
        }
        let refuse = |code: &str, text: String| Verdict::Refuse(Reason::new(code, "admit", text));
        if self.active >= MAX_ACTIVE_JOBS {
            return refuse(
                "too-many-jobs",
                format!("{MAX_ACTIVE_JOBS} jobs are active already"),
            );
        }
        if plan.installs.is_empty() || plan.installs.len() > MAX_INSTALLS {
            return refuse(
                "invalid-plan",
                format!("a plan installs 1 to {MAX_INSTALLS} artifacts"),
            );
        }
        let mut seen = BTreeSet::new();
        let mut verdict = Verdict::Allow;
        for install in &plan.installs {
            let Some(target) = self.targets.get(&install.target) else {
                return refuse(
                    "unknown-target",
                    format!(
                        "there is no target `{}` granted to this adapter",
                        install.target
                    ),
                );
            };
            if !seen.insert(&install.target) {
                return refuse(
                    "invalid-plan",
                    format!("target `{}` appears twice", install.target),
                );
            }
            if let Some(reason) = self.source_fault(&install.artifact.source) {
                return Verdict::Refuse(reason);
            }
            if let Some(holder) = target.busy.as_ref().filter(|_| !target.preempts) {
                return Verdict::Busy(holder.clone());
            }
            if target.offline {
                return refuse("offline", format!("target `{}` is offline", install.target));
            }
            match self.policy(target, install) {
                Verdict::Allow => {}
                Verdict::Defer(until) => verdict = Verdict::Defer(until),
                stop => return stop,
            }
        }
        verdict
    }

    fn policy(&self, target: &JudgedTarget, install: &Install) -> Verdict {
        let operator = self.downloads.is_none();
        if !operator
            && let Some(reason) =
                target
                    .memory
                    .known_bad(None, &install.artifact.marks(), self.commanded)
        {
            return Verdict::Refuse(reason);
        }
        let facts = Facts {
            now: self.now,
            clock: self.clock,
            operator,
            locked: None,
            ready: Ok(()),
        };
        policy::judge_begin(
            &target.policy,
            &facts,
            target.version.as_deref(),
            &install.version,
        )
        .verdict(self.now)
    }

    /// Why an artifact may not come from there.
    pub fn source_fault(&self, source: &ArtifactSource) -> Option<Reason> {
        match (source, &self.downloads) {
            (ArtifactSource::File(_), None) => None,
            (ArtifactSource::File(_), Some(_)) => Some(Reason::new(
                "not-granted",
                "admit",
                "only the operator may install from a file",
            )),
            (ArtifactSource::OnLink(place), _) => {
                let granted = self.files.get(&place.link);
                let covers = |d: &String| paths::within(d, &place.path);
                (!granted.is_some_and(|g| g.iter().any(covers))).then(|| {
                    let path = paths::without_query(&place.path);
                    Reason::new(
                        "not-granted",
                        "admit",
                        format!(
                            "{path} on link `{}` is outside what grants.links.{}.files allows",
                            place.link, place.link
                        ),
                    )
                })
            }
            (source @ ArtifactSource::Url(url), granted) => {
                let prefixes = granted.as_deref().unwrap_or_default();
                (!prefixes.iter().any(|prefix| url_within(prefix, url))).then(|| {
                    Reason::new(
                        "not-granted",
                        "admit",
                        format!("{source} is outside what grants.download allows"),
                    )
                })
            }
        }
    }

    /// Seconds an update of this size will take, rounded up: transfer at the observed rate (1 MB/s before anything was observed), then what
    /// the last successful update of this target took behind its download.
    pub fn estimate_seconds(&self, target: &str, bytes: u64) -> u64 {
        let rate = if self.rate == 0 { 1_000_000 } else { self.rate };
        let pace = self.targets.get(target).and_then(|t| t.memory.pace);
        let pace = pace.unwrap_or(Pace::ASSUMED);
        bytes.div_ceil(rate) + bytes.div_ceil(pace.flash_rate.max(1)) + pace.switch.div_ceil(1_000)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::model::{Apply, Artifact, Dedupe, Persistence, Publication, TopicNeeds};
    use crate::policy::Downgrade;

    fn plan(key: &str, target: &str, url: &str) -> JobPlan {
        JobPlan {
            key: key.into(),
            dedupe: Dedupe::WhileActive,
            context: vec![],
            installs: vec![Install {
                target: target.into(),
                artifact: Artifact {
                    source: ArtifactSource::Url(url.into()),
                    size: None,
                    digests: vec!["md5:bad".into()],
                    identity: None,
                },
                version: "2".into(),
            }],
            apply: Apply::Immediately,
        }
    }

    fn judge() -> Judge {
        let busy = |preempts| JudgedTarget {
            busy: Some("-".into()),
            preempts,
            ..JudgedTarget::default()
        };
        let mut burnt = JudgedTarget::default();
        burnt.memory.rolled_back("aa", &["md5:bad".into()], "2");
        let strict = Policy {
            downgrade: Downgrade::Refuse,
            ..Policy::default()
        };
        Judge {
            targets: Arc::new(BTreeMap::from([
                ("dock".to_owned(), JudgedTarget::default()),
                ("drone".to_owned(), busy(false)),
                ("lower".to_owned(), busy(true)),
                (
                    "away".to_owned(),
                    JudgedTarget {
                        offline: true,
                        ..JudgedTarget::default()
                    },
                ),
                ("burnt".to_owned(), burnt),
                (
                    "newer".to_owned(),
                    JudgedTarget {
                        version: Some("3".into()),
                        policy: strict,
                        ..JudgedTarget::default()
                    },
                ),
            ])),
            downloads: Some(vec!["http://10.0.0.1/public/".into()]),
            files: [("centre".to_owned(), vec!["/model-a".to_owned()])].into(),
            taken: ["mine".to_owned()].into(),
            active: 0,
            commanded: false,
            now: 0,
            clock: ClockQuality::Synced,
            rate: 0,
        }
    }

    #[test]
    fn a_verdict_names_what_stands_against_the_plan() {
        let url = "http://10.0.0.1/public/a?sig=s3cret";
        let code = |verdict: Verdict| match verdict {
            Verdict::Allow => "allow".to_owned(),
            Verdict::Defer(_) => "defer".to_owned(),
            Verdict::Busy(key) => format!("busy {key}"),
            Verdict::Refuse(reason) => reason.code,
        };
        for (plan, expected) in [
            (plan("new", "dock", url), "allow"),
            (plan("mine", "dock", url), "busy mine"),
            (plan("new", "drone", url), "busy -"),
            (plan("new", "lower", url), "allow"),
            (plan("new", "away", url), "offline"),
            (plan("new", "burnt", url), "known-bad"),
            (plan("new", "newer", url), "downgrade"),
            (plan("new", "nowhere", url), "unknown-target"),
            (
                plan("new", "dock", "http://10.0.0.2/public/a"),
                "not-granted",
            ),
            (
                JobPlan {
                    installs: vec![],
                    ..plan("new", "dock", url)
                },
                "invalid-plan",
            ),
        ] {
            assert_eq!(code(judge().check(&plan)), expected, "{plan:?}");
        }
    }

    #[test]
    fn an_estimate_counts_what_was_observed() {
        let mut judge = judge();
        assert_eq!(judge.estimate_seconds("dock", 200_000_000), 200 + 2 + 60);
        judge.rate = 10_000_000;
        let dock = Arc::make_mut(&mut judge.targets).get_mut("dock").unwrap();
        dock.memory.observed(Pace {
            flash_rate: 4_000_000,
            switch: 95_500,
        });
        assert_eq!(judge.estimate_seconds("dock", 200_000_000), 20 + 50 + 96);
        // A clock that jumped in the middle is no observation.
        let dock = Arc::make_mut(&mut judge.targets).get_mut("dock").unwrap();
        dock.memory.observed(Pace {
            flash_rate: 4_000_000,
            switch: 3 * 24 * 3_600_000,
        });
        assert_eq!(judge.estimate_seconds("dock", 200_000_000), 20 + 50 + 96);
    }

    #[test]
    fn a_file_on_a_link_is_judged_by_its_directory() {
        for (link, path, expected) in [
            ("centre", "/model-a/B359.bin", "allow"),
            ("centre", "/model-b/B359.bin", "not-granted"),
            ("centre", "/model-a/../model-b/x", "not-granted"),
            ("other", "/model-a/B359.bin", "not-granted"),
        ] {
            let mut plan = plan("new", "dock", "");
            plan.installs[0].artifact.source = ArtifactSource::OnLink(crate::model::LinkPath {
                link: link.into(),
                path: path.into(),
            });
            let code = match judge().check(&plan) {
                Verdict::Allow => "allow".to_owned(),
                Verdict::Refuse(reason) => reason.code,
                other => format!("{other:?}"),
            };
            assert_eq!(code, expected, "{link} {path}");
        }
    }

    #[test]
    fn an_adapter_cannot_install_a_file_of_the_device() {
        let mut plan = plan("new", "dock", "");
        plan.installs[0].artifact.source = ArtifactSource::File("/etc/shadow".into());
        assert!(matches!(judge().check(&plan), Verdict::Refuse(r) if r.code == "not-granted"));
        let operator = Judge {
            downloads: None,
            ..judge()
        };
        assert_eq!(operator.check(&plan), Verdict::Allow);
    }

    #[test]
    fn a_refusal_never_shows_the_query_of_a_url() {
        let verdict = judge().check(&plan(
            "new",
            "dock",
            "http://user:pw@10.0.0.2/public/a?sig=s3cret",
        ));
        let Verdict::Refuse(reason) = verdict else {
            panic!("{verdict:?}")
        };
        assert!(
            !reason.text.contains("s3cret") && !reason.text.contains("pw"),
            "{}",
            reason.text
        );
    }

    #[test]
    fn a_publication_outside_the_declaration_discards_the_step() {
        let requirements = Requirements {
            topics: vec![TopicNeeds {
                link: "cloud".into(),
                subscribe: vec![],
                publish: vec!["out/#".into()],
            }],
            ..Requirements::default()
        };
        let publish = |link: &str, topic: &str| {
            Effect::Publish(Publication {
                link: link.into(),
                topic: topic.into(),
                payload: vec![],
                qos: 1,
                retain: false,
                persistence: Persistence::Durable,
            })
        };
        assert!(declared(&[publish("cloud", "out/x")], &requirements).is_ok());
        for bad in [
            publish("other", "out/x"),
            publish("cloud", "in/x"),
            publish("cloud", "out/+"),
        ] {
            assert!(
                declared(std::slice::from_ref(&bad), &requirements).is_err(),
                "{bad:?}"
            );
        }
    }
}
