//! A device behind the dock that is handed an archive.

use otahost_core::model::Phase;
use otahost_disk::sim::SimDisk;

use crate::sim::{Damage, NEW, OLD, Scenario, Story, World, check, current, ended, jobs};

/// A tar of small files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let mut header = vec![0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(header);
        out.extend(*content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// The files of the release.
const FILES: [(&str, &[u8]); 3] = [
    ("version", NEW.as_bytes()),
    ("d/board-1", &[1; 3_000]),
    ("d/board-2", &[2; 700]),
];

/// The release as an archive.
pub fn release() -> Vec<u8> {
    tar(&FILES)
}

/// A device that is told to install this archive.
pub fn story(name: &'static str, archive: &[u8]) -> Story {
    let mut story = Story::new(name);
    story.add_emu();
    story.command_emu("bid-1", archive);
    story
}

/// How the one job ended, and its stage where it failed.
///
/// # Errors
/// When it ended in another way.
pub fn job_ended(disk: &SimDisk, phase: Phase, stage: &str) -> Result<(), String> {
    let jobs = jobs(disk);
    let [job] = &jobs[..] else {
        return Err(format!("{} jobs", jobs.len()));
    };
    let found = job
        .reason
        .as_ref()
        .map_or("", |reason| reason.stage.as_str());
    check(job.phase == phase && found == stage, || {
        format!("{} at {found:?}: {:#?}", job.phase, job.history)
    })
}

/// The device runs this version.
///
/// # Errors
/// When it does not.
pub fn runs(world: &World, version: &str) -> Result<(), String> {
    check(world.emu.version == version, || format!("{:?}", world.emu))
}

/// The archive is delivered; what is current is whole at every moment.
pub fn delivered() -> Scenario {
    let mut story = story("emu archive", &release());
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 0, OLD)?;
        runs(world, NEW)?;
        // Twice where the power went before it was noted that it has it.
        check((1..=2).contains(&world.emu.pushes), || {
            format!("{:?}", world.emu)
        })?;
        job_ended(disk, Phase::Succeeded, "")
    };
    story.scenario.at_rest = |image| {
        let Some(mut now) = current(image) else {
            return Ok(());
        };
        now.sort();
        let mut whole: Vec<(String, Vec<u8>)> = FILES
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.to_vec()))
            .collect();
        whole.sort();
        check(now == whole, || {
            let names: Vec<(&str, usize)> = now
                .iter()
                .map(|(name, c)| (name.as_str(), c.len()))
                .collect();
            format!("what is current is not whole: {names:?}")
        })
    };
    story.scenario
}

/// The same with a medium that spoils a byte of a file of the archive, while the device is off.
pub fn damaged() -> Scenario {
    let mut scenario = delivered();
    scenario.name = "emu archive, damaged medium";
    scenario.world.damage = Some(Damage {
        place: "/device/emu/artifact",
        offset: 2_000,
        at_served: None,
    });
    scenario.promises = |world, disk| {
        let told = world.endings.first();
        match told.map(|ending| ending.status.as_str()) {
            // What is staged whole is read back before it is unpacked, and not fetched again.
            Some("failed") if world.damage.is_some_and(|d| d.at_served.is_some()) => {
                runs(world, OLD)?;
                check(world.emu.pushes == 0, || {
                    "handed over, and called failed".into()
                })?;
                check(jobs(disk).len() == 1, || "more than one job".into())
            }
            _ => {
                ended(world, &[("ok", 0)], 0, OLD)?;
                runs(world, NEW)
            }
        }
    };
    scenario
}
