//! `updateDevice`: K01, K03 to K06, K17, and what the folder decides.

use otahost_adapter::bench::{file, listings, report, responses, started, timers};
use otahost_adapter::{
    Apply, ArtifactSource, Dedupe, Effect, Event, InboundRequest, Phase, Reason, Verdict,
};
use serde_json::{Value, json};

use crate::centre::{
    KIT, PAGE, PAGE_ANSWER, SIZE, answer, answers, at, begin, bench, bench_with, ended, folder,
    post, post_and_list, tag,
};

#[test]
fn k01_the_pages_request_gets_the_pages_answer_and_starts_the_job() {
    let mut bench = bench();
    let asked = post(&mut bench);
    assert!(responses(&asked).is_empty(), "the answer needs the folder");
    let listing = listings(&asked)[0];
    assert_eq!(
        (listing.source.link.as_str(), listing.source.path.as_str()),
        ("centre", "/")
    );
    assert_eq!(timers(&asked)[0].after, 10_000);

    bench.advance(1_500);
    let effects = bench.listing(&tag(&asked), Ok(folder())).unwrap();
    let mut page: Value = serde_json::from_str(PAGE_ANSWER).unwrap();
    page["timestamp"] = json!(bench.world.now);
    assert_eq!(answer(&effects), page);
    assert!(page["data"]["estimatedTime"].is_u64());
    assert!(effects.contains(&Effect::CancelTimer("listing".into())));

    let plan = started(&effects)[0];
    assert_eq!(
        (plan.apply, &plan.dedupe),
        (Apply::Immediately, &Dedupe::WhileActive)
    );
    let install = &plan.installs[0];
    assert_eq!(
        (install.target.as_str(), install.version.as_str()),
        ("kit", "0.0.22")
    );
    assert_eq!(
        install.artifact.source,
        ArtifactSource::on_link("centre", "/kit-0.0.22.img")
    );
    assert_eq!(install.artifact.size, Some(SIZE));
    assert!(
        install.artifact.identity.is_some(),
        "so that the partial file is found again"
    );
    // The answer is out before the job begins.
    let place = |of: fn(&Effect) -> bool| effects.iter().position(of).unwrap();
    assert!(
        place(|e| matches!(e, Effect::Respond(_))) < place(|e| matches!(e, Effect::StartJob(_)))
    );
}

#[test]
fn k03_another_kits_id_is_404_without_a_look_at_the_folder_or_a_trace_in_the_state() {
    let one_off = KIT.replace("dfe4d6", "dfe4d7");
    for id in [one_off.as_str(), &KIT.to_uppercase(), "", &KIT[1..]] {
        let mut bench = bench();
        post(&mut bench);
        let state = bench.state().to_vec();
        let body = json!({ "kitId": id }).to_string();
        let effects = bench.request("kit", "POST", "/updateDevice", body).unwrap();
        let said = answer(&effects);
        assert_eq!(said["status"], 404, "{id}");
        assert_eq!(effects.len(), 1, "{effects:?}");
        assert_eq!(bench.state(), state);
        let text = said.to_string();
        assert!(!text.contains(KIT) && !text.contains("0.0.21"), "{text}");
        assert!(
            bench
                .log()
                .iter()
                .all(|(_, line)| !line.contains(KIT) && (id.is_empty() || !line.contains(id)))
        );
    }
}

#[test]
fn k04_the_pages_kit_id_which_is_no_uuid_works() {
    let groups: Vec<_> = KIT.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 6, 6], "no UUID");
    assert_eq!(
        answer(&post_and_list(&mut bench(), folder()))["status"],
        200
    );
}

#[test]
fn k05_a_second_call_while_a_job_runs_is_409_and_the_first_goes_on() {
    for phase in [
        Phase::Queued,
        Phase::Waiting,
        Phase::Downloading,
        Phase::Activating,
        Phase::Confirming,
    ] {
        let mut bench = bench();
        let plan = begin(&mut bench);
        bench.report(at(&plan, phase)).unwrap();
        let effects = post(&mut bench);
        assert_eq!(answer(&effects)["status"], 409, "{phase}");
        assert_eq!(effects.len(), 1, "{effects:?}");
    }
}

#[test]
fn k05_a_second_call_while_the_folder_is_read_is_409_and_the_first_gets_its_answer() {
    let mut bench = bench();
    let first = post(&mut bench);
    let second = post(&mut bench);
    assert_eq!(answer(&second)["status"], 409);
    assert!(listings(&second).is_empty());
    let effects = bench.listing(&tag(&first), Ok(folder())).unwrap();
    assert_eq!(answer(&effects)["status"], 200);
    assert_eq!(started(&effects).len(), 1);
}

#[test]
fn k05_an_update_of_somebody_else_makes_busy_too() {
    for repeat in ["busy", "answer"] {
        let mut bench = bench_with(&json!({ "repeat": repeat }));
        let plan = begin(&mut bench);
        bench.world.jobs[0].foreign = true;
        assert_eq!(answer(&post(&mut bench))["status"], 409, "{}", plan.key);
    }
}

#[test]
fn an_update_of_another_target_does_not_make_busy() {
    let mut bench = bench();
    begin(&mut bench);
    bench.world.jobs[0].installs[0].target = "camera".into();
    assert!(responses(&post(&mut bench)).is_empty());
}

#[test]
fn with_repeat_answer_a_centre_that_timed_out_gets_the_first_answer_again() {
    let mut bench = bench_with(&json!({ "repeat": "answer" }));
    let first = post_and_list(&mut bench, folder());
    bench.set_job(report(started(&first)[0], Phase::Downloading));
    bench.advance(60_000);
    bench.world.estimate_seconds = 1;
    let again = post(&mut bench);
    assert_eq!(answer(&again), answer(&first));
    assert_eq!(again.len(), 1, "{again:?}");
    // A job whose context is another's cannot be answered for.
    bench.world.jobs[0].context = b"{}".to_vec();
    assert_eq!(answer(&post(&mut bench))["status"], 409);
}

#[test]
fn with_repeat_answer_all_who_wait_for_one_folder_get_one_answer_each_and_one_job() {
    let mut bench = bench_with(&json!({ "repeat": "answer" }));
    let asked = post(&mut bench);
    for _ in 1..kit112::update::WAITING_MAX {
        assert_eq!(post(&mut bench), []);
    }
    assert_eq!(answer(&post(&mut bench))["status"], 409, "one too many");
    let effects = bench.listing(&tag(&asked), Ok(folder())).unwrap();
    let said = answers(&effects);
    assert_eq!(said.len(), kit112::update::WAITING_MAX);
    assert!(
        said.iter()
            .all(|(_, body)| *body == said[0].1 && body["status"] == 200)
    );
    let mut ids: Vec<_> = said.into_iter().map(|(id, _)| id).collect();
    ids.dedup();
    assert_eq!(ids.len(), kit112::update::WAITING_MAX);
    assert_eq!(started(&effects).len(), 1);
    // The same listing again answers nobody twice.
    assert_eq!(bench.listing(&tag(&asked), Ok(folder())).unwrap(), []);
}

#[test]
fn k06_a_body_that_is_not_what_it_should_be_is_400_before_anything_changes() {
    let array = format!("[{PAGE}]");
    for body in [
        "",
        "{",
        "kitId=x",
        "[]",
        array.as_str(),
        "null",
        "7",
        r#"{"kitId":7}"#,
        r#"{"kitId":null}"#,
        "{}",
        "\u{feff}{}",
    ] {
        let mut bench = bench();
        let effects = bench.request("kit", "POST", "/updateDevice", body).unwrap();
        assert_eq!(answer(&effects)["status"], 400, "{body}");
        assert_eq!(effects.len(), 1, "{effects:?}");
        assert_eq!(bench.read_state().unwrap(), kit112::state::State::default());
    }
}

#[test]
fn k06_a_body_of_1_mb_is_not_read_wherever_it_comes_through() {
    let mut bench = bench();
    let large = format!(r#"{{"kitId":"{KIT}","x":"{}"}}"#, "x".repeat(1_000_000));
    // The host does not let it through: the route says how much it takes.
    assert!(
        bench
            .request("kit", "POST", "/updateDevice", large.as_str())
            .is_err()
    );
    let effects = bench
        .send(Event::Request(InboundRequest {
            id: "r".into(),
            link: "kit".into(),
            method: "POST".into(),
            path: "/updateDevice".into(),
            query: vec![],
            headers: vec![],
            body: large.into_bytes(),
            principal: String::new(),
            deadline: 0,
        }))
        .unwrap();
    assert_eq!(answer(&effects)["status"], 400);
    assert_eq!(effects.len(), 1);
}

#[test]
fn k17_names_that_are_no_semantic_versions_are_chosen_by_the_configured_pattern() {
    let mut bench = bench_with(&json!({ "files": {
        "pattern": "(?<version>B359_1029_B(?<build>\\d+)_D(?<date>\\d+))(\\.img)?",
        "order": [{ "group": "build", "as": "number" }, { "group": "date", "as": "number" }],
    } }));
    bench.world.targets[0].version = Some("B359_1029_B99_D25123101".into());
    let names = [
        "B359_1029_B242_D25080801",
        "B359_1029_B242_D25080802",
        "B359_1029_B99_D26010101",
    ];
    let entries: Vec<_> = names.iter().map(|name| file(name, SIZE)).collect();
    let effects = post_and_list(&mut bench, entries);
    let data = answer(&effects)["data"].clone();
    assert_eq!(data["oldVersion"], "B359_1029_B99_D25123101");
    assert_eq!(data["newVersion"], "B359_1029_B242_D25080802");
    let install = &started(&effects)[0].installs[0];
    assert_eq!(
        install.artifact.source,
        ArtifactSource::on_link("centre", "/B359_1029_B242_D25080802")
    );
    assert_eq!(install.version, "B359_1029_B242_D25080802");
}

#[test]
fn a_folder_without_anything_newer_is_404_and_starts_nothing() {
    for entries in [
        vec![],
        vec![file("kit-0.0.21.img", 7), file("kit-0.0.9.img", 7)],
        vec![file("kit-0.0.22.img.sha256", 7), file("notes.txt", 7)],
    ] {
        let mut bench = bench();
        let effects = post_and_list(&mut bench, entries);
        assert_eq!(answer(&effects)["status"], 404);
        assert!(started(&effects).is_empty());
        assert_eq!(
            bench.read_state().unwrap().pending,
            None,
            "the next call may come"
        );
    }
}

#[test]
fn a_folder_that_cannot_be_listed_is_503_and_the_reason_stays_here() {
    let mut bench = bench();
    let asked = post(&mut bench);
    let effects = bench
        .listing(&tag(&asked), Err("no route to ftps.example".into()))
        .unwrap();
    let said = answer(&effects);
    assert_eq!(said["status"], 503);
    assert!(!said.to_string().contains("ftps.example"));
    assert!(
        bench
            .log()
            .iter()
            .any(|(_, line)| line.contains("no route to ftps.example"))
    );
    assert!(started(&effects).is_empty());
    assert!(
        !listings(&post(&mut bench)).is_empty(),
        "the next call tries again"
    );
}

#[test]
fn a_folder_that_is_not_listed_in_time_is_503_and_what_comes_later_starts_nothing() {
    let mut bench = bench();
    let asked = post(&mut bench);
    bench.advance(10_000);
    assert_eq!(answer(&bench.timer("listing").unwrap())["status"], 503);
    let state = bench.state().to_vec();
    assert_eq!(bench.listing(&tag(&asked), Ok(folder())).unwrap(), []);
    assert_eq!(bench.timer("listing").unwrap(), []);
    assert_eq!(bench.state(), state);
}

#[test]
fn a_listing_that_comes_late_does_not_answer_the_next_call() {
    let mut bench = bench();
    let late = tag(&post(&mut bench));
    bench.timer("listing").unwrap();
    let now = tag(&post(&mut bench));
    assert_eq!(bench.listing(&late, Ok(folder())).unwrap(), []);
    let effects = bench.listing(&now, Ok(vec![])).unwrap();
    assert_eq!(answer(&effects)["status"], 404);
}

#[test]
fn the_caller_is_answered_before_the_host_gives_up_on_it() {
    // The host waits 15 s; a budget beyond that is cut.
    let mut bench = bench_with(&json!({ "budget_seconds": 60 }));
    assert_eq!(timers(&post(&mut bench))[0].after, 14_500);
}

#[test]
fn a_timer_that_got_lost_does_not_block_the_kit_for_ever() {
    let mut bench = bench();
    let lost = post(&mut bench);
    bench.advance(11_000);
    let effects = post(&mut bench);
    assert_eq!(answer(&effects)["status"], 503, "the first one");
    assert_ne!(tag(&effects), tag(&lost));
    let effects = bench.listing(&tag(&effects), Ok(folder())).unwrap();
    assert_eq!(answer(&effects)["status"], 200);
}

#[test]
fn the_hosts_verdict_is_asked_before_anything_is_promised() {
    for (code, status) in [
        ("busy", 409),
        ("too-many-jobs", 409),
        ("downgrade", 404),
        ("known-bad", 404),
        ("policy", 503),
        ("not-ready", 503),
        ("too-many-activations", 503),
        ("invented-later", 503),
    ] {
        let mut bench = bench();
        bench.world.verdict = Verdict::Refuse(Reason::new(code, "admit", "/run/lock says no"));
        let effects = post_and_list(&mut bench, folder());
        let said = answer(&effects);
        assert_eq!(said["status"], status, "{code}");
        let message = said["message"].as_str().unwrap();
        assert!(message.ends_with(&format!("({code})")), "{message}");
        assert!(!message.contains("/run/lock"), "{message}");
        assert!(
            bench
                .log()
                .iter()
                .any(|(_, line)| line.contains("/run/lock says no"))
        );
        assert!(started(&effects).is_empty());
    }
    let mut bench = bench();
    bench.world.verdict = Verdict::Busy("-".into());
    assert_eq!(answer(&post_and_list(&mut bench, folder()))["status"], 409);
}

#[test]
fn an_update_that_has_to_wait_for_its_window_is_begun_and_takes_longer() {
    let mut bench = bench();
    bench.world.verdict = Verdict::Defer(bench.world.now + 59_001);
    let effects = post_and_list(&mut bench, folder());
    assert_eq!(answer(&effects)["data"]["estimatedTime"], 5_400 + 60);
    assert_eq!(started(&effects).len(), 1);
}

#[test]
fn the_estimated_time_may_be_the_unix_time_of_the_end() {
    let mut bench = bench_with(&json!({ "estimated_time": "instant" }));
    let effects = post_and_list(&mut bench, folder());
    assert_eq!(
        answer(&effects)["data"]["estimatedTime"],
        bench.world.now / 1_000 + 5_400
    );
}

#[test]
fn a_size_that_the_server_does_not_tell_is_not_made_up_for_the_job() {
    let mut bench = bench();
    let mut entry = file("kit-0.0.22.img", 0);
    entry.size = None;
    let effects = post_and_list(&mut bench, vec![entry]);
    assert_eq!(answer(&effects)["status"], 200);
    assert_eq!(started(&effects)[0].installs[0].artifact.size, None);
}

#[test]
fn a_file_that_was_replaced_under_its_name_is_not_taken_for_the_old_one() {
    let identity = |modified| {
        let mut entry = file("kit-0.0.22.img", SIZE);
        entry.modified = modified;
        let effects = post_and_list(&mut bench(), vec![entry]);
        let plan = started(&effects)[0].clone();
        (
            plan.key,
            plan.installs[0].artifact.identity.clone().unwrap(),
        )
    };
    let (key, first) = identity(Some(1_767_000_000_000));
    let (same_key, second) = identity(Some(1_767_000_060_000));
    assert_eq!(key, same_key);
    assert_ne!(first, second);
    assert_eq!(identity(Some(1_767_000_000_000)).1, first);
}

#[test]
fn the_longest_name_still_makes_a_valid_plan() {
    let mut bench = bench_with(&json!({ "directory": format!("/{}", "d".repeat(198)) }));
    let prefix = "p".repeat(kit112::choice::NAME_MAX - "-9.0.0.img".len());
    let mut entry = file(&format!("{prefix}-9.0.0.img"), SIZE);
    entry.modified = Some((1 << 53) - 1);
    let effects = post_and_list(&mut bench, vec![entry]);
    assert_eq!(started(&effects).len(), 1);
}

#[test]
fn a_version_that_runs_and_is_not_known_does_not_keep_the_kit_from_its_update() {
    for (version, said) in [(None, "unknown"), (Some("factory"), "factory")] {
        let mut bench = bench();
        bench.world.targets[0].version = version.map(String::from);
        let effects = post_and_list(&mut bench, folder());
        assert_eq!(answer(&effects)["data"]["oldVersion"], said);
        assert_eq!(started(&effects).len(), 1);
    }
}

#[test]
fn a_target_that_is_not_granted_is_503_and_the_log_names_it() {
    let mut bench = bench();
    bench.world.targets.clear();
    let effects = post(&mut bench);
    assert_eq!(answer(&effects)["status"], 503);
    assert!(listings(&effects).is_empty());
    assert!(
        bench
            .log()
            .iter()
            .any(|(_, line)| line.contains("target kit"))
    );
}

#[test]
fn k16_after_a_download_that_failed_for_good_nothing_is_said_and_the_next_call_begins_anew() {
    let mut bench = bench();
    let plan = begin(&mut bench);
    bench.report(at(&plan, Phase::Downloading)).unwrap();
    let effects = bench
        .report(ended(&plan, Phase::Failed, "source-lost", "download"))
        .unwrap();
    assert_eq!(effects, [], "neither an answer nor an alert");
    assert_eq!(crate::centre::device_info(&mut bench)["version"], "0.0.21");
    let effects = post_and_list(&mut bench, folder());
    assert_eq!(answer(&effects)["status"], 200);
    let again = started(&effects)[0];
    assert_eq!(again.key, plan.key);
    assert_eq!(
        again.installs[0].artifact.identity, plan.installs[0].artifact.identity,
        "the partial file is found again"
    );
}

#[test]
fn texts_are_the_operators() {
    let mut bench =
        bench_with(&json!({ "messages": { "started": "Update begun", "no_update": "Nothing" } }));
    assert_eq!(
        answer(&post_and_list(&mut bench, folder()))["message"],
        "Update begun"
    );
    bench.world.targets[0].version = Some("9.0.0".into());
    assert_eq!(
        answer(&post_and_list(&mut bench, folder()))["message"],
        "Nothing"
    );
}

#[test]
fn what_another_link_serves_is_not_ours() {
    let mut bench = bench();
    let request = InboundRequest {
        id: "r".into(),
        link: "other".into(),
        method: "POST".into(),
        path: "/updateDevice".into(),
        query: vec![],
        headers: vec![],
        body: PAGE.into(),
        principal: String::new(),
        deadline: 0,
    };
    assert_eq!(bench.send(Event::Request(request)).unwrap(), []);
}
