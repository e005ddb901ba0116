//! Guests of another processor: a 64-bit ARM image, its kernel and its guest, all made on an x86-64 host, under emulation.

use std::time::Duration;

use firebrick_protocol::agent::{JobOptions, Shutdown};
use firebrick_source::Reference;
use firebrick_testkit::fixtures::{BUSYBOX, fixture};
use firebrick_vmm::kernel::{Format, Kernel, SetupRequest, Source, setup};
use firebrick_vmm::qemu::{Accelerator, Program, probe};
use firebrick_vmm::{Arch, BootSpec, Drive, boot};

use crate::common;
use crate::host::{BOOT_LIMIT, exec, output};
use crate::images;

/// Debian's cloud kernel for ARM; `None` only where tests were told to do without the package mirror.
fn kernel() -> Option<Kernel> {
    let amd64 = common::kernel()?;
    let request = SetupRequest {
        state: common::state(),
        source: Source::Apt {
            version: None,
            arch: Arch::Aarch64,
        },
        force: false,
    };
    let kernel = setup(&request, &|_| {}).unwrap_or_else(|error| panic!("{}", common::chain(&error)));
    // The two stand side by side, and each is the default of its processor.
    assert_eq!(
        Kernel::default_for(&common::state(), Arch::Aarch64).unwrap(),
        kernel
    );
    assert_eq!(
        Kernel::default_of(&common::state()).unwrap().dir().file_name(),
        amd64.dir().file_name()
    );
    Some(kernel)
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that was left out should be seen")]
fn an_arm_image_boots_answers_and_powers_off() {
    let Some(layout) = fixture(BUSYBOX[2]) else { return };
    if !firebrick_embed::can_build_for("aarch64-unknown-linux-gnu") {
        eprintln!(
            "skipped: this Rust cannot build the guest for ARM (rustup target add aarch64-unknown-linux-gnu)"
        );
        return;
    }
    let Some(kernel) = kernel() else { return };
    assert_eq!(kernel.manifest().format, Format::Image);
    assert_eq!(kernel.manifest().arch, Arch::Aarch64);
    assert_eq!(kernel.lacks("ext4", None, true), Some(Vec::new()));
    let reference = Reference::OciLayout {
        path: layout,
        selector: None,
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let image = images::of_platform(dir, &reference, Arch::Aarch64, &images::Recipe::default());
    let path = std::env::var_os("PATH").expect("a PATH");
    let program = Program::find_for(Arch::Aarch64, &path).expect("QEMU (Debian package qemu-system-arm)");
    let (qemu, choice) = probe::best(&program, &kernel, &common::state(), false).expect("QEMU starts");
    assert_eq!(choice.accelerator, Accelerator::Tcg);
    assert!(
        choice.reason.expect("a reason").contains("processor"),
        "KVM must not be asked for ARM"
    );

    let guest = images::guest_for(Arch::Aarch64);
    let mut spec = BootSpec::new(&image.path, &kernel, &guest);
    spec.answer_limit = BOOT_LIMIT;
    // A second drive, by whose size the two are told apart.
    let second = tempfile::NamedTempFile::new().expect("a file");
    second.as_file().set_len(3 << 20).expect("a length");
    spec.drives = vec![Drive {
        path: second.path().to_owned(),
        read_only: true,
    }];
    let mut booted = boot(&qemu, &spec, None).unwrap_or_else(|error| panic!("{}", common::chain(&error)));
    assert_eq!(output(&mut booted.client, "uname -m"), "aarch64\n");
    let release = output(&mut booted.client, "uname -r");
    assert_eq!(release.trim(), kernel.manifest().release);
    assert_eq!(output(&mut booted.client, "cat /sys/block/vdb/size"), "6144\n");
    // Writable, though the image is not.
    assert_eq!(output(&mut booted.client, "echo hi > /x && cat /x"), "hi\n");
    let status = booted.client.status(BOOT_LIMIT).expect("a status");
    assert!(status.pid1, "{status:?}");
    let (code, _, _) = exec(&mut booted.client, "exit 7", JobOptions::default());
    assert_eq!(code, 7);

    // The kernel asks the machine's firmware interface to power off, and QEMU ends.
    booted
        .client
        .shutdown(Shutdown::default(), BOOT_LIMIT)
        .expect("an orderly end");
    let exit = booted.machine().wait(Duration::from_secs(60)).expect("a wait");
    assert_eq!(exit.expect("it ended").code, Some(0));
}
