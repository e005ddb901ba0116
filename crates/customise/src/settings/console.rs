//! Terminals on which somebody can log in: a getty under the image's own init.

use super::{SettingError, Tty, files, setting};
use crate::image::Image;
use crate::init::{Chosen, ImageInit, is_file};
use crate::lower::{LowerKind, Resolved, resolve};
use crate::plan::{CustomiseError, EntryKind, Planner};

/// Where systemd keeps the unit of a serial terminal.
const UNITS: [&str; 2] = [
    "lib/systemd/system/serial-getty@.service",
    "usr/lib/systemd/system/serial-getty@.service",
];

const GETTY: [&str; 4] = ["sbin/getty", "usr/sbin/getty", "sbin/agetty", "usr/sbin/agetty"];

pub(super) fn add(
    planner: &mut Planner<'_, '_>,
    consoles: &[Tty],
    image: &Image<'_>,
    chosen: Chosen,
) -> Result<(), CustomiseError> {
    if consoles.is_empty() {
        return Ok(());
    }
    let chosen = match (chosen, ImageInit::detect(image)) {
        (Chosen::Untouched, ImageInit::Systemd) => Chosen::Systemd,
        (Chosen::Untouched, ImageInit::OpenRc) => Chosen::OpenRc,
        (Chosen::Untouched, ImageInit::Busybox) => Chosen::Busybox,
        (chosen, _) => chosen,
    };
    for tty in consoles {
        let what = format!("a console on {tty}");
        match chosen {
            Chosen::Systemd => {
                let unit = UNITS.into_iter().find(|unit| is_file(image, unit));
                let unit = setting(
                    what,
                    unit.ok_or(SettingError::NoProgram {
                        program: "serial-getty@.service",
                        package: "systemd (Debian and Ubuntu), or choose another --init",
                    }),
                )?;
                let link = format!("etc/systemd/system/getty.target.wants/serial-getty@{tty}.service");
                planner.add(&link, 0o777, EntryKind::Symlink(format!("/{unit}").into_bytes()))?;
            }
            Chosen::OpenRc if starts_by_itself(image) => {
                let script = format!("/etc/init.d/agetty.{tty}");
                planner.add(
                    &script[1..],
                    0o777,
                    EntryKind::Symlink(b"/etc/init.d/agetty".to_vec()),
                )?;
                let link = format!("etc/runlevels/default/agetty.{tty}");
                planner.add(&link, 0o777, EntryKind::Symlink(script.into_bytes()))?;
            }
            Chosen::OpenRc | Chosen::Busybox => inittab(planner, tty, image, &what)?,
            Chosen::Guest | Chosen::Untouched => {
                setting(what, Err(SettingError::NoConsole { instead: chosen }))?;
            }
        }
    }
    Ok(())
}

/// Whether OpenRC is PID 1 itself, and reads no inittab.
fn starts_by_itself(image: &Image<'_>) -> bool {
    let own = matches!(resolve(image, b"sbin/init"), Resolved::Found(path, LowerKind::Other) if path.ends_with(b"openrc-init"));
    (own || !is_file(image, "sbin/init")) && is_file(image, "etc/init.d/agetty")
}

/// A line of the inittab, which busybox and System V's init read each in their own way.
fn inittab(
    planner: &mut Planner<'_, '_>,
    tty: &Tty,
    image: &Image<'_>,
    what: &str,
) -> Result<(), CustomiseError> {
    let getty = GETTY.into_iter().find(|path| is_file(image, path));
    let getty = setting(
        what,
        getty.ok_or(SettingError::NoProgram {
            program: "getty",
            package: "busybox (Alpine), util-linux (Debian)",
        }),
    )?;
    let (real, found) = setting(what, files::existing(planner, image, "etc/inittab"))?;
    let (meta, mut text) = found.unwrap_or_default();
    let is_busybox = matches!(resolve(image, b"sbin/init"), Resolved::Found(path, _) if path.ends_with(b"busybox"))
        || planner.made(b"etc/inittab").is_some();
    let id: String = tty
        .as_str()
        .chars()
        .rev()
        .take(4)
        .collect::<String>()
        .chars()
        .rev()
        .collect();
    let line = match is_busybox {
        true => format!("{tty}::respawn:/{getty} -L {tty} 115200 vt100\n"),
        false => format!("{id}:2345:respawn:/{getty} -L {tty} 115200 vt100\n"),
    };
    let has = |text: &[u8]| {
        let mut lines = text.split(|&byte| byte == b'\n');
        let wanted = format!(" {tty} ");
        lines.any(|line| {
            !line.starts_with(b"#") && line.windows(wanted.len()).any(|at| at == wanted.as_bytes())
        })
    };
    if has(&text) {
        return Ok(());
    }
    if text.last().is_some_and(|&byte| byte != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(line.as_bytes());
    files::edited(planner, real, meta, text)
}
