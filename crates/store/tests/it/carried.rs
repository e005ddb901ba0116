//! Other programs carry an image through other places, and it comes back as it was.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firebrick_testkit::oracle;

use crate::archives::{export, import};
use crate::common::{Host, Part, content, image};

/// A real registry on loopback; it ends with this value.
struct Registry {
    host: String,
    child: Child,
}

impl Registry {
    fn start(folder: &Path) -> Registry {
        // Another test may take the port between our look and the registry's: then we look again.
        for _ in 0..10 {
            let host = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .to_string();
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
                folder.join("data").display()
            );
            fs::write(folder.join("config.yml"), config).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(folder.join("config.yml"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(&host).is_ok() {
                    return Registry { host, child };
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skopeo(from: &str, to: &str) {
    let args = [
        "--insecure-policy",
        "copy",
        "-q",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ];
    oracle::run_ok("skopeo", args).unwrap();
}

#[test]
fn skopeo_carries_an_image_through_folders_and_registries() {
    for tool in ["skopeo", "docker-registry"] {
        if !oracle::have(tool).unwrap() {
            return;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let shown = |name: &str| at(name).display().to_string();
    let registry = Registry::start(dir.path());
    image(
        &at("a"),
        &[
            Part::Data(&content(1, 1500)),
            Part::Hole(9),
            Part::Data(&content(2, 30)),
        ],
    );
    let host = Host::new(&at("store"), &at("cache"));
    let sent = host.upload(&at("a"), "python:v1").unwrap();
    let (bytes, _) = export(&host, "python:v1", dir.path());
    fs::write(at("one.tar"), &bytes).unwrap();
    let remote = format!("docker://{}/images/python:v1", registry.host);
    skopeo(
        &format!("oci-archive:{}:python:v1", shown("one.tar")),
        &format!("oci:{}:python:v1", shown("folder")),
    );
    skopeo(&format!("oci:{}:python:v1", shown("folder")), &remote);
    skopeo(&remote, &format!("oci-archive:{}:snake:v2", shown("two.tar")));
    // Its last archive, and the store that its folder is.
    let other = Host::new(&at("store2"), &at("cache2"));
    let taken = import(&other, &fs::read(at("two.tar")).unwrap(), None, dir.path()).unwrap();
    assert_eq!(taken.published.tagged.to_string(), "snake:v2");
    assert_eq!(taken.published.digest, sent.published.digest);
    let folder = Host::new(&at("folder"), &at("cache3"));
    for (host, name, path) in [(&other, "snake:v2", "b"), (&folder, "python:v1", "c")] {
        host.download(name, &at(path), &[]).unwrap();
        assert!(fs::read(at("a")).unwrap() == fs::read(at(path)).unwrap());
    }
}
