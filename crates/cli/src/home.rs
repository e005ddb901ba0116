//! Where firebrick keeps its things: images, kernels and the cache.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The state folders. None of them need exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    data: PathBuf,
    cache: PathBuf,
}

/// Nothing says where the state folders are.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell where to keep images: HOME is not set")]
pub(crate) struct NoHome;

impl Home {
    /// Asks the process's environment and user.
    pub(crate) fn of_process() -> Result<Home, NoHome> {
        Home::of(
            |name| std::env::var_os(name),
            rustix::process::geteuid().is_root(),
        )
    }

    fn of(env: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Result<Home, NoHome> {
        let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(all) = env("FIREBRICK_HOME").filter(|value| !value.is_empty()) {
            let all = std::path::absolute(&all).unwrap_or_else(|_| PathBuf::from(all));
            return Ok(Home {
                cache: all.join("cache"),
                data: all,
            });
        }
        if is_root {
            let data = PathBuf::from("/srv/firecracker");
            return Ok(Home {
                cache: data.join("cache"),
                data,
            });
        }
        // The XDG specification says to ignore relative values.
        let folder = |variable: &str, below_home: &str| {
            let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)));
            base.map(|base| base.join("firebrick")).ok_or(NoHome)
        };
        Ok(Home {
            data: folder("XDG_DATA_HOME", ".local/share")?,
            cache: folder("XDG_CACHE_HOME", ".cache")?,
        })
    }

    /// `images/`: `rootfs-{name}.ext4` and `rootfs-{name}.squashfs` files.
    pub(crate) fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// The image file of a name, in a format.
    pub(crate) fn image(&self, name: &str, format: &str) -> PathBuf {
        self.images().join(format!("rootfs-{name}.{format}"))
    }

    /// Everything but the cache.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// What belongs to VMs and pools that run: sockets, logs. Nothing in it need outlive them.
    pub(crate) fn run(&self) -> PathBuf {
        self.data.join("run")
    }

    /// Downloaded layers, by digest.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(vars: &[(&str, &str)], is_root: bool) -> Option<(String, String)> {
        let vars: Vec<(String, OsString)> = vars
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let env = move |name: &str| {
            vars.iter()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.clone())
        };
        let home = Home::of(env, is_root).ok()?;
        Some((home.data.to_str()?.into(), home.cache.to_str()?.into()))
    }

    #[test]
    fn folders_follow_user_and_environment() {
        let both = |data: &str, cache: &str| Some((data.to_owned(), cache.to_owned()));
        let user = [("HOME", "/home/u")];
        assert_eq!(
            home(&user, false),
            both("/home/u/.local/share/firebrick", "/home/u/.cache/firebrick")
        );
        assert_eq!(
            home(&user, true),
            both("/srv/firecracker", "/srv/firecracker/cache")
        );
        let set = [("HOME", "/home/u"), ("FIREBRICK_HOME", "/x")];
        assert_eq!(home(&set, true), both("/x", "/x/cache"));
        assert_eq!(home(&set, false), both("/x", "/x/cache"));
        let xdg = [
            ("HOME", "/home/u"),
            ("XDG_DATA_HOME", "/d"),
            ("XDG_CACHE_HOME", "relative"),
        ];
        assert_eq!(
            home(&xdg, false),
            both("/d/firebrick", "/home/u/.cache/firebrick")
        );
        assert_eq!(home(&[], false), None);
        assert_eq!(home(&[("FIREBRICK_HOME", "")], false), None);
    }
}
