//! The agent as a service of the image's own init: the files that each of them reads.
//!
//! All start `firebrick-guest --agent --everywhere`, start it again when it fails, and give up for a while when it fails too
//! often: two seconds apart, five times a minute, as bouvet's hosts know it. `docs/init.md` shows what each is for.

use std::str::FromStr;

use crate::GUEST_PATH;
use crate::settings::Owner;

/// How the agent runs under an init that is not the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Who it becomes once it listens; root otherwise.
    pub user: Option<AgentUser>,
    /// Under systemd: boot to the agent and leave the rest out.
    pub minimal: bool,
}

/// A user of the image: `name` or `uid`, maybe with `:group` or `:gid` behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentUser(String);

/// A text that names no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no user: expected NAME, UID, NAME:GROUP or UID:GID")]
pub struct UnknownUser {
    text: String,
}

impl AgentUser {
    /// The same for whoever looks in the image's accounts.
    pub(crate) fn owner(&self) -> Owner {
        let (user, group) = match self.0.split_once(':') {
            Some((user, group)) => (user, Some(group.to_owned())),
            None => (&*self.0, None),
        };
        Owner {
            user: user.to_owned(),
            group,
        }
    }
}

impl FromStr for AgentUser {
    type Err = UnknownUser;

    fn from_str(text: &str) -> Result<AgentUser, UnknownUser> {
        // The text stands in unit files and shell scripts.
        let is_name = |part: &str| {
            let letters = part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            letters && !part.is_empty() && !part.starts_with('-')
        };
        match text.split_once(':') {
            Some((user, group)) if is_name(user) && is_name(group) => {}
            None if is_name(text) => {}
            _ => {
                return Err(UnknownUser {
                    text: text.to_owned(),
                });
            }
        }
        Ok(AgentUser(text.to_owned()))
    }
}

/// A file or symlink of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ServiceFile {
    /// Path, mode, content.
    File(&'static str, u16, String),
    /// Path, target.
    Link(&'static str, &'static str),
}

impl Service {
    fn arguments(&self) -> String {
        match &self.user {
            Some(user) => format!("--agent --everywhere --user {}", user.0),
            None => "--agent --everywhere".to_owned(),
        }
    }

    /// A unit, enabled by symlink; a target of its own where little else is to run.
    pub(crate) fn systemd(&self) -> Vec<ServiceFile> {
        let arguments = self.arguments();
        let ordering = match self.minimal {
            // Without its defaults a unit waits for nothing but what is named here.
            true => {
                "DefaultDependencies=no\nAfter=local-fs.target systemd-modules-load.service\n\
                 Conflicts=shutdown.target\nBefore=shutdown.target\n"
            }
            false => "After=systemd-modules-load.service\n",
        };
        let unit = format!(
            "[Unit]\nDescription=firebrick agent\n{ordering}StartLimitIntervalSec=60\nStartLimitBurst=5\n\n\
             [Service]\nType=simple\nExecStart=/{GUEST_PATH} {arguments}\nRestart=on-failure\nRestartSec=2\n\
             StandardOutput=journal+console\nStandardError=journal+console\n\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        let mut files = vec![
            ServiceFile::File("etc/systemd/system/firebrick-agent.service", 0o644, unit),
            ServiceFile::Link(
                "etc/systemd/system/multi-user.target.wants/firebrick-agent.service",
                "../firebrick-agent.service",
            ),
        ];
        if self.minimal {
            let target = "[Unit]\nDescription=firebrick agent and little else\nDefaultDependencies=no\n\
                          Requires=local-fs.target\nAfter=local-fs.target\n\
                          Wants=firebrick-agent.service systemd-journald.service systemd-modules-load.service\n\
                          Wants=systemd-tmpfiles-setup.service\n\
                          Conflicts=rescue.target rescue.service shutdown.target\nAllowIsolate=yes\n";
            files.extend([
                ServiceFile::File("etc/systemd/system/firebrick.target", 0o644, target.to_owned()),
                ServiceFile::Link("etc/systemd/system/default.target", "firebrick.target"),
            ]);
        }
        files
    }

    /// A service of the default runlevel, under `supervise-daemon`.
    pub(crate) fn openrc(&self) -> Vec<ServiceFile> {
        let arguments = self.arguments();
        let script = format!(
            "#!/sbin/openrc-run\n\ndescription=\"firebrick agent\"\nsupervisor=supervise-daemon\n\
             command=/{GUEST_PATH}\ncommand_args=\"{arguments}\"\n\
             respawn_delay=2\nrespawn_max=5\nrespawn_period=60\n\
             output_log=/dev/console\nerror_log=/dev/console\n\n\
             depend() {{\n\tafter localmount modules bootmisc hostname\n}}\n\n\
             # What the image's runlevels leave out: /dev/pts, a name, lo, ip= of the kernel command line, modules-load.d.\n\
             start_pre() {{\n\t/{GUEST_PATH} --set-up\n}}\n"
        );
        vec![
            ServiceFile::File("etc/init.d/firebrick-agent", 0o755, script),
            ServiceFile::Link(
                "etc/runlevels/default/firebrick-agent",
                "/etc/init.d/firebrick-agent",
            ),
        ]
    }

    /// An inittab in the place of the image's, whose lines nobody can read here.
    pub(crate) fn busybox(&self, has_rc: bool) -> Vec<ServiceFile> {
        let arguments = self.arguments();
        let rc = if has_rc { "::sysinit:/etc/init.d/rcS\n" } else { "" };
        let inittab = format!(
            "::sysinit:/{GUEST_PATH} --set-up\n{rc}::respawn:/{GUEST_PATH} {arguments}\n\
             ::ctrlaltdel:/bin/busybox reboot\n::shutdown:/bin/busybox umount -a -r\n"
        );
        vec![ServiceFile::File("etc/inittab", 0o644, inittab)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_names_and_numbers_only() {
        for good in ["nex", "1000", "1000:1000", "nex:staff", "_apt", "a.b-c"] {
            assert_eq!(good.parse::<AgentUser>().unwrap().0, good);
        }
        for bad in [
            "", ":", "nex:", ":1", "a b", "a\nb", "$(id)", "-x", "a:b:c", "é", "\"", "a;b",
        ] {
            assert!(bad.parse::<AgentUser>().is_err(), "{bad:?}");
        }
    }

    /// Judged by systemd itself where the host has it.
    #[test]
    fn systemd_finds_nothing_wrong_with_the_units() {
        let skips = std::env::var_os("FIREBRICK_SKIP_ORACLES").is_some_and(|value| value == "1");
        if skips {
            return;
        }
        for minimal in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let service = Service {
                user: Some("1000:1000".parse().unwrap()),
                minimal,
            };
            let mut units = Vec::new();
            for file in service.systemd() {
                let ServiceFile::File(path, _, text) = file else {
                    continue;
                };
                let path = dir.path().join(path.rsplit('/').next().unwrap());
                // It looks whether the program is there.
                std::fs::write(&path, text.replace(&format!("/{GUEST_PATH}"), "/bin/true")).unwrap();
                units.push(path);
            }
            assert_eq!(units.len(), if minimal { 2 } else { 1 });
            let output = std::process::Command::new("systemd-analyze")
                .args(["verify", "--recursive-errors=no"])
                .args(&units)
                .output()
                .expect("systemd-analyze (Debian package systemd)");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("firebrick"), "{said}");
        }
    }

    #[test]
    fn a_shell_finds_nothing_wrong_with_the_script() {
        let service = Service {
            user: Some("nex".parse().unwrap()),
            minimal: false,
        };
        let files = service.openrc();
        let ServiceFile::File(_, 0o755, script) = &files[0] else {
            panic!("{files:?}");
        };
        assert!(script.contains("command_args=\"--agent --everywhere --user nex\""));
        let checked = std::process::Command::new("sh")
            .args(["-n", "-c", script])
            .status()
            .unwrap();
        assert!(checked.success());
    }
}
