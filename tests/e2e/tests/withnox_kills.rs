//! SIGKILL and power cuts around the refresh of a token, by the real process: whatever the moment, no refresh token is used twice, one
//! sign-in at most mends what was lost, and the camera ends up updated and reported, once. (Issue 6: "A crash between the refresh's
//! answer and its use finds the new token.")
//!
//! Power cuts before every write of the journal are `power_cuts.rs`' business; here it is the process, its network and its timing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::thread;
use std::time::Duration;

use otahost_e2e::camera::{Camera, ID, NEW, Tokens};
use otahost_e2e::device::PATIENCE;
use otahost_lab::withnox::{Route, Scripted};

const KIB: u64 = 1024;

/// When it happens.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So many milliseconds after the first request was answered that its token's time is over.
    Refused(u64),
    /// The cloud has given out new tokens, and the answer does not get through.
    Held,
    /// So many milliseconds after the answer with the new tokens went out.
    Answered(u64),
    /// The download runs, and with it what the new token was good for.
    Downloading,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// The process is killed, and started again in the same boot.
    Kill,
    /// The machine loses power.
    PowerCut,
}

fn strike(camera: &Camera, blow: Blow) {
    match blow {
        Blow::Kill => {
            // A reboot that was asked for just before may have started it already.
            if camera.machine.kill_agent().is_ok() {
                let _ = camera.machine.start_agent();
            }
        }
        Blow::PowerCut => {
            camera.machine.lose_power();
            camera.machine.power_on().unwrap();
        }
    }
}

fn survives(moment: Moment, blow: Blow) {
    let camera = Camera::off(Tokens::Stored, "");
    camera.offer(256 * KIB);
    // So that the later moments fall into the download, however late the blow comes.
    camera.cloud.store().throttle(Some(16 * KIB));
    camera.cloud.expire_access();
    if matches!(moment, Moment::Held) {
        camera.cloud.script(Route::Refresh, 1, &Scripted::Hold);
    }
    camera.switch_on();
    let after = match moment {
        Moment::Refused(after) => {
            camera.await_answers(Route::Latest, 1);
            after
        }
        Moment::Held => {
            let held = camera.cloud.wait_for(PATIENCE, |calls| {
                calls.iter().any(|call| call.route == Route::Refresh)
            });
            assert!(held);
            0
        }
        Moment::Answered(after) => {
            camera.await_answers(Route::Refresh, 1);
            after
        }
        Moment::Downloading => {
            let runs = camera.cloud.store().wait_for(PATIENCE, |requests| {
                requests.iter().any(|request| request.sent > 0)
            });
            assert!(runs);
            0
        }
    };
    thread::sleep(Duration::from_millis(after));
    strike(&camera, blow);
    camera.cloud.store().throttle(None);
    camera.cloud.release();

    camera.await_reported(ID);
    camera.assert_runs(NEW, "b");
    // Used once, and the first of two that come after a kill was lost for good.
    assert_eq!(camera.cloud.violations(), Vec::<String>::new());
    let (refreshes, sign_ins) = (camera.asked(Route::Refresh), camera.asked(Route::SignIn));
    assert!(refreshes <= 1 && sign_ins <= 1 && refreshes + sign_ins >= 1);
    if matches!(moment, Moment::Held) {
        assert_eq!((refreshes, sign_ins), (1, 1));
    }
    if matches!(moment, Moment::Downloading) {
        assert_eq!(
            (refreshes, sign_ins),
            (1, 0),
            "the new token was found again"
        );
    }
    assert!(!camera.cloud.logged_out());
    assert_eq!(camera.asked(Route::UpdateResult), 1);
    let job = camera.await_end();
    assert_eq!(job["phase"], "succeeded", "{job:#}");
    let boots = camera.machine.boots();
    let new = boots
        .iter()
        .filter(|boot| boot.version.as_deref() == Some(NEW));
    assert_eq!(new.count(), 1, "{boots:?}");
    camera.assert_well();
}

#[test]
fn seed_1_killed_when_the_token_was_refused() {
    survives(Moment::Refused(0), Blow::Kill);
}

#[test]
fn seed_2_killed_with_the_answer_to_the_refresh_on_its_way() {
    survives(Moment::Held, Blow::Kill);
}

#[test]
fn seed_3_killed_when_the_answer_had_just_gone_out() {
    survives(Moment::Answered(0), Blow::Kill);
}

#[test]
fn seed_4_killed_a_little_later() {
    survives(Moment::Answered(2), Blow::Kill);
}

#[test]
fn seed_5_power_cut_while_the_new_tokens_are_written() {
    survives(Moment::Answered(9), Blow::PowerCut);
}

#[test]
fn seed_6_killed_in_the_download() {
    survives(Moment::Downloading, Blow::Kill);
}

#[test]
fn seed_7_power_cut_when_the_token_was_refused() {
    survives(Moment::Refused(3), Blow::PowerCut);
}

#[test]
fn two_blows_in_a_row_are_mended_by_one_sign_in() {
    let camera = Camera::off(Tokens::Stored, "");
    camera.offer(64 * KIB);
    camera.cloud.expire_access();
    camera.cloud.script(Route::Refresh, 1, &Scripted::Hold);
    camera.cloud.script(Route::SignIn, 1, &Scripted::Pass);
    camera.switch_on();
    let asked = |route| {
        camera
            .cloud
            .wait_for(PATIENCE, |calls| calls.iter().any(|c| c.route == route))
    };
    assert!(asked(Route::Refresh));
    strike(&camera, Blow::Kill);
    // The sign-in got through, and the next blow comes as soon as its token was used: what is used is on the disk.
    camera.await_answers(Route::SignIn, 1);
    let used = camera.cloud.wait_for(PATIENCE, |calls| {
        calls
            .iter()
            .any(|call| (call.route, call.status, call.answered) == (Route::Latest, 200, true))
    });
    assert!(used);
    strike(&camera, Blow::Kill);
    camera.cloud.release();
    camera.await_reported(ID);
    assert_eq!(camera.asked(Route::SignIn), 1);
    camera.assert_runs(NEW, "b");
    camera.assert_well();
}
