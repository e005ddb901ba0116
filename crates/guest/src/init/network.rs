//! Loopback, and one interface as `ip=` on the kernel command line says.
//!
//! `ip=` has the kernel's own form (`Documentation/admin-guide/nfs/nfsroot.rst`), but is read here, because distribution kernels are built without
//! it: `client:server:gateway:netmask:hostname:device:autoconf:dns0:dns1`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::machine::NO_NAME;
use crate::boot::Boot;
use crate::cmdline::Cmdline;
use crate::errno::describe;
use crate::{file, kernel};

/// What `ip=` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    /// Our address.
    pub address: Ipv4Addr,
    /// Where everything else goes.
    pub gateway: Option<Ipv4Addr>,
    /// The network's mask.
    pub netmask: Ipv4Addr,
    /// The interface.
    pub device: String,
    /// Name servers, at most two.
    pub dns: Vec<Ipv4Addr>,
}

impl IpConfig {
    /// Reads the value of `ip=`; `None` when it asks for nothing.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Option<IpConfig>, String> {
        let fields: Vec<&str> = text.split(':').collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or("");
        if matches!(text, "off" | "none") || text.is_empty() {
            return Ok(None);
        }
        if fields.len() == 1 && text.parse::<Ipv4Addr>().is_err()
            || !matches!(field(6), "" | "off" | "none" | "on")
        {
            return Err(alloc::format!(
                "ip={text}: only fixed addresses are supported, not automatic configuration"
            ));
        }
        let address = |index: usize| match field(index) {
            "" => Ok(None),
            given => given
                .parse::<Ipv4Addr>()
                .map(Some)
                .map_err(|_| alloc::format!("ip={text}: {given:?} is no address")),
        };
        let Some(own) = address(0)? else {
            return Err(alloc::format!("ip={text}: the address is missing"));
        };
        let device = if field(5).is_empty() { "eth0" } else { field(5) };
        Ok(Some(IpConfig {
            address: own,
            gateway: address(2)?,
            netmask: address(3)?.unwrap_or_else(|| class_mask(own)),
            device: device.to_string(),
            dns: [address(7)?, address(8)?]
                .into_iter()
                .flatten()
                .filter(|server| !server.is_unspecified())
                .collect(),
        }))
    }
}

/// The mask that the kernel takes where none is given: by the address's class.
fn class_mask(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets()[0] {
        0..128 => Ipv4Addr::new(255, 0, 0, 0),
        128..192 => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}

/// Brings the interfaces up.
pub(crate) fn set_up(cmdline: &Cmdline, boot: &mut Boot) {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return boot.warn(format_args!("no network: {}", describe(error))),
    };
    if let Err(error) = bring_up(&socket, "lo") {
        boot.warn(format_args!("cannot bring up lo: {}", describe(error)));
    }
    kernels_name_servers();
    let Some(text) = cmdline.value("ip") else { return };
    match IpConfig::parse(text) {
        Ok(Some(config)) => {
            if let Err((what, error)) = configure(&socket, &config) {
                boot.warn(format_args!(
                    "network interface {}: cannot set {what}: {}",
                    config.device,
                    describe(error)
                ));
            }
            if let Err(problem) = name_servers(&config.dns) {
                boot.warn(format_args!("{problem}"));
            }
        }
        Ok(None) => {}
        Err(problem) => boot.warn(format_args!("{problem}")),
    }
}

fn configure(socket: &OwnedFd, config: &IpConfig) -> Result<(), (&'static str, Errno)> {
    const SIOCSIFADDR: u32 = 0x8916;
    const SIOCSIFNETMASK: u32 = 0x891c;
    let set = |request, address| {
        interface_request(socket, request, &config.device, &socket_address(address)).map(drop)
    };
    set(SIOCSIFADDR, config.address).map_err(|error| ("its address", error))?;
    set(SIOCSIFNETMASK, config.netmask).map_err(|error| ("its netmask", error))?;
    bring_up(socket, &config.device).map_err(|error| ("it up", error))?;
    if let Some(gateway) = config.gateway.filter(|gateway| !gateway.is_unspecified()) {
        add_default_route(socket, gateway).map_err(|error| ("the default route", error))?;
    }
    Ok(())
}

fn bring_up(socket: &OwnedFd, device: &str) -> Result<(), Errno> {
    const SIOCGIFFLAGS: u32 = 0x8913;
    const SIOCSIFFLAGS: u32 = 0x8914;
    const IFF_UP: u16 = 1;
    let answer = interface_request(socket, SIOCGIFFLAGS, device, &[])?;
    let flags = u16::from_ne_bytes([answer[0], answer[1]]) | IFF_UP;
    interface_request(socket, SIOCSIFFLAGS, device, &flags.to_ne_bytes()).map(drop)
}

/// An `ioctl` on `struct ifreq`: the interface's name, then a union of 24 bytes, which is given back.
fn interface_request(socket: &OwnedFd, request: u32, device: &str, union: &[u8]) -> Result<[u8; 24], Errno> {
    const NAME_BYTES: usize = 16;
    let mut bytes = [0u8; NAME_BYTES + 24];
    if device.len() >= NAME_BYTES {
        return Err(Errno::NODEV);
    }
    bytes[..device.len()].copy_from_slice(device.as_bytes());
    bytes[NAME_BYTES..][..union.len()].copy_from_slice(union);
    kernel::ioctl_bytes(socket, request, &mut bytes)?;
    let mut answer = [0; 24];
    answer.copy_from_slice(&bytes[NAME_BYTES..]);
    Ok(answer)
}

fn add_default_route(socket: &OwnedFd, gateway: Ipv4Addr) -> Result<(), Errno> {
    const SIOCADDRT: u32 = 0x890b;
    const RTF_UP_GATEWAY: u16 = 3;
    // `struct rtentry`: 8 bytes of nothing, destination, gateway, mask, flags; the rest stays zero.
    let mut route = [0u8; 120];
    route[8..24].copy_from_slice(&socket_address(Ipv4Addr::UNSPECIFIED));
    route[24..40].copy_from_slice(&socket_address(gateway));
    route[40..56].copy_from_slice(&socket_address(Ipv4Addr::UNSPECIFIED));
    route[56..58].copy_from_slice(&RTF_UP_GATEWAY.to_ne_bytes());
    match kernel::ioctl_bytes(socket, SIOCADDRT, &mut route) {
        Err(Errno::EXIST) => Ok(()), // the kernel was built with IP_PNP and did it
        outcome => outcome,
    }
}

/// `struct sockaddr_in` without a port.
fn socket_address(address: Ipv4Addr) -> [u8; 16] {
    const AF_INET: u16 = 2;
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    bytes[4..8].copy_from_slice(&address.octets());
    bytes
}

/// Where a kernel that configures the network itself tells its name servers.
const PNP: &str = "/proc/net/pnp";

/// Lets programs find the name servers of a kernel that configured the network itself, if the image says nothing.
fn kernels_name_servers() {
    const PATH: &str = "/etc/resolv.conf";
    let kernel_knows = file::text(PNP)
        .lines()
        .any(|line| line.starts_with("nameserver "));
    let image_says = !file::text(PATH).trim().is_empty();
    if kernel_knows && !image_says && rustix::fs::readlink(PATH, Vec::new()).is_err() {
        let _ = rustix::fs::unlink(PATH);
        let _ = rustix::fs::symlink(PNP, PATH);
    }
}

/// Writes `/etc/resolv.conf` where the image leaves it to the runtime: it is missing or empty, or a symlink to a file
/// in `/run` that nobody makes here, or to `/proc/net/pnp` in a kernel that has none.
fn name_servers(servers: &[Ipv4Addr]) -> Result<(), String> {
    const PATH: &str = "/etc/resolv.conf";
    if servers.is_empty() || !file::text(PATH).trim().is_empty() {
        return Ok(());
    }
    if let Ok(target) = rustix::fs::readlink(PATH, Vec::new()) {
        let target = target.to_string_lossy();
        let absolute = target.strip_prefix("..").unwrap_or(&target);
        if absolute == PNP {
            // The kernel would tell there what it was given, had it not been built without that: a file takes its place.
            rustix::fs::unlink(PATH)
                .map_err(|error| alloc::format!("cannot replace {PATH}: {}", describe(error)))?;
        } else if !absolute.starts_with("/run/") || absolute.contains("/../") {
            return Err(alloc::format!(
                "{PATH} points at {target}, which gives no name servers"
            ));
        } else {
            let folder = absolute.rsplit_once('/').map_or("/run", |(folder, _)| folder);
            file::make_dirs(folder, 0o755)
                .map_err(|error| alloc::format!("cannot make {folder}: {}", describe(error)))?;
        }
    }
    let lines: Vec<String> = servers
        .iter()
        .map(|server| alloc::format!("nameserver {server}\n"))
        .collect();
    file::write(PATH, lines.concat().as_bytes())
        .map_err(|error| alloc::format!("cannot write {PATH}: {}", describe(error)))
}

/// Lets programs find `localhost` and the machine by its name, as container runtimes do when they start a container: they make
/// `/etc/hosts`, so images have none, or an empty one.
pub(super) fn hosts(boot: &mut Boot) {
    const PATH: &str = "/etc/hosts";
    const LIMIT_BYTES: usize = 1 << 20;
    if rustix::fs::readlink(PATH, Vec::new()).is_ok() {
        return; // somebody's own arrangement
    }
    let found = match file::read(PATH, LIMIT_BYTES) {
        Ok(bytes) => String::from_utf8(bytes).ok(),
        Err(Errno::NOENT) => Some(String::new()),
        Err(_) => None,
    };
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // What cannot be read is not ours to write.
    let Some(text) = found.and_then(|hosts| with_names(&hosts, &name)) else {
        return;
    };
    match file::write(PATH, text.as_bytes()) {
        // A root that nobody shall write stays as it is.
        Ok(()) | Err(Errno::ROFS) => {}
        Err(error) => boot.warn(format_args!("cannot write {PATH}: {}", describe(error))),
    }
}

/// What `hosts` is with `localhost`, where it says nothing, and with the machine's name, where it lacks that; `None` if it has all.
fn with_names(hosts: &str, name: &str) -> Option<String> {
    const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    let is_blank = hosts.trim().is_empty();
    let mut text = String::from(if is_blank { LOCALHOST } else { hosts });
    let is_known = text.lines().any(|line| {
        let entry = line.split('#').next().unwrap_or("");
        entry.split_whitespace().skip(1).any(|known| known == name)
    });
    let is_named = !name.is_empty() && name != NO_NAME && !name.contains(char::is_whitespace);
    if !is_known && is_named {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&alloc::format!("127.0.1.1\t{name}\n"));
    }
    (text != hosts).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_get_what_they_lack() {
        let fresh = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
        for blank in ["", " \n\n"] {
            assert_eq!(with_names(blank, NO_NAME).as_deref(), Some(fresh));
            let named = alloc::format!("{fresh}127.0.1.1\tbox\n");
            assert_eq!(with_names(blank, "box"), Some(named));
        }
        let images = "127.0.0.1 localhost box.example box # the box\n# 10.0.0.1 other";
        for known in ["localhost", "box", "box.example", NO_NAME, "", "a b"] {
            assert_eq!(with_names(images, known), None, "{known:?}");
        }
        for missing in ["other", "the", "127.0.0.1", "bo"] {
            let named = alloc::format!("{images}\n127.0.1.1\t{missing}\n");
            assert_eq!(with_names(images, missing), Some(named));
        }
    }

    fn parsed(text: &str) -> IpConfig {
        IpConfig::parse(text).expect(text).expect(text)
    }

    #[test]
    fn the_kernels_form() {
        let config = parsed("172.16.0.2::172.16.0.1:255.255.255.252:vm:eth1:off:1.1.1.1:8.8.8.8");
        assert_eq!(config.address, Ipv4Addr::new(172, 16, 0, 2));
        assert_eq!(config.gateway, Some(Ipv4Addr::new(172, 16, 0, 1)));
        assert_eq!(config.netmask, Ipv4Addr::new(255, 255, 255, 252));
        assert_eq!((config.device.as_str(), config.dns.len()), ("eth1", 2));
        let config = parsed("10.0.2.15");
        assert_eq!(
            (config.netmask, config.device.as_str()),
            (Ipv4Addr::new(255, 0, 0, 0), "eth0")
        );
        assert_eq!((config.gateway, config.dns.len()), (None, 0));
        assert_eq!(
            parsed("192.168.1.5:::::").netmask,
            Ipv4Addr::new(255, 255, 255, 0)
        );
        assert_eq!(
            parsed("10.0.0.1:::::::0.0.0.0:9.9.9.9").dns,
            [Ipv4Addr::new(9, 9, 9, 9)]
        );
    }

    #[test]
    fn nothing_and_nonsense() {
        for text in ["", "off", "none"] {
            assert_eq!(IpConfig::parse(text), Ok(None), "{text}");
        }
        for text in [
            "dhcp",
            "on",
            ":::::eth0:dhcp",
            "10.0.0.1:::::eth0:dhcp",
            "10.0.0.256",
            "1.2.3.4::x",
            ":::::",
            "1.2.3.4:::255.255:",
        ] {
            assert!(IpConfig::parse(text).is_err(), "{text}");
        }
    }
}
