//! Recipes: how an image is made, in a text that people write. No input or output: texts come in, a [`Recipe`] comes out.
//!
//! ```text
//! recipe.toml ─► toml (tables with places) ─► read ─┐
//! Dockerfile  ─► dockerfile (lines, words)  ────────┴─► Recipe ─► over(another Recipe) ─► whoever builds
//! ```
//!
//! - a [`Recipe`] says where an image starts ([`From`]), what is installed, copied and run ([`Step`]s, in order), and what is set;
//! - what is wrong with a text are [`Problems`], all of them at once, each with its line and a caret below what is meant;
//! - [`shipped`] recipes are in the binary: a profile for each language, and `devbox`.
//!
//! ```
//! use firebrick_recipe::{Checks, parse_toml};
//!
//! let checks = Checks::default();
//! let recipe = parse_toml("r.toml", "from = \"alpine\"\nhostname = \"box\"\n", &checks).unwrap();
//! assert_eq!(recipe.settings.hostname.unwrap().as_str(), "box");
//! let wrong = parse_toml("r.toml", "hostnam = \"box\"\n", &checks).unwrap_err().to_string();
//! assert!(wrong.contains("did you mean \"hostname\"?"));
//! ```
#![forbid(unsafe_code)]

mod dockerfile;
mod pattern;
mod problem;
mod profiles;
mod read;
mod recipe;
mod values;

pub use dockerfile::{Given, PlatformWords, parse_dockerfile};
pub use pattern::{Ignore, matches};
pub use problem::{Problem, Problems};
pub use profiles::{Shipped, languages, shipped, shipped_names};
pub use read::parse_toml;
pub use recipe::{
    Base, Command, CopySource, From, PackageSet, Packages, Recipe, RootPassword, Step, StepKind,
};

/// Judges what only other crates can.
pub type Check<'a> = &'a dyn Fn(&str) -> Result<(), String>;

/// The checks that somebody else has to make.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// Whether a text is an image reference; why not.
    pub image: Check<'a>,
    /// Whether a text is a platform such as `linux/arm64`; why not.
    pub platform: Check<'a>,
}

/// Takes anything.
impl Default for Checks<'_> {
    fn default() -> Self {
        Checks {
            image: &|_| Ok(()),
            platform: &|_| Ok(()),
        }
    }
}

impl std::fmt::Debug for Checks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}
