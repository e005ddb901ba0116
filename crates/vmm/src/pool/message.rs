//! What a pool's keeper is asked, and what it answers: a line of JSON each. `docs/pool.md` is the contract.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The longest line.
const LINE_LEN_MAX: u64 = 256 << 10;

/// One very file: another of the same name is another image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageId {
    path: PathBuf,
    device: u64,
    inode: u64,
    size_bytes: u64,
    changed_ns: i128,
}

impl ImageId {
    /// The file that is there now.
    ///
    /// # Errors
    /// What the host said.
    pub fn of(path: &Path) -> io::Result<ImageId> {
        let path = std::fs::canonicalize(path)?;
        let meta = std::fs::metadata(&path)?;
        Ok(ImageId {
            device: meta.dev(),
            inode: meta.ino(),
            size_bytes: meta.len(),
            changed_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
            path,
        })
    }

    /// Whether the file is still this one.
    pub fn is_current(&self) -> bool {
        ImageId::of(&self.path).is_ok_and(|now| now == *self)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What the machines of a pool are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Their image.
    pub image: ImageId,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The number of virtual CPUs.
    pub vcpus: u32,
    /// The most that they may write, in MiB.
    pub overlay_mib: u32,
    /// Whether they have a network.
    pub network: bool,
    /// What else must be the same, by name: the VMM, the processor.
    pub others: Vec<(String, String)>,
}

/// What is wanted of a machine; what is `None` may be anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The image.
    pub image: ImageId,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// The number of virtual CPUs.
    pub vcpus: Option<u32>,
    /// The most that it may write, in MiB.
    pub overlay_mib: Option<u32>,
    /// Whether it has a network.
    pub network: bool,
    /// What else must be so.
    pub others: Vec<(String, String)>,
    /// How long to wait until there is one, in milliseconds.
    pub wait_ms: u64,
}

impl Terms {
    /// What of a wish is not so, in words.
    pub fn mismatch(&self, wish: &Wish) -> Option<String> {
        let differs = |what: &str, has: u32, wanted: Option<u32>| {
            let wanted = wanted.filter(|wanted| *wanted != has)?;
            Some(format!("its VMs have {what} {has}, not {wanted}"))
        };
        if self.image != wish.image {
            return Some("its image is another".to_owned());
        }
        let other = |(name, wanted): &(String, String)| {
            let has = self.others.iter().find(|(other, _)| other == name);
            match has {
                Some((_, has)) if has != wanted => Some(format!("its {name} is {has}, not {wanted}")),
                _ => None,
            }
        };
        differs("a memory (MiB) of", self.memory_mib, wish.memory_mib)
            .or_else(|| differs("a number of processors of", self.vcpus, wish.vcpus))
            .or_else(|| differs("a writable layer (MiB) of", self.overlay_mib, wish.overlay_mib))
            .or_else(|| {
                (self.network != wish.network).then(|| "its VMs differ in having a network".to_owned())
            })
            .or_else(|| wish.others.iter().find_map(other))
    }
}

/// How a pool is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The keeper's process.
    pub pid: u32,
    /// How many machines it keeps warm.
    pub size: usize,
    /// How many are.
    pub warm: usize,
    /// How many are being started.
    pub starting: usize,
    /// How many are in use.
    pub in_use: usize,
    /// How many programs wait for one.
    #[serde(default)]
    pub waiting: usize,
    /// How many have been used.
    pub used: u64,
    /// How many could not be started.
    pub failed: u64,
    /// Whether they are restored from a snapshot.
    pub snapshot: bool,
    /// How long the last one took to be warm, in milliseconds.
    pub last_start_ms: Option<u64>,
    /// Why the last one that failed did.
    pub last_error: Option<String>,
    /// What they are.
    pub terms: Terms,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Status,
    Take(Box<Wish>),
    /// Within a lease: one more stream to the agent.
    Dial,
    /// Within a lease: what the machine said last.
    Words,
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    Status(Box<PoolStatus>),
    /// A stream to the agent comes with this line.
    Taken,
    /// There is none right now.
    Empty,
    /// There are only others.
    Refused(String),
    Words(String),
    Stopped,
}

/// Sends a line.
pub(super) fn send(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&line(message))
}

pub(super) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages have string keys only");
    line.push(b'\n');
    line
}

/// Receives a line; `None` at the end.
pub(super) fn receive<T: DeserializeOwned>(reader: &mut BufReader<UnixStream>) -> io::Result<Option<T>> {
    let mut line = String::new();
    reader.by_ref().take(LINE_LEN_MAX).read_line(&mut line)?;
    match line.is_empty() {
        true => Ok(None),
        false => serde_json::from_str(&line).map(Some).map_err(io::Error::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(inode: u64) -> ImageId {
        ImageId {
            path: "/x".into(),
            device: 1,
            inode,
            size_bytes: 3,
            changed_ns: 4,
        }
    }

    fn others(vmm: &str) -> Vec<(String, String)> {
        vec![("vmm".to_owned(), vmm.to_owned())]
    }

    /// What a pool of usual machines says to a wish that was changed so.
    fn told(change: impl FnOnce(&mut Wish)) -> String {
        let terms = Terms {
            image: image(2),
            memory_mib: 512,
            vcpus: 1,
            overlay_mib: 256,
            network: false,
            others: others("qemu"),
        };
        let mut wish = Wish {
            image: image(2),
            memory_mib: None,
            vcpus: None,
            overlay_mib: None,
            network: false,
            others: Vec::new(),
            wait_ms: 0,
        };
        change(&mut wish);
        terms.mismatch(&wish).unwrap_or_default()
    }

    #[test]
    fn a_wish_is_met_or_the_difference_is_told() {
        assert_eq!(told(|_| {}), "");
        let same = told(|wish| {
            wish.memory_mib = Some(512);
            wish.vcpus = Some(1);
            wish.others = others("qemu");
        });
        assert_eq!(same, "");
        let differences = [
            (
                told(|wish| wish.memory_mib = Some(1024)),
                "memory (MiB) of 512, not 1024",
            ),
            (told(|wish| wish.vcpus = Some(2)), "processors of 1, not 2"),
            (
                told(|wish| wish.overlay_mib = Some(1)),
                "layer (MiB) of 256, not 1",
            ),
            (told(|wish| wish.network = true), "a network"),
            (
                told(|wish| wish.others = others("firecracker")),
                "its vmm is qemu, not firecracker",
            ),
            (told(|wish| wish.image = image(9)), "its image is another"),
        ];
        for (told, difference) in differences {
            assert!(told.contains(difference), "{told}");
        }
    }
}
