//! The files that a recipe puts in, read from its folder, which nothing leaves.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use firebrick_customise::{Content, NewFile, Owner};
use firebrick_recipe::{CopySource, StepKind, matches};

use crate::recipes::{Folder, Loaded};
use crate::text;

/// What a recipe puts in, and cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyFault {
    /// Nothing is there.
    #[error("there is no {source_path:?} in the folder {folder:?}")]
    NotThere { source_path: String, folder: PathBuf },
    /// A pattern that means nothing that is there.
    #[error("nothing in the folder {folder:?} is called {pattern:?}")]
    NoMatch { pattern: String, folder: PathBuf },
    /// A link.
    #[error("{source_path:?} leads out of the folder {folder:?}: files come from there and below")]
    LeadsOut { source_path: PathBuf, folder: PathBuf },
    /// `.dockerignore` says that it is not there.
    #[error("{source_path:?} is excluded by .dockerignore")]
    Excluded { source_path: PathBuf, folder: PathBuf },
}

/// Most bytes of files, all together: they are held in memory.
const BYTES_MAX: u64 = 1 << 30;
/// Most files.
const FILES_MAX: usize = 100_000;

/// The files of these steps of a recipe, in their order.
pub(super) fn gather(loaded: &Loaded, steps: Range<usize>) -> anyhow::Result<Vec<NewFile>> {
    let mut gathered = Gathered::default();
    for at in steps {
        gathered.step(loaded, at)?;
    }
    Ok(gathered.files)
}

/// What stands in the way of putting in what a recipe names, one error for each step; nothing is read but names.
pub(crate) fn faults(loaded: &Loaded) -> Vec<anyhow::Error> {
    let mut gathered = Gathered {
        only_names: true,
        ..Gathered::default()
    };
    let steps = 0..loaded.recipe.steps.len();
    steps.filter_map(|at| gathered.step(loaded, at).err()).collect()
}

/// What a step puts in that is all in the recipe: a text, a link, a folder.
pub(crate) fn inline(step: &StepKind) -> Option<NewFile> {
    let StepKind::Copy {
        source,
        to,
        mode,
        owner,
    } = step
    else {
        return None;
    };
    let content = match source {
        CopySource::Path(_) => return None,
        CopySource::Text(text) => Content::File(text.clone().into_bytes()),
        CopySource::Link(link) => Content::Link(link.clone()),
        CopySource::Folder => Content::Dir,
    };
    let target = Target {
        to,
        mode: *mode,
        owner: owner.as_ref(),
    };
    Some(target.file(to, content))
}

/// Where something goes.
struct Target<'a> {
    to: &'a str,
    mode: Option<u16>,
    owner: Option<&'a Owner>,
}

impl Target<'_> {
    fn file(&self, path: &str, content: Content) -> NewFile {
        let is_link = matches!(content, Content::Link(_));
        NewFile {
            path: path.trim_matches('/').to_owned(),
            content,
            mode: self.mode.filter(|_| !is_link),
            owner: self.owner.cloned(),
        }
    }
}

#[derive(Default)]
struct Gathered {
    files: Vec<NewFile>,
    bytes: u64,
    /// Contents stay empty.
    only_names: bool,
}

impl Gathered {
    fn push(&mut self, file: NewFile) {
        self.files.push(file);
    }

    /// The step of a number, if it puts something in.
    fn step(&mut self, loaded: &Loaded, at: usize) -> anyhow::Result<()> {
        let (Some(step), Some(folder)) = (loaded.recipe.steps.get(at), loaded.folders.get(at)) else {
            return Ok(());
        };
        if let Some(file) = inline(&step.kind) {
            self.push(file);
            return Ok(());
        }
        let StepKind::Copy {
            source: CopySource::Path(source),
            to,
            mode,
            owner,
        } = &step.kind
        else {
            return Ok(());
        };
        let target = Target {
            to,
            mode: *mode,
            owner: owner.as_ref(),
        };
        self.copy(folder, source, &target).with_context(|| {
            let (recipe, line) = (&folder.recipe, step.line);
            format!("cannot put {source:?} into the image, as {recipe}:{line} says")
        })
    }

    fn copy(&mut self, folder: &Folder, source: &str, target: &Target<'_>) -> anyhow::Result<()> {
        let root = folder
            .path
            .canonicalize()
            .with_context(|| format!("cannot find {:?}", folder.path))?;
        let is_pattern = source.contains(['*', '?', '[']);
        let sources = match is_pattern {
            true => expanded(&root, source)?,
            false => vec![PathBuf::from(source)],
        };
        let no_match = || CopyFault::NoMatch {
            pattern: source.to_owned(),
            folder: folder.path.clone(),
        };
        ensure!(!sources.is_empty(), no_match());
        let many = sources.len() > 1;
        let mut excluded = 0;
        let count = sources.len();
        for source in sources {
            let path = inside(&root, folder, &source)?;
            let below = path.strip_prefix(&root).ok().and_then(Path::to_str);
            if below.is_some_and(|below| !below.is_empty() && folder.ignore.excludes(below)) {
                let fault = CopyFault::Excluded {
                    source_path: source,
                    folder: folder.path.clone(),
                };
                ensure!(is_pattern, fault);
                excluded += 1;
                continue;
            }
            if path.is_dir() {
                // As Docker has it: what is in the folder, not the folder itself.
                if !target.to.trim_matches('/').is_empty() {
                    self.push(target.file(target.to, Content::Dir).without_mode());
                }
                self.folder(&root, &path, target.to.trim_end_matches('/'), folder, target)?;
            } else {
                let into = target.to.ends_with('/') || many;
                let name = source
                    .file_name()
                    .and_then(|name| name.to_str())
                    .context("it has no name")?;
                let to = match into {
                    true => format!("{}/{name}", target.to.trim_end_matches('/')),
                    false => target.to.to_owned(),
                };
                self.entry(&path, &to, target)?;
            }
        }
        ensure!(excluded < count, no_match());
        Ok(())
    }

    fn folder(
        &mut self,
        root: &Path,
        path: &Path,
        to: &str,
        folder: &Folder,
        target: &Target<'_>,
    ) -> anyhow::Result<()> {
        let mut names: Vec<_> = fs::read_dir(path)
            .with_context(|| format!("cannot read the folder {path:?}"))?
            .collect::<Result<_, _>>()
            .with_context(|| format!("cannot read the folder {path:?}"))?;
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            let child = entry.path();
            let inside = child.strip_prefix(root).unwrap_or(&child);
            let inside = inside
                .to_str()
                .with_context(|| format!("the name {inside:?} is no UTF-8"))?;
            if folder.ignore.excludes(inside) && !entry.path().is_dir() {
                continue;
            }
            let name = entry.file_name();
            let to = format!("{to}/{}", name.to_string_lossy());
            let kind = entry
                .file_type()
                .with_context(|| format!("cannot examine {child:?}"))?;
            if kind.is_dir() {
                let before = self.files.len();
                let mut own = target.file(&to, Content::Dir);
                own.mode = Some(mode_of(&child)?);
                self.push(own);
                self.folder(root, &child, &to, folder, target)?;
                // Nothing of an excluded folder came along: a rule may take some of it back.
                if folder.ignore.excludes(inside) && self.files.len() == before + 1 {
                    self.files.truncate(before);
                }
            } else {
                self.entry(&child, &to, target)?;
            }
        }
        Ok(())
    }

    /// A file or link.
    fn entry(&mut self, path: &Path, to: &str, target: &Target<'_>) -> anyhow::Result<()> {
        let found = path
            .symlink_metadata()
            .with_context(|| format!("cannot examine {path:?}"))?;
        ensure!(
            self.files.len() < FILES_MAX,
            "there are more than {FILES_MAX} files"
        );
        if found.is_symlink() {
            let link = fs::read_link(path).with_context(|| format!("cannot read the link {path:?}"))?;
            let link = link
                .to_str()
                .with_context(|| format!("the target of {path:?} is no UTF-8"))?;
            self.push(target.file(to, Content::Link(link.to_owned())));
            return Ok(());
        }
        if !found.is_file() {
            bail!("{path:?} is neither a file, a folder nor a symbolic link");
        }
        self.bytes += found.len();
        ensure!(
            self.bytes <= BYTES_MAX,
            "its files have more than {}: make a container image of them",
            text::bytes(BYTES_MAX)
        );
        let reading = || format!("cannot read {path:?}");
        let bytes = match self.only_names {
            true => fs::File::open(path).map(|_| Vec::new()).with_context(reading)?,
            false => fs::read(path).with_context(reading)?,
        };
        let mut file = target.file(to, Content::File(bytes));
        file.mode = Some(match target.mode {
            Some(mode) => mode,
            None => mode_of(path)?,
        });
        self.push(file);
        Ok(())
    }
}

/// Where a source is, through links; never out of the folder.
fn inside(root: &Path, folder: &Folder, source: &Path) -> anyhow::Result<PathBuf> {
    let path = match root.join(source).canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let source_path = source.display().to_string();
            let folder = folder.path.clone();
            return Err(CopyFault::NotThere { source_path, folder }.into());
        }
        found => found.with_context(|| format!("cannot read {:?}", folder.path.join(source)))?,
    };
    let fault = || CopyFault::LeadsOut {
        source_path: source.to_owned(),
        folder: folder.path.clone(),
    };
    ensure!(path.starts_with(root), fault());
    Ok(path)
}

trait WithoutMode {
    fn without_mode(self) -> Self;
}

impl WithoutMode for NewFile {
    /// A mode that is meant for files makes no folder of it.
    fn without_mode(mut self) -> NewFile {
        self.mode = None;
        self
    }
}

/// Who may read and run it; not who may write: that is the image's business.
fn mode_of(path: &Path) -> anyhow::Result<u16> {
    let found = fs::metadata(path).with_context(|| format!("cannot examine {path:?}"))?;
    let runs = found.is_dir() || found.permissions().mode() & 0o100 != 0;
    Ok(if runs { 0o755 } else { 0o644 })
}

/// The files and folders that a pattern means, in byte order.
fn expanded(root: &Path, pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
    let depth = pattern
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .count();
    let mut level = vec![PathBuf::new()];
    for _ in 0..depth {
        let mut next = Vec::new();
        for folder in level {
            let path = root.join(&folder);
            // Links are not followed here: what they lead to may be anything.
            if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                continue;
            }
            for entry in fs::read_dir(&path).with_context(|| format!("cannot read the folder {path:?}"))? {
                next.push(
                    folder.join(
                        entry
                            .with_context(|| format!("cannot read the folder {path:?}"))?
                            .file_name(),
                    ),
                );
                ensure!(next.len() < FILES_MAX, "there are more than {FILES_MAX} files");
            }
        }
        level = next;
    }
    level.retain(|path| path.to_str().is_some_and(|path| matches(pattern, path)));
    level.sort();
    Ok(level)
}
