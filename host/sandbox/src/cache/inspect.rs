//! A look at the cache without an engine, and without changing it.

use std::io;

use otahost_disk::{Disk, Place};

use super::header::{HEADER, Header};
use super::{Bounds, Cache, ENDING};

/// A file of the cache, and the release of the engine that made it, or what is wrong with it.
pub(super) type Inspected = (String, Result<String, String>);

impl Cache {
    /// Every file of native code in this directory. A directory that is not there has none.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn inspect(disk: &dyn Disk, place: &Place, bounds: Bounds) -> io::Result<Vec<Inspected>> {
        let names = match disk.list(place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names?,
        };
        let most = bounds.bytes.saturating_add(HEADER as u64);
        let files = names.into_iter().filter(|name| name.ends_with(ENDING));
        Ok(files
            .map(|name| {
                let found = look(disk, &place.join(&name), most);
                (name, found)
            })
            .collect())
    }
}

fn look(disk: &dyn Disk, place: &Place, most: u64) -> Result<String, String> {
    let mut file = disk.read(place, most).map_err(|e| e.to_string())?;
    let header = Header::read(&file)?;
    let code = file.split_off(HEADER);
    header.check(&code)?;
    Ok(header.version)
}
