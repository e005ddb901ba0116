//! What booting an image asks of a kernel, option by option: `doctor` reads it, and the tests hold Debian's kernel to it.
//!
//! A driver may be *built in*, or a *module* that was set up with the kernel, since the initramfs brings only those. An
//! option that is a module of a kernel without that module is as good as not set.

use super::{Config, Kernel};
use crate::arch::Arch;

/// For whom an option matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// The processor's machine.
    Arch(Arch),
    /// An image of this format.
    Filesystem(&'static str),
    /// A squashfs of this compression.
    Squashfs(&'static str),
    /// An image whose init is systemd.
    Systemd,
}

/// How much is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It does not boot, or nothing can be run in it.
    Boot,
    /// Something that some images or flags want.
    Feature,
}

/// Something that booting an image needs and a kernel lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// A name that stays the same: `kernel.overlay`.
    pub id: &'static str,
    /// The option, such as `CONFIG_OVERLAY_FS`.
    pub option: &'static str,
    /// What will not work.
    pub consequence: &'static str,
    /// How bad that is.
    pub loss: Loss,
    /// It is a module, but was not set up with the kernel.
    pub left_out: bool,
}

/// One row of the table: how the option's driver is called as a module, where it can be one.
struct Need(
    &'static str,
    &'static str,
    Option<&'static str>,
    When,
    Loss,
    &'static str,
);

use Loss::{Boot, Feature};
use When::{Always, Filesystem, Squashfs, Systemd};

const X86: When = When::Arch(Arch::X86_64);
const ARM: When = When::Arch(Arch::Aarch64);

#[rustfmt::skip] // a table
const NEEDS: &[Need] = &[
    Need("kernel.acpi", "CONFIG_ACPI", None, X86, Boot, "the guest finds no device"),
    Need("kernel.pvh", "CONFIG_PVH", None, X86, Boot, "QEMU cannot start the ELF kernel"),
    Need("kernel.device-tree", "CONFIG_OF", None, ARM, Boot, "the guest finds no device"),
    Need("kernel.initrd", "CONFIG_BLK_DEV_INITRD", None, Always, Boot, "no initramfs, so no modules and no writable layer"),
    Need("kernel.devtmpfs", "CONFIG_DEVTMPFS", None, Always, Boot, "the guest finds no disk"),
    Need("kernel.proc", "CONFIG_PROC_FS", None, Always, Boot, "no /proc"),
    Need("kernel.sysfs", "CONFIG_SYSFS", None, Always, Boot, "no /sys"),
    Need("kernel.tmpfs", "CONFIG_TMPFS", None, Always, Boot, "no writable layer in memory"),
    Need("kernel.elf", "CONFIG_BINFMT_ELF", None, Always, Boot, "no program can be started"),
    Need("kernel.virtio-mmio", "CONFIG_VIRTIO_MMIO", Some("virtio_mmio"), Always, Boot, "the guest finds no virtio device"),
    Need("kernel.virtio-blk", "CONFIG_VIRTIO_BLK", Some("virtio_blk"), Always, Boot, "the guest finds no disk"),
    Need("kernel.overlay", "CONFIG_OVERLAY_FS", Some("overlay"), Always, Boot, "no writable layer over the read-only image"),
    Need("kernel.ext4", "CONFIG_EXT4_FS", Some("ext4"), Filesystem("ext4"), Boot, "ext4 images do not mount"),
    Need("kernel.squashfs", "CONFIG_SQUASHFS", Some("squashfs"), Filesystem("squashfs"), Boot, "squashfs images do not mount"),
    Need("kernel.squashfs-zstd", "CONFIG_SQUASHFS_ZSTD", None, Squashfs("zstd"), Boot, "squashfs images compressed with zstd do not mount"),
    Need("kernel.squashfs-gzip", "CONFIG_SQUASHFS_ZLIB", None, Squashfs("gzip"), Boot, "squashfs images compressed with gzip do not mount"),
    Need("kernel.squashfs-lz4", "CONFIG_SQUASHFS_LZ4", None, Squashfs("lz4"), Boot, "squashfs images compressed with lz4 do not mount"),
    Need("kernel.squashfs-xz", "CONFIG_SQUASHFS_XZ", None, Squashfs("xz"), Boot, "squashfs images compressed with xz do not mount"),
    Need("kernel.virtio-console", "CONFIG_VIRTIO_CONSOLE", Some("virtio_console"), Always, Feature, "no channel to the agent where there is no vsock"),
    Need("kernel.vsock", "CONFIG_VIRTIO_VSOCKETS", Some("vmw_vsock_virtio_transport"), Always, Feature, "no vsock, which Firecracker needs to reach the agent"),
    Need("kernel.virtio-net", "CONFIG_VIRTIO_NET", Some("virtio_net"), Always, Feature, "no network (--net)"),
    Need("kernel.virtio-rng", "CONFIG_HW_RANDOM_VIRTIO", Some("virtio_rng"), Always, Feature, "programs may wait for random numbers after the start"),
    Need("kernel.serial", "CONFIG_SERIAL_8250_CONSOLE", None, X86, Feature, "no console, so no reasons when a boot fails"),
    Need("kernel.serial", "CONFIG_SERIAL_AMBA_PL011_CONSOLE", None, ARM, Feature, "no console, so no reasons when a boot fails"),
    Need("kernel.cgroups", "CONFIG_CGROUPS", None, Always, Feature, "no control groups: jobs cannot be limited, and systemd does not start"),
    Need("kernel.cgroup-pids", "CONFIG_CGROUP_PIDS", None, Always, Feature, "a job's number of processes cannot be limited"),
    Need("kernel.memcg", "CONFIG_MEMCG", None, Always, Feature, "a job's memory cannot be limited"),
    Need("kernel.systemd-cgroups", "CONFIG_CGROUPS", None, Systemd, Boot, "systemd does not start"),
    Need("kernel.systemd-fhandle", "CONFIG_FHANDLE", None, Systemd, Boot, "systemd does not start"),
    Need("kernel.systemd-epoll", "CONFIG_EPOLL", None, Systemd, Boot, "systemd does not start"),
    Need("kernel.systemd-inotify", "CONFIG_INOTIFY_USER", None, Systemd, Boot, "systemd does not start"),
];

impl Kernel {
    /// What booting an image of `filesystem` lacks with this kernel; `None` if its configuration is not known. `compression` is
    /// that of a squashfs, as `mksquashfs -comp` calls it.
    pub fn lacks(&self, filesystem: &str, compression: Option<&str>, systemd: bool) -> Option<Vec<Lack>> {
        let config = self.config()?;
        let arch = self.manifest().arch;
        let set_up = |module: &str| self.manifest().modules.iter().any(|one| one.name == module);
        let matters = |when: When| match when {
            When::Always => true,
            When::Arch(of) => of == arch,
            When::Filesystem(of) => of == filesystem,
            When::Squashfs(of) => compression == Some(of),
            When::Systemd => systemd,
        };
        let wanted = NEEDS.iter().filter(|need| matters(need.3));
        Some(wanted.filter_map(|need| need.lack(&config, &set_up)).collect())
    }
}

impl Need {
    fn lack(&self, config: &Config, set_up: &dyn Fn(&str) -> bool) -> Option<Lack> {
        let &Need(id, option, module, _, loss, consequence) = self;
        let value = config.get(option);
        let there = value == Some("y") || value == Some("m") && module.is_some_and(set_up);
        (!there).then_some(Lack {
            id,
            option,
            consequence,
            loss,
            left_out: value == Some("m"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_option_is_told_and_a_module_counts_only_when_it_is_brought() {
        let all: String = NEEDS.iter().map(|need| format!("{}=y\n", need.1)).collect();
        for need in NEEDS {
            let lack = |text: &str, set_up: bool| need.lack(&Config::parse(text), &|_| set_up);
            assert_eq!(lack(&all, false), None);
            let unset = all.replace(&format!("{}=y\n", need.1), "");
            let told = lack(&unset, true).expect("it is lacking");
            assert_eq!((told.id, told.option, told.left_out), (need.0, need.1, false));
            let module = all.replace(&format!("{}=y\n", need.1), &format!("{}=m\n", need.1));
            assert_eq!(lack(&module, true).is_none(), need.2.is_some());
            assert!(lack(&module, false).expect("it is left out").left_out);
        }
    }
}
