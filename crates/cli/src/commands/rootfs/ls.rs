//! `firebrick rootfs ls`.

use std::ffi::OsString;

use serde_json::{Value, json};

use crate::error::write_stdout;
use crate::home::Home;
use crate::image_file::{ImageFile, printable};
use crate::text;
use crate::volume::{FileType, Inode, LastSymlink, Stat};

/// List a folder of an image, or one file
///
/// Nothing is mounted. Symbolic links on the way are followed inside the image; one at the end of the path is followed
/// if it leads to a folder. Names are in byte order.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a name or a path
    image: OsString,

    /// The folder or file in the image
    #[arg(default_value = "/", hide_default_value = true)]
    path: OsString,

    /// Show type, mode, links, owner, size and time too
    #[arg(short, long)]
    long: bool,

    /// Print a JSON array of objects
    #[arg(long)]
    json: bool,
}

/// One line of the listing.
struct Row {
    name: Vec<u8>,
    stat: Stat,
    target: Option<Vec<u8>>,
}

pub(crate) fn run(args: &Args, home: &Home) -> anyhow::Result<()> {
    let image = ImageFile::open(home, &args.image)?;
    let rows = rows(&image, args)?;
    if args.json {
        let objects: Vec<Value> = rows.iter().map(to_json).collect();
        return write_stdout(&text::json_line(&objects));
    }
    let text = match args.long {
        true => text::table(&rows.iter().map(long).collect::<Vec<_>>()),
        false => rows.iter().map(|row| printable(&row.name) + "\n").collect(),
    };
    write_stdout(text.as_bytes())
}

fn rows(image: &ImageFile, args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut inode = image.lookup(&args.path, LastSymlink::Keep)?;
    if inode.stat.file_type == FileType::Symlink
        && let Ok(target) = image.lookup(&args.path, LastSymlink::Follow)
        && target.stat.file_type == FileType::Directory
    {
        inode = target;
    }
    if inode.stat.file_type != FileType::Directory {
        let name = args.path.as_encoded_bytes().to_vec();
        return Ok(vec![row(image, name, &inode)?]);
    }
    let mut rows = image
        .filesystem
        .list(&inode)?
        .into_iter()
        .map(|(name, inode)| row(image, name, &inode))
        .collect::<anyhow::Result<Vec<Row>>>()?;
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn row(image: &ImageFile, name: Vec<u8>, inode: &Inode) -> anyhow::Result<Row> {
    let target = match inode.stat.file_type {
        FileType::Symlink => Some(image.filesystem.read_link(inode)?),
        _ => None,
    };
    Ok(Row {
        name,
        stat: inode.stat.clone(),
        target,
    })
}

fn long(row: &Row) -> Vec<String> {
    let stat = &row.stat;
    let size = match &stat.device {
        Some((major, minor)) => format!("{major}, {minor}"),
        None => stat.size.to_string(),
    };
    let name = match &row.target {
        Some(target) => format!("{} -> {}", printable(&row.name), printable(target)),
        None => printable(&row.name),
    };
    vec![
        stat.mode_text(),
        stat.links.to_string(),
        stat.uid.to_string(),
        stat.gid.to_string(),
        size,
        text::utc(stat.mtime.seconds),
        name,
    ]
}

fn to_json(row: &Row) -> Value {
    let stat = &row.stat;
    let mut object = json!({
        "name": String::from_utf8_lossy(&row.name),
        "type": stat.file_type.to_string(),
        "mode": format!("{:04o}", stat.mode & 0o7777),
        "links": stat.links,
        "uid": stat.uid,
        "gid": stat.gid,
        "size_bytes": stat.size,
        "mtime_unix": stat.mtime.seconds,
        "mtime_nanoseconds": stat.mtime.nanoseconds,
        "inode": stat.inode,
    });
    // JSON has no bytes: a name that is not UTF-8 is given in hexadecimal too.
    if std::str::from_utf8(&row.name).is_err() {
        object["name_hex"] = Value::String(row.name.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    if let Some(target) = &row.target {
        object["target"] = Value::String(String::from_utf8_lossy(target).into_owned());
    }
    if let Some((major, minor)) = &stat.device {
        object["device"] = json!({ "major": major, "minor": minor });
    }
    object
}
