//! The act of the wudun protocol: an energy management system updates itself in two phases, and then an EMU behind it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use otahost_lab::broker::Broker;
use otahost_lab::files::Files;
use otahost_lab::image::{Described, Image};
use otahost_lab::signing::{Claims, Publisher};
use otahost_lab::wudun::site::{
    self, COMPATIBLE, EMS_OLD, EMU_NEW, EMU_OLD, SOURCE, Site, SiteSpec,
};
use otahost_lab::wudun::{
    Answer, Kind, Platform, PlatformError, Sent, emu_upgrade, emu_upgrade_result, emu_version,
    ota_upgrade,
};
use serde_json::{Value, json};

use crate::acts::check;
use crate::show::{self, bytes};
use crate::world::{Failure, World};

/// The mark and the version of the vendor's examples.
const UID: &str = "iYRkfVpi77";
const EMS_NEW: &str = "0.9.1";
/// The EMU that is updated, and the one that is not.
const EMU: i64 = 2;
const OTHER_EMU: i64 = 3;
/// How long one update may take, with reboots.
const UPDATE: Duration = Duration::from_secs(60);
const REPLY: Duration = Duration::from_secs(10);
const IMAGE: u64 = 16 * 1024 * 1024;
const LINE_SPEED: u64 = 12 * 1024 * 1024;
/// Seconds that a fifth of handing over takes, so that there is something to ask for.
const PACE: f64 = 0.5;
const ASK_EVERY: Duration = Duration::from_millis(400);

struct Plant {
    site: Site,
    platform: Platform,
    files: Files,
    base: String,
    _broker: Broker,
}

/// One `ota/upgrade` with reboot and both phases; one `ota/emu_upgrade` with a zip, and what is said of it while it goes on.
pub(crate) fn act(world: &World) -> Result<(), Failure> {
    show::heading("7. wudun: an EMS updates itself in two phases, and then hands a zip to EMU 2");
    let dir = world.path("wudun");
    fs::create_dir(&dir)?;
    let broker = Broker::start();
    let files = Files::start();
    let publisher = Publisher::generate()?;
    let spec = SiteSpec {
        downloads: vec![files.url("")],
        trust: vec![publisher.public_key()],
        ..SiteSpec::new(UID, broker.port(), &[EMU, OTHER_EMU])
    };
    let plant = Plant {
        site: Site::create(&dir, &spec)?,
        platform: Platform::connect(broker.port(), UID)?,
        files,
        base: site::bases(UID)[0].clone(),
        _broker: broker,
    };
    plant.site.machine.power_on()?;
    let list = plant.first_answer()?;
    show::line(&format!(
        "the EMS answers on {}/ota/…: it runs {EMS_OLD}, and there are {} EMUs behind it",
        plant.base,
        list.data.as_array().map_or(0, Vec::len)
    ));
    plant.upgrade(&publisher)?;
    plant.emu_upgrade()?;
    let violations = plant.platform.violations();
    if !violations.is_empty() {
        let list = violations.join("\n    ");
        return Err(format!("the EMS broke the protocol:\n    {list}").into());
    }
    if let Some(crash) = plant.site.machine.crashes().first() {
        return Err(format!("the agent ended by itself: {crash}").into());
    }
    Ok(())
}

impl Plant {
    /// Asks until the device hears.
    fn first_answer(&self) -> Result<Answer, Failure> {
        let until = Instant::now() + REPLY;
        loop {
            let short = Duration::from_millis(500);
            match self
                .platform
                .ask(&self.base, Kind::EmuVersion, &emu_version(), short)
            {
                Err(PlatformError::Timeout { .. }) if Instant::now() < until => {}
                result => return Ok(result?),
            }
        }
    }

    fn upgrade(&self, publisher: &Publisher) -> Result<(), Failure> {
        let (raw, signed) = (self.site.dir().join("raw"), self.site.dir().join("signed"));
        Image::new(EMS_NEW, IMAGE).write(&raw)?;
        let claims = Claims {
            compatible: COMPATIBLE.to_owned(),
            version: EMS_NEW.to_owned(),
            rollback_index: 1,
        };
        let Described { size, md5, .. } = publisher.sign(&raw, &signed, &claims)?;
        self.files.put_file("ems_II", &signed)?;
        self.files.throttle(Some(LINE_SPEED));
        let start = Instant::now();
        let message = ota_upgrade(SOURCE, &self.files.url("ems_II"), &md5);
        let sent = self.platform.send(&self.base, Kind::Upgrade, &message)?;
        let answers = self.platform.await_answers(&sent, 1, UPDATE)?;
        check("the first status", answers[0].number("status"), Some(2))?;
        let prepared = start.elapsed().as_secs_f64();
        show::line(&format!(
            "{prepared:>4.1} s  ota/upgrade/result: status 2, version {EMS_OLD}, target_version {EMS_NEW}"
        ));
        let answers = self.platform.await_answers(&sent, 2, UPDATE)?;
        check("the last status", answers[1].number("status"), Some(4))?;
        check(
            "the version it ends with",
            &answers[1].data["final_version"],
            &json!(EMS_NEW),
        )?;
        let done = start.elapsed().as_secs_f64();
        show::line(&format!(
            "{done:>4.1} s  ota/upgrade/result: status 4, final_version {EMS_NEW}, after the reboot, trace_id of the command"
        ));
        self.files.throttle(None);
        let machine = &self.site.machine;
        check(
            "the version that runs",
            machine.version().as_deref(),
            Some(EMS_NEW),
        )?;
        check("the boots", machine.boot_count(), 2)?;
        check("the downloads", self.files.requests().len(), 1)?;
        show::held(&format!(
            "{EMS_NEW} runs; {} fetched once, one reboot, two results",
            bytes(size)
        ));
        Ok(())
    }

    fn emu_upgrade(&self) -> Result<(), Failure> {
        let emu = self.site.emu(EMU);
        emu.pace(PACE)?;
        self.files.put("emu.zip", site::ZIP);
        let message = emu_upgrade(EMU, &self.files.url("emu.zip"), &site::md5_of(site::ZIP));
        let sent = self.platform.send(&self.base, Kind::EmuUpgrade, &message)?;
        let told = self.follow(&sent)?;
        let answers = self.platform.await_answers(&sent, 1, REPLY)?;
        check(
            "the result of the push",
            answers[0].number("download_status"),
            Some(1),
        )?;
        if told == 0 {
            return Err("nothing was told while the package was handed over".into());
        }
        let end = self.await_end()?;
        check("how well it went", &end["emu_upgrade_success"], &json!(1))?;
        check(
            "the version that is told",
            &end["emu_product_sn"],
            &json!(EMU_NEW),
        )?;
        check("the EMU", emu.is_new(), true)?;
        let other = self.site.emu(OTHER_EMU).version();
        check("the other EMU", other.as_deref(), Some(EMU_OLD))?;
        show::held(&format!(
            "EMU {EMU} runs {EMU_NEW}: download_status 1 at the push, {told} answers while it went on; EMU {OTHER_EMU} runs {EMU_OLD} on"
        ));
        Ok(())
    }

    /// Asks how far it is until the push is answered, and shows what changes. Counts the answers that tell a percentage of the push.
    fn follow(&self, sent: &Sent) -> Result<usize, Failure> {
        let (until, mut told, mut last) = (Instant::now() + UPDATE, 0, Value::Null);
        while self.platform.answers(sent).is_empty() {
            if Instant::now() > until {
                return Err("the push was not answered".into());
            }
            let standing = self.standing()?;
            let (status, content) = (
                &standing["emu_upgrade_status"],
                &standing["emu_upgrade_content"],
            );
            if *status == json!(3) {
                told += 1;
            }
            let now = json!([status, content]);
            if now != last && !status.is_null() {
                show::line(&format!(
                    "        ota/emu_upgrade_result/result: EMU {EMU}, status {status}, {content} %"
                ));
                last = now;
            }
            thread::sleep(ASK_EVERY);
        }
        Ok(told)
    }

    fn standing(&self) -> Result<Value, Failure> {
        let question = emu_upgrade_result(EMU);
        let kind = Kind::EmuUpgradeResult;
        Ok(self.platform.ask(&self.base, kind, &question, REPLY)?.data)
    }

    fn await_end(&self) -> Result<Value, Failure> {
        let until = Instant::now() + REPLY;
        loop {
            let standing = self.standing()?;
            if standing["emu_upgrade_status"] == json!(5) {
                return Ok(standing);
            }
            if Instant::now() > until {
                return Err(format!("the update does not end: {standing}").into());
            }
            thread::sleep(ASK_EVERY);
        }
    }
}
