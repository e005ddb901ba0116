//! `firebrick boot --print-config`: the machine as a document for `firecracker --config-file`.

use anyhow::Context as _;
use firebrick_vmm::firecracker;
use firebrick_vmm::{BootSpec, Vsock, open_disk};

use super::kept_initramfs;
use crate::error::write_stdout;
use crate::home::Home;
use crate::images;

/// Prints it. The initramfs goes to a file of the state folder.
pub(super) fn run(home: &Home, spec: &BootSpec<'_>) -> anyhow::Result<()> {
    for drive in &spec.drives {
        let opened = open_disk(&drive.path, !drive.read_only);
        opened.with_context(|| format!("cannot open the drive {:?}", drive.path))?;
    }
    let mut machine = spec.machine_for_later(&firecracker::facts())?;
    let initramfs = machine.initramfs.take().unwrap_or_default();
    let initramfs = kept_initramfs::keep(&home.run(), &initramfs)
        .with_context(|| format!("cannot keep the initramfs in {:?}", home.run()))?;
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
