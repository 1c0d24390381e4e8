//! RAUC, as Debian packs it: a service on a D-Bus of its own, slots that are loop devices, a boot loader that is a script, and a bundle
//! in format `plain`, which holds the image uncompressed. (`verity` over HTTP needs the kernel's nbd.)

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::keys::Keys;
use super::process::Ended;
use super::{find, word};
use crate::artifact::{Artifact, Slots};
use crate::contest::Contestant;
use crate::proc::Process;
use crate::table::Missing;
use crate::timed::{self, Cost, last_lines};

/// What a boot loader answers whose first slot runs.
const BOOT: &str =
    "#!/bin/sh\ncase \"$1\" in get-primary) echo A ;; get-state) echo good ;; esac\n";
/// For the bus and the service to come up.
const START: Duration = Duration::from_secs(20);

/// The service with a bundle.
pub(crate) struct Rauc<'a> {
    program: PathBuf,
    dir: PathBuf,
    // Ended before the bus is.
    service: Ended,
    _bus: Ended,
    slot: PathBuf,
    artifact: &'a Artifact,
    /// Path or address of the bundle, next time.
    pub(crate) place: String,
}

/// Makes the bundle; gives its path.
pub(crate) fn bundle(dir: &Path, keys: &Keys, artifact: &Artifact) -> Result<PathBuf, Missing> {
    let program = find("rauc")?;
    find("mksquashfs")?;
    let failed = |e: std::io::Error| Missing::Failed(format!("making the bundle: {e}"));
    let content = dir.join("content");
    fs::create_dir_all(&content).map_err(failed)?;
    fs::hard_link(&artifact.image, content.join("image.img")).map_err(failed)?;
    let manifest = "[update]\ncompatible=bench\nversion=1.0\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=image.img\n";
    fs::write(content.join("manifest.raucm"), manifest).map_err(failed)?;
    let (certificate, key) = (word(&keys.certificate), word(&keys.key));
    let (content, made) = (word(&content), word(&dir.join("bundle.raucb")));
    let arguments = [
        "bundle",
        "--cert",
        &certificate,
        "--key",
        &key,
        // Noise does not compress; nobody shall spend time on trying.
        "--mksquashfs-args=-noI -noD -noF -noX",
        &content,
        &made,
    ];
    timed::run(&program, &arguments, dir)?;
    Ok(dir.join("bundle.raucb"))
}

impl<'a> Rauc<'a> {
    /// Starts the service for these slots.
    pub(crate) fn start(
        dir: &Path,
        keys: &Keys,
        slots: &Slots,
        artifact: &'a Artifact,
        bundle: &Path,
    ) -> Result<Self, Missing> {
        let program = find("rauc")?;
        let bus_program = find("dbus-daemon")?;
        if !slots.are_devices() {
            return Err(Missing::Absent(
                "its slots have to be devices, and there are no loop devices".into(),
            ));
        }
        let failed = |e: std::io::Error| Missing::Failed(format!("setting it up: {e}"));
        let dir = dir.join("rauc");
        fs::create_dir_all(dir.join("mount")).map_err(failed)?;
        let at = |name: &str| word(&dir.join(name));
        let boot = dir.join("boot");
        fs::write(&boot, BOOT).map_err(failed)?;
        fs::set_permissions(&boot, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let configuration = format!(
            "[system]\ncompatible=bench\nbootloader=custom\nbundle-formats=plain\nmountprefix={}\nstatusfile={}\n\
             max-bundle-download-size=9000000000\n[keyring]\npath={}\ncheck-purpose=codesign\n[handlers]\nbootloader-custom-backend={}\n\
             [slot.rootfs.0]\ndevice={}\ntype=raw\nbootname=A\n[slot.rootfs.1]\ndevice={}\ntype=raw\nbootname=B\n",
            at("mount"),
            at("status"),
            keys.certificate.display(),
            boot.display(),
            slots.running().display(),
            slots.other().display(),
        );
        fs::write(dir.join("system.conf"), configuration).map_err(failed)?;
        let bus = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig><type>session</type>\
             <listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\"><allow send_destination=\"*\"/>\
             <allow receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>\n",
            at("bus"),
        );
        fs::write(dir.join("bus.conf"), bus).map_err(failed)?;
        let spawn = |command: &mut Command, log: &str| {
            let log = fs::File::create(dir.join(log)).map_err(failed)?;
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().map_err(failed)?)
                .stderr(log);
            Ended::spawn(command).map_err(failed)
        };
        let mut daemon = Command::new(bus_program);
        daemon
            .arg("--nofork")
            .arg(format!("--config-file={}", at("bus.conf")));
        let bus = spawn(&mut daemon, "bus.log")?;
        await_that("its D-Bus", || dir.join("bus").exists())?;
        let mut service = Command::new(&program);
        service
            .args([
                "-c",
                &at("system.conf"),
                "service",
                "--override-boot-slot=A",
            ])
            .envs(environment(&dir))
            .current_dir(&dir);
        let service = spawn(&mut service, "service.log")?;
        let status = || {
            let mut status = Command::new(&program);
            status
                .args(["-c", &at("system.conf"), "status"])
                .envs(environment(&dir));
            let silent = status
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            silent.status().is_ok_and(|status| status.success())
        };
        await_that("its service", status)?;
        Ok(Rauc {
            program,
            service,
            _bus: bus,
            slot: slots.other().to_path_buf(),
            artifact,
            place: word(bundle),
            dir,
        })
    }

    fn service(&self) -> Process {
        Process(self.service.id())
    }
}

/// How its programs find each other; without temporary files elsewhere.
fn environment(dir: &Path) -> [(&'static str, String); 3] {
    [
        (
            "DBUS_SESSION_BUS_ADDRESS",
            format!("unix:path={}", dir.join("bus").display()),
        ),
        ("DBUS_STARTER_BUS_TYPE", "session".to_owned()),
        ("TMPDIR", word(dir)),
    ]
}

fn await_that(what: &str, mut there: impl FnMut() -> bool) -> Result<(), Missing> {
    let until = Instant::now() + START;
    while !there() {
        if Instant::now() > until {
            return Err(Missing::Failed(format!("{what} does not come up")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Contestant for Rauc<'_> {
    fn name(&self) -> String {
        "RAUC".to_owned()
    }

    fn run(&mut self) -> Result<Cost, Missing> {
        let gone = |e: crate::Failed| Missing::Failed(format!("its service: {e}"));
        // It writes nothing where the slot's status says that this image is there.
        let _ = fs::remove_file(self.dir.join("status"));
        let service = self.service();
        service.forget_peak().map_err(gone)?;
        let before = service.cpu().map_err(gone)?;
        let configuration = word(&self.dir.join("system.conf"));
        let start = Instant::now();
        let output = Command::new(&self.program)
            .args(["-c", &configuration, "install", &self.place])
            .envs(environment(&self.dir))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Missing::Failed(format!("it does not start: {e}")))?;
        let seconds = start.elapsed().as_secs_f64();
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            return Err(Missing::Failed(last_lines(&text)));
        }
        Ok(Cost {
            seconds,
            cpu: service.cpu().map_err(gone)? - before,
            peak: service.peak().map_err(gone)? as f64,
        })
    }

    fn check(&mut self) -> Result<(), Missing> {
        self.artifact.is_in(&self.slot, &self.artifact.image)
    }
}
