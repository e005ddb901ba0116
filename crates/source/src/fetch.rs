//! Single files over HTTP, pinned by digest: kernels and VMMs.
//!
//! A *part* is what has come of a file so far, `.DIGEST.part` beside the place that it is for. It is kept when a transfer breaks for
//! good, and the next run goes on behind it, whichever address it is given: the digest says whose part it is. The file
//! gets its name only once all of its bytes are verified.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use firebrick_digest::{Digest, Hasher};
use firebrick_registry::Client;

use crate::error::SourceError;
use crate::image::file_error;
use crate::options::{Event, Options};

/// Fetches the file at `url`, whose bytes have this digest, and gives it the name `dest`, whose folder must be there.
///
/// Nothing is fetched if it is there already. Other processes that fetch the same wait.
///
/// # Errors
/// [`SourceError::FileMismatch`] if the bytes are others; then no part of them is kept. [`SourceError::FileTooLong`] beyond
/// `size_max` bytes. Otherwise what the server or the host's disk said; what had come by then is kept.
pub fn fetch_file(
    url: &str,
    digest: Digest,
    dest: &Path,
    size_max: u64,
    options: &Options,
) -> Result<(), SourceError> {
    let client = Client::new(&options.registry, options.on_retry())?;
    let folder = dest.parent().unwrap_or(Path::new("."));
    let part = Part::open(folder.join(format!(".{}.part", digest.hex())))?;
    if File::open(dest).is_ok_and(|file| digest_of(&file).is_ok_and(|there| there == digest)) {
        return part.remove();
    }
    let fetch = Fetch {
        url,
        size_max,
        client: &client,
        options,
    };
    let resumed = fetch.complete(&part)?;
    let mut actual = part.digest()?;
    if actual != digest && resumed {
        // What an earlier run left may be of something else.
        part.file.set_len(0).map_err(|error| part.error("empty", error))?;
        fetch.complete(&part)?;
        actual = part.digest()?;
    }
    if actual != digest {
        part.remove()?;
        return Err(SourceError::FileMismatch {
            url: url.to_owned(),
            promised: digest,
            actual,
        });
    }
    part.file.sync_all().map_err(|error| part.error("sync", error))?;
    fs::rename(&part.path, dest).map_err(|error| file_error("create", dest, error))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| file_error("sync", folder, error))
}

/// Fetches what nobody has pinned, and gives it the name `dest`. What it says is worth as much as the address: HTTPS proves who
/// answers, and plain HTTP is for hosts of [`RegistryOptions::plain_http`](crate::RegistryOptions::plain_http) and for this machine.
///
/// # Errors
/// [`SourceError::FileTooLong`] beyond `size_max` bytes. Otherwise what the server or the host's disk said.
pub fn fetch_unverified(url: &str, dest: &Path, size_max: u64, options: &Options) -> Result<(), SourceError> {
    let client = Client::new(&options.registry, options.on_retry())?;
    let part = Part::open(dest.with_added_extension("part"))?;
    // What an earlier run left may be of something else.
    part.file.set_len(0).map_err(|error| part.error("empty", error))?;
    let fetch = Fetch {
        url,
        size_max,
        client: &client,
        options,
    };
    fetch.complete(&part)?;
    fs::rename(&part.path, dest).map_err(|error| file_error("create", dest, error))
}

struct Fetch<'a> {
    url: &'a str,
    size_max: u64,
    client: &'a Client,
    options: &'a Options,
}

impl Fetch<'_> {
    /// Appends to the part what it lacks; says whether there was something before.
    fn complete(&self, part: &Part) -> Result<bool, SourceError> {
        let mut file = &part.file;
        let start = file
            .seek(SeekFrom::End(0))
            .map_err(|error| part.error("read", error))?;
        let mut done = start;
        self.client
            .stream_file(self.url, start, &mut |piece| -> Result<(), SourceError> {
                self.check_size(piece.total.unwrap_or(0))?;
                done = done.saturating_add(u64::try_from(piece.bytes.len()).unwrap_or(u64::MAX));
                self.check_size(done)?;
                file.write_all(piece.bytes)
                    .map_err(|error| part.error("write", error))?;
                (self.options.events)(Event::FileMovedOn {
                    done_bytes: done,
                    size_bytes: piece.total,
                });
                Ok(())
            })?;
        Ok(start > 0)
    }

    fn check_size(&self, size: u64) -> Result<(), SourceError> {
        match size > self.size_max {
            true => Err(SourceError::FileTooLong {
                url: self.url.to_owned(),
                limit: self.size_max,
            }),
            false => Ok(()),
        }
    }
}

/// A part, which this process alone changes.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// Waits for other processes that have it.
    fn open(path: PathBuf) -> Result<Part, SourceError> {
        use std::os::unix::fs::MetadataExt as _;
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|error| file_error("open", &path, error))?;
            file.lock().map_err(|error| file_error("lock", &path, error))?;
            // Whoever had it may have renamed or removed it meanwhile.
            let ours = file.metadata().map(|meta| meta.ino()).ok();
            if fs::metadata(&path).is_ok_and(|meta| Some(meta.ino()) == ours) {
                return Ok(Part { path, file });
            }
        }
    }

    fn digest(&self) -> Result<Digest, SourceError> {
        digest_of(&self.file).map_err(|error| self.error("read", error))
    }

    fn remove(self) -> Result<(), SourceError> {
        fs::remove_file(&self.path).map_err(|error| self.error("remove", error))
    }

    fn error(&self, action: &'static str, error: io::Error) -> SourceError {
        file_error(action, &self.path, error)
    }
}

fn digest_of(mut file: &File) -> io::Result<Digest> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(&buffer[..len]),
        }
    }
}
