//! A TOML text becomes a recipe: every key is known or an error, every value is checked where it stands.

mod fields;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeSet;

use firebrick_customise::{
    AccountName, Address, AgentUser, Dns, Init, Interface, NewGroup, NewUser, PasswordHash, Rule,
};
use walk::{Table, Value, Walk};

use crate::problem::{Problems, Source};
use crate::recipe::{Base, Command, From, PackageSet, Recipe, RootPassword, Step, StepKind, lay_below};
use crate::{Checks, values};

/// Longest recipe, in bytes.
const TEXT_LEN_MAX: usize = 1 << 20;

/// Every key of a recipe.
const KEYS: [&str; 40] = [
    "agent",
    "agent_user",
    "cmd",
    "compression",
    "console",
    "description",
    "dns",
    "entrypoint",
    "env",
    "files",
    "format",
    "free",
    "from",
    "fstab",
    "groups",
    "guest_options",
    "hostname",
    "init",
    "init_target",
    "inodes",
    "interfaces",
    "journal",
    "label",
    "modules",
    "name",
    "online_resize",
    "packages",
    "platform",
    "profile",
    "root_password",
    "run",
    "size",
    "slim",
    "stop_signal",
    "user",
    "users",
    "uuid",
    "workdir",
    "block_size",
    "compression_level",
];

/// Reads a recipe. `name` is what it is called where something is wrong with it.
///
/// # Errors
/// [`Problems`]: all that are found.
pub fn parse_toml(name: &str, text: &str, checks: &Checks<'_>) -> Result<Recipe, Problems> {
    let source = Source { name, text };
    if text.len() > TEXT_LEN_MAX {
        let message = format!(
            "the recipe has {} bytes, at most {TEXT_LEN_MAX} are read",
            text.len()
        );
        return Err(Problems(vec![source.problem(0..0, message)]));
    }
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let problem = |error: &toml::de::Error| {
            let at = error.span().unwrap_or(0..0);
            source.problem(at, format!("this is no TOML: {}", error.message().trim_end()))
        };
        return Err(Problems(errors.iter().map(problem).collect()));
    }
    let mut walk = Walk::new(source);
    let table = walk.table(document.get_ref(), 0..0);
    let mut recipe = Recipe::default();
    walk.known(&table, &KEYS, "a recipe");
    identity(&mut walk, &table, &mut recipe, checks);
    steps(&mut walk, &table, &mut recipe);
    running(&mut walk, &table, &mut recipe);
    settings(&mut walk, &table, &mut recipe);
    fields::options(&mut walk, &table, &mut recipe, checks);
    // A recipe has no order: what it says of its program holds for its commands, too.
    lay_below(
        &mut recipe.steps,
        &recipe.env,
        recipe.user.as_ref(),
        recipe.workdir.as_ref(),
    );
    walk.finish(recipe)
}

fn identity(walk: &mut Walk<'_>, table: &Table<'_>, recipe: &mut Recipe, checks: &Checks<'_>) {
    recipe.description = walk.text(table, "description", |text| {
        values::plain(text).map(|()| text.to_owned())
    });
    recipe.name = walk.text(table, "name", |name| {
        values::image_name(name).map(|()| name.to_owned())
    });
    if let Some(value) = table.get("from") {
        recipe.from = match value.as_table() {
            Some(_) => from_table(walk, &value, checks),
            None => {
                let image = walk.parsed(&value, |text| (checks.image)(text).map(|()| text.to_owned()));
                image.map(From::Image)
            }
        };
    }
    if let Some(value) = table.get("packages") {
        match value.as_table() {
            Some(names) => {
                let names = walk.table(names, value.span());
                walk.known(&names, &["all", "alpine", "debian", "ubuntu"], "packages");
                recipe.packages.all = package_names(walk, &names, "all").unwrap_or_default();
                for base in Base::ALL {
                    if let Some(own) = package_names(walk, &names, base.name()) {
                        recipe.packages.of.insert(base, own);
                    }
                }
            }
            None => recipe.packages.all = package_names(walk, table, "packages").unwrap_or_default(),
        }
    }
}

fn package_names(walk: &mut Walk<'_>, table: &Table<'_>, key: &str) -> Option<Vec<String>> {
    table.get(key)?;
    Some(walk.list(table, key, |name| values::package(name).map(|()| name.to_owned())))
}

fn from_table(walk: &mut Walk<'_>, value: &Value<'_>, checks: &Checks<'_>) -> Option<From> {
    let table = walk.table(value.as_table()?, value.span());
    let keys = ["distribution", "image", "mirror", "recipe", "snapshot", "suite"];
    walk.known(&table, &keys, "from");
    let ways: Vec<&str> = ["distribution", "image", "recipe"]
        .into_iter()
        .filter(|key| table.get(key).is_some())
        .collect();
    let [way] = ways[..] else {
        let message = "from names one of: image, distribution, recipe".to_owned();
        walk.wrong(value.span(), message);
        return None;
    };
    if way != "distribution" {
        for key in ["mirror", "snapshot", "suite"] {
            if let Some(at) = table.key_span(key) {
                walk.wrong(at, format!("{key} is for a distribution"));
            }
        }
    }
    let plain =
        |text: &str| match text.is_empty() || text.starts_with('-') || text.contains(char::is_whitespace) {
            true => Err(format!("{text:?} cannot be that")),
            false => values::plain(text).map(|()| text.to_owned()),
        };
    match way {
        "image" => {
            let image = walk.text(&table, way, |text| (checks.image)(text).map(|()| text.to_owned()));
            image.map(From::Image)
        }
        "recipe" => walk.text(&table, way, plain).map(From::Recipe),
        _ => {
            let base = walk.text(&table, way, str::parse)?;
            Some(From::Packages(PackageSet {
                base,
                suite: walk.text(&table, "suite", plain),
                mirror: walk.text(&table, "mirror", plain),
                snapshot: walk.text(&table, "snapshot", plain),
            }))
        }
    }
}

fn steps(walk: &mut Walk<'_>, table: &Table<'_>, recipe: &mut Recipe) {
    for value in walk.items(table, "files") {
        let Some(file) = walk.item_table(&value, "a file is a table: { source = \"…\", to = \"/…\" }")
        else {
            continue;
        };
        if let Some(kind) = fields::file(walk, &file, &value) {
            recipe.steps.push(Step {
                line: walk.line(&value),
                kind,
            });
        }
    }
    // One command may stand alone.
    let commands = match table.get("run") {
        Some(value) if value.as_str().is_some() => vec![value],
        _ => walk.items(table, "run"),
    };
    for value in commands {
        if let Some(kind) = run_step(walk, &value) {
            recipe.steps.push(Step {
                line: walk.line(&value),
                kind,
            });
        }
    }
}

fn run_step(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<StepKind> {
    let (command, options) = match value.as_table() {
        None => (fields::command(walk, value)?, None),
        Some(inner) => {
            let table = walk.table(inner, value.span());
            walk.known(
                &table,
                &["command", "env", "network", "timeout", "user", "workdir"],
                "a run step",
            );
            let Some(command) = table.get("command") else {
                walk.wrong(value.span(), "a run step needs a command".to_owned());
                return None;
            };
            (fields::command(walk, &command)?, Some(table))
        }
    };
    let options = options.unwrap_or_default();
    Some(StepKind::Run {
        command,
        env: fields::variables(walk, &options, "env"),
        user: walk.text(&options, "user", |text| {
            values::owner(text).map(|_| text.to_owned())
        }),
        workdir: walk.text(&options, "workdir", |text| {
            values::path(text).map(|_| text.to_owned())
        }),
        network: walk.boolean(&options, "network"),
        timeout_secs: walk.text_or_number(&options, "timeout", values::seconds),
    })
}

fn running(walk: &mut Walk<'_>, table: &Table<'_>, recipe: &mut Recipe) {
    recipe.env = fields::variables(walk, table, "env");
    recipe.user = walk.text(table, "user", |text| values::owner(text).map(|_| text.to_owned()));
    recipe.workdir = walk.text(table, "workdir", |text| match text {
        "/" => Ok(text.to_owned()),
        text => values::path(text).map(|_| text.to_owned()),
    });
    for (key, slot) in [("entrypoint", &mut recipe.entrypoint), ("cmd", &mut recipe.cmd)] {
        if let Some(value) = table.get(key) {
            *slot = fields::command(walk, &value).map(|command| match command {
                Command::Shell(script) => ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
                Command::Exec(words) => words,
            });
        }
    }
    recipe.stop_signal = walk.text(table, "stop_signal", |text| {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-".contains(&byte));
        match plain && !text.is_empty() {
            true => Ok(text.to_owned()),
            false => Err(format!(
                "{text:?} is no signal: expected a name such as SIGTERM, or a number"
            )),
        }
    });
}

fn settings(walk: &mut Walk<'_>, table: &Table<'_>, recipe: &mut Recipe) {
    let settings = &mut recipe.settings;
    settings.hostname = walk.text(table, "hostname", walk::said(str::parse));
    settings.dns = match table.get("dns") {
        Some(value) if value.as_array().is_some() => {
            let servers = walk.list(table, "dns", |text| {
                text.parse()
                    .map_err(|_| format!("{text:?} is no address of a name server"))
            });
            Some(Dns::Servers(servers))
        }
        _ => walk.text(table, "dns", walk::said(str::parse)),
    };
    settings.modules = walk.list(table, "modules", walk::said(str::parse));
    settings.consoles = walk.list(table, "console", walk::said(str::parse));
    settings.fstab = walk.list(table, "fstab", |line| {
        values::fstab(line).map(|()| line.to_owned())
    });
    settings.slim = walk
        .list(table, "slim", walk::said(Rule::parse_list))
        .into_iter()
        .flatten()
        .collect::<BTreeSet<Rule>>();
    recipe.root_password = walk.text(table, "root_password", |text| match text {
        "ask" => Ok(RootPassword::Ask),
        hash => walk::said(str::parse::<PasswordHash>)(hash).map(RootPassword::Hash),
    });
    if let Some(value) = table.get("interfaces") {
        let Some(inner) = walk.item_table(&value, "interfaces is a table: { eth0 = \"dhcp\" }") else {
            return;
        };
        for (name, address) in inner.entries() {
            let new = |text: &str| {
                let address: Address = walk::said(str::parse)(text)?;
                Interface::new(name, address).map_err(|error| error.to_string())
            };
            settings.interfaces.extend(walk.parsed(&address, new));
        }
    }
    accounts(walk, table, recipe);
}

fn accounts(walk: &mut Walk<'_>, table: &Table<'_>, recipe: &mut Recipe) {
    let settings = &mut recipe.settings;
    for value in walk.items(table, "groups") {
        let Some(group) = walk.item_table(&value, "a group is a table: { name = \"…\" }") else {
            continue;
        };
        walk.known(&group, &["gid", "name"], "a group");
        match walk.text(&group, "name", walk::said(str::parse)) {
            Some(name) => settings.groups.push(NewGroup {
                name,
                gid: walk.number(&group, "gid"),
            }),
            None => walk.needs(&group, "name", value.span()),
        }
    }
    for value in walk.items(table, "users") {
        let Some(user) = walk.item_table(&value, "a user is a table: { name = \"…\" }") else {
            continue;
        };
        walk.known(
            &user,
            &["group", "groups", "home", "name", "shell", "uid"],
            "a user",
        );
        let path = |text: &str| values::path(text).map(|path| format!("/{}", path.trim_end_matches('/')));
        let no_colon = |text: &str| match text.contains(':') {
            true => Err(format!("{text:?} has a colon in it")),
            false => path(text),
        };
        match walk.text(&user, "name", walk::said(str::parse::<AccountName>)) {
            Some(name) => settings.users.push(NewUser {
                name,
                uid: walk.number(&user, "uid"),
                group: walk.text(&user, "group", |text| values::owner(text).map(|owner| owner.user)),
                groups: walk.list(&user, "groups", walk::said(str::parse)),
                home: walk.text(&user, "home", no_colon),
                shell: walk.text(&user, "shell", no_colon),
            }),
            None => walk.needs(&user, "name", value.span()),
        }
    }
}

/// An init that `--init` takes.
fn init(text: &str) -> Result<String, String> {
    walk::said(str::parse::<Init>)(text).map(|_| text.to_owned())
}

/// A user that `--agent-user` takes.
fn agent_user(text: &str) -> Result<String, String> {
    walk::said(str::parse::<AgentUser>)(text).map(|_| text.to_owned())
}
