//! What a recipe says, whatever text it was written in.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use firebrick_customise::{Owner, PasswordHash, Settings};

/// A distribution that images can be made of by its own tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
    /// Alpine.
    Alpine,
}

impl Base {
    /// All of them.
    pub const ALL: [Base; 3] = [Base::Debian, Base::Ubuntu, Base::Alpine];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Base::Debian => "debian",
            Base::Ubuntu => "ubuntu",
            Base::Alpine => "alpine",
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Base, String> {
        let found = Base::ALL.into_iter().find(|base| base.name() == text);
        found.ok_or_else(|| format!("{text:?} is no distribution: expected debian, ubuntu or alpine"))
    }
}

/// Where an image starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A container image.
    Image(String),
    /// A distribution's own packages.
    Packages(PackageSet),
    /// What another recipe makes: a shipped one's name, or a path that goes from this recipe's folder.
    Recipe(String),
}

/// A distribution, and where its packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageSet {
    /// Which.
    pub base: Base,
    /// Its release; the usual one where nothing is said.
    pub suite: Option<String>,
    /// Where to ask; the usual place where nothing is said.
    pub mirror: Option<String>,
    /// The point in time whose packages are meant, as the distribution's archive writes it.
    pub snapshot: Option<String>,
}

/// Packages to install, by the names that each distribution has for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packages {
    /// Those that have one name everywhere.
    pub all: Vec<String>,
    /// Those of one distribution. Where any is named here, the recipe is for those that are named only.
    pub of: BTreeMap<Base, Vec<String>>,
}

impl Packages {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.of.values().all(Vec::is_empty)
    }

    /// Those for a distribution; `None` where the recipe is not for it.
    pub fn on(&self, base: Base) -> Option<Vec<String>> {
        let own = self.of.get(&base);
        if own.is_none() && !self.of.is_empty() {
            return None;
        }
        Some(
            self.all
                .iter()
                .chain(own.into_iter().flatten())
                .cloned()
                .collect(),
        )
    }
}

/// Something that is done to the image, at a place of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The line where it stands, from 1.
    pub line: usize,
    /// What.
    pub kind: StepKind,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// Something is put in.
    Copy {
        /// What.
        source: CopySource,
        /// Where, from the root without a leading slash; a slash at its end means into that folder.
        to: String,
        /// Permission bits.
        mode: Option<u16>,
        /// Whose it becomes.
        owner: Option<Owner>,
    },
    /// A program runs.
    Run {
        /// Which.
        command: Command,
        /// Variables, in order, that it has beside those of the image that the recipe starts from.
        env: Vec<(String, String)>,
        /// Who runs it; the user of the image that the recipe starts from where nothing is said.
        user: Option<String>,
        /// Where it starts; the folder of the image that the recipe starts from where nothing is said.
        workdir: Option<String>,
        /// Whether it may use the network; as the command line says where nothing is said.
        network: Option<bool>,
        /// How long it may take, in seconds.
        timeout_secs: Option<u64>,
    },
}

/// What is put into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A file or folder, from the folder of the recipe; `*`, `?` and `[…]` as shells have them.
    Path(String),
    /// A text that stands in the recipe.
    Text(String),
    /// A symbolic link to this.
    Link(String),
    /// A folder with nothing in it.
    Folder,
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A script for `/bin/sh`, which ends at the first command that fails.
    Shell(String),
    /// A program and its words.
    Exec(Vec<String>),
}

/// How root's password is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootPassword {
    /// Whoever builds is asked.
    Ask,
    /// As a hash.
    Hash(PasswordHash),
}

/// A recipe. What is not said is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// What the image is, for people.
    pub description: Option<String>,
    /// The image's name.
    pub name: Option<String>,
    /// Where it starts.
    pub from: Option<From>,
    /// What is installed before any step.
    pub packages: Packages,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Variables of the image, in order.
    pub env: Vec<(String, String)>,
    /// Who runs the image's program.
    pub user: Option<String>,
    /// Where it starts.
    pub workdir: Option<String>,
    /// The program that always runs.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the program.
    pub cmd: Option<Vec<String>>,
    /// The signal that ends it.
    pub stop_signal: Option<String>,
    /// What is set in the image; its files are among the steps.
    pub settings: Settings,
    /// Root's password.
    pub root_password: Option<RootPassword>,
    /// Options of `rootfs from-docker` by their long names, without dashes; `true` for those that take no value.
    pub options: BTreeMap<&'static str, String>,
    /// What of the text has no meaning for an image, in sentences.
    pub notes: Vec<String>,
}

impl Recipe {
    /// Lays this recipe over the one that it starts from: what it says counts, lists go on.
    #[must_use]
    pub fn over(self, base: Recipe) -> Recipe {
        let mut packages = base.packages;
        packages.all.extend(self.packages.all);
        for (of, names) in self.packages.of {
            packages.of.entry(of).or_default().extend(names);
        }
        let joined_env = joined_variables(&base.env, self.env);
        // A program of its own has no arguments from elsewhere.
        let cmd = match self.entrypoint {
            Some(_) => self.cmd,
            None => self.cmd.or(base.cmd),
        };
        let mut own = self.steps;
        lay_below(&mut own, &base.env, base.user.as_ref(), base.workdir.as_ref());
        Recipe {
            description: self.description.or(base.description),
            name: self.name.or(base.name),
            from: base.from,
            packages,
            steps: joined(base.steps, own),
            env: joined_env,
            user: self.user.or(base.user),
            workdir: self.workdir.or(base.workdir),
            entrypoint: self.entrypoint.or(base.entrypoint),
            cmd,
            stop_signal: self.stop_signal.or(base.stop_signal),
            settings: settings_over(self.settings, base.settings),
            root_password: self.root_password.or(base.root_password),
            options: base.options.into_iter().chain(self.options).collect(),
            notes: joined(base.notes, self.notes),
        }
    }
}

/// Gives commands the variables, user and folder of what lies below them, where they do not say otherwise.
pub(crate) fn lay_below(
    steps: &mut [Step],
    below: &[(String, String)],
    below_user: Option<&String>,
    below_workdir: Option<&String>,
) {
    for step in steps {
        if let StepKind::Run {
            env, user, workdir, ..
        } = &mut step.kind
        {
            *env = joined_variables(below, std::mem::take(env));
            *user = user.take().or_else(|| below_user.cloned());
            *workdir = workdir.take().or_else(|| below_workdir.cloned());
        }
    }
}

fn joined_variables(base: &[(String, String)], over: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut all = base.to_vec();
    for (name, value) in over {
        all.retain(|(other, _)| *other != name);
        all.push((name, value));
    }
    all
}

fn joined<T>(mut first: Vec<T>, second: Vec<T>) -> Vec<T> {
    first.extend(second);
    first
}

fn settings_over(over: Settings, base: Settings) -> Settings {
    let or = |over: Vec<String>, base: Vec<String>| if over.is_empty() { base } else { over };
    let mut modules = base.modules;
    for module in over.modules {
        if !modules.contains(&module) {
            modules.push(module);
        }
    }
    Settings {
        hostname: over.hostname.or(base.hostname),
        dns: over.dns.or(base.dns),
        modules,
        consoles: if over.consoles.is_empty() {
            base.consoles
        } else {
            over.consoles
        },
        root_password: over.root_password.or(base.root_password),
        groups: joined(base.groups, over.groups),
        users: joined(base.users, over.users),
        fstab: or(over.fstab, base.fstab),
        interfaces: if over.interfaces.is_empty() {
            base.interfaces
        } else {
            over.interfaces
        },
        files: joined(base.files, over.files),
        slim: base.slim.union(&over.slim).copied().collect(),
    }
}
