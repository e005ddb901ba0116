//! `firebrick rootfs build`.

mod args;
pub(crate) mod files;
mod packages;
mod stages;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::Parser as _;
use firebrick_bootstrap::{Base, PackageSet};
use firebrick_customise::NewFile;
use firebrick_recipe::{From, Recipe, RootPassword};
use firebrick_source::{ImageConfig, Reference};

pub(crate) use args::Args;
use packages::OnImage;
use stages::{Doing, Stages};

use super::from_docker::Transfer;
use super::installing::Installing;
use super::making::{Contents, ImageArgs, Making, Reading, ask_for_password};
use crate::home::Home;
use crate::images;
use crate::recipes::{self, Loaded, RecipeFault};
use crate::talk::{Steps, Talk};

/// The options of a recipe, read as if they stood on a command line.
#[derive(Debug, clap::Parser)]
struct Options {
    #[command(flatten)]
    image: ImageArgs,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let asked = recipes::Asked {
        arguments: args.build_arg.iter().cloned().collect(),
        platform: args.source.platform.clone(),
    };
    let loaded = recipes::load(&args.recipe, &asked)?;
    for note in &loaded.recipe.notes {
        talk.warn(note);
    }
    let start = start_of(&args.recipe, &loaded.recipe)?;
    let name = name_of(args, &loaded)?;
    let mut source = args.source.clone();
    if source.platform.is_none()
        && let Some(platform) = loaded.recipe.options.get("platform")
    {
        source.platform = Some(platform.parse()?);
    }
    let options = options(args, &loaded)?;
    // Before anything is pulled, and before anybody types a password.
    let making = Making::new(&name, &options.image, home)?;
    let stages = Stages::new(&loaded, on_image(&args.recipe, &loaded.recipe))?;
    let settings = settings(args, &loaded, stages.rest()?, &options.image)?;
    let steps = Arc::new(Steps::new(talk, if stages.is_empty() { 6 } else { 7 }));
    let transfer = Arc::new(Mutex::new(Transfer::default()));
    let (mut image, installing, reading) = match &start {
        Start::Image(reference) => {
            steps.begin(1, &format!("Pulling {reference}"));
            let image = source.open(reference, home, *talk, &steps, &transfer)?;
            (image, None, Reading::of(reference))
        }
        Start::Packages(set) => {
            let mut set = set.clone();
            set.platform = source.platform.clone().unwrap_or(set.platform);
            let installing = Installing::begin(&set, home, *talk, &steps)?;
            let (image, reading) = installing.read(!stages.is_empty())?;
            (image, Some(installing), reading)
        }
    };
    let base = image.config.clone();
    lay_over(&mut image.config, &loaded.recipe);
    let mut contents = Contents::with(&options.image, settings, &image)?;
    contents.state_platform(source.platform.is_some());
    image.prefetch();
    let doing = Doing {
        args: &args.steps,
        running: making.running(args.steps.limits(), &args.limits, &contents, !source.no_cache),
        config: &base,
        home,
        talk: *talk,
        shown: &steps,
    };
    let made = stages.run(&doing, &mut image)?;
    let report = making
        .build(&image, &contents, &args.limits, &steps, reading)
        .map_err(|error| match &installing {
            Some(installing) => installing.failure(error.into()),
            None => error.into(),
        })
        .with_context(|| format!("cannot build the recipe {:?}", args.recipe))?;
    drop((made, installing));
    let transfer = transfer.lock().unwrap_or_else(PoisonError::into_inner);
    let downloaded = (reading == Reading::Downloads).then(|| transfer.summary());
    making.finish(home, talk, &contents, &report, downloaded.as_deref())
}

/// What the image is called: as the command line says, or the recipe, or its file.
fn name_of(args: &Args, loaded: &Loaded) -> anyhow::Result<String> {
    let name = args
        .name
        .clone()
        .or_else(|| loaded.recipe.name.clone())
        .unwrap_or_else(|| loaded.stem.clone());
    images::parse_new_name(&name).map_err(|error| {
        let error = error.to_string();
        RecipeFault::BadRecipeName { name, error }.into()
    })
}

/// What is below everything that a recipe adds.
enum Start {
    /// A container image.
    Image(Reference),
    /// A distribution's packages.
    Packages(PackageSet),
}

/// Where a recipe starts.
fn start_of(name: &str, recipe: &Recipe) -> anyhow::Result<Start> {
    match &recipe.from {
        Some(From::Image(image)) => Ok(Start::Image(image.parse()?)),
        Some(From::Packages(set)) => Ok(Start::Packages(package_set(name, recipe, set)?)),
        Some(From::Recipe(_)) | None => Err(RecipeFault::NoFrom {
            recipe: name.to_owned(),
        }
        .into()),
    }
}

/// The packages that go on top of a container image.
fn on_image<'a>(name: &'a str, recipe: &Recipe) -> Option<OnImage<'a>> {
    let is_wanted = matches!(&recipe.from, Some(From::Image(_))) && !recipe.packages.is_empty();
    is_wanted.then(|| OnImage::new(name, &recipe.packages))
}

/// What a recipe asks a distribution for.
fn package_set(
    name: &str,
    recipe: &Recipe,
    asked: &firebrick_recipe::PackageSet,
) -> anyhow::Result<PackageSet> {
    let base = Base::from_name(asked.base.name()).context("a distribution that nobody installs")?;
    let packages = recipe
        .packages
        .on(asked.base)
        .ok_or_else(|| RecipeFault::NotOnBase {
            recipe: name.to_owned(),
            base: asked.base.name(),
        })?;
    let mut set = PackageSet {
        mirrors: asked.mirror.iter().cloned().collect(),
        snapshot: asked.snapshot.as_deref().map(str::parse).transpose()?,
        packages,
        ..PackageSet::new(base)
    };
    if let Some(suite) = &asked.suite {
        set.suite.clone_from(suite);
    }
    Ok(set)
}

/// The recipe's options, those of the command line in their place.
fn options(args: &Args, loaded: &Loaded) -> anyhow::Result<Options> {
    let mut all = loaded.recipe.options.clone();
    for (option, value) in [
        ("size", &args.size),
        ("free", &args.free),
        ("label", &args.label),
        ("format", &args.format),
    ] {
        if let Some(value) = value {
            all.insert(option, value.clone());
        }
    }
    all.remove("platform");
    let mut words = vec!["rootfs build".to_owned()];
    for (option, value) in all {
        match value.as_str() {
            "true" => words.push(format!("--{option}")),
            value if option == "agent" && value != "none" => {
                let folder = loaded
                    .folders
                    .last()
                    .map(|folder| folder.path.clone())
                    .unwrap_or_default();
                words.push(format!("--{option}={}", folder.join(value).display()));
            }
            value => words.push(format!("--{option}={value}")),
        }
    }
    if let Some(output) = &args.output {
        words.push("--output".to_owned());
        words.push(
            output
                .to_str()
                .map(str::to_owned)
                .with_context(|| format!("{output:?} is no UTF-8"))?,
        );
    }
    Options::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let text = text
            .trim_start_matches("error: ")
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        RecipeFault::BadRecipeOption { text }.into()
    })
}

fn settings(
    args: &Args,
    loaded: &Loaded,
    files: Vec<NewFile>,
    flags: &ImageArgs,
) -> anyhow::Result<firebrick_customise::Settings> {
    let mut settings = loaded.recipe.settings.clone();
    settings.files = files;
    // The command line's word counts, the recipe's otherwise.
    let asked = args
        .root_password
        .as_ref()
        .map(|given| given.to_hash())
        .transpose()?;
    settings.root_password = match (asked, &loaded.recipe.root_password) {
        (Some(hash), _) => Some(hash),
        (None, Some(RootPassword::Hash(hash))) => Some(hash.clone()),
        (None, Some(RootPassword::Ask)) => Some(ask_for_password()?),
        (None, None) => flags.settings.to_settings()?.root_password,
    };
    if let Some(rules) = &args.slim {
        settings.slim.clone_from(&rules.0);
    }
    Ok(settings)
}

/// What the recipe says about running the image, over what the image says itself.
fn lay_over(config: &mut ImageConfig, recipe: &Recipe) {
    for (name, value) in &recipe.env {
        let own = format!("{name}=");
        config.env.retain(|entry| !entry.starts_with(&own));
        config.env.push(format!("{own}{value}"));
    }
    if let Some(entrypoint) = &recipe.entrypoint {
        config.entrypoint.clone_from(entrypoint);
        config.cmd.clear();
    }
    if let Some(cmd) = &recipe.cmd {
        config.cmd.clone_from(cmd);
    }
    let over = |own: &Option<String>, slot: &mut Option<String>| {
        if own.is_some() {
            slot.clone_from(own);
        }
    };
    over(&recipe.user, &mut config.user);
    over(&recipe.workdir, &mut config.working_dir);
    over(&recipe.stop_signal, &mut config.stop_signal);
}
