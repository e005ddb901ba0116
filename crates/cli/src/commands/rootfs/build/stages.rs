//! The steps of a recipe that come before the image itself: commands that run, and what is put in for them.
//!
//! ```text
//! packages │ COPY COPY RUN RUN │ COPY RUN │ COPY         a recipe's steps
//!   layer  │  layer    layers  │  …       │ the image's own settings
//! ```
//!
//! Packages on top of a container image come first, since commands may need them, and accounts may be theirs.
//! A *stage* is files, then commands. Its files become one layer, planned as the firebrick layer is; each of its commands runs over
//! all below and gives one more. What is put in after the last command goes into the firebrick layer, where all files go if there is
//! no command. Layers are kept in the cache of steps.

use std::ops::Range;
use std::time::Duration;

use firebrick_customise::{NewFile, Settings};
use firebrick_recipe::{Command, StepKind};
use firebrick_sandbox::{MadeLayer, Run, Step};
use firebrick_source::{ImageConfig, OciImage};

use super::files;
use super::packages::OnImage;
use crate::commands::rootfs::making::{StepArgs, put_in};
use crate::home::Home;
use crate::recipes::Loaded;
use crate::steps::{self, Running};
use crate::talk::{Steps, Talk};
use crate::text;

/// How much of a command stands in its name.
const NAME_LEN_MAX: usize = 48;

/// What is done before the image is made.
pub(super) struct Stages<'a> {
    loaded: &'a Loaded,
    packages: Option<OnImage<'a>>,
    stages: Vec<Stage>,
    /// The steps after the last command.
    rest: Range<usize>,
}

struct Stage {
    /// Accounts and files.
    settings: Settings,
    /// Which of the recipe's steps run.
    commands: Range<usize>,
}

impl<'a> Stages<'a> {
    /// Reads all files that commands need.
    pub(super) fn new(loaded: &'a Loaded, packages: Option<OnImage<'a>>) -> anyhow::Result<Stages<'a>> {
        let steps = &loaded.recipe.steps;
        let runs = |at: usize| matches!(steps.get(at).map(|step| &step.kind), Some(StepKind::Run { .. }));
        let mut stages = Vec::new();
        let mut at = 0;
        loop {
            let files = at..(at..steps.len()).find(|&at| runs(at)).unwrap_or(steps.len());
            let end = (files.end..steps.len())
                .find(|&at| !runs(at))
                .unwrap_or(steps.len());
            if files.end == end {
                let rest = files;
                return Ok(Stages {
                    loaded,
                    packages,
                    stages,
                    rest,
                });
            }
            let recipe = &loaded.recipe.settings;
            // Commands may be those of users who are added, and files theirs.
            let (groups, users) = match stages.is_empty() {
                true => (recipe.groups.clone(), recipe.users.clone()),
                false => Default::default(),
            };
            stages.push(Stage {
                settings: Settings {
                    groups,
                    users,
                    files: files::gather(loaded, files.clone())?,
                    ..Settings::default()
                },
                commands: files.end..end,
            });
            at = end;
        }
    }

    /// Whether nothing runs.
    pub(super) fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.packages.is_none()
    }

    /// The files that are put in after the last command.
    pub(super) fn rest(&self) -> anyhow::Result<Vec<NewFile>> {
        files::gather(self.loaded, self.rest.clone())
    }

    /// Does it all: the layers are added to the image, and can be read as long as what is given lives.
    pub(super) fn run(&self, doing: &Doing<'_>, image: &mut OciImage) -> anyhow::Result<Vec<MadeLayer>> {
        let mut made = Vec::new();
        if !self.is_empty() {
            // All together are one step of the build.
            doing.shown.begin(2, &self.announced());
            steps::say_limits(doing.home, doing.shown);
        }
        let mut packages = self.packages.as_ref();
        let has_files = |stage: &Stage| stage.settings != Settings::default();
        if self.stages.first().is_none_or(has_files)
            && let Some(packages) = packages.take()
        {
            made.extend(self.run_steps(doing, Some(packages), 0..0, image)?);
        }
        for stage in &self.stages {
            if has_files(stage) {
                made.push(put_in(&stage.settings, &doing.running, image, doing.home)?);
            }
            // What has nothing put in between runs in one copy.
            made.extend(self.run_steps(doing, packages.take(), stage.commands.clone(), image)?);
        }
        Ok(made)
    }

    /// `Installing 2 packages, running 3 commands`.
    fn announced(&self) -> String {
        let commands: usize = self.stages.iter().map(|stage| stage.commands.len()).sum();
        let commands = text::count(u64::try_from(commands).unwrap_or(u64::MAX), "command");
        match (&self.packages, self.stages.is_empty()) {
            (Some(packages), true) => format!("Installing {}", packages.count),
            (Some(packages), false) => format!("Installing {}, running {commands}", packages.count),
            (None, _) => format!("Running {commands}"),
        }
    }

    fn run_steps(
        &self,
        doing: &Doing<'_>,
        packages: Option<&OnImage<'_>>,
        commands: Range<usize>,
        image: &mut OciImage,
    ) -> anyhow::Result<Vec<MadeLayer>> {
        let own = packages.map(|packages| packages.step(doing.config, doing.running.created));
        let commands = self.loaded.recipe.steps[commands]
            .iter()
            .filter_map(|step| doing.step(step));
        let all: Vec<Step> = own.into_iter().chain(commands).collect();
        let running = Running {
            steps: &all,
            ..doing.running
        };
        steps::run(&running, image, doing.home, doing.talk, doing.shown).map_err(|error| match packages {
            Some(packages) => packages.explain(error),
            None => error,
        })
    }
}

/// How stages are done.
pub(super) struct Doing<'a> {
    pub(super) args: &'a StepArgs,
    /// Without steps.
    pub(super) running: Running<'a>,
    /// What the image that the recipe starts from says of running it.
    pub(super) config: &'a ImageConfig,
    pub(super) home: &'a Home,
    pub(super) talk: Talk,
    pub(super) shown: &'a Steps,
}

impl Doing<'_> {
    fn step(&self, step: &firebrick_recipe::Step) -> Option<Step> {
        let StepKind::Run {
            command,
            env,
            user,
            workdir,
            network,
            timeout_secs,
        } = &step.kind
        else {
            return None;
        };
        let config = self.config;
        let own = env.iter().map(|(name, value)| format!("{name}={value}"));
        let env: Vec<String> = config.env.iter().cloned().chain(own).collect();
        let or = |said: &Option<String>, image: &Option<String>| {
            said.as_ref().or(image.as_ref()).cloned().unwrap_or_default()
        };
        Some(Step {
            name: name(step.line, command),
            run: match command {
                Command::Shell(script) => {
                    Run::Command(["/bin/sh", "-e", "-c", script].map(str::to_owned).to_vec())
                }
                Command::Exec(words) => Run::Command(words.clone()),
            },
            env: steps::environment(&env, self.running.created),
            network_env: steps::network_environment(),
            user: or(user, &config.user),
            workdir: or(workdir, &config.working_dir),
            network: network.unwrap_or(self.args.network),
            time: timeout_secs.map(Duration::from_secs),
        })
    }
}

/// `the command in line 5 (apt-get update …)`.
fn name(line: usize, command: &Command) -> String {
    let text = match command {
        Command::Shell(script) => script.clone(),
        Command::Exec(words) => match words.as_slice() {
            [shell, flag, script] if shell == "/bin/sh" && flag == "-c" => script.clone(),
            words => words.join(" "),
        },
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let text: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    let mut short: String = text.chars().take(NAME_LEN_MAX).collect();
    if short.len() < text.len() {
        short = format!("{}…", short.trim_end());
    }
    format!("the command in line {line} ({short})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        let shell = |text: &str| name(3, &Command::Shell(text.to_owned()));
        assert_eq!(shell("a  &&\n\tb\u{1b}"), "the command in line 3 (a && b)");
        let long = shell(&"word ".repeat(20));
        assert!(long.ends_with(" wor…)") && long.len() < 80, "{long}");
        let docker = Command::Exec(["/bin/sh", "-c", "make"].map(str::to_owned).to_vec());
        assert_eq!(name(1, &docker), "the command in line 1 (make)");
    }
}
