//! The recipes in the binary: a profile for each language that jobs are written in, and `devbox`.

use crate::problem::Problems;
use crate::recipe::Recipe;
use crate::{Checks, parse_toml};

/// A recipe in the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! shipped_recipes {
    ($($name:literal),*) => {
        [$(Shipped {
            name: $name,
            text: include_str!(concat!("../../../recipes/", $name, ".toml")),
        }),*]
    };
}

/// All of them, by name.
const ALL: [Shipped; 10] = shipped_recipes![
    "bash", "devbox", "dotnet", "go", "java", "nodejs", "php", "python", "ruby", "rust"
];

/// The shipped recipe of a name.
pub fn shipped(name: &str) -> Option<Shipped> {
    ALL.into_iter().find(|recipe| recipe.name == name)
}

/// The names of all shipped recipes, sorted.
pub fn shipped_names() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().map(|recipe| recipe.name)
}

/// The names of those that make an image run one language, sorted. `devbox` is a whole machine.
pub fn languages() -> impl Iterator<Item = &'static str> {
    shipped_names().filter(|name| *name != "devbox")
}

impl Shipped {
    /// Reads it.
    ///
    /// # Errors
    /// [`Problems`] that the checks find.
    pub fn recipe(&self, checks: &Checks<'_>) -> Result<Recipe, Problems> {
        parse_toml(&format!("{}.toml", self.name), self.text, checks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Base, From};

    #[test]
    fn every_profile_says_what_it_is_and_where_it_starts() {
        for name in shipped_names() {
            let recipe = shipped(name)
                .unwrap()
                .recipe(&Checks::default())
                .unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(recipe.name.as_deref(), Some(name));
            assert!(recipe.description.is_some_and(|text| text.len() > 20), "{name}");
            assert_eq!(
                recipe.root_password, None,
                "{name}: nobody has a password that nobody asked for"
            );
            match recipe.from {
                Some(From::Packages(set)) => {
                    let packages = recipe.packages.on(set.base).expect(name);
                    assert!(!packages.is_empty(), "{name}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn devbox_is_the_whole_of_what_its_users_document() {
        let recipe = shipped("devbox").unwrap().recipe(&Checks::default()).unwrap();
        let packages = recipe.packages.on(Base::Debian).unwrap();
        for package in [
            "python3",
            "python3-pip",
            "python3-venv",
            "python3-dev",
            "nodejs",
            "npm",
            "rustc-web",
            "cargo-web",
            "bash",
            "build-essential",
            "pkg-config",
            "cmake",
            "clang",
            "curl",
            "wget",
            "openssh-client",
            "ca-certificates",
            "iproute2",
            "iputils-ping",
            "dnsutils",
            "ifupdown",
            "isc-dhcp-client",
            "git",
            "vim",
            "nano",
            "less",
            "tree",
            "htop",
            "jq",
            "rsync",
            "strace",
            "gdb",
            "zip",
            "unzip",
            "xz-utils",
            "shellcheck",
            "systemd",
            "systemd-sysv",
        ] {
            assert!(packages.iter().any(|own| own == package), "{package}");
        }
        assert_eq!(recipe.settings.fstab, ["/dev/vda / ext4 defaults 0 1"]);
        assert_eq!(
            recipe.settings.interfaces[0].to_string(),
            "auto eth0\niface eth0 inet dhcp\n"
        );
        let modules: Vec<&str> = recipe
            .settings
            .modules
            .iter()
            .map(|module| module.as_str())
            .collect();
        assert_eq!(modules, ["vsock", "vmw_vsock_virtio_transport"]);
        assert_eq!(recipe.settings.consoles[0].as_str(), "ttyS0");
        assert_eq!(recipe.options["init"], "systemd");
        assert_eq!(recipe.settings.slim.len(), 8);
    }
}
