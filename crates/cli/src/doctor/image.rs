//! Findings about an image file: whether a machine could boot it, and reach an agent in it. Nothing is mounted or run.

use std::ffi::OsStr;

use firebrick_protocol::GUEST_VERSION_MARK;
use firebrick_vmm::Arch;
use firebrick_vmm::kernel::Kernel;

use super::Finding;
use crate::elf::{self, Elf, machine_name};
use crate::fit::{self, Node, Program};
use crate::image_file::{ImageFile, printable};
use crate::volume::{FileType, LastSymlink, Volume};
use crate::{guest, text};

/// No guest is longer.
pub(crate) const GUEST_LEN: u64 = 64 << 20;
/// Less free space than this is told.
const SPACE_LOW: u64 = 8 << 20;
/// What puts an image right is making it again, with what it lacks.
const REBUILD: &str = "make it again: firebrick rootfs from-docker";

/// An image and what it shall run on.
pub(crate) struct Patient<'a> {
    pub(crate) image: &'a ImageFile,
    pub(crate) arch: Arch,
    pub(crate) kernel: Option<&'a Kernel>,
}

/// Whether the image's init is systemd.
pub(crate) fn has_systemd(image: &ImageFile) -> bool {
    ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"]
        .iter()
        .any(|path| matches!(image.start_of(OsStr::new(path), 4), Ok(Some(_))))
}

impl Patient<'_> {
    /// Every finding.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let init = self.start("/sbin/init");
        let mut findings = vec![self.filesystem(), self.init(init.as_deref())];
        findings.push(self.processor());
        findings.extend(self.loaders());
        findings.extend([self.mount_points(), self.agent(), self.settings(), self.space()]);
        findings.extend(self.nodejs());
        findings
    }

    fn start(&self, path: &str) -> Option<Vec<u8>> {
        self.image
            .start_of(OsStr::new(path), elf::HEAD_LEN)
            .ok()
            .flatten()
    }

    fn filesystem(&self) -> Finding {
        const ID: &str = "image.filesystem";
        let path = self.image.path.display();
        let state = match &self.image.filesystem {
            Volume::Ext4(filesystem) => filesystem.summary().state,
            Volume::Squashfs(filesystem) => {
                let compression = filesystem.summary().compression;
                return Finding::ok(ID, format!("squashfs, {compression}"));
            }
        };
        match state {
            state if state.errors => Finding::problem(
                ID,
                "the filesystem is marked as damaged",
                format!("e2fsck -f {path}"),
            ),
            state if !state.clean => Finding::warning(
                ID,
                "the filesystem was not unmounted in order",
                format!("e2fsck -p {path}"),
            ),
            _ => Finding::ok(ID, "ext4, clean"),
        }
    }

    /// PID 1 of a VMM that boots the image as it is.
    fn init(&self, head: Option<&[u8]>) -> Finding {
        const ID: &str = "image.init";
        let fix = format!("{REBUILD} --init firebrick …");
        let Some(head) = head else {
            return Finding::problem(
                ID,
                "there is no program at /sbin/init, so nothing becomes PID 1",
                fix,
            );
        };
        let inode = self.image.lookup(OsStr::new("/sbin/init"), LastSymlink::Follow);
        if inode.is_ok_and(|inode| inode.stat.mode & 0o111 == 0) {
            return Finding::problem(ID, "/sbin/init is not executable", fix);
        }
        if let Some(interpreter) = fit::interpreter(head) {
            return match self.start(&interpreter) {
                Some(_) => Finding::ok(
                    ID,
                    format!("/sbin/init is a script for {}", printable(interpreter.as_bytes())),
                ),
                None => Finding::problem(
                    ID,
                    format!(
                        "/sbin/init is a script for {}, which the image does not have",
                        printable(interpreter.as_bytes())
                    ),
                    fix,
                ),
            };
        }
        match Elf::parse(head) {
            Some(_) => Finding::ok(ID, "/sbin/init is a program"),
            None => Finding::problem(ID, "/sbin/init is neither a program nor a script", fix),
        }
    }

    fn processor(&self) -> Finding {
        const ID: &str = "image.processor";
        let misfit = Program::misfit(self.image, None, self.arch).ok().flatten();
        let found = match misfit {
            Some(program) => Some(program),
            None => Program::first_of(self.image, None).ok().flatten(),
        };
        match found {
            Some(program) if !fit::runs(self.arch, program.elf.machine) => {
                let machine = program.elf.machine;
                let other = Arch::ALL.into_iter().find(|arch| arch.elf_machine() == machine);
                let fix = match other {
                    Some(other) => format!(
                        "firebrick setup --platform linux/{0}, and run with --platform linux/{0}; or make it for linux/{1}",
                        other.debian_name(),
                        self.arch.debian_name()
                    ),
                    None => format!("{REBUILD} --platform linux/{} …", self.arch.debian_name()),
                };
                let found = format!(
                    "{} is for {}, but the VM's processor is {}",
                    program.path,
                    machine_name(machine),
                    self.arch
                );
                Finding::problem(ID, found, fix)
            }
            Some(program) => Finding::ok(ID, format!("{} is for {}", program.path, self.arch)),
            None => Finding::warning(
                ID,
                "no program tells what processor the image is for",
                format!("{REBUILD} …"),
            ),
        }
    }

    /// The loaders that dynamic programs start with.
    fn loaders(&self) -> Option<Finding> {
        const ID: &str = "image.loader";
        let mut there = Vec::new();
        for path in ["/sbin/init", "/bin/sh"] {
            let Ok(Some(program)) = Program::of(self.image, path) else {
                continue;
            };
            let Some(loader) = program.elf.interpreter else {
                continue;
            };
            let loader = String::from_utf8_lossy(&loader).into_owned();
            let shown = printable(loader.as_bytes());
            let fix = "put the C library that it was linked with into the image: musl in Alpine (apk add gcompat), libc6 in Debian";
            match self.start(&loader).map(|head| Elf::parse(&head)) {
                None => {
                    let found = format!("{path} needs the loader {shown}, which the image does not have");
                    return Some(Finding::problem(ID, found, fix));
                }
                Some(Some(elf))
                    if elf.machine != program.elf.machine || !fit::runs(self.arch, elf.machine) =>
                {
                    let found = format!(
                        "{path} needs the loader {shown}, which is for {}",
                        machine_name(elf.machine)
                    );
                    return Some(Finding::problem(ID, found, fix));
                }
                Some(_) if !there.contains(&shown) => there.push(shown),
                Some(_) => {}
            }
        }
        (!there.is_empty()).then(|| Finding::ok(ID, format!("{} is there", there.join(", "))))
    }

    fn mount_points(&self) -> Finding {
        const ID: &str = "image.mount-points";
        let lacks = |path: &&&str| {
            let inode = self
                .image
                .filesystem
                .lookup(OsStr::new(path), LastSymlink::Follow);
            !inode.is_ok_and(|inode| inode.stat.file_type == FileType::Directory)
        };
        let missing = |paths: &[&str]| {
            let missing: Vec<String> = paths
                .iter()
                .filter(lacks)
                .map(|path| (*path).to_owned())
                .collect();
            missing
        };
        let fix = format!("{REBUILD} …, which adds them");
        let needed = missing(&["/proc", "/sys", "/dev"]);
        if !needed.is_empty() {
            let found = format!(
                "{} cannot be mounted: the image has no such folders",
                needed.join(", ")
            );
            return Finding::problem(ID, found, fix);
        }
        let wanted = missing(&["/run", "/tmp"]);
        if !wanted.is_empty() {
            let found = format!(
                "the image has no folder {}, which programs expect",
                wanted.join(", ")
            );
            return Finding::warning(ID, found, fix);
        }
        Finding::ok(ID, "/proc, /sys, /dev, /run and /tmp are there")
    }

    /// firebrick's guest in the image, and which.
    fn agent(&self) -> Finding {
        const ID: &str = "image.agent";
        let own = env!("CARGO_PKG_VERSION");
        let path = format!("/{}", firebrick_customise::GUEST_PATH);
        let fix = format!("{REBUILD} …");
        let Ok(Some(bytes)) = self.image.start_of(OsStr::new(&path), GUEST_LEN) else {
            let found =
                "the image has no firebrick guest: firebrick brings one along, other VMMs find no agent";
            return Finding::warning(ID, found, fix);
        };
        if Arch::ALL
            .iter()
            .any(|&arch| guest::for_arch(arch) == Some(&bytes))
        {
            return Finding::ok(ID, format!("the guest is the one of this firebrick, {own}"));
        }
        match version_in(&bytes) {
            Some(version) if version == own => Finding::ok(
                ID,
                format!("the guest is {own}, of another build than this firebrick's"),
            ),
            Some(version) => Finding::warning(
                ID,
                format!(
                    "the guest is {}, this firebrick is {own}",
                    printable(version.as_bytes())
                ),
                fix,
            ),
            None => Finding::warning(ID, format!("what is at {path} does not tell its version"), fix),
        }
    }

    /// What the image says about running it.
    fn settings(&self) -> Finding {
        const ID: &str = "image.settings";
        let fix = format!("{REBUILD} …");
        match self.image.image_json() {
            Ok(Some(json)) if json.is_object() => Finding::ok(ID, "the image says what it runs"),
            Ok(Some(_)) => Finding::problem(ID, "/etc/firebrick/image.json holds no JSON object", fix),
            Ok(None) => Finding::warning(
                ID,
                "the image does not say what it runs: there is no /etc/firebrick/image.json",
                fix,
            ),
            Err(error) => Finding::problem(ID, format!("{error:#}"), fix),
        }
    }

    fn space(&self) -> Finding {
        const ID: &str = "image.space";
        let Volume::Ext4(filesystem) = &self.image.filesystem else {
            return Finding::ok(
                ID,
                "read-only: what is written goes to the writable layer of each VM",
            );
        };
        let summary = filesystem.summary();
        let free = summary.free_blocks.saturating_mul(u64::from(summary.block_size));
        let found = format!("{} are free in the image", text::bytes(free));
        match free {
            // No warning: that is how images are made, and run and boot never write to them.
            0..SPACE_LOW => Finding {
                fix: Some(format!(
                    "only for a VMM that writes to the image: {REBUILD} --free SIZE …"
                )),
                ..Finding::ok(
                    ID,
                    format!("{found}, and run and boot need none: they keep what is written elsewhere"),
                )
            },
            _ => Finding::ok(ID, found),
        }
    }

    fn nodejs(&self) -> Option<Finding> {
        const ID: &str = "image.nodejs";
        let node = Node::of(self.image).ok().flatten()?;
        let (needs_major, needs_minor) = fit::NODE_KERNEL;
        let fix = "firebrick setup --kernel-version 6.1";
        let kernel = self.kernel.and_then(|kernel| Some((kernel, kernel.version()?)));
        Some(match (node.version, kernel) {
            (Some((major, node)), Some((kernel, version)))
                if major >= fit::NODE_MAJOR && version < fit::NODE_KERNEL =>
            {
                Finding::problem(
                    ID,
                    format!(
                        "Node.js {} needs Linux {needs_major}.{needs_minor} or later, and the kernel is {}",
                        printable(node.as_bytes()),
                        crate::host::name_of(kernel)
                    ),
                    fix,
                )
            }
            (Some((_, node)), _) => Finding::ok(ID, format!("Node.js {}", printable(node.as_bytes()))),
            (None, Some((_, version))) if version < fit::NODE_KERNEL => Finding::warning(
                ID,
                format!(
                    "{} does not tell its version; from 18 on it needs a newer kernel",
                    node.path
                ),
                fix,
            ),
            (None, _) => Finding::ok(ID, format!("{} does not tell its version", node.path)),
        })
    }
}

/// The version behind the mark in a guest's file.
pub(crate) fn version_in(guest: &[u8]) -> Option<String> {
    let mark = GUEST_VERSION_MARK.as_bytes();
    let at = guest.windows(mark.len()).position(|window| window == mark)?;
    let rest = guest.get(at..)?.strip_prefix(mark)?;
    let line = rest.iter().take(64).position(|&byte| byte == b'\n')?;
    std::str::from_utf8(rest.get(..line)?).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_guests_tell_their_version() {
        for arch in Arch::ALL {
            let Some(guest) = guest::for_arch(arch) else {
                continue;
            };
            assert_eq!(
                version_in(guest).as_deref(),
                Some(env!("CARGO_PKG_VERSION")),
                "{arch}"
            );
        }
        assert_eq!(version_in(b"firebrick-guest version 9"), None);
        assert_eq!(version_in(b""), None);
    }
}
