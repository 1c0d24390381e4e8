//! A transfer that is cut at its half and goes on, beside one that is not cut, and beside a shell script that goes on with `curl -C -`
//! and has to read everything again for its digests.

use std::path::Path;

use otahost_lab::files::{Fault, Files};

use crate::Failed;
use crate::artifact::{Artifact, MIB, Slots};
use crate::contest::{Contestant, compete};
use crate::peers::floor::digests_are_right;
use crate::peers::ours::{From, Ours};
use crate::peers::{find, word};
use crate::stats::{doubling, median};
use crate::table::{Beside, Line, Missing};
use crate::timed::{self, Cost};
use crate::unit::Unit;

const NAME: &str = "image.signed";
const SCRIPT: &str = r#"
set -euo pipefail
url=$1
rm -f resumed
until curl --silent --fail -C - -o resumed "$url"; do
    [ "$?" = 18 ] || exit 1
done
for digest in md5 sha256 b2; do
    "${digest}sum" < resumed > "$digest.txt" &
done
wait
sync resumed
"#;

/// Measures it.
///
/// # Errors
/// When ours fails, or the surroundings do.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    if quick {
        return Ok(vec![one_size(16 * MIB, 1)?]);
    }
    let (half, whole) = (256 * MIB, 512 * MIB);
    let (small, large) = (one_size(half, 2)?, one_size(whole, 5)?);
    let took =
        [&small, &large].map(|line| line.ours.as_ref().map_or(f64::NAN, |o| median(&o.values)));
    Ok(vec![
        large.doubled(doubling([half as f64, whole as f64], took)),
    ])
}

fn one_size(size: u64, rounds: usize) -> Result<Line, Failed> {
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    let dir = dir.path();
    let artifact = Artifact::make(dir, size)?;
    let slots = Slots::make(dir, size)?;
    let files = Files::start();
    files.put_file(NAME, &artifact.signed)?;
    let ours = |resumes| Ours {
        dir: dir.to_path_buf(),
        slots: &slots,
        artifact: &artifact,
        from: From::Url(files.url(NAME)),
        resumes,
        read_back: Vec::new(),
    };
    let cut = |inner| Cut {
        inner,
        files: &files,
        at: size / 2,
    };
    let script = Script {
        dir,
        artifact: &artifact,
        url: files.url(NAME),
    };
    eprintln!("  {} MiB", size / MIB);
    let mut contestants: Vec<Box<dyn Contestant + '_>> = vec![
        Box::new(cut(Box::new(ours(true)))),
        Box::new(ours(false)),
        Box::new(cut(Box::new(script))),
    ];
    let mut results = compete(&mut contestants, rounds).into_iter();
    let resumed = match results.next() {
        Some((_, Ok(resumed))) => resumed,
        Some((_, Err(missing))) => return Err(format!("ours: {}", missing.text()).into()),
        None => return Err("nobody took part".into()),
    };
    let what = format!("{} MiB over HTTP, cut and resumed", size / MIB);
    // Digests over all of the file: a script cannot keep those it has begun.
    let names = ["otahost uncut", "`curl -C -`, then digests"];
    let line = Line::value(what, Unit::Seconds, resumed);
    Ok(results
        .zip(names)
        .fold(line, |line, ((_, theirs), name)| line.against(name, theirs)))
}

/// The same with the line cut on its way.
struct Cut<'a> {
    inner: Box<dyn Contestant + 'a>,
    files: &'a Files,
    at: u64,
}

impl Contestant for Cut<'_> {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn run(&mut self) -> Result<Cost, Missing> {
        self.files.fault(NAME, 1, Fault::CutAfter(self.at));
        let before = self.files.requests().len();
        let cost = self.inner.run();
        self.files.heal(NAME);
        let requests = &self.files.requests()[before..];
        let sent: u64 = requests.iter().map(|request| request.sent).sum();
        if cost.is_ok() && requests.len() != 2 {
            return Err(Missing::Failed(format!(
                "{} requests, and {sent} bytes sent",
                requests.len()
            )));
        }
        cost
    }

    fn check(&mut self) -> Result<(), Missing> {
        self.inner.check()
    }

    fn more(&self) -> Vec<Beside> {
        self.inner.more()
    }
}

struct Script<'a> {
    dir: &'a Path,
    artifact: &'a Artifact,
    url: String,
}

impl Contestant for Script<'_> {
    fn name(&self) -> String {
        "curl -C -".to_owned()
    }

    fn run(&mut self) -> Result<Cost, Missing> {
        find("curl")?;
        let (cost, _) = timed::run(
            &find("bash")?,
            &["-c", SCRIPT, "resume", &self.url],
            self.dir,
        )?;
        digests_are_right(self.dir, self.artifact)?;
        Ok(cost)
    }

    fn check(&mut self) -> Result<(), Missing> {
        self.artifact.is_in(
            Path::new(&word(&self.dir.join("resumed"))),
            &self.artifact.signed,
        )
    }
}
