//! Which image, and where in it: `IMAGE [PATH]`, or `-n NAME [PATH]`.

use std::ffi::{OsStr, OsString};

use crate::home::Home;
use crate::image_file::ImageFile;
use crate::images;

#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The image by its name, in place of IMAGE
    #[arg(short, long, value_name = "NAME", value_parser = images::parse_name)]
    name: Option<String>,

    /// The image: a name or a path
    #[arg(value_name = "IMAGE", required_unless_present = "name")]
    image: Option<OsString>,

    /// The folder or file in the image
    #[arg(value_name = "PATH", conflicts_with = "name")]
    path: Option<OsString>,
}

impl Place {
    pub(crate) fn open(&self, home: &Home) -> anyhow::Result<ImageFile> {
        match (&self.name, &self.image) {
            (Some(name), _) => ImageFile::open(home, OsStr::new(name)),
            (None, Some(image)) => ImageFile::open(home, image),
            (None, None) => unreachable!("one of both is required"),
        }
    }

    /// The path; the root where none is given.
    pub(crate) fn path(&self) -> &OsStr {
        // With a name, what stands where the image would is the path.
        let path = match self.name {
            Some(_) => self.image.as_ref(),
            None => self.path.as_ref(),
        };
        path.map_or(OsStr::new("/"), OsString::as_os_str)
    }
}
