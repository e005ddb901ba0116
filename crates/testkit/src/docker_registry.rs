//! A real `docker-registry` on loopback, filled by `skopeo`.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::oracle;

/// The process and its folder; both end with this value.
#[derive(Debug)]
pub struct DockerRegistry {
    /// Its host and port.
    pub host: String,
    /// Where its data lie, in `data`.
    pub folder: tempfile::TempDir,
    child: Child,
    tls: bool,
}

/// What the registry asks of its users.
#[derive(Debug, Default)]
pub struct Setup {
    /// Asks for user `joe`, password `s3cret:x`.
    pub htpasswd: bool,
    /// Speaks TLS with a certificate of its own for 127.0.0.1, in `ca.pem` of its folder.
    pub tls: bool,
    /// Lets manifests be removed.
    pub deletes: bool,
    /// An `auth:` section of its own.
    pub auth: Option<String>,
}

/// Who may do everything.
pub const USER: &str = "joe";
/// That one's password.
pub const PASSWORD: &str = "s3cret:x";

/// Whether the registry tests can run here; panics where a tool is missing and nobody opted out.
pub fn have_tools() -> bool {
    ["docker-registry", "skopeo", "htpasswd", "openssl"]
        .iter()
        .all(|tool| oracle::have(tool).unwrap())
}

impl DockerRegistry {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(setup: &Setup) -> DockerRegistry {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let at = |name: &str| root.join(name).display().to_string();
        let mut auth = setup.auth.clone().unwrap_or_default();
        if setup.htpasswd {
            let lines = oracle::run_ok("htpasswd", ["-Bbn", "-C", "4", USER, PASSWORD]).unwrap();
            fs::write(at("htpasswd"), lines).unwrap();
            auth = format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                at("htpasswd")
            );
        }
        let mut tls = String::new();
        if setup.tls {
            make_certificate(&root);
            tls = format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                at("cert.pem"),
                at("key.pem")
            );
        }
        // Another test may take the port between our look and the registry's: then we look again.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  delete:\n    enabled: {}\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{tls}{auth}",
                setup.deletes,
                at("data")
            );
            fs::write(at("config.yml"), config).unwrap();
            let mut child = Command::new("docker-registry")
                .args(["serve", &at("config.yml")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let host = format!("127.0.0.1:{port}");
            if wait_ready(&mut child, &host) {
                let tls = setup.tls;
                return DockerRegistry {
                    host,
                    child,
                    tls,
                    folder,
                };
            }
        }
        panic!("docker-registry does not start")
    }

    /// Pushes an image from somewhere to `name`.
    ///
    /// # Panics
    /// If `skopeo` cannot.
    pub fn push(&self, from: &str, name: &str) {
        let verify = format!("--dest-tls-verify={}", self.tls);
        let cert = format!("--dest-cert-dir={}", self.folder.path().join("trust").display());
        let creds = format!("--dest-creds={USER}:{PASSWORD}");
        let to = format!("docker://{}/{name}", self.host);
        if self.tls {
            // A folder of its own: skopeo takes every `.key` for a client's.
            let trust = self.folder.path().join("trust");
            fs::create_dir_all(&trust).unwrap();
            fs::copy(self.folder.path().join("ca.pem"), trust.join("ca.crt")).unwrap();
        }
        let mut args = vec!["--insecure-policy", "copy", "-q", "--all", &verify, &creds];
        if self.tls {
            args.push(&cert);
        }
        args.extend([from, to.as_str()]);
        oracle::run_ok("skopeo", args).unwrap();
    }
}

/// An authority, `ca.pem`, and a certificate for this address that it signs: `cert.pem` and `key.pem`.
fn make_certificate(folder: &Path) {
    let at = |name: &str| folder.join(name).display().to_string();
    let new = |key: &str, out: &str, more: &[&str]| {
        let (key, out) = (at(key), at(out));
        let mut args = vec!["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
        args.extend(["-subj", "/CN=firebrick test", "-keyout", &key, "-out", &out]);
        args.extend(more);
        oracle::run_ok("openssl", args).unwrap();
    };
    new("ca.key", "ca.pem", &[]);
    let (ca, ca_key) = (at("ca.pem"), at("ca.key"));
    let leaf = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
    ];
    new("key.pem", "cert.pem", &leaf);
}

fn wait_ready(child: &mut Child, host: &str) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(host).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
