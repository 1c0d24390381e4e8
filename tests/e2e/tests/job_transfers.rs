//! Failed attempts, budgets that end, and the same command again (DESIGN §5, §6; D05, D07).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use otahost_e2e::sim::{
    EPOCH, NEW, OLD, Release, Story, When, World, check, ended, is_told, jobs, rogue_output,
};

/// Attempts in a row without progress that the stories' set-up allows.
const ATTEMPTS: usize = 5;
/// Bytes that may be fetched again on a resume: what came after the last mark.
const CHUNK: u64 = 8 * 1024;

fn commanded(name: &'static str) -> Story {
    let mut story = Story::new(name);
    story.command("bid-1", &Release::default());
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    story
}

/// Virtual milliseconds until the first result.
fn took(world: &World) -> u64 {
    world.endings[0].timestamp - EPOCH
}

#[test]
fn a_server_that_answers_403_ends_the_job_at_once_because_the_adapter_says_so() {
    let mut story = commanded("403");
    story.world().statuses = vec![403];
    story.scenario.promises = |world, _| {
        ended(world, &[("failed", 312_013)], 0, OLD)?;
        check(world.endings[0].sub_status == "DOWNLOAD_FAILED", || {
            format!("{:?}", world.endings)
        })
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!((run.world.requests.len(), took(&run.world)), (1, 0));
    let [job] = jobs(&run.disk).try_into().unwrap();
    let said = job.reason.unwrap().text;
    assert!(said.contains("expired"), "the adapter's own words: {said}");
}

#[test]
fn a_failure_that_is_final_and_that_the_adapter_leaves_to_the_host_is_not_waited_for_either() {
    let mut story = commanded("402");
    story.world().statuses = vec![402];
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_013)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!((run.world.requests.len(), took(&run.world)), (1, 0));
}

#[test]
fn an_adapter_that_answers_nothing_at_all_leaves_the_failed_attempt_to_the_host() {
    let mut story = Story::new("rogue");
    story.add_rogue();
    story.world().statuses = vec![404];
    let job = story.rogue_order("mine", &Release::default());
    story.tell_rogue(When::At(0), &job);
    story.scenario.told = |world| is_told::<0>(world) && rogue_output(world).len() > 3;
    let run = story.scenario.play();
    run.verdict.unwrap();
    let heard = rogue_output(&run.world);
    assert_eq!(heard.last().unwrap(), "job mine failed", "{heard:?}");
    let [job] = jobs(&run.disk).try_into().unwrap();
    assert_eq!(job.ended, Some(EPOCH), "{:#?}", job.history);
}

#[test]
fn a_server_that_answers_503_is_asked_again_and_the_update_ends_well_whenever_power_is_cut() {
    let mut story = commanded("503 twice");
    story.world().statuses = vec![503, 503];
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(run.world.requests.len(), 3);
    assert!(run.world.requests[1] >= 500 && run.world.requests[2] >= 1_500);
    story.scenario.holds(7);
}

#[test]
fn a_server_that_always_answers_503_is_given_up_within_the_budget() {
    let mut story = commanded("503 for ever");
    story.world().statuses = vec![503; 100];
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_013)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(run.world.requests.len(), ATTEMPTS);
    assert!(took(&run.world) <= 15_000, "1, 2, 4 and 8 seconds at most");
    story.scenario.holds(11);
}

#[test]
fn a_download_that_never_comes_past_one_byte_is_given_up_within_the_budget() {
    let mut story = commanded("no progress");
    story.world().cuts = vec![20_000; 100];
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_013)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(run.world.requests.len(), ATTEMPTS);
    story.scenario.holds(11);
}

#[test]
fn d05_a_bad_network_that_moves_on_is_not_given_up_whenever_power_is_cut() {
    let mut story = commanded("twelve cuts");
    story.world().cuts = (1..=12).map(|n| n * 4_096 + 1_000).collect();
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert!(run.world.requests.len() > ATTEMPTS + 1);
    story.scenario.holds(11);
}

#[test]
fn a_download_that_takes_longer_than_it_may_ends_as_timeout_whenever_power_is_cut() {
    let mut story = commanded("too slow");
    story.setup().deadlines.download = Duration::from_secs(30);
    story.setup().transfer.attempts = 1_000;
    story.world().statuses = vec![503; 1_000];
    story.scenario.promises = |world, _| ended(world, &[("timeout", 312_013)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(took(&run.world), 30_000);
    story.scenario.holds(11);
}

#[test]
fn d07_the_same_command_three_times_with_new_ids_is_one_job_and_one_download_whenever_power_is_cut()
{
    let mut story = commanded("three times");
    // It is still under way when the third one comes.
    story.world().ready_after = 20_000;
    story.command_later(When::At(3_000), "bid-2", &Release::default());
    story.command_later(When::At(6_000), "bid-3", &Release::default());
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        let answers = world.answers();
        let said: Vec<_> = answers
            .iter()
            .map(|a| (a.bid.as_str(), a.tid.as_str(), a.result))
            .collect();
        let expected = ["bid-1", "bid-2", "bid-3"];
        let wanted = expected.map(|bid| (bid, format!("tid-of-{bid}")));
        let wanted = wanted.each_ref().map(|(bid, tid)| (*bid, tid.as_str(), 0));
        check(said == wanted, || format!("{answers:?}"))?;
        check(world.endings[0].bid == "bid-3", || {
            format!("{:?}", world.endings)
        })?;
        check(jobs(disk).len() == 1, || "more than one job".into())
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(
        (run.world.requests.len(), run.world.served),
        (1, run.world.offered())
    );
    story.scenario.holds(5);
}

#[test]
fn after_a_failure_the_same_command_is_a_new_attempt_that_goes_on_from_what_is_there_whenever_power_is_cut()
 {
    let mut story = commanded("again after a failure");
    story.world().cuts = vec![40_000];
    story.world().statuses = vec![200, 403];
    story.command_later(When::Results(1), "bid-2", &Release::default());
    story.scenario.told = is_told::<2>;
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_013), ("ok", 0)], 1, NEW)?;
        let bids: Vec<_> = world.endings.iter().map(|e| e.bid.as_str()).collect();
        check(bids == ["bid-1", "bid-2"], || format!("{bids:?}"))?;
        check(jobs(disk).len() == 2, || "not two jobs".into())
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    let again = run.world.served - run.world.offered();
    assert!(again <= CHUNK, "{again} bytes were fetched twice");
    // A power cut may take the 403 with it: then the first command ends well, and so does the second.
    story.scenario.promises = |world, _| match world.endings[0].status.as_str() {
        "ok" => ended(world, &[("ok", 0), ("ok", 0)], 0, NEW),
        _ => ended(world, &[("failed", 312_013), ("ok", 0)], 1, NEW),
    };
    story.scenario.holds(5);
}

#[test]
fn after_a_success_the_same_command_is_a_new_job_that_ends_well_too() {
    let mut story = commanded("again after a success");
    story.command_later(When::Results(1), "bid-2", &Release::default());
    story.scenario.told = is_told::<2>;
    story.scenario.promises = |world, _| ended(world, &[("ok", 0), ("ok", 0)], 0, NEW);
    story.scenario.play().verdict.unwrap();
}
