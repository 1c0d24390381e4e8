//! A signed image into a slot, verified and synced: over HTTP, over FTPS, from a file; side by side with a shell script and with the
//! agents that Debian packs.

use std::fs;
use std::path::Path;

use otahost_lab::files::Files;
use otahost_lab::tls::CA_PEM;
use otahost_lab::vsftpd::Vsftpd;

use crate::Failed;
use crate::artifact::{Artifact, MIB, Slots};
use crate::contest::{Contestant, compete};
use crate::peers::floor::{Bytes, Floor};
use crate::peers::keys::Keys;
use crate::peers::ours::{From, Ours};
use crate::peers::rauc::{self, Rauc};
use crate::peers::swupdate::{self, Swupdate};
use crate::peers::word;
use crate::stats::{doubling, median};
use crate::table::{Line, Missing};
use crate::unit::Unit;

/// Of §10 of the design, for 512 MiB over HTTP: against the script, and against SWUpdate.
const BUDGETS: [f64; 2] = [1.10, 1.00];
const BUDGET_SIZE: u64 = 512 * MIB;
/// A password on a loopback server that lives for some seconds.
const PASSWORD: &str = "bench-pass";

/// What comes over which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    Ftps,
    File,
}

impl Way {
    fn text(self) -> &'static str {
        match self {
            Way::Http => "over HTTP",
            Way::Ftps => "over FTPS",
            Way::File => "from a file",
        }
    }
}

/// Rounds over HTTP, and over each other way.
type Rounds = [usize; 2];

/// Measures it.
///
/// # Errors
/// When ours fails, or the surroundings do.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    let sizes: &[(u64, Rounds)] = if quick {
        &[(16 * MIB, [1, 1])]
    } else {
        &[
            (64 * MIB, [5, 3]),
            (512 * MIB, [7, 3]),
            (2_048 * MIB, [2, 1]),
        ]
    };
    let mut lines = Vec::new();
    let mut smaller: Vec<(u64, Way, f64)> = Vec::new();
    for (size, rounds) in sizes {
        let of_size = one_size(*size, *rounds)?;
        let mut larger = Vec::new();
        for (way, line, took) in of_size {
            let before = smaller.iter().find(|(_, of, _)| *of == way);
            lines.push(line.doubled(before.and_then(|(before, _, took_before)| {
                doubling([*before as f64, *size as f64], [*took_before, took])
            })));
            larger.push((*size, way, took));
        }
        smaller = larger;
    }
    Ok(lines)
}

/// One size over all ways: the lines, and what ours took.
fn one_size(size: u64, rounds: Rounds) -> Result<Vec<(Way, Line, f64)>, Failed> {
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    let dir = dir.path();
    let artifact = Artifact::make(dir, size)?;
    let slots = Slots::make(dir, size)?;
    let keys = Keys::make(dir);
    let mut swupdate = keys
        .clone()
        .and_then(|keys| Swupdate::prepare(dir, &keys, slots.other(), &artifact));
    let bundle = keys
        .clone()
        .and_then(|keys| rauc::bundle(dir, &keys, &artifact));
    let mut lines = Vec::new();
    for way in [Way::Http, Way::Ftps, Way::File] {
        let rounds = rounds[usize::from(way != Way::Http)];
        eprintln!("  {} MiB {}, into {}", size / MIB, way.text(), slots.kind);
        let server = Servers::start(
            way,
            dir,
            &artifact,
            swupdate.as_ref().ok(),
            bundle.as_deref().ok(),
        )?;
        let mut contestants: Vec<Box<dyn Contestant + '_>> = vec![
            Box::new(Ours {
                dir: dir.to_path_buf(),
                slots: &slots,
                artifact: &artifact,
                from: server.for_ours(&artifact),
                resumes: false,
                read_back: Vec::new(),
            }),
            Box::new(Floor {
                bytes: server.for_curl(dir, &artifact),
                dir: dir.to_path_buf(),
                slot: slots.other(),
                artifact: &artifact,
            }),
        ];
        if way != Way::Ftps {
            match &mut swupdate {
                Ok(swupdate) => {
                    swupdate.from = server.for_swupdate();
                    contestants.push(Box::new(Borrowed(swupdate)));
                }
                Err(missing) => contestants.push(Box::new(Out("SWUpdate", missing.clone()))),
            }
            let rauc = match (&keys, &bundle) {
                (Ok(keys), Ok(bundle)) => Rauc::start(dir, keys, &slots, &artifact, bundle),
                (Err(missing), _) | (_, Err(missing)) => Err(missing.clone()),
            };
            contestants.push(match rauc {
                Ok(mut rauc) => {
                    if let Some(url) = server.for_rauc() {
                        rauc.place = url;
                    }
                    Box::new(rauc)
                }
                Err(missing) => Box::new(Out("RAUC", missing)),
            });
        }
        let mut results = compete(&mut contestants, rounds).into_iter();
        drop(contestants);
        let own = match results.next() {
            Some((_, Ok(own))) => own,
            Some((_, Err(missing))) => return Err(format!("ours: {missing:?}").into()),
            None => return Err("nobody took part".into()),
        };
        let took = median(&own.values);
        let what = format!("{} MiB {}", size / MIB, way.text());
        let mut line = Line::value(what, Unit::Seconds, own);
        for (place, (name, theirs)) in results.enumerate() {
            line = line.against(name, theirs);
            let budget = BUDGETS.get(place);
            if let Some(budget) = budget.filter(|_| size == BUDGET_SIZE && way == Way::Http) {
                line = line.ratio_at_most(*budget);
            }
        }
        lines.push((way, line, took));
    }
    Ok(lines)
}

/// Lends a contestant for one contest.
struct Borrowed<'a, 'b>(&'a mut Swupdate<'b>);

impl Contestant for Borrowed<'_, '_> {
    fn name(&self) -> String {
        self.0.name()
    }
    fn run(&mut self) -> Result<crate::timed::Cost, Missing> {
        self.0.run()
    }
    fn check(&mut self) -> Result<(), Missing> {
        self.0.check()
    }
}

/// One who cannot take part.
struct Out(&'static str, Missing);

impl Contestant for Out {
    fn name(&self) -> String {
        self.0.to_owned()
    }
    fn run(&mut self) -> Result<crate::timed::Cost, Missing> {
        Err(self.1.clone())
    }
}

/// Who serves the files.
enum Servers {
    Http(Files),
    Ftps(Vsftpd),
    Nobody,
}

impl Servers {
    fn start(
        way: Way,
        dir: &Path,
        artifact: &Artifact,
        swupdate: Option<&Swupdate<'_>>,
        bundle: Option<&Path>,
    ) -> Result<Self, Failed> {
        Ok(match way {
            Way::Http => {
                let files = Files::start();
                files.put_file("image.signed", &artifact.signed)?;
                if let Some(swupdate) = swupdate {
                    files.put_file("bundle.swu", swupdate.bundle())?;
                }
                if let Some(bundle) = bundle {
                    files.put_file("bundle.raucb", bundle)?;
                }
                Servers::Http(files)
            }
            Way::Ftps => {
                let server = Vsftpd::start(PASSWORD)?;
                fs::hard_link(&artifact.signed, server.files().join("image.signed"))?;
                fs::write(dir.join("ca.pem"), CA_PEM)?;
                Servers::Ftps(server)
            }
            Way::File => Servers::Nobody,
        })
    }

    fn for_ours(&self, artifact: &Artifact) -> From {
        match self {
            Servers::Http(files) => From::Url(files.url("image.signed")),
            Servers::Ftps(server) => From::Ftps {
                port: server.port(),
                user: Vsftpd::USER.to_owned(),
                password: PASSWORD.to_owned(),
                path: "/image.signed".to_owned(),
            },
            Servers::Nobody => From::File(artifact.signed.clone()),
        }
    }

    fn for_curl(&self, dir: &Path, artifact: &Artifact) -> Bytes {
        match self {
            Servers::Http(files) => Bytes::Curl(vec![files.url("image.signed")]),
            Servers::Ftps(server) => Bytes::Curl(vec![
                "--ssl-reqd".to_owned(),
                "--cacert".to_owned(),
                word(&dir.join("ca.pem")),
                "--user".to_owned(),
                format!("{}:{PASSWORD}", Vsftpd::USER),
                format!("ftp://localhost:{}/image.signed", server.port()),
            ]),
            Servers::Nobody => Bytes::File(artifact.signed.clone()),
        }
    }

    fn for_swupdate(&self) -> swupdate::From {
        match self {
            Servers::Http(files) => swupdate::From::Url(files.url("bundle.swu")),
            _ => swupdate::From::File,
        }
    }

    fn for_rauc(&self) -> Option<String> {
        match self {
            Servers::Http(files) => Some(files.url("bundle.raucb")),
            _ => None,
        }
    }
}
