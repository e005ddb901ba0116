//! Finding recipes: a shipped one by its name, or a file, and those that it starts from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_recipe::{
    Checks, From, Given, Ignore, PlatformWords, Problems, Recipe, parse_dockerfile, parse_toml, shipped,
    shipped_names,
};
use firebrick_source::{Platform, Reference};

/// What is wrong with a recipe as a whole; what is wrong with its text are [`Problems`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecipeFault {
    /// Neither a file nor a shipped recipe.
    #[error("there is no recipe {name:?}: neither a file, nor one in firebrick")]
    NoSuchRecipe { name: String, known: Vec<String> },
    /// No recipe of firebrick's own, which are all that can be shown.
    #[error("firebrick has no recipe {name:?}")]
    NotShipped { name: String, known: Vec<String> },
    /// A recipe that starts from itself, at once or by way of others.
    #[error("{name:?} starts from itself{}", if through.is_empty() { String::new() } else { format!(", through {through}") })]
    RecipesInACircle { name: String, through: String },
    /// More recipes than anybody writes.
    #[error("more than {DEPTH_MAX} recipes start from each other, at last from {name:?}")]
    TooManyRecipes { name: String },
    /// A folder where a recipe was to be.
    #[error("{path:?} is a folder, not a recipe")]
    IsFolder {
        path: PathBuf,
        dockerfile: Option<PathBuf>,
    },
    /// Bytes that are no text.
    #[error("{path:?} is no recipe: it is not text (UTF-8)")]
    NotText { path: PathBuf },
    /// A recipe that does not say where it starts.
    #[error("the recipe {recipe:?} does not say what it starts from")]
    NoFrom { recipe: String },
    /// A name that no image can have.
    #[error("the image cannot be named {name:?}: {error}")]
    BadRecipeName { name: String, error: String },
    /// Options of a recipe that do not go together.
    #[error("the recipe's options do not go together: {text}")]
    BadRecipeOption { text: String },
    /// Packages of other distributions than the one that it starts from.
    #[error("the recipe {recipe:?} names packages, but none for {base}, from which it starts")]
    NotOnBase { recipe: String, base: &'static str },
    /// Packages on an image that nobody can install them on.
    #[error(
        "the image that the recipe {recipe:?} starts from has no package manager that firebrick knows{}",
        .found.as_ref().map(|found| format!(": it has {found}")).unwrap_or_default()
    )]
    NoPackageManager { recipe: String, found: Option<String> },
}

/// How many recipes may start from each other.
const DEPTH_MAX: usize = 8;
/// Longest text that is read, in bytes; the parsers take less.
const TEXT_LEN_MAX: u64 = 4 << 20;

/// A recipe with everything that it starts from laid below it.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Its name where it has none: what its file is called.
    pub(crate) stem: String,
    /// The whole.
    pub(crate) recipe: Recipe,
    /// For each step, the folder that its files come from.
    pub(crate) folders: Vec<Folder>,
}

/// The folder of a recipe's files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// The recipe itself, for people.
    pub(crate) recipe: String,
    /// What of it is not there for `COPY`.
    pub(crate) ignore: Ignore,
}

/// What the command line says to recipes.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Values for the `ARG`s of a Dockerfile; not for those that it starts from.
    pub(crate) arguments: BTreeMap<String, String>,
    /// What the image is for, where that is said.
    pub(crate) platform: Option<Platform>,
}

/// Finds and reads a recipe and those that it starts from.
pub(crate) fn load(name: &str, asked: &Asked) -> anyhow::Result<Loaded> {
    load_from(name, Path::new("."), asked, &mut Vec::new())
}

/// `above`: those that start from it, and where each is.
fn load_from(
    name: &str,
    folder: &Path,
    asked: &Asked,
    above: &mut Vec<(String, PathBuf)>,
) -> anyhow::Result<Loaded> {
    if let Ok(path) = folder.join(name).canonicalize() {
        if let Some(at) = above.iter().position(|(_, other)| *other == path) {
            let names: Vec<String> = above[at..].iter().map(|(name, _)| format!("{name:?}")).collect();
            return Err(RecipeFault::RecipesInACircle {
                name: above[at].0.clone(),
                through: names[1..].join(", "),
            }
            .into());
        }
        above.push((name.to_owned(), path));
    }
    if above.len() > DEPTH_MAX {
        let name = name.to_owned();
        return Err(RecipeFault::TooManyRecipes { name }.into());
    }
    let own = one(name, folder, asked)?;
    let Some(From::Recipe(base)) = &own.recipe.from else {
        return Ok(own);
    };
    let below = own.folders.first().map_or(folder, |folder| folder.path.as_path());
    let said = own.recipe.options.get("platform");
    let asked = Asked {
        arguments: BTreeMap::new(),
        platform: match &asked.platform {
            Some(platform) => Some(platform.clone()),
            None => said.map(|text| text.parse()).transpose()?,
        },
    };
    let base = load_from(base, below, &asked, above)
        .with_context(|| format!("cannot start from the recipe {base:?}, as {name:?} says"))?;
    let steps = own.recipe.steps.len();
    let own_folders = own.folders.into_iter().take(steps);
    Ok(Loaded {
        stem: own.stem,
        recipe: own.recipe.over(base.recipe),
        folders: base.folders.into_iter().chain(own_folders).collect(),
    })
}

/// What a Dockerfile is told.
fn given(asked: &Asked) -> Given {
    let words = |platform: Platform| PlatformWords {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant.unwrap_or_default(),
    };
    Given {
        arguments: asked.arguments.clone(),
        target: words(asked.platform.clone().unwrap_or_default()),
        build: words(Platform::host()),
    }
}

/// One recipe alone; its `folders` has one more, in which others are looked for.
fn one(name: &str, folder: &Path, asked: &Asked) -> anyhow::Result<Loaded> {
    let checks = Checks {
        image: &|text| {
            text.parse::<Reference>()
                .map(drop)
                .map_err(|error| error.to_string())
        },
        platform: &|text| {
            text.parse::<Platform>()
                .map(drop)
                .map_err(|error| error.to_string())
        },
    };
    let path = folder.join(name);
    if let Some(shipped) = shipped(name).filter(|_| !path.exists()) {
        let recipe = shipped.recipe(&checks)?;
        return Ok(Loaded {
            folders: vec![Folder::default(); recipe.steps.len()],
            stem: name.to_owned(),
            recipe,
        });
    }
    if !path.exists() {
        let known = shipped_names().map(str::to_owned).collect();
        let name = name.to_owned();
        return Err(RecipeFault::NoSuchRecipe { name, known }.into());
    }
    let text = read(&path)?;
    let shown = path.strip_prefix(".").unwrap_or(&path).display().to_string();
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let (read_as, ignore): (Result<Recipe, Problems>, Ignore) = match is_dockerfile(&path) {
        true => {
            let rules = parent.join(".dockerignore");
            let rules = if rules.exists() {
                read(&rules)?
            } else {
                String::new()
            };
            (
                parse_dockerfile(&shown, &text, &given(asked), &checks),
                Ignore::parse(&rules),
            )
        }
        false => (parse_toml(&shown, &text, &checks), Ignore::default()),
    };
    let mut recipe = read_as.context(format!("cannot read the recipe {shown:?}"))?;
    if !is_dockerfile(&path) {
        let unused = |name: &String| format!("--build-arg {name} is not used: {shown} is no Dockerfile");
        recipe.notes.extend(asked.arguments.keys().map(unused));
    }
    let own = Folder {
        path: parent,
        ignore,
        recipe: shown,
    };
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase());
    Ok(Loaded {
        folders: vec![own; recipe.steps.len().max(1)],
        stem: stem.unwrap_or_default(),
        recipe,
    })
}

fn read(path: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let reading = || format!("cannot read {path:?}");
    if path.is_dir() {
        let path: PathBuf = path.components().collect(); // no `././x`
        let names = ["Dockerfile", "Containerfile"];
        let dockerfile = names
            .map(|name| path.join(name))
            .into_iter()
            .find(|path| path.is_file());
        return Err(RecipeFault::IsFolder { path, dockerfile }.into());
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(reading)?;
    match file.take(TEXT_LEN_MAX).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let path = path.to_owned();
            Err(RecipeFault::NotText { path }.into())
        }
        read => read.map(|_| text).with_context(reading),
    }
}

/// `Dockerfile`, `Dockerfile.web`, `web.Dockerfile`, `Containerfile`.
pub(crate) fn is_dockerfile(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    ["dockerfile", "containerfile"]
        .iter()
        .any(|word| name.starts_with(word) || name.ends_with(&format!(".{word}")))
}
