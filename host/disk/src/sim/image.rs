//! What is on the medium at one moment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::content::Content;
use crate::Place;

/// A disk at rest: every file and directory with its content, as a machine finds it when it starts.
///
/// Two images are equal when a machine could not tell them apart, so a set of hashes drops the duplicates. Copies share their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Image {
    nodes: BTreeMap<Place, Node>,
}

/// One name on an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Node {
    Dir,
    File(Content),
    Device(Content),
    Link(PathBuf),
}

impl Image {
    /// An empty disk.
    pub fn new() -> Self {
        Image::default()
    }

    /// The content of a file or device; `None` where there is none.
    pub fn read(&self, place: &Place) -> Option<Vec<u8>> {
        match self.nodes.get(&normal(place))? {
            Node::File(content) | Node::Device(content) => Some(content.to_vec()),
            Node::Dir | Node::Link(_) => None,
        }
    }

    /// Where a symbolic link leads; `None` where there is none.
    pub fn read_link(&self, place: &Place) -> Option<&Path> {
        match self.nodes.get(&normal(place))? {
            Node::Link(content) => Some(content),
            Node::Dir | Node::File(_) | Node::Device(_) => None,
        }
    }

    /// Puts a file there with this content, and the directories above it. A device keeps its capacity and what lies behind the bytes.
    ///
    /// # Panics
    /// When the place cannot be a file, or the bytes do not fit the device: a test that sets up an impossible disk is wrong.
    pub fn write(&mut self, place: &Place, bytes: &[u8]) {
        let place = self.prepare(place);
        match self.nodes.get_mut(&place) {
            None => {
                self.nodes
                    .insert(place, Node::File(Content::from_bytes(bytes)));
            }
            Some(Node::File(content)) => *content = Content::from_bytes(bytes),
            Some(Node::Device(content)) => {
                assert!(
                    bytes.len() as u64 <= content.len(),
                    "{} bytes do not fit the device {place}",
                    bytes.len()
                );
                content.write(bytes, 0);
            }
            Some(Node::Dir | Node::Link(_)) => panic!("{place} is no file"),
        }
    }

    /// Puts an empty directory there, and those above it.
    pub fn create_dir(&mut self, place: &Place) {
        let place = self.prepare(place);
        if !is_root(&place) {
            self.nodes.entry(place).or_insert(Node::Dir);
        }
    }

    /// Puts a block device of this many bytes there, filled with zeros.
    pub fn device(&mut self, place: &Place, capacity: u64) {
        let place = self.prepare(place);
        self.nodes
            .insert(place, Node::Device(Content::zeros(capacity)));
    }

    /// Takes a file or device away.
    pub fn remove(&mut self, place: &Place) {
        self.nodes.remove(&normal(place));
    }

    /// The places of all files and devices, in order.
    pub fn files(&self) -> impl Iterator<Item = &Place> {
        self.nodes
            .iter()
            .filter(|(_, node)| matches!(node, Node::File(_) | Node::Device(_)))
            .map(|(place, _)| place)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Place, &Node)> {
        self.nodes.iter()
    }

    pub(super) fn insert(&mut self, place: Place, node: Node) {
        self.nodes.insert(place, node);
    }

    /// Makes the directories above a place.
    fn prepare(&mut self, place: &Place) -> Place {
        let place = normal(place);
        let mut above = place.parent();
        while !is_root(&above) {
            match self.nodes.entry(above.clone()).or_insert(Node::Dir) {
                Node::Dir => above = above.parent(),
                Node::File(_) | Node::Device(_) | Node::Link(_) => {
                    panic!("{above} is no directory")
                }
            }
        }
        place
    }
}

/// The one way to write a place down.
pub(super) fn normal(place: &Place) -> Place {
    let names: PathBuf = place
        .names()
        .expect("a place of a simulated disk")
        .iter()
        .collect();
    match place {
        Place::Data(_) => Place::Data(names),
        Place::Operator(_) => Place::Operator(PathBuf::from("/").join(names)),
    }
}

fn is_root(place: &Place) -> bool {
    place.names().is_ok_and(|names| names.is_empty())
}
