//! `COPY`, `ADD`, `RUN`, `CMD` and `ENTRYPOINT`.

use super::lines::Line;
use super::{Reader, words};
use crate::recipe::{Command, CopySource, StepKind};
use crate::values;

/// The words of a JSON list; `None` if it is none, which makes it a line for a shell.
pub(super) fn json_words(text: &str) -> Option<Vec<String>> {
    text.trim_start()
        .starts_with('[')
        .then(|| serde_json::from_str(text).ok())?
}

impl Reader<'_> {
    /// A program: a list of words, or a line for the shell.
    pub(super) fn program(&self, text: &str) -> Result<Vec<String>, String> {
        match json_words(text) {
            Some(words) => Ok(words),
            None if text.trim().is_empty() => Err("no program is named".to_owned()),
            None => Ok(self.shell.iter().cloned().chain([text.to_owned()]).collect()),
        }
    }

    /// Flags in front of an instruction's words, and the words.
    fn flags<'l>(&self, rest: &'l str) -> (Vec<(&'l str, &'l str)>, &'l str) {
        let (mut flags, mut rest) = (Vec::new(), rest);
        while rest.starts_with("--") {
            let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            flags.push(word.split_once('=').unwrap_or((word, "")));
            rest = behind.trim_start();
        }
        (flags, rest)
    }

    pub(super) fn run(&mut self, line: &Line) -> Result<(), String> {
        let (flags, rest) = self.flags(&line.rest);
        let mut network = None;
        for (flag, value) in flags {
            match (flag, value) {
                ("--network", "none") => network = Some(false),
                ("--network", "default") => {}
                ("--network", "host") => {
                    return Err("--network=host is refused: a build has the host's network with --network of the command line, or none".to_owned());
                }
                ("--mount", _) => {
                    return Err(
                        "--mount is refused: nothing of the host is mounted; COPY what is needed".to_owned(),
                    );
                }
                _ => return Err(format!("RUN {flag} is not read")),
            }
        }
        let shell =
            |script: &str| Command::Exec(self.shell.iter().cloned().chain([script.to_owned()]).collect());
        let command = match (&line.here, json_words(rest)) {
            (Some(here), _) => shell(&here.text),
            (None, Some(words)) if !words.is_empty() => Command::Exec(words),
            (None, _) if rest.is_empty() => return Err("RUN names no command".to_owned()),
            (None, _) => shell(rest),
        };
        let env = self
            .args
            .iter()
            .filter(|(name, _)| !self.recipe.env.iter().any(|(own, _)| own == name));
        let env = env.chain(&self.recipe.env).cloned().collect();
        let step = StepKind::Run {
            command,
            env,
            user: self.recipe.user.clone(),
            workdir: self.workdir.clone(),
            network,
            timeout_secs: None,
        };
        self.step(line, step);
        Ok(())
    }

    pub(super) fn copy(&mut self, word: &str, line: &Line) -> Result<(), String> {
        let name = word.to_uppercase();
        let (flags, rest) = self.flags(&line.rest);
        let (mut owner, mut mode) = (None, None);
        for (flag, value) in flags {
            match flag {
                "--chown" => owner = Some(values::owner(&self.expanded(value)?)?),
                "--chmod" => mode = Some(values::mode(&self.expanded(value)?)?),
                "--link" => {}
                "--from" => {
                    return Err(format!(
                        "{name} --from takes files from another stage or image, and only one stage is read: copy them out of it \
                         first, with firebrick rootfs from-docker and rootfs cat"
                    ));
                }
                _ => return Err(format!("{name} {flag} is not read")),
            }
        }
        let mut all = self.paths(rest)?;
        let to = all
            .pop()
            .ok_or_else(|| format!("expected {name} SOURCE… DESTINATION"))?;
        let to = self.destination(&to)?;
        if all.len() > 1 && !to.ends_with('/') {
            return Err(format!(
                "{name} of several sources goes into a folder: end the destination with a slash, /{to}/"
            ));
        }
        if let Some(here) = &line.here {
            if to.ends_with('/') || !all.is_empty() {
                return Err(format!(
                    "a here document becomes one file: {name} <<EOF /path/of/the/file"
                ));
            }
            let text = match here.is_literal {
                true => here.text.clone(),
                false => words::expand(&here.text, &|name| self.lookup(name))?,
            };
            let source = CopySource::Text(text);
            let kind = StepKind::Copy {
                source,
                to,
                mode,
                owner,
            };
            self.step(line, kind);
            return Ok(());
        }
        if all.is_empty() {
            return Err(format!("expected {name} SOURCE… DESTINATION"));
        }
        for source in all {
            let source = local(&name, &source)?;
            let kind = StepKind::Copy {
                source: CopySource::Path(source),
                to: to.clone(),
                mode,
                owner: owner.clone(),
            };
            self.step(line, kind);
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// The paths of a copy, as a list of JSON or as words, with their variables' values.
    fn paths(&self, text: &str) -> Result<Vec<String>, String> {
        let all = match json_words(text) {
            Some(words) => words,
            None => words::split(text)?
                .iter()
                .map(|word| words::unquoted(word))
                .collect::<Result<_, _>>()?,
        };
        all.iter()
            .map(|word| words::expand(word, &|name| self.lookup(name)))
            .collect()
    }

    /// Where copies go, from the root; with a slash at its end if that is a folder.
    fn destination(&self, to: &str) -> Result<String, String> {
        let folder = to.ends_with('/') || to == "." || to.ends_with("/.");
        let to = self.below_workdir(
            to.trim_end_matches("/.")
                .trim_end_matches('/')
                .trim_start_matches("./"),
        );
        let to = if to.ends_with("/.") {
            to.trim_end_matches('.').to_owned()
        } else {
            to
        };
        let mut to = match to.trim_matches('/') {
            "" => String::new(),
            _ => values::path(&to)?.trim_end_matches('/').to_owned(),
        };
        if folder || to.is_empty() {
            to.push('/');
        }
        Ok(to)
    }
}

/// A source in the folder of the Dockerfile; anything else has a reason not to be read.
fn local(name: &str, source: &str) -> Result<String, String> {
    if source.contains("://") || source.starts_with("git@") {
        return Err(format!(
            "{name} of {source:?} is refused: what a download holds today it may not hold tomorrow; fetch it, check its digest, and COPY it"
        ));
    }
    let archive = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst"];
    if name == "ADD" && archive.iter().any(|end| source.ends_with(end)) {
        return Err(format!(
            "ADD would unpack {source:?}: unpack it, and COPY the folder"
        ));
    }
    // Docker takes a leading slash for the folder itself.
    let relative = source.trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    if relative.split('/').any(|part| part == "..") {
        return Err(format!(
            "{source:?} leaves the folder of the Dockerfile: files come from there and below"
        ));
    }
    values::plain(relative)?;
    Ok(relative.to_owned())
}
