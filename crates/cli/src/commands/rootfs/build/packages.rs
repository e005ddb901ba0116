//! Packages on top of a container image: one step before all others, in which the image's own package manager installs them.
//!
//! Which that is, only the image knows, and it is not looked into before the step is known not to be cached. So the step is a script
//! that looks for itself, and in which the names of every distribution stand; it says in its last line what it did not find.

use firebrick_bootstrap::FORGET_KEYSTORE_TIMES;
use firebrick_recipe::{Base, Packages};
use firebrick_sandbox::{Run, SandboxError, Step};
use firebrick_source::ImageConfig;
use firebrick_tree::Timestamp;

use crate::recipes::RecipeFault;
use crate::steps;
use crate::text;

/// What every line starts with that the script says to us, and its exit code then.
const MARK: &str = "firebrick-packages:";
const MARK_CODE: i32 = 65;

/// How much of the names stands in the step's name.
const NAMES_LEN_MAX: usize = 48;

/// Finds the distribution and its package manager; `NAMES` sets the arguments.
const SCRIPT: &str = r#"
say() { echo "MARK $*" >&2; exit 65; }
have() { command -v "$1" > /dev/null 2>&1; }
PATH=${PATH-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
of() { set +eu; . /etc/os-release; echo "${ID-} ${ID_LIKE-}"; }
ids=
[ ! -r /etc/os-release ] || ids=$(of 2> /dev/null) || ids=
base=
for id in $ids; do
    case $id in
        alpine | debian | ubuntu) base=$id; break ;;
    esac
done
case $base in
    alpine) manager=apk ;;
    debian | ubuntu) manager=apt-get ;;
    *) if have apt-get; then base=debian manager=apt-get; else base=alpine manager=apk; fi ;;
esac
if ! have $manager; then
    for other in dnf microdnf tdnf yum zypper pacman xbps-install emerge opkg apk apt-get; do
        ! have $other || say other $other
    done
    say none
fi
case $base in
NAMES
esac
[ $# -gt 0 ] || exit 0

# What differs each time: beside the image's own, and gone in the end.
work=/var/cache/firebrick-packages
rm -rf $work
mkdir -p $work/lists $work/cache/archives $work/log $work/kept
logs="/var/log/alternatives.log /var/log/apk.log"
for log in $logs; do
    [ ! -f $log ] || mv $log $work/kept/
done
id=/etc/machine-id bus=/var/lib/dbus/machine-id
[ ! -s $id ] || id=
[ ! -e $bus ] || bus=
policy=/usr/sbin/policy-rc.d
if [ $manager = apk ]; then
    apk add --no-cache --no-progress -- "$@"
else
    # Nothing that is installed starts here.
    if [ -e $policy ]; then policy=; else
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod 755 $policy
    fi
    get() {
        apt-get -q -y -o Dir::State::lists=$work/lists -o Dir::Cache=$work/cache -o Dir::Log=$work/log \
            -o APT::Update::Error-Mode=any -o APT::Cmd::Pattern-Only=true -o Acquire::Languages=none \
            -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--log=$work/log/dpkg.log \
            -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
    }
    store=/etc/ssl/certs/java/cacerts
    before=$(cksum 2> /dev/null < $store) || before=
    get update
    get --no-install-recommends install -- "$@"
    if [ -e $store ] && [ "$(cksum < $store)" != "$before" ]; then
KEYSTORE
    fi
    [ -z "$policy" ] || rm -f $policy
fi
for log in $logs; do
    rm -f $log
    [ ! -f $work/kept/${log##*/} ] || mv $work/kept/${log##*/} $log
done
# A machine's own identity is not an image's.
if [ -n "$id" ] && [ -s $id ]; then : > $id; fi
rm -rf $work /var/cache/ldconfig/aux-cache $bus
"#;

/// The packages that a recipe wants on its image.
pub(super) struct OnImage<'a> {
    recipe: &'a str,
    name: String,
    script: String,
    /// `2 packages`.
    pub(super) count: String,
}

impl<'a> OnImage<'a> {
    pub(super) fn new(recipe: &'a str, packages: &Packages) -> OnImage<'a> {
        let bases: Vec<(Base, Option<Vec<String>>)> = Base::ALL
            .into_iter()
            .map(|base| (base, packages.on(base)))
            .collect();
        // For people: the same names everywhere, most often.
        let mut lists = bases.iter().filter_map(|(_, names)| names.as_deref());
        let first = lists.next().unwrap_or_default();
        let same = lists.all(|names| names == first);
        let count = match same {
            true => text::count(u64::try_from(first.len()).unwrap_or(u64::MAX), "package"),
            false => "packages".to_owned(),
        };
        let mut names: String = first.join(" ").chars().take(NAMES_LEN_MAX).collect();
        if names.len() < first.join(" ").len() {
            names.push('…');
        }
        OnImage {
            recipe,
            name: match same {
                true => format!("installing {count} ({names})"),
                false => "installing packages".to_owned(),
            },
            script: script(&bases),
            count,
        }
    }

    /// As the image's root, whoever else runs in it, and with a network: that is what packages are asked for with.
    pub(super) fn step(&self, config: &ImageConfig, created: Timestamp) -> Step {
        Step {
            name: self.name.clone(),
            run: Run::Command(
                ["/bin/sh", "-eu", "-c", &self.script, "packages"]
                    .map(str::to_owned)
                    .to_vec(),
            ),
            env: steps::environment(&config.env, created),
            network_env: steps::network_environment(),
            user: String::new(),
            workdir: String::new(),
            network: true,
            time: None,
        }
    }

    /// Says what the script's last line means, if the error is of it.
    pub(super) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        use firebrick_sandbox::Outcome;
        let Some(SandboxError::Step {
            step, outcome, tail, ..
        }) = error.downcast_ref()
        else {
            return error;
        };
        if *step != self.name {
            return error;
        }
        let recipe = self.recipe.to_owned();
        let told = tail.lines().last().and_then(|line| line.strip_prefix(MARK));
        let fault = match (outcome, told.map(str::trim)) {
            (Outcome::NotStarted(why), _) if why.starts_with("/bin/sh: ") && !why.contains("Exec format") => {
                RecipeFault::NoPackageManager { recipe, found: None }
            }
            (Outcome::Exited(MARK_CODE), Some("none")) => {
                RecipeFault::NoPackageManager { recipe, found: None }
            }
            (Outcome::Exited(MARK_CODE), Some(told)) => {
                let (word, what) = told.split_once(' ').unwrap_or((told, ""));
                match (word, Base::ALL.into_iter().find(|base| base.name() == what)) {
                    ("unnamed", Some(base)) => RecipeFault::NotOnBase {
                        recipe,
                        base: base.name(),
                    },
                    ("other", _) => RecipeFault::NoPackageManager {
                        recipe,
                        found: Some(what.to_owned()),
                    },
                    _ => return error,
                }
            }
            _ => return error,
        };
        fault.into()
    }
}

/// The script with the names of each distribution; `None` where the recipe is not for it.
fn script(bases: &[(Base, Option<Vec<String>>)]) -> String {
    let arm = |(base, names): &(Base, Option<Vec<String>>)| match names {
        // The recipe's reader lets nothing through that a shell would take for more than a word within quotes.
        Some(names) => {
            let words: Vec<String> = names.iter().map(|name| format!(" '{name}'")).collect();
            format!("    {base}) set --{} ;;", words.concat())
        }
        None => format!("    {base}) say unnamed {base} ;;"),
    };
    let arms: Vec<String> = bases.iter().map(arm).collect();
    SCRIPT
        .replace("MARK", MARK)
        .replace("KEYSTORE", FORGET_KEYSTORE_TIMES)
        .replace("NAMES", &arms.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn packages(all: &[&str], of: &[(Base, &[&str])]) -> Packages {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        Packages {
            all: list(all),
            of: of
                .iter()
                .map(|(base, names)| (*base, list(names)))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    /// Which distribution the script takes a root for, what it would install, and how it ends: its head, on a host's shell.
    fn chosen(packages: &Packages, os_release: &str, programs: &[&str]) -> String {
        let root = tempfile::tempdir().expect("a folder");
        let release = root.path().join("os-release");
        fs::write(&release, os_release).expect("a file");
        for program in programs {
            let path = root.path().join(program);
            fs::write(&path, "").expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        let of = OnImage::new("r", packages);
        let (head, _) = of.script.split_once("# What differs").expect("a head");
        let head = head
            .replace("/etc/os-release", release.to_str().expect("text"))
            .replace(
                "PATH=${PATH-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
                "",
            );
        let output = Command::new("/bin/sh")
            .args([
                "-eu",
                "-c",
                &format!("{head}\necho $manager $base: $*"),
                "packages",
            ])
            .env_clear()
            .env("PATH", root.path())
            .output()
            .expect("a shell");
        let said = [output.stdout, output.stderr].concat();
        format!(
            "{} {}",
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&said).trim()
        )
    }

    #[test]
    fn the_image_decides_which_names_count() {
        let same = packages(&["git", "jq"], &[]);
        let table = packages(
            &["git"],
            &[(Base::Alpine, &["py3-pip"]), (Base::Debian, &["python3-pip"])],
        );
        for (packages, release, programs, told) in [
            (&same, "ID=debian\n", &["apt-get"][..], "0 apt-get debian: git jq"),
            (&same, "ID=\"alpine\"\n", &["apk"], "0 apk alpine: git jq"),
            (
                &same,
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                &["apt-get"],
                "0 apt-get ubuntu: git jq",
            ),
            (&same, "ID=wolfi\n", &["apk"], "0 apk alpine: git jq"),
            (&same, "", &["apt-get"], "0 apt-get debian: git jq"),
            (&same, "ID='broken\n(\n", &["apt-get"], "0 apt-get debian: git jq"),
            (
                &same,
                "ID=fedora\nID_LIKE=\n",
                &["dnf"],
                "65 firebrick-packages: other dnf",
            ),
            (&same, "ID=debian\n", &[], "65 firebrick-packages: none"),
            (
                &same,
                "ID=alpine\n",
                &["apt-get"],
                "65 firebrick-packages: other apt-get",
            ),
            (&table, "ID=alpine\n", &["apk"], "0 apk alpine: git py3-pip"),
            (
                &table,
                "ID=debian\n",
                &["apt-get"],
                "0 apt-get debian: git python3-pip",
            ),
            (
                &table,
                "ID=ubuntu\nID_LIKE=debian\n",
                &["apt-get"],
                "65 firebrick-packages: unnamed ubuntu",
            ),
        ] {
            assert_eq!(chosen(packages, release, programs), told, "{release}");
        }
        let none = packages(&[], &[(Base::Debian, &[]), (Base::Alpine, &["git"])]);
        assert_eq!(
            chosen(&none, "ID=debian\n", &["apt-get"]),
            "0 ",
            "there is nothing to do"
        );
    }

    #[test]
    fn steps_are_named_by_what_they_install() {
        let name = |packages: &Packages| OnImage::new("r", packages).name;
        assert_eq!(name(&packages(&["jq"], &[])), "installing 1 package (jq)");
        let long = ["long-name-of-a-package"; 4];
        assert_eq!(
            name(&packages(&long, &[])),
            "installing 4 packages (long-name-of-a-package long-name-of-a-package lo…)"
        );
        assert_eq!(
            name(&packages(&[], &[(Base::Alpine, &["a"]), (Base::Debian, &["b"])])),
            "installing packages"
        );
    }

    #[test]
    fn only_its_own_last_line_is_taken_for_one() {
        use firebrick_sandbox::Outcome;
        let of = OnImage::new("r", &packages(&["jq"], &[]));
        let explained = |step: &str, outcome, tail: &str| {
            let error = SandboxError::Step {
                step: step.to_owned(),
                network: true,
                outcome,
                tail: tail.to_owned(),
            };
            let error = of.explain(error.into());
            error.downcast_ref::<RecipeFault>().map(ToString::to_string)
        };
        let name = of.name.as_str();
        let none = "the image that the recipe \"r\" starts from has no package manager that firebrick knows";
        for (step, outcome, tail, told) in [
            (
                name,
                Outcome::Exited(65),
                "x\nfirebrick-packages: none",
                Some(none.to_owned()),
            ),
            (
                name,
                Outcome::NotStarted("/bin/sh: No such file or directory".into()),
                "",
                Some(none.to_owned()),
            ),
            (
                name,
                Outcome::Exited(65),
                "firebrick-packages: other dnf",
                Some(format!("{none}: it has dnf")),
            ),
            (name, Outcome::Exited(100), "firebrick-packages: none", None),
            (name, Outcome::Exited(65), "firebrick-packages: none\nx", None),
            (
                name,
                Outcome::Exited(65),
                "firebrick-packages: unnamed ../x",
                None,
            ),
            ("another", Outcome::Exited(65), "firebrick-packages: none", None),
        ] {
            assert_eq!(explained(step, outcome, tail), told, "{step} {tail}");
        }
    }

    #[test]
    fn the_script_is_one_for_plain_shells() {
        let of = OnImage::new("r", &packages(&["jq"], &[]));
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), &of.script).expect("a file");
        for shell in [&["dash", "-n"][..], &["busybox", "sh", "-n"]] {
            let Some((program, words)) = shell.split_first() else {
                continue;
            };
            if !Path::new("/bin").join(program).exists() {
                continue; // the other one is everywhere where tests run
            }
            let output = Command::new(program)
                .args(words)
                .arg(file.path())
                .output()
                .expect("a shell");
            assert!(
                output.status.success(),
                "{shell:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
