//! The flags of `firebrick rootfs create`.

use std::path::PathBuf;

use clap::ValueEnum;
use firebrick_bootstrap::{Base, PackageSet, Snapshot};
use firebrick_customise::NewFile;
use firebrick_recipe::{Checks, languages, shipped};
use firebrick_source::Platform;

use crate::commands::rootfs::build::files;
use crate::commands::rootfs::making::{ImageArgs, Limits, Script};
use crate::error::CliError;
use crate::images;
use crate::language::Language;

/// Turn a distribution's packages into an image that a microVM boots
///
/// Debian and Ubuntu are installed by mmdebstrap, Alpine by its own apk; neither needs root. The result replaces the image of that
/// name, if there is one, in one step; its path is printed on stdout.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install what this language needs; names the image, too, unless -n does
    #[arg(short, long, value_name = "LANG", required_unless_present = "name", value_parser = parse_language)]
    pub(crate) lang: Option<String>,

    /// Name of the image: it becomes rootfs-NAME.ext4, or .squashfs
    #[arg(short, long, value_parser = images::parse_new_name)]
    pub(crate) name: Option<String>,

    /// The distribution
    #[arg(short, long, value_enum, default_value_t = BaseChoice::Debian)]
    pub(crate) base: BaseChoice,

    /// Packages to install beside those that every system of the base has, separated by commas
    #[arg(short, long, value_name = "PKG", value_delimiter = ',')]
    pub(crate) packages: Vec<String>,

    #[command(flatten)]
    pub(crate) archive: ArchiveArgs,

    #[command(flatten)]
    pub(crate) script: Script,

    #[command(flatten)]
    pub(crate) made: ImageArgs,

    #[command(flatten)]
    pub(crate) limits: Limits,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Archive")]
pub(crate) struct ArchiveArgs {
    /// The release [default: bookworm, noble or v3.22]
    #[arg(long)]
    suite: Option<String>,

    /// Take packages from here; may be given several times [default: this host's own mirror, or the usual one]
    ///
    /// For Debian and Ubuntu an address, which must have the suite, or a whole line as in sources.list, such as
    /// `deb http://mirror.example/debian-security bookworm-security main`. For Alpine the address that the suite's name follows.
    #[arg(long, value_name = "URL")]
    mirror: Vec<String>,

    /// The archive as it was at this time, e.g. 20250520T000000Z or 2025-05-20 (Debian and Ubuntu)
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    snapshot: Option<Snapshot>,

    /// Parts of the archive, separated by commas [default: main; main,universe; main,community]
    #[arg(long, value_name = "NAME", value_delimiter = ',', hide_short_help = true)]
    components: Vec<String>,

    /// Install for this platform instead of this machine's, e.g. linux/arm64
    ///
    /// The scripts of packages run here: that wants qemu-user-static and binfmt-support for another processor.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", hide_short_help = true)]
    platform: Option<Platform>,

    /// Trust these keys: a keyring file for Debian and Ubuntu, a folder of *.pub files for Alpine
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    keys: Option<PathBuf>,

    /// Take packages that nobody has signed: whoever answers for the mirror decides what is installed
    #[arg(long, hide_short_help = true)]
    insecure_mirror: bool,

    /// Alpine's base system, instead of the one that the mirror offers
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    minirootfs: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BaseChoice {
    /// Small, with musl and busybox
    Alpine,
    /// With glibc, and every package there is
    Debian,
    /// As Debian, by Canonical
    Ubuntu,
}

impl From<BaseChoice> for Base {
    fn from(choice: BaseChoice) -> Base {
        match choice {
            BaseChoice::Alpine => Base::Alpine,
            BaseChoice::Debian => Base::Debian,
            BaseChoice::Ubuntu => Base::Ubuntu,
        }
    }
}

/// A language that has packages, by its own name.
fn parse_language(word: &str) -> Result<String, String> {
    let own = Language::named(word).map_or(word, |language| language.name);
    match languages().find(|name| *name == own) {
        Some(name) => Ok(name.to_owned()),
        None => {
            let names: Vec<&str> = languages().collect();
            Err(format!(
                "there are: {}; -n NAME -p PACKAGES is for anything else",
                names.join(", ")
            ))
        }
    }
}

/// What the recipe of a language installs on a base; `None` where that base has no packages of it.
fn packages_of(lang: &str, base: Base) -> Option<Vec<String>> {
    let recipe = shipped(lang)?.recipe(&Checks::default()).ok()?;
    let packages = recipe.packages.on(base.name().parse().ok()?)?;
    Some(packages).filter(|packages| !packages.is_empty())
}

/// The files that the recipe of a language puts in. It has no folder that more could come from.
fn files_of(lang: &str) -> Vec<NewFile> {
    let recipe = shipped(lang).and_then(|shipped| shipped.recipe(&Checks::default()).ok());
    let steps = recipe.map(|recipe| recipe.steps).unwrap_or_default();
    steps
        .iter()
        .filter_map(|step| files::inline(&step.kind))
        .collect()
}

impl Args {
    /// What is put into the image beside packages.
    pub(crate) fn files(&self) -> Vec<NewFile> {
        self.lang.as_deref().map(files_of).unwrap_or_default()
    }

    /// What the image is called.
    pub(crate) fn image_name(&self) -> &str {
        self.name.as_deref().or(self.lang.as_deref()).unwrap_or_default()
    }

    /// What is to be installed.
    pub(crate) fn package_set(&self) -> Result<PackageSet, CliError> {
        let base = Base::from(self.base);
        let mut set = PackageSet::new(base);
        if let Some(lang) = &self.lang {
            let packages = packages_of(lang, base).ok_or_else(|| CliError::NotOnBase {
                lang: lang.clone(),
                base: base.name(),
            })?;
            set.packages.extend(packages);
        }
        let archive = &self.archive;
        // `-p a,,b` and `-p ""` come from scripts whose variables are empty.
        set.packages.extend(
            self.packages
                .iter()
                .filter(|package| !package.is_empty())
                .cloned(),
        );
        if let Some(suite) = &archive.suite {
            set.suite.clone_from(suite);
        }
        set.mirrors.clone_from(&archive.mirror);
        set.snapshot.clone_from(&archive.snapshot);
        if !archive.components.is_empty() {
            set.components.clone_from(&archive.components);
        }
        if let Some(platform) = &archive.platform {
            set.platform = platform.clone();
        }
        set.keys.clone_from(&archive.keys);
        set.insecure = archive.insecure_mirror;
        set.minirootfs.clone_from(&archive.minirootfs);
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        let words = ["create"].iter().chain(words);
        <Command as clap::Parser>::try_parse_from(words)
            .map(|command| command.args)
            .unwrap()
    }

    #[test]
    fn a_language_brings_its_packages_and_its_name() {
        let python = args(&["-l", "py", "-p", "curl,,git", "--suite", "trixie"]);
        assert_eq!(python.image_name(), "python");
        let set = python.package_set().unwrap();
        let (own, more) = set.packages.split_at(set.packages.len() - 2);
        assert!(own.contains(&"python3".to_owned()), "{own:?}");
        assert_eq!(more, ["curl", "git"]);
        assert_eq!((set.base, set.suite.as_str()), (Base::Debian, "trixie"));
        let named = args(&["-l", "go", "-n", "mine", "-b", "alpine"]);
        assert_eq!(named.image_name(), "mine");
        let set = named.package_set().unwrap();
        assert!(set.packages.contains(&"musl-dev".to_owned()), "{set:?}");
        let paths = |words: &[&str]| -> Vec<(String, Option<u16>)> {
            let files = args(words).files().into_iter();
            files.map(|file| (file.path, file.mode)).collect()
        };
        assert_eq!(paths(&["-l", "py"]), [("usr/bin/python".to_owned(), None)]);
        assert_eq!(
            paths(&["-l", "dotnet", "-b", "ubuntu"]),
            [("usr/local/bin/csharp-run".to_owned(), Some(0o755))]
        );
        assert_eq!(paths(&["-n", "x", "-p", "git"]), []);
        // Nothing of a recipe is left out that could be in.
        for name in languages() {
            let steps = shipped(name).unwrap().recipe(&Checks::default()).unwrap().steps;
            assert_eq!(paths(&["-l", name, "-b", "alpine"]).len(), steps.len(), "{name}");
        }
        assert!(<Command as clap::Parser>::try_parse_from(["create"]).is_err());
        assert!(<Command as clap::Parser>::try_parse_from(["create", "-l", "cobol"]).is_err());
        for name in languages() {
            for base in ["alpine", "debian", "ubuntu"] {
                let set = args(&["-l", name, "-b", base]).package_set();
                assert_eq!(
                    set.is_err(),
                    (name, base) == ("dotnet", "debian"),
                    "{name} {base}"
                );
            }
        }
    }
}
