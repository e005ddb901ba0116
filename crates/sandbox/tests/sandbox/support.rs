//! An Alpine root in a sandbox, and what its layers say.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use firebrick_layer::{Limits as ScanLimits, RegionSink, ScanSummary, decompress, detect, scan};
use firebrick_sandbox::{Ids, Limits, Options, Outcome, Owners, Run, Sandbox, Step};
use firebrick_testkit::fixtures::fixture;
use firebrick_testkit::oracle::leave_out;
use firebrick_tree::{Entry, EntryKind, RegionIndex, Timestamp};

/// What layers' times are clamped to: 2024-01-02.
pub(crate) const CREATED: i64 = 1_704_164_645;

/// The keeper.
pub(crate) const KEEPER: &str = env!("CARGO_BIN_EXE_sandbox-keeper");

/// The keeper, or the copy of it that another user can start.
fn keeper() -> PathBuf {
    std::env::var_os("SANDBOX_KEEPER").map_or_else(|| KEEPER.into(), PathBuf::from)
}

/// Alpine's root, or `None` where it is left out.
pub(crate) fn alpine() -> Option<PathBuf> {
    if !cfg!(target_arch = "x86_64") {
        leave_out("Alpine's root (its programs are those of x86_64)");
        return None;
    }
    fixture("alpine/alpine-minirootfs-3.20.3-x86_64.tar.gz")
}

/// A sandbox in a folder of its own.
pub(crate) struct Lab {
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) limits: Limits,
}

pub(crate) fn options(folder: &Path) -> Options {
    Options {
        program: keeper(),
        created: Timestamp {
            seconds: CREATED,
            nanoseconds: 0,
        },
        ids: match std::env::var_os("SANDBOX_SINGLE") {
            Some(_) => Ids::Single,
            None => Ids::Auto,
        },
        ..Options::new(folder)
    }
}

impl Lab {
    /// With Alpine in it.
    pub(crate) fn new() -> Option<Lab> {
        let tar = alpine()?;
        let mut bytes = Vec::new();
        let (compression, blob) = detect(File::open(tar).unwrap()).unwrap();
        decompress(compression, BufReader::new(blob))
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        Some(Lab::of(&bytes))
    }

    /// With this tar in it.
    pub(crate) fn of(tar: &[u8]) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let mut sandbox = Sandbox::start(&options(dir.path())).unwrap();
        let mut unpacker = sandbox.unpack();
        io::Write::write_all(&mut unpacker, tar).unwrap();
        unpacker.finish().unwrap();
        Lab {
            sandbox: Some(sandbox),
            dir,
            limits: Limits {
                time: Duration::from_secs(60),
                ..Limits::default()
            },
        }
    }

    pub(crate) fn single(&self) -> bool {
        self.sandbox.as_ref().unwrap().owners() == Owners::Single
    }

    pub(crate) fn step(&mut self, step: &Step) -> (Outcome, String) {
        let mut output = Vec::new();
        let sandbox = self.sandbox.as_mut().unwrap();
        let outcome = sandbox.run(step, &self.limits, &mut |bytes| {
            if output.len() < 1 << 20 {
                output.extend_from_slice(bytes);
            }
        });
        (outcome.unwrap(), String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs a script, whatever comes of it.
    pub(crate) fn run(&mut self, script: &str) -> (Outcome, String) {
        self.step(&step(script))
    }

    /// Runs a script that works, and gives what it prints.
    pub(crate) fn done(&mut self, script: &str) -> String {
        let (outcome, output) = self.run(script);
        assert_eq!(outcome, Outcome::Exited(0), "{script}\n{output}");
        output
    }

    pub(crate) fn layer_bytes(&mut self) -> Vec<u8> {
        let mut tar = Vec::new();
        self.sandbox.as_mut().unwrap().layer(&mut tar).unwrap();
        tar
    }

    pub(crate) fn layer(&mut self) -> Layer {
        read(&self.layer_bytes())
    }

    /// The sandbox ends; nothing may be left of it.
    pub(crate) fn end(mut self) {
        drop(self.sandbox.take());
        let left: Vec<_> = std::fs::read_dir(self.dir.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub(crate) fn step(script: &str) -> Step {
    Step {
        name: "the test's script".into(),
        run: Run::Script(script.into()),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        network_env: Vec::new(),
        user: String::new(),
        workdir: String::new(),
        network: false,
        time: None,
    }
}

/// A layer, read back.
pub(crate) struct Layer {
    pub(crate) entries: Vec<Entry>,
    region: Vec<u8>,
}

impl Layer {
    /// Signs and paths: `+` an entry, `-` a whiteout, `!` an opaque one.
    pub(crate) fn said(&self) -> Vec<String> {
        let line = |entry: &Entry| {
            let sign = match entry.kind {
                EntryKind::Whiteout => '-',
                EntryKind::OpaqueWhiteout => '!',
                _ => '+',
            };
            format!("{sign}{}", String::from_utf8_lossy(entry.path.as_bytes()))
        };
        self.entries.iter().map(line).collect()
    }

    pub(crate) fn entry(&self, path: &str) -> &Entry {
        let found = self
            .entries
            .iter()
            .find(|entry| entry.path.as_bytes() == path.as_bytes());
        found.unwrap_or_else(|| panic!("no {path} in {:?}", self.said()))
    }

    pub(crate) fn content(&self, path: &str) -> Vec<u8> {
        let EntryKind::File(data) = &self.entry(path).kind else {
            panic!("{path} is no file")
        };
        let mut bytes = vec![0; data.size as usize];
        for segment in &data.segments {
            let (at, from, len) = (
                segment.file_offset as usize,
                segment.region_offset as usize,
                segment.len as usize,
            );
            bytes[at..at + len].copy_from_slice(&self.region[from..from + len]);
        }
        bytes
    }
}

#[derive(Default)]
struct Region(Vec<u8>);

impl RegionSink for Region {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend(bytes);
        Ok(())
    }

    fn append_zeros(&mut self, len: usize) -> io::Result<()> {
        self.0.resize(self.0.len() + len, 0);
        Ok(())
    }
}

pub(crate) fn read(tar: &[u8]) -> Layer {
    let mut region = Region::default();
    let scanned = scan(
        tar,
        RegionIndex(0),
        &mut region,
        &ScanLimits::default(),
        ScanSummary::default(),
    );
    Layer {
        entries: scanned.unwrap().0.entries,
        region: region.0,
    }
}
