//! The traps of `docs/boot.md` that a single boot can fall into. Those that need a busy host are in `storm`.

use firebrick_vmm::{BootError, boot, initramfs};
use serde_json::json;

use crate::common;
use crate::host::{ANSWER_LIMIT, host, output};
use crate::images;

/// QEMU lays the ACPI tables behind the initramfs: one whose last page is nearly full would reach into them.
#[test]
fn an_initramfs_of_any_length_boots() {
    let Some(image) = images::any(json!({})) else {
        return;
    };
    let Some(mut host) = host() else { return };
    let wanted_modules = [
        "virtio_mmio",
        "virtio_blk",
        "virtio_console",
        "virtio_rng",
        "overlay",
        "ext4",
    ];
    let full = |archive: &[u8]| archive.iter().rposition(|&byte| byte != 0).expect("a trailer") % 4096;
    for wanted in [3700_usize, 4090] {
        // Bytes behind an ELF file mean nothing to those who load it.
        let archive =
            initramfs::assemble_with(&host.kernel, &host.guest, &wanted_modules).expect("an initramfs");
        let more = (wanted + 4096 - full(&archive)) % 4096 / 4 * 4;
        host.guest.resize(host.guest.len() + more, 0);
        let archive =
            initramfs::assemble_with(&host.kernel, &host.guest, &wanted_modules).expect("an initramfs");
        assert!(
            full(&archive).abs_diff(wanted) < 8,
            "{} and {wanted}",
            full(&archive)
        );
        let mut booted = host.boot(&image);
        assert_eq!(output(&mut booted.client, "echo up"), "up\n");
    }
}

/// QEMU exits with 0 whatever became of the guest: only the guest's word counts.
#[test]
fn machines_that_end_without_a_word_are_failures() {
    let Some(host) = host() else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let image = dir.path().join("no-filesystem");
    std::fs::write(&image, vec![0; 1 << 20]).expect("a file");
    let error = boot(&host.qemu, &host.spec(&image), None).expect_err("there is nothing to boot");
    let BootError::Ended { exit, .. } = &error else {
        panic!("{}", common::chain(&error));
    };
    assert_eq!(
        exit.expect("it has ended").code,
        Some(0),
        "QEMU has learned to tell"
    );
    let text = error.to_string();
    assert!(text.contains("cannot mount /dev/vda"), "{text}");

    // A kernel that panics: the very first program is not there.
    let Some(image) = images::any(json!({})) else {
        return;
    };
    let mut spec = host.spec(&image.path);
    spec.append = "rdinit=/none init=/none".to_owned();
    let error = boot(&host.qemu, &spec, None).expect_err("there is no init");
    assert!(
        matches!(error, BootError::Ended { .. }),
        "{}",
        common::chain(&error)
    );
    assert!(error.to_string().contains("anic"), "{error}");
}

/// The clock is told to the guest and not measured there, so that a busy host cannot spoil it.
#[test]
fn the_guests_clock_has_the_hosts_rate() {
    let Some(image) = images::any(json!({})) else {
        return;
    };
    let Some(host) = host() else { return };
    let mut booted = host.boot(&image);
    let clock = output(
        &mut booted.client,
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
    );
    // Linux calls the same clock `tsc-early` until its first second is over.
    assert!(
        ["tsc\n", "tsc-early\n", "kvm-clock\n"].contains(&clock.as_str()),
        "{clock}"
    );
    let mut guests = || booted.client.status(ANSWER_LIMIT).expect("a status").boottime_us;
    let (start, first) = (std::time::Instant::now(), guests());
    std::thread::sleep(std::time::Duration::from_secs(3));
    let (last, ours) = (guests(), start.elapsed().as_micros());
    let passed = u128::from(last - first);
    assert!(
        passed.abs_diff(ours) < ours / 5,
        "{passed} µs in the guest, {ours} µs here"
    );
}
