//! What opening a reference yields: an [`OciImage`] with its config and its [`Layer`]s.
//!
//! A layer's bytes are given as they are stored (mostly compressed). They are verified against the layer's digest and
//! length: while they pass, or (from the cache) before the first of them is given.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebrick_digest::{Digest, Mismatch, VerifyingReader};

use crate::config::ImageConfig;
use crate::dirtar;
use crate::download::Downloads;
use crate::error::{Part, SourceError};
use crate::layout::Layout;
use crate::made::Stream;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::tarindex::Member;

/// One platform's image: config and layers, lowest first.
#[derive(Debug, Clone)]
pub struct OciImage {
    /// Where it came from.
    pub reference: Reference,
    /// The digest of its manifest; `None` where there is no manifest (`docker-archive`, `tar`, `dir`).
    pub manifest_digest: Option<Digest>,
    /// The digest of its config; `None` for `tar` and `dir`.
    pub config_digest: Option<Digest>,
    /// What it runs on.
    pub platform: Platform,
    /// What it would run.
    pub config: ImageConfig,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

impl OciImage {
    /// Starts downloading all layers in the background. The first [`Layer::open`] does so too; before either, nothing
    /// is fetched but manifest and config. Does nothing for images that are here already.
    pub fn prefetch(&self) {
        if let Some(LayerSource::Download(downloads)) = self.layers.first().map(|layer| &layer.source) {
            downloads.start_all();
        }
    }
}

/// One layer of an OCI image. Cloning is cheap; every clone can be opened, in any thread, any number of times (but
/// [`Layer::from_stream`] once in all).
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its place, counted from 0 (the lowest).
    pub index: usize,
    /// The digest of its bytes as stored; `None` where nothing promises one (old `docker save`, `tar`, `dir`).
    pub digest: Option<Digest>,
    /// The digest of its uncompressed bytes, as the config gives it; `None` for `tar` and `dir`. Whoever
    /// decompresses must check it.
    pub diff_id: Option<Digest>,
    /// Its size as stored, in bytes, where it is known beforehand.
    pub size: Option<u64>,
    /// Its media type, where one is given. Its compression shows in its first bytes, not here.
    pub media_type: Option<String>,
    pub(crate) source: LayerSource,
}

#[derive(Debug, Clone)]
pub(crate) enum LayerSource {
    Layout(Arc<Layout>),
    Member(Member),
    File(PathBuf),
    Folder(PathBuf),
    Download(Arc<Downloads>),
    Stream(Stream),
}

impl Layer {
    /// Opens the layer's bytes as stored.
    ///
    /// Whoever reads to the end has verified them: the last read fails (with a [`SourceError`] inside the
    /// [`io::Error`]) if digest or length are wrong. A layer that still downloads is given as far as it is here, and
    /// reads wait for more.
    ///
    /// # Errors
    /// [`SourceError`] if the layer cannot be opened, or its download has failed before.
    pub fn open(&self) -> Result<Box<dyn Read + Send>, SourceError> {
        match &self.source {
            LayerSource::Download(downloads) => Ok(Box::new(downloads.open(self.index)?)),
            LayerSource::Stream(stream) => stream.open(self.index),
            LayerSource::Folder(path) => Ok(Box::new(dirtar::open(path)?)),
            LayerSource::File(path) => {
                let file = File::open(path).map_err(|source| file_error("open", path, source))?;
                Ok(self.checked(file, path))
            }
            LayerSource::Layout(layout) => {
                let digest = self.digest.ok_or_else(|| SourceError::Missing {
                    part: Part::Layer(self.index),
                    name: "digest".to_owned(),
                    place: layout.path().to_owned(),
                })?;
                let file = layout.open_blob(Part::Layer(self.index), digest)?;
                Ok(self.checked(file, layout.path()))
            }
            LayerSource::Member(member) => {
                let range = FileRange {
                    file: Arc::clone(&member.file),
                    offset: member.offset,
                    left: member.len,
                };
                Ok(self.checked(range, &member.path))
            }
        }
    }

    fn checked(&self, bytes: impl Read + Send + 'static, path: &Path) -> Box<dyn Read + Send> {
        let (layer, path) = (self.index, path.to_owned());
        match self.digest {
            Some(promised) => Box::new(CheckedReader {
                inner: VerifyingReader::new(bytes, promised, self.size),
                layer,
                path,
                promised: Some(promised),
            }),
            None => Box::new(CheckedReader {
                inner: bytes,
                layer,
                path,
                promised: None,
            }),
        }
    }
}

/// Gives read errors the layer's name.
struct CheckedReader<R> {
    inner: R,
    layer: usize,
    path: PathBuf,
    promised: Option<Digest>,
}

impl<R: Read> Read for CheckedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let mismatch = error.get_ref().and_then(|inner| inner.downcast_ref::<Mismatch>());
            match (mismatch, self.promised) {
                (Some(mismatch), Some(promised)) => SourceError::Mismatch {
                    part: Part::Layer(self.layer),
                    promised,
                    mismatch: mismatch.clone(),
                }
                .into_io(),
                _ if error.kind() == io::ErrorKind::Interrupted => error,
                _ => file_error("read", &self.path, error).into_io(),
            }
        })
    }
}

/// A range of a file that others read too, so it has its own position.
struct FileRange {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for FileRange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let len = self.file.read_at(&mut buffer[..want], self.offset)?;
        if len == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        self.offset += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}

pub(crate) fn file_error(action: &'static str, path: &Path, source: io::Error) -> SourceError {
    SourceError::File {
        action,
        path: path.to_owned(),
        source,
    }
}
