//! Layers that are made here instead of found in an image: a tar in a file, or a stream that somebody produces.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use firebrick_digest::Digest;

use crate::config::ImageConfig;
use crate::error::SourceError;
use crate::image::{Layer, LayerSource, OciImage, file_error};
use crate::platform::Platform;
use crate::reference::Reference;

type Bytes = Box<dyn Read + Send>;
type Opener = Box<dyn FnOnce() -> io::Result<Bytes> + Send>;

/// A stream that can be had once.
#[derive(Clone)]
pub(crate) struct Stream(Arc<Mutex<Option<Opener>>>);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl Stream {
    pub(crate) fn open(&self, layer: usize) -> Result<Bytes, SourceError> {
        let opener = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let opener = opener.ok_or(SourceError::OpenedTwice { layer })?;
        opener().map_err(|source| SourceError::Producer { layer, source })
    }
}

impl Layer {
    /// A layer whose tar, maybe compressed, lies in a file. The file may be read any number of times.
    ///
    /// `diff_id` is the digest of the uncompressed tar. Whoever decompresses checks it, as with any layer; so a file that was
    /// kept from an earlier run is never trusted.
    ///
    /// # Errors
    /// [`SourceError::File`] if there is no such file.
    pub fn from_file(path: &Path, diff_id: Digest) -> Result<Layer, SourceError> {
        let found = std::fs::metadata(path).map_err(|source| file_error("examine", path, source))?;
        Ok(made(
            LayerSource::File(PathBuf::from(path)),
            Some(diff_id),
            Some(found.len()),
        ))
    }

    /// A layer whose tar, maybe compressed, is what `open` gives when the layer is opened for the first time.
    ///
    /// Nothing keeps what has passed, so a second opening is [`SourceError::OpenedTwice`]. A failure of the producer belongs
    /// into the stream's last read, as an [`io::Error`] with its cause: a stream that merely ends early is a shorter tar.
    pub fn from_stream(open: impl FnOnce() -> io::Result<Box<dyn Read + Send>> + Send + 'static) -> Layer {
        let stream = Stream(Arc::new(Mutex::new(Some(Box::new(open)))));
        made(LayerSource::Stream(stream), None, None)
    }
}

fn made(source: LayerSource, diff_id: Option<Digest>, size: Option<u64>) -> Layer {
    Layer {
        index: 0,
        digest: None,
        diff_id,
        size,
        media_type: None,
        source,
    }
}

impl OciImage {
    /// An image of layers that are made here or taken from other images, lowest first.
    ///
    /// `name` is for people, e.g. "debian bookworm".
    pub fn from_layers(
        name: &str,
        platform: Platform,
        config: ImageConfig,
        layers: impl IntoIterator<Item = Layer>,
    ) -> OciImage {
        OciImage {
            reference: Reference::Made {
                name: name.to_owned(),
            },
            manifest_digest: None,
            config_digest: None,
            platform,
            config,
            annotations: BTreeMap::new(),
            layers: layers.into_iter().enumerate().map(placed).collect(),
        }
    }
}

/// The place of a layer that downloads is also how it is asked for, so that one keeps it.
fn placed((index, layer): (usize, Layer)) -> Layer {
    match layer.source {
        LayerSource::Download(_) => layer,
        _ => Layer { index, ..layer },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes, then fails.
    struct Failing(&'static [u8]);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("the program said why")),
                len => Ok(len),
            }
        }
    }

    #[test]
    fn a_stream_is_had_once_whoever_asks() {
        let layer = Layer::from_stream(|| Ok(Box::new(&b"tar"[..])));
        let image = OciImage::from_layers("x", Platform::host(), ImageConfig::default(), [layer.clone()]);
        let mut text = String::new();
        image.layers[0].open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "tar");
        let Err(SourceError::OpenedTwice { layer: 0 }) = layer.open() else {
            panic!("nobody has kept the bytes");
        };
        assert_eq!(image.reference.to_string(), "x");
    }

    #[test]
    fn a_producer_says_what_failed_when_opened_and_while_read() {
        let absent = Layer::from_stream(|| Err(io::ErrorKind::NotFound.into()));
        let Err(SourceError::Producer { layer: 0, source }) = absent.open() else {
            panic!("there is no stream");
        };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);

        let breaks = Layer::from_stream(|| Ok(Box::new(Failing(b"half"))));
        let mut bytes = Vec::new();
        let error = breaks.open().unwrap().read_to_end(&mut bytes).unwrap_err();
        assert_eq!(
            (bytes.as_slice(), error.to_string().as_str()),
            (&b"half"[..], "the program said why")
        );
    }

    #[test]
    fn layers_of_files_are_read_again_and_take_their_places() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"tar").unwrap();
        let layer = Layer::from_file(file.path(), Digest::of(b"tar")).unwrap();
        let layers = [Layer::from_stream(|| Ok(Box::new(io::empty()))), layer];
        let image = OciImage::from_layers("x", Platform::host(), ImageConfig::default(), layers);
        assert_eq!(
            (
                image.layers[1].index,
                image.layers[1].size,
                image.layers[1].diff_id
            ),
            (1, Some(3), Some(Digest::of(b"tar")))
        );
        for _ in 0..2 {
            let mut text = String::new();
            image.layers[1].open().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "tar");
        }
        assert!(Layer::from_file(Path::new("/nonexistent"), Digest::of(b"")).is_err());
    }
}
