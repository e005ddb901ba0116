//! A Dockerfile becomes a recipe, as far as it says how one image is made of another.
//!
//! Read: `FROM COPY ADD RUN ENV ARG WORKDIR USER CMD ENTRYPOINT SHELL STOPSIGNAL`, variables, continued lines, comments, here
//! documents of `RUN` and `COPY`. Said and left out, since an image of a machine has no place for it: `LABEL EXPOSE VOLUME
//! HEALTHCHECK MAINTAINER`. Refused with the reason and what to do instead: several stages, downloads, build mounts.

mod given;
mod instructions;
mod lines;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub use given::{Given, PlatformWords};
use lines::Line;

use crate::problem::{Problem, Problems, Source, did_you_mean};
use crate::recipe::{From, Recipe, Step, StepKind};
use crate::{Checks, values};

/// Longest Dockerfile, in bytes.
const TEXT_LEN_MAX: usize = 1 << 20;

const INSTRUCTIONS: [&str; 18] = [
    "add",
    "arg",
    "cmd",
    "copy",
    "entrypoint",
    "env",
    "expose",
    "from",
    "healthcheck",
    "label",
    "maintainer",
    "onbuild",
    "run",
    "shell",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// Reads a Dockerfile. Arguments that no `ARG` takes are among the recipe's notes.
///
/// # Errors
/// [`Problems`]: all that are found.
pub fn parse_dockerfile(
    name: &str,
    text: &str,
    given: &Given,
    checks: &Checks<'_>,
) -> Result<Recipe, Problems> {
    let source = Source { name, text };
    if text.len() > TEXT_LEN_MAX {
        let message = format!(
            "the Dockerfile has {} bytes, at most {TEXT_LEN_MAX} are read",
            text.len()
        );
        return Err(Problems(vec![source.problem(0..0, message)]));
    }
    let mut reader = Reader {
        source,
        checks,
        given,
        problems: Vec::new(),
        recipe: Recipe::default(),
        global: given.predefined(),
        taken: BTreeSet::new(),
        args: Vec::new(),
        shell: ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
        workdir: None,
        left_out: BTreeMap::new(),
    };
    let lines = lines::read(source).map_err(|problem| Problems(vec![problem]))?;
    for line in &lines {
        reader.instruction(line);
    }
    if reader.recipe.from.is_none() && reader.problems.is_empty() {
        reader.wrong(
            0..0,
            "there is no FROM: a Dockerfile begins with the image that it starts from".to_owned(),
        );
    }
    reader.finish()
}

/// What was read so far.
struct Reader<'t> {
    source: Source<'t>,
    checks: &'t Checks<'t>,
    given: &'t Given,
    problems: Vec<Problem>,
    recipe: Recipe,
    /// `ARG`s before `FROM`, and those that are always there.
    global: BTreeMap<String, String>,
    /// The names of all `ARG`s.
    taken: BTreeSet<String>,
    /// `ARG`s behind it, in order.
    args: Vec<(String, String)>,
    shell: Vec<String>,
    workdir: Option<String>,
    /// Instructions that mean nothing here, and their first lines.
    left_out: BTreeMap<String, usize>,
}

impl Reader<'_> {
    fn wrong(&mut self, at: Range<usize>, message: String) {
        self.problems.push(self.source.problem(at, message));
    }

    fn finish(mut self) -> Result<Recipe, Problems> {
        for (instruction, line) in std::mem::take(&mut self.left_out) {
            let why = match instruction.as_str() {
                "EXPOSE" => "every port of a machine can be reached",
                "VOLUME" => "a machine's root is writable, or has a layer that is",
                _ => "an image of a machine has no place for it",
            };
            self.recipe
                .notes
                .push(format!("line {line}: {instruction} is left out: {why}"));
        }
        self.recipe.notes.extend(self.given.unused(&self.taken));
        match self.problems.is_empty() {
            true => Ok(self.recipe),
            false => Err(Problems(self.problems)),
        }
    }

    fn instruction(&mut self, line: &Line) {
        let word = line.instruction.to_ascii_lowercase();
        if self.recipe.from.is_none()
            && !["from", "arg"].contains(&word.as_str())
            && INSTRUCTIONS.contains(&word.as_str())
        {
            let message = format!("{} stands before FROM", line.instruction);
            return self.wrong(line.word.clone(), message);
        }
        if let Err((at, message)) = self.known(&word, line) {
            self.wrong(at, message);
        }
    }

    fn known(&mut self, word: &str, line: &Line) -> Result<(), (Range<usize>, String)> {
        let at = |message: String| (line.rest_span.clone(), message);
        match word {
            "from" => self.from(line).map_err(at),
            "arg" => self.arg(line).map_err(at),
            "env" => self.env(line).map_err(at),
            "copy" | "add" => self.copy(word, line).map_err(at),
            "run" => self.run(line).map_err(at),
            "workdir" => self.set_workdir(line).map_err(at),
            "user" => {
                let user = self.expanded(&line.rest).map_err(at)?;
                values::owner(&user).map_err(at)?;
                self.recipe.user = Some(user);
                Ok(())
            }
            "cmd" => {
                self.recipe.cmd = Some(self.program(&line.rest).map_err(at)?);
                Ok(())
            }
            "entrypoint" => {
                self.recipe.entrypoint = Some(self.program(&line.rest).map_err(at)?);
                // Docker forgets a CMD of the base; one of this file may stand before or behind.
                self.recipe.cmd.get_or_insert_default();
                Ok(())
            }
            "shell" => match instructions::json_words(&line.rest) {
                Some(words) if !words.is_empty() => {
                    self.shell = words;
                    Ok(())
                }
                _ => Err(at("SHELL is a list: [\"/bin/sh\", \"-c\"]".to_owned())),
            },
            "stopsignal" => {
                let signal = self.expanded(&line.rest).map_err(at)?;
                if signal.is_empty() {
                    return Err(at("STOPSIGNAL names no signal".to_owned()));
                }
                self.recipe.stop_signal = Some(signal);
                Ok(())
            }
            "label" | "expose" | "volume" | "healthcheck" | "maintainer" => {
                let number = self.source.line_of(line.word.start);
                self.left_out
                    .entry(line.instruction.to_ascii_uppercase())
                    .or_insert(number);
                Ok(())
            }
            "onbuild" => {
                let message = "ONBUILD is for images that others start from: write what it does into the recipe that starts here";
                Err((line.word.clone(), message.to_owned()))
            }
            other => {
                let known = INSTRUCTIONS.map(|known| known.to_owned());
                let near = did_you_mean(other, known.iter().map(String::as_str)).to_uppercase();
                let near = near.replace("; DID YOU MEAN ", "; did you mean ");
                Err((
                    line.word.clone(),
                    format!("{:?} is no instruction{near}", line.instruction),
                ))
            }
        }
    }

    fn from(&mut self, line: &Line) -> Result<(), String> {
        if self.recipe.from.is_some() {
            return Err("a second FROM begins another stage, and only one is read: build the first with a tool for containers and \
                        start from its image (FROM oci-archive:…), or copy what it makes from the host"
                .to_owned());
        }
        let mut words: Vec<String> = Vec::new();
        for word in line.rest.split_whitespace() {
            words.push(words::expand(word, &|name| self.global.get(name).cloned())?);
        }
        if let Some(platform) = words.first().and_then(|word| word.strip_prefix("--platform=")) {
            (self.checks.platform)(platform)?;
            self.recipe.options.insert("platform", platform.to_owned());
            words.remove(0);
        }
        let image = match words.as_slice() {
            [image] => image,
            [image, word, _] if word.eq_ignore_ascii_case("as") => image,
            _ => return Err("expected FROM IMAGE, or FROM --platform=OS/ARCH IMAGE".to_owned()),
        };
        if image == "scratch" {
            return Err(
                "scratch has nothing to start from: name an image, or a folder with FROM dir:PATH".to_owned(),
            );
        }
        (self.checks.image)(image)?;
        self.recipe.from = Some(From::Image(image.clone()));
        Ok(())
    }

    fn arg(&mut self, line: &Line) -> Result<(), String> {
        for word in words::split(&line.rest)? {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(self.expanded(&words::unquoted(default)?)?)),
                None => (word.as_str(), None),
            };
            values::variable(name)?;
            self.taken.insert(name.to_owned());
            let given = self.given.arguments.get(name).cloned();
            let is_global = self.recipe.from.is_none();
            // An ARG without a value behind FROM takes the one from before it.
            let value = given.or(default).or_else(|| self.global.get(name).cloned());
            let Some(value) = value else { continue };
            match is_global {
                true => {
                    self.global.insert(name.to_owned(), value);
                }
                false => {
                    self.args.retain(|(other, _)| other != name);
                    self.args.push((name.to_owned(), value));
                }
            }
        }
        Ok(())
    }

    fn env(&mut self, line: &Line) -> Result<(), String> {
        let words = words::split(&line.rest)?;
        let old_form = words.first().is_some_and(|word| !word.contains('='));
        let pairs: Vec<(String, String)> = match old_form {
            true => {
                let (name, value) = line
                    .rest
                    .split_once(char::is_whitespace)
                    .ok_or("expected ENV NAME=VALUE")?;
                vec![(name.to_owned(), self.expanded(value.trim_start())?)]
            }
            false => {
                let pair = |word: &String| {
                    let (name, value) = word.split_once('=').ok_or("expected ENV NAME=VALUE")?;
                    Ok((
                        name.to_owned(),
                        words::expand_quoted(value, &|name| self.lookup(name))?,
                    ))
                };
                words.iter().map(pair).collect::<Result<_, String>>()?
            }
        };
        for (name, value) in pairs {
            values::variable(&name)?;
            self.recipe.env.retain(|(other, _)| *other != name);
            self.recipe.env.push((name, value));
        }
        Ok(())
    }

    fn set_workdir(&mut self, line: &Line) -> Result<(), String> {
        let path = self.expanded(&words::unquoted(&line.rest)?)?;
        if path.is_empty() {
            return Err("WORKDIR names no folder".to_owned());
        }
        let path = self.below_workdir(&path);
        if path != "/" {
            let to = values::path(&path)?;
            let to = to.trim_end_matches('/').to_owned();
            let folder = StepKind::Copy {
                source: crate::CopySource::Folder,
                to,
                mode: None,
                owner: None,
            };
            self.step(line, folder);
        }
        self.workdir = Some(path.clone());
        self.recipe.workdir = Some(path);
        Ok(())
    }

    fn step(&mut self, line: &Line, kind: StepKind) {
        self.recipe.steps.push(Step {
            line: self.source.line_of(line.word.start),
            kind,
        });
    }

    /// A path, from the working directory if it is not from the root.
    fn below_workdir(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!(
                "{}/{path}",
                self.workdir.as_deref().unwrap_or("").trim_end_matches('/')
            ),
        }
    }

    fn lookup(&self, name: &str) -> Option<String> {
        let find = |list: &[(String, String)]| {
            let found = list.iter().find(|(own, _)| own == name);
            found.map(|(_, value)| value.clone())
        };
        find(&self.recipe.env).or_else(|| find(&self.args)).or_else(|| {
            self.recipe
                .from
                .is_none()
                .then(|| self.global.get(name).cloned())
                .flatten()
        })
    }

    fn expanded(&self, text: &str) -> Result<String, String> {
        words::expand(text.trim(), &|name| self.lookup(name))
    }
}
