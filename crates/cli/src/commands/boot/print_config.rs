//! `firebrick boot --print-config`: the machine as a document for `firecracker --config-file`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_digest::Digest;
use firebrick_vmm::firecracker;
use firebrick_vmm::{BootSpec, Vsock};

use crate::error::write_stdout;
use crate::home::Home;
use crate::images;

/// Prints it. The initramfs goes to a file that is named after its content.
pub(super) fn run(home: &Home, spec: &BootSpec<'_>) -> anyhow::Result<()> {
    for drive in &spec.drives {
        let opened = fs::File::options()
            .read(true)
            .write(!drive.read_only)
            .open(&drive.path);
        opened.with_context(|| format!("cannot open the drive {:?}", drive.path))?;
    }
    let mut machine = spec.machine_for_later(&firecracker::facts())?;
    let initramfs = keep(home, &machine.initramfs.take().unwrap_or_default())?;
    if machine.vsock == Vsock::Host {
        let name = images::name_of(&spec.image);
        machine.vsock = Vsock::Socket(home.run().join(format!("{name}.vsock")));
    }
    if let Vsock::Socket(socket) = &machine.vsock {
        super::check_socket(socket)?;
    }
    let config = firecracker::config_file(&machine, &initramfs)?;
    write_stdout(format!("{config:#}\n").as_bytes())
}

fn keep(home: &Home, initramfs: &[u8]) -> anyhow::Result<PathBuf> {
    let folder = home.run();
    let digest = Digest::of(initramfs).to_string();
    let hex = digest.rsplit(':').next().unwrap_or(&digest);
    let path = folder.join(format!("initramfs-{}", hex.get(..16).unwrap_or(hex)));
    let writing = || format!("cannot write {path:?}");
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&folder).with_context(writing)?;
    if fs::metadata(&path).is_ok_and(|found| usize::try_from(found.len()) == Ok(initramfs.len())) {
        return Ok(path);
    }
    write(&path, initramfs).with_context(writing)?;
    Ok(path)
}

/// Under its name whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut file = fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(part, path)
}
