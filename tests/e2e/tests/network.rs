//! What networks and servers do to a download, to the real agent: however bad they are, what is there is kept, the file is right, and
//! the attempts are counted and end. (Issue 8, "Network faults in the lab".)
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_e2e::device::{ATTEMPTS, Device, NEW, Release};
use otahost_lab::files::Fault;

const KIB: u64 = 1024;

/// Silence that ends an attempt, in seconds: where attempts end in any case.
const SHORT: u64 = 1;
/// The same where one more attempt than there is reason for is a failure.
const AMPLE: u64 = 5;

fn online(idle: u64) -> Device {
    let device = Device::off("");
    device.configure(
        "[transfer]\n",
        &format!("[transfer]\nidle_timeout = \"{idle}s\"\n"),
    );
    device.switch_on();
    device
}

/// Offsets of the answers to requests for a release.
fn offsets(device: &Device, release: &Release) -> Vec<u64> {
    let path = format!("/public/{}", release.name);
    let requests = device.files.requests().into_iter();
    requests
        .filter(|request| request.path == path)
        .map(|request| request.offset)
        .collect()
}

#[test]
fn a_download_that_is_reset_goes_on_from_what_is_there() {
    let device = online(AMPLE);
    let release = device.release(NEW, 512 * KIB);
    let half = release.file.size / 2;
    device
        .files
        .fault(&release.name, 1, Fault::ResetAfter(half));
    device.update(&device.order(&release));
    let offsets = offsets(&device, &release);
    // What the reset threw away on its way is fetched again, and nothing else is.
    assert!(
        matches!(offsets[..], [0, again] if again <= half),
        "{offsets:?}"
    );
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn a_server_that_falls_silent_is_left_and_the_download_goes_on_from_what_is_there() {
    let device = online(AMPLE);
    let release = device.release(NEW, 512 * KIB);
    let half = release.file.size / 2;
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(half));
    device.files.fault(&release.name, 1, Fault::Mute);
    device.update(&device.order(&release));
    assert_eq!(offsets(&device, &release), [0, 0, half]);
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn a_line_that_is_slow_is_not_taken_for_one_that_is_dead() {
    let device = online(AMPLE);
    let release = device.release(NEW, 48 * KIB);
    // Several times the silence that ends an attempt.
    device.files.throttle(Some(release.file.size / (3 * AMPLE)));
    device.update(&device.order(&release));
    assert_eq!(offsets(&device, &release), [0]);
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn a_server_that_never_does_better_is_asked_a_counted_number_of_times() {
    let device = online(SHORT);
    let busy = Fault::Status {
        status: 503,
        headers: vec![],
        body: b"later\n".to_vec(),
    };
    let faults = [
        ("1.1.1", Fault::ResetAfter(0)),
        ("1.1.2", Fault::CutAfter(0)),
        ("1.1.3", Fault::StallAfter(0)),
        ("1.1.4", busy),
    ];
    for (version, fault) in faults {
        let release = device.release(version, 64 * KIB);
        device.files.fault_always(&release.name, fault.clone());
        let ids = device.command(&device.order(&release));
        device.assert_failed(&ids, 312_013, "DOWNLOAD_FAILED");
        assert_eq!(
            offsets(&device, &release).len(),
            ATTEMPTS,
            "attempts at {fault:?}"
        );
    }
    device.assert_unchanged();
    device.assert_well();
}

#[test]
fn a_server_that_lies_about_ranges_is_not_believed_and_not_asked_for_ever() {
    let device = online(SHORT);
    let lies = [
        ("1.1.1", Fault::WrongOffset(0)),
        ("1.1.2", Fault::ContentRange("bytes 0-9/10".into())),
        ("1.1.3", Fault::ContentRange("nonsense".into())),
    ];
    for (version, lie) in lies {
        let release = device.release(version, 256 * KIB);
        let half = release.file.size / 2;
        device.files.fault(&release.name, 1, Fault::CutAfter(half));
        device.files.fault_always(&release.name, lie.clone());
        let ids = device.command(&device.order(&release));
        device.assert_failed(&ids, 312_013, "DOWNLOAD_FAILED");
        // One that was cut, and what may be tried without any progress.
        let asked = offsets(&device, &release).len();
        assert!(asked <= 1 + ATTEMPTS, "{asked} requests at {lie:?}");
    }
    device.assert_unchanged();

    // One that knows no ranges is another matter: the whole file comes, and is right.
    let release = device.release(NEW, 256 * KIB);
    let half = release.file.size / 2;
    device.files.fault(&release.name, 1, Fault::CutAfter(half));
    device.files.fault_always(&release.name, Fault::IgnoreRange);
    device.update(&device.order(&release));
    assert_eq!(offsets(&device, &release), [0, 0]);
    device.assert_runs(NEW, "b");
    device.assert_well();
}
