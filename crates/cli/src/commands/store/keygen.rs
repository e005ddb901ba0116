//! `firebrick store keygen`.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_store::Seal;
use firebrick_trust::{PrivateKey, SealKey};

use crate::error::write_stdout;
use crate::talk::Talk;

/// Make keys that sign or encrypt images
///
/// No file is overwritten. Prints each key's file and id; the id of a signing key is the SHA-256 of its public key in DER.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["sign", "seal"]))]
pub(crate) struct Args {
    /// Make a key that signs: the private key in FILE, which only its owner may read, and the public key in FILE.pub
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,

    /// Make a key that encrypts, for --key: who loses it loses the images
    #[arg(long, value_name = "FILE")]
    seal: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, talk: &Talk) -> anyhow::Result<()> {
    let public = args.sign.as_deref().map(public_of);
    let files: Vec<&PathBuf> = args.sign.iter().chain(&public).chain(&args.seal).collect();
    for (number, path) in files.iter().enumerate() {
        // Nothing is made if not all can be.
        if path.symlink_metadata().is_ok() || files.iter().take(number).any(|other| other == path) {
            let error = anyhow::Error::from(std::io::Error::from(rustix::io::Errno::EXIST));
            return Err(error.context(format!("cannot write the key {path:?}")));
        }
    }
    if let (Some(path), Some(public)) = (&args.sign, public) {
        let (key, text) = PrivateKey::generate()?;
        create(&public, 0o644, &key.public().to_pem())?;
        if let Err(error) = create(path, 0o600, &text) {
            let _ = fs::remove_file(&public); // nothing was signed with it
            return Err(error);
        }
        write_stdout(format!("{} {}\n", path.display(), key.public().id()).as_bytes())?;
        talk.say(&format!(
            "{} is for policies and for firebrick rootfs verify; nobody else needs {}",
            public.display(),
            path.display()
        ));
    }
    if let Some(path) = &args.seal {
        let key = SealKey::generate()?;
        create(path, 0o600, &key.to_text())?;
        let seal = Seal::keyed(key.bytes());
        let id = seal.fingerprint().unwrap_or_default();
        write_stdout(format!("{} {id}\n", path.display()).as_bytes())?;
        talk.say("keep a copy of it: without it nobody reads what it encrypts");
    }
    Ok(())
}

/// Where the public key of a private one goes.
fn public_of(path: &Path) -> PathBuf {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    public.into()
}

/// Writes a file that must not be there yet, and leaves none that is not whole.
fn create(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let writing = || format!("cannot write the key {path:?}");
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(writing)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written
        .inspect_err(|_| _ = fs::remove_file(path)) // it is ours, and of no use
        .with_context(writing)
}
