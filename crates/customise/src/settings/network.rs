//! Hostname, hosts, resolver and interfaces.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::names::BadValue;
use super::{Dns, Settings, files, setting};
use crate::image::Image;
use crate::init::Chosen;
use crate::lower::LowerKind;
use crate::plan::{CustomiseError, EntryKind, Planner};

/// A network interface, as a stanza of `/etc/network/interfaces`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Where its address comes from.
    pub address: Address,
}

/// Where an interface's address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A DHCP server.
    Dhcp,
    /// It is always this one.
    Static {
        /// The address.
        address: Ipv4Addr,
        /// Bits of the network, at most 32.
        prefix: u8,
        /// Who knows the way out.
        gateway: Option<Ipv4Addr>,
    },
}

impl Interface {
    /// An interface of a name that Linux takes.
    ///
    /// # Errors
    /// [`BadValue`] for any other name.
    pub fn new(name: &str, address: Address) -> Result<Interface, BadValue> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 15 || !name.bytes().all(plain) || name.starts_with('.') {
            return Err(BadValue {
                text: name.to_owned(),
                what: "network interface",
                expected: "expected a name such as eth0, at most 15 letters and digits",
            });
        }
        Ok(Interface {
            name: name.to_owned(),
            address,
        })
    }
}

impl FromStr for Address {
    type Err = BadValue;

    /// `dhcp`, `10.0.0.2/24`, or `10.0.0.2/24 via 10.0.0.1`.
    fn from_str(text: &str) -> Result<Address, BadValue> {
        if text == "dhcp" {
            return Ok(Address::Dhcp);
        }
        let parse = || {
            let (own, gateway) = match text.split_once(" via ") {
                Some((own, gateway)) => (own, Some(gateway.parse().ok()?)),
                None => (text, None),
            };
            let (address, prefix) = own.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
            Some(Address::Static {
                address: address.parse().ok()?,
                prefix,
                gateway,
            })
        };
        parse().ok_or_else(|| BadValue {
            text: text.to_owned(),
            what: "address",
            expected: "expected dhcp, 10.0.0.2/24, or 10.0.0.2/24 via 10.0.0.1",
        })
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.address {
            Address::Dhcp => writeln!(f, "auto {name}\niface {name} inet dhcp"),
            Address::Static {
                address,
                prefix,
                gateway,
            } => {
                writeln!(
                    f,
                    "auto {name}\niface {name} inet static\n\taddress {address}/{prefix}"
                )?;
                match gateway {
                    Some(gateway) => writeln!(f, "\tgateway {gateway}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl FromStr for Dns {
    type Err = BadValue;

    /// `pnp`, or addresses with commas between.
    fn from_str(text: &str) -> Result<Dns, BadValue> {
        if text == "pnp" {
            return Ok(Dns::Pnp);
        }
        let servers: Result<Vec<IpAddr>, _> = text.split(',').map(|server| server.trim().parse()).collect();
        servers.map(Dns::Servers).map_err(|_| BadValue {
            text: text.to_owned(),
            what: "list of name servers",
            expected: "expected addresses with commas between, or pnp for what the kernel is told with ip=",
        })
    }
}

pub(super) fn add(
    planner: &mut Planner<'_, '_>,
    settings: &Settings,
    image: &Image<'_>,
    chosen: Chosen,
) -> Result<(), CustomiseError> {
    if let Some(name) = &settings.hostname {
        let text = format!("{name}\n");
        planner.add("etc/hostname", 0o644, EntryKind::File(text.into_bytes().into()))?;
        let (at, found) = setting("the host name", files::existing(planner, image, "etc/hosts"))?;
        let (meta, hosts) = found.unwrap_or_default();
        let text = with_name(&hosts, name.as_str());
        files::edited(planner, at, meta, text)?;
    } else if chosen != Chosen::Untouched {
        add_localhost(planner, image)?;
    }
    match &settings.dns {
        Some(Dns::Pnp) => {
            let target = EntryKind::Symlink(b"/proc/net/pnp".to_vec());
            planner.add("etc/resolv.conf", 0o777, target)?;
        }
        Some(Dns::Servers(servers)) => {
            let text: String = servers
                .iter()
                .map(|server| format!("nameserver {server}\n"))
                .collect();
            planner.add(
                "etc/resolv.conf",
                0o644,
                EntryKind::File(text.into_bytes().into()),
            )?;
        }
        None => {}
    }
    if !settings.interfaces.is_empty() {
        let own: Vec<String> = settings.interfaces.iter().map(Interface::to_string).collect();
        let text = format!("auto lo\niface lo inet loopback\n\n{}", own.join("\n"));
        planner.add(
            "etc/network/interfaces",
            0o644,
            EntryKind::File(text.into_bytes().into()),
        )?;
    }
    Ok(())
}

/// Adds an `/etc/hosts` that knows `localhost`, where the image leaves the file to a container runtime: it is missing, or blank.
fn add_localhost(planner: &mut Planner<'_, '_>, image: &Image<'_>) -> Result<(), CustomiseError> {
    let is_link = matches!(planner.lower.kind(b"etc/hosts"), Some(LowerKind::Symlink(_)));
    let Ok((at, found)) = files::existing(planner, image, "etc/hosts") else {
        return Ok(()); // no file: somebody's own arrangement
    };
    let (meta, hosts) = found.unwrap_or_default();
    if is_link || !is_blank(&hosts) {
        return Ok(());
    }
    files::edited(planner, at, meta, NO_HOSTS.to_vec())
}

/// What an `/etc/hosts` is that says nothing else.
const NO_HOSTS: &[u8] = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

fn is_blank(hosts: &[u8]) -> bool {
    hosts.iter().all(u8::is_ascii_whitespace)
}

/// What `/etc/hosts` is with the machine's own name in it, at 127.0.1.1 as Debian has it.
fn with_name(hosts: &[u8], name: &str) -> Vec<u8> {
    let hosts = if is_blank(hosts) { NO_HOSTS } else { hosts };
    let mut text = Vec::new();
    for line in hosts.split_inclusive(|&byte| byte == b'\n') {
        let address = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if address != b"127.0.1.1" {
            text.extend_from_slice(line);
        }
    }
    if text.last().is_some_and(|&byte| byte != b'\n') {
        text.push(b'\n');
    }
    let short = name.split('.').next().unwrap_or(name);
    let own = match short == name {
        true => format!("127.0.1.1\t{name}\n"),
        false => format!("127.0.1.1\t{name} {short}\n"),
    };
    text.extend_from_slice(own.as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_their_lines_and_know_one_own_name() {
        let text = |hosts: &[u8], name| String::from_utf8_lossy(&with_name(hosts, name)).into_owned();
        let fresh = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tbox\n";
        assert_eq!(text(b"", "box"), fresh);
        assert_eq!(text(b" \n", "box"), fresh);
        assert_eq!(
            text(b"1.2.3.4 a\n127.0.1.1 old", "b.c"),
            "1.2.3.4 a\n127.0.1.1\tb.c b\n"
        );
        assert_eq!(text(b"1.2.3.4 a", "box"), "1.2.3.4 a\n127.0.1.1\tbox\n");
        assert_eq!(with_name(b"\xff\n", "b"), b"\xff\n127.0.1.1\tb\n");
    }

    #[test]
    fn addresses_are_dhcp_or_written_out() {
        let stanza = |text: &str| Interface::new("eth0", text.parse().unwrap()).unwrap().to_string();
        assert_eq!(stanza("dhcp"), "auto eth0\niface eth0 inet dhcp\n");
        assert_eq!(
            stanza("10.0.0.2/24 via 10.0.0.1"),
            "auto eth0\niface eth0 inet static\n\taddress 10.0.0.2/24\n\tgateway 10.0.0.1\n"
        );
        for text in [
            "",
            "DHCP",
            "10.0.0.2",
            "10.0.0.2/33",
            "10.0.0.2/24 via x",
            "10.0.0.2/24\n",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
        for name in ["", "a b", "eth0\n", "sixteen-letters-x", "../x"] {
            assert!(Interface::new(name, Address::Dhcp).is_err(), "{name:?}");
        }
        assert!("1.1.1.1,::1".parse::<Dns>().is_ok());
        assert!("1.1.1.1, x".parse::<Dns>().is_err());
    }
}
