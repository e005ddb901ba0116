//! `firebrick recipe …`.

use firebrick_recipe::{Base, Checks, From, Recipe, StepKind, shipped, shipped_names};
use serde_json::json;

use crate::commands::rootfs::build::files;
use crate::error::{self, write_stdout};
use crate::recipes::{Asked, RecipeFault};
use crate::talk::Talk;
use crate::{recipes, text};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Check(CheckArgs),
}

/// List the recipes in firebrick itself
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

/// Print one of them, to start a recipe from
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Its name, as `recipe list` has it
    #[arg(value_name = "NAME")]
    name: String,
}

/// Say whether a recipe is in order, and what it would do
///
/// Nothing is built or downloaded. Everything that is wrong is said at once, each with its line. Of a Dockerfile these are
/// read: FROM (one), ARG, ENV, COPY, ADD, RUN, WORKDIR, USER, CMD, ENTRYPOINT, SHELL, STOPSIGNAL.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// A file, TOML or a Dockerfile, or the name of a shipped recipe
    #[arg(value_name = "RECIPE")]
    recipe: String,

    /// A value for an ARG of a Dockerfile
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_argument)]
    build_arg: Vec<(String, String)>,
}

/// `NAME=VALUE`.
pub(crate) fn parse_argument(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn run(command: &Command, talk: &Talk) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(args.json),
        Command::Show(args) => show(&args.name),
        Command::Check(args) => check(args, talk),
    }
}

fn list(as_json: bool) -> anyhow::Result<()> {
    let mut rows = vec![["NAME", "FROM", "DESCRIPTION"].map(str::to_owned).to_vec()];
    let mut objects = Vec::new();
    for name in shipped_names() {
        let Some(shipped) = shipped(name) else { continue };
        let recipe = shipped.recipe(&Checks::default())?;
        let description = recipe.description.clone().unwrap_or_default();
        let from = from(&recipe);
        objects.push(json!({
            "name": name,
            "from": from,
            "description": description,
            "bases": bases(&recipe).iter().map(|base| base.name()).collect::<Vec<_>>(),
        }));
        rows.push(vec![name.to_owned(), from, description]);
    }
    match as_json {
        true => write_stdout(format!("{}\n", serde_json::Value::Array(objects)).as_bytes()),
        false => write_stdout(text::table(&rows).as_bytes()),
    }
}

fn show(name: &str) -> anyhow::Result<()> {
    let shipped = shipped(name).ok_or_else(|| RecipeFault::NotShipped {
        name: name.to_owned(),
        known: shipped_names().map(str::to_owned).collect(),
    })?;
    write_stdout(shipped.text.as_bytes())
}

fn check(args: &CheckArgs, talk: &Talk) -> anyhow::Result<()> {
    let asked = Asked {
        arguments: args.build_arg.iter().cloned().collect(),
        platform: None,
    };
    let loaded = recipes::load(&args.recipe, &asked)?;
    let recipe = &loaded.recipe;
    if recipe.from.is_none() {
        return Err(RecipeFault::NoFrom {
            recipe: args.recipe.clone(),
        }
        .into());
    }
    for note in &recipe.notes {
        talk.warn(note);
    }
    let mut faults = files::faults(&loaded);
    if let Some(last) = faults.pop() {
        faults.iter().for_each(error::print);
        return Err(last);
    }
    let copies = recipe
        .steps
        .iter()
        .filter(|step| matches!(step.kind, StepKind::Copy { .. }))
        .count();
    let count = |number: usize, noun| text::count(u64::try_from(number).unwrap_or(u64::MAX), noun);
    let mut lines = vec![
        format!("name: {}", recipe.name.as_deref().unwrap_or(&loaded.stem)),
        format!("from: {}", from(recipe)),
    ];
    if !recipe.packages.is_empty() {
        for base in bases(recipe) {
            let packages = recipe.packages.on(base).unwrap_or_default();
            lines.push(format!("packages on {base}: {}", packages.join(" ")));
        }
    }
    lines.push(format!(
        "steps: {copies} {}, {}",
        if copies == 1 { "copy" } else { "copies" },
        count(recipe.steps.len() - copies, "command")
    ));
    write_stdout(format!("{}\n", lines.join("\n")).as_bytes())
}

/// Where it starts, for people.
fn from(recipe: &Recipe) -> String {
    match &recipe.from {
        Some(From::Image(image)) => image.clone(),
        Some(From::Packages(set)) => match &set.suite {
            Some(suite) => format!("{} {suite}", set.base),
            None => set.base.to_string(),
        },
        Some(From::Recipe(name)) => format!("recipe {name}"),
        None => String::new(),
    }
}

/// The distributions that it has packages for.
fn bases(recipe: &Recipe) -> Vec<Base> {
    let has = |base: &Base| recipe.packages.on(*base).is_some_and(|names| !names.is_empty());
    Base::ALL.into_iter().filter(has).collect()
}
