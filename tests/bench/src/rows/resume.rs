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
use crate::table::{Line, Missing, Row, Unit};
use crate::timed::{self, Cost};

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
pub(crate) fn measure(quick: bool) -> Result<Row, Failed> {
    let (size, rounds) = if quick { (16 * MIB, 1) } else { (512 * MIB, 5) };
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
    let mut contestants: Vec<Box<dyn Contestant + '_>> = vec![
        Box::new(cut(Box::new(ours(true)))),
        Box::new(ours(false)),
        Box::new(cut(Box::new(script))),
    ];
    let mut results = compete(&mut contestants, rounds).into_iter();
    let Some((_, Ok(resumed))) = results.next() else {
        return Err("ours did not resume".into());
    };
    let what = format!("{} MiB over HTTP, cut at the half and resumed", size / MIB);
    let names = [
        "ours without a cut",
        "curl -C -, then the digests of the file",
    ];
    let lines = results
        .zip(names)
        .map(|((_, theirs), name)| {
            Line::value(&what, Unit::Seconds, resumed.clone()).against(name, theirs)
        })
        .collect();
    Ok(Row {
        name: "resume",
        title: "What a broken line costs",
        lines,
    })
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
