//! The keeper: what runs in the sandbox's user namespace. One thread, no output of its own, no path of the host.

mod compare;
mod copy;
mod layer;
mod mounts;
mod record;
mod remove;
mod setup;
mod step;
mod unpack;
mod watch;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::host::KEEPER;
use crate::sys;
use crate::wire::{self, Kind, RunStep, Settings};
use copy::Copy;

/// Keeps files that this process was started with to itself: programs that it starts get none of them but those they are given,
/// so scripts of packages, say, cannot write to them. Standard input, output and error stay. Does nothing where the kernel cannot
/// (before Linux 5.11).
pub fn keep_inherited_files() {
    _ = sys::close_from_on_exec(3);
}

/// If this process was started as a sandbox's keeper, is that and never returns. To be called first in `main`, before there are
/// other threads; costs nothing else.
pub fn child_main() {
    if std::env::args_os().next().is_some_and(|name| name == KEEPER) {
        let control = UnixStream::from(sys::inherited(0));
        let folder = sys::inherited(1);
        // Nobody is left to tell.
        let code = i32::from(keep(&control, folder).is_err());
        sys::exit_now(code);
    }
}

/// What the keeper was doing when something failed.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// Says what was being done when a system call failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{}: {}", what(), error.into())))
    }
}

/// A path of the copy, for a message.
pub(crate) fn shown(path: &[u8]) -> String {
    format!(
        "/{}",
        path.escape_ascii()
            .to_string()
            .chars()
            .take(200)
            .collect::<String>()
    )
}

fn keep(control: &UnixStream, folder: OwnedFd) -> io::Result<()> {
    let tell = |failure: Failure| wire::send(control, Kind::Error, failure.0.as_bytes());
    if let Err(Failure(why)) = setup::own_user_namespace(&folder) {
        return tell(Failure(format!("namespaces: {why}")));
    }
    let outer = setup::outer();
    wire::send(control, Kind::Ready, b"")?;
    let mut payload = Vec::new();
    let Some(Kind::Settings) = wire::receive(control, &mut payload)? else {
        return Ok(());
    };
    let settings: Settings = wire::json(&payload)?;
    if let Err(Failure(why)) = setup::own_root(settings.ids) {
        return tell(Failure(format!("namespaces: {why}")));
    }
    let name = settings.folder.clone();
    let served = match Copy::create(settings) {
        Ok(mut copy) => {
            wire::send(control, Kind::Done, b"")?;
            serve(control, &mut copy)
        }
        Err(failure) => tell(failure),
    };
    // On every end, also when the host is gone.
    remove::everything();
    // Where the caller is root, the folder's own folder is too far away; then the caller does this.
    if let Some(outer) = outer {
        _ = rustix::fs::unlinkat(outer, name, rustix::fs::AtFlags::REMOVEDIR);
    }
    served
}

/// Does what the host asks for until it asks no more.
fn serve(control: &UnixStream, copy: &mut Copy) -> io::Result<()> {
    let mut payload = Vec::new();
    loop {
        let result = match wire::receive(control, &mut payload)? {
            None => return Ok(()),
            Some(Kind::Tar) => {
                let first = std::mem::take(&mut payload);
                copy.unpack(control, first).map(|()| Some(Kind::Done))
            }
            Some(Kind::Run) => {
                let run: RunStep = wire::json(&payload)?;
                match copy.run(control, &run) {
                    Ok(Some(outcome)) => {
                        wire::send_json(control, Kind::Outcome, &outcome)?;
                        Ok(None)
                    }
                    // The host is gone, or wants no more of it.
                    Ok(None) => return Ok(()),
                    Err(failure) => Err(failure),
                }
            }
            Some(Kind::Layer) => copy.layer(control).map(|()| Some(Kind::Done)),
            Some(_) => Err(Failure("the host asked for something else".to_owned())),
        };
        match result {
            Ok(Some(kind)) => wire::send(control, kind, b"")?,
            Ok(None) => {}
            Err(Failure(why)) => wire::send(control, Kind::Error, why.as_bytes())?,
        }
    }
}
