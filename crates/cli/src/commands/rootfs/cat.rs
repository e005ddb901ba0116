//! `firebrick rootfs cat`.

use std::ffi::OsString;
use std::io;

use anyhow::Context as _;

use crate::error::stdout_error;
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::volume::LastSymlink;

/// Print files of an image
///
/// Nothing is mounted. Symbolic links are followed inside the image.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a name or a path
    image: OsString,

    /// Files in the image
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

pub(crate) fn run(args: &Args, home: &Home) -> anyhow::Result<()> {
    let image = ImageFile::open(home, &args.image)?;
    let mut stdout = io::stdout().lock();
    for path in &args.paths {
        let inode = image.lookup(path, LastSymlink::Follow)?;
        let reading = || format!("cannot read {path:?} in {:?}", image.path);
        let mut file = image.filesystem.open_file(&inode).with_context(reading)?;
        copy(&mut file, &mut stdout, reading)?;
    }
    io::Write::flush(&mut stdout).map_err(stdout_error)
}

/// Copies all; unlike [`io::copy`] it tells a failure to read from one to write.
fn copy(
    from: &mut dyn io::Read,
    to: &mut dyn io::Write,
    reading: impl Fn() -> String,
) -> Result<(), anyhow::Error> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        let len = from.read(&mut buffer).with_context(&reading)?;
        match buffer.get(..len) {
            None | Some([]) => return Ok(()),
            Some(bytes) => to.write_all(bytes).map_err(stdout_error)?,
        }
    }
}
