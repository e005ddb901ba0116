//! Object stores on loopback, for tests of whoever keeps things in one: [`seaweed`] speaks S3, [`azurite`] Azure Blob.
//!
//! Each is a real server, in a process and a folder of its own, that ends with its value. `scripts/install-deps` brings both;
//! where one is missing [`crate::oracle`] says what happens.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::oracle;

/// How long a server may take until it answers, on a machine with much else to do.
const START: Duration = Duration::from_secs(60);
/// Access key and secret key of every [`seaweed`].
pub const S3_KEYS: [&str; 2] = ["testkey", "testsecret"];
/// The account of every [`azurite`], and its key, which is the same for every Azurite there is.
pub const AZURE_ACCOUNT: [&str; 2] = [
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
];

/// A running object store with one empty bucket, `fbtest`.
#[derive(Debug)]
pub struct Store {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
    scheme: &'static str,
    variables: Vec<(String, String)>,
    /// What it leaves elsewhere.
    litter: Vec<PathBuf>,
}

impl Store {
    /// The bucket's address: `s3://fbtest` or `az://fbtest`.
    pub fn address(&self) -> String {
        format!("{}://fbtest", self.scheme)
    }

    /// Host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The environment variables by which a client finds and may use it, with names and values.
    pub fn variables(&self) -> Vec<(String, String)> {
        self.variables.clone()
    }

    /// The same for a client that goes through another port of this machine.
    pub fn variables_by(&self, port: u16) -> Vec<(String, String)> {
        let (here, there) = (self.host(), format!("127.0.0.1:{port}"));
        let moved = |(name, value): &(String, String)| (name.clone(), value.replace(&here, &there));
        self.variables.iter().map(moved).collect()
    }

    /// A folder that ends with the store, for a test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for path in &self.litter {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// SeaweedFS, which speaks S3; nothing where it is left out.
///
/// # Errors
/// If it is missing, or does not start.
pub fn seaweed() -> anyhow::Result<Option<Store>> {
    if !oracle::have("weed")? {
        return Ok(None);
    }
    started_seaweed(false).map(Some)
}

/// The same behind TLS, with an authority of its own: `ca.pem` in its folder.
///
/// # Errors
/// If it or `openssl` is missing, or does not start.
pub fn seaweed_with_tls() -> anyhow::Result<Option<Store>> {
    if !oracle::have("weed")? || !oracle::have("openssl")? {
        return Ok(None);
    }
    started_seaweed(true).map(Some)
}

fn started_seaweed(is_tls: bool) -> anyhow::Result<Store> {
    // Another process may take a port between our look and the server's: then we look again.
    let start = |_| start_seaweed(is_tls);
    start(()).or_else(|_| start(())).or_else(|_| start(()))
}

fn start_seaweed(is_tls: bool) -> anyhow::Result<Store> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let ports: [u16; 11] = free_ports()?;
    let [s3, s3_tls, ..] = ports;
    let [key, secret] = S3_KEYS;
    let mut command = Command::new("weed");
    command.arg("mini");
    let (mut port, mut scheme) = (s3, "http");
    if is_tls {
        make_certificate(folder.path())?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        command.arg(format!("-s3.port.https={s3_tls}"));
        command.args([
            format!("-s3.cert.file={}", at("cert.pem")),
            format!("-s3.key.file={}", at("key.pem")),
        ]);
        (port, scheme) = (s3_tls, "https");
    }
    command
        .args(seaweed_args(ports, data))
        .env("AWS_ACCESS_KEY_ID", key)
        .env("AWS_SECRET_ACCESS_KEY", secret);
    let process = start(command, folder.path())?;
    let mut store = Store {
        process,
        folder,
        port,
        scheme: "s3",
        variables: pairs([
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &format!("{scheme}://127.0.0.1:{port}")),
        ]),
        litter: litter(ports),
    };
    // Who does not sign is turned away, also before the bucket is there: the store's own files tell of that.
    store.wait(|_| {
        let is_made = status(ports[FILER], "GET /buckets/fbtest HTTP/1.0")? == Some(200);
        Ok(is_made && status(s3, "GET /fbtest HTTP/1.0")? == Some(403))
    })?;
    Ok(store)
}

/// Sockets in the system's folder for such, whose place cannot be chosen: one for each port of its own protocol.
fn litter(ports: [u16; 11]) -> Vec<PathBuf> {
    let parts = ["admin", "filer", "master", "s3", "volume"];
    let path = |part, port| PathBuf::from(format!("/tmp/seaweedfs-{part}-grpc-{port}.sock"));
    let all = parts.iter().flat_map(|part| ports.map(|port| path(part, port)));
    all.collect()
}

/// Which of the ports shows the store's own files.
const FILER: usize = 7;

/// How it is told where to listen and what to leave out. The second port is that of TLS, which not every server has.
fn seaweed_args(ports: [u16; 11], data: PathBuf) -> Vec<String> {
    let data = data.display();
    let [
        s3,
        _,
        s3_rpc,
        master,
        master_rpc,
        volume,
        volume_rpc,
        filer,
        filer_rpc,
        admin,
        admin_rpc,
    ] = ports;
    vec![
        format!("-dir={data}"),
        "-ip=127.0.0.1".to_owned(),
        "-ip.bind=127.0.0.1".to_owned(),
        "-bucket=fbtest".to_owned(),
        format!("-s3.port={s3}"),
        format!("-s3.port.grpc={s3_rpc}"),
        format!("-master.port={master}"),
        format!("-master.port.grpc={master_rpc}"),
        format!("-volume.port={volume}"),
        format!("-volume.port.grpc={volume_rpc}"),
        format!("-filer.port={filer}"),
        format!("-filer.port.grpc={filer_rpc}"),
        format!("-admin.port={admin}"),
        format!("-admin.port.grpc={admin_rpc}"),
        // Sockets would stay behind in /tmp.
        format!("-s3.localSocket={data}/s3.sock"),
        format!("-filer.localSocket={data}/filer.sock"),
        "-webdav=false".to_owned(),
        "-admin.ui=false".to_owned(),
        "-s3.port.iceberg=0".to_owned(),
        "-s3.port.lance=0".to_owned(),
        "-master.telemetry=false".to_owned(),
    ]
}

/// Azurite, Microsoft's own emulator of Azure Blob; nothing where it is left out.
///
/// # Errors
/// If it is missing, or does not start.
pub fn azurite() -> anyhow::Result<Option<Store>> {
    if !oracle::have("azurite-blob")? || !oracle::have("python3")? {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let [port] = free_ports()?;
    let mut command = Command::new("azurite-blob");
    command
        .args([
            "--silent",
            "--inMemoryPersistence",
            "--skipApiVersionCheck",
            "--disableTelemetry",
        ])
        .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
        .current_dir(folder.path());
    let process = start(command, folder.path())?;
    let [account, key] = AZURE_ACCOUNT;
    let endpoint = format!("http://127.0.0.1:{port}/{account}");
    let mut store = Store {
        process,
        folder,
        port,
        scheme: "az",
        variables: pairs([
            ("AZURE_STORAGE_ACCOUNT_NAME", account),
            ("AZURE_STORAGE_ACCOUNT_KEY", key),
            ("AZURE_STORAGE_ENDPOINT", &endpoint),
        ]),
        litter: Vec::new(),
    };
    store.wait(|store| Ok(status(store.port, "GET / HTTP/1.0")?.is_some()))?;
    oracle::run_ok(
        "python3",
        ["-c", MAKE_CONTAINER, &endpoint, account, key, "fbtest"],
    )?;
    Ok(Some(store))
}

/// Makes a container: signed as <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key> says.
const MAKE_CONTAINER: &str = r#"
import base64, hashlib, hmac, sys, urllib.request
from email.utils import formatdate
endpoint, account, key, name = sys.argv[1:]
date = formatdate(usegmt=True)
resource = f"/{account}/{account}/{name}\nrestype:container"
text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n" + resource
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Content-Length": "0", "Authorization": f"SharedKey {account}:{signature}"}
request = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=headers)
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read()
"#;

impl Store {
    fn wait(&mut self, is_ready: impl Fn(&Store) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let began = Instant::now();
        while !is_ready(self)? {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            if let Some(status) = self.process.try_wait()? {
                bail!("the object store ended with {status}:\n{}", log());
            }
            ensure!(
                began.elapsed() < START,
                "the object store does not answer:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// An authority, `ca.pem`, and a certificate for this machine that it signs: `cert.pem` and `key.pem`.
fn make_certificate(folder: &Path) -> anyhow::Result<()> {
    let at = |name: &str| folder.join(name).display().to_string();
    let make = |key: &str, certificate: &str, more: &[&str]| {
        let kind = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ];
        let (key, certificate) = (at(key), at(certificate));
        let files = [
            "-subj",
            "/CN=firebrick test",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        oracle::run_ok("openssl", kind.iter().chain(&files).chain(more)).map(drop)
    };
    make("ca.key", "ca.pem", &[])?;
    let (ca, ca_key) = (at("ca.pem"), at("ca.key"));
    let name = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    make(
        "key.pem",
        "cert.pem",
        &[&name[..], &["-CA", &ca, "-CAkey", &ca_key]].concat(),
    )
}

/// Starts a server whose words go to `log` in its folder.
fn start(mut command: Command, folder: &Path) -> anyhow::Result<Child> {
    let log = File::create(folder.join("log"))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))
}

/// Ports that nobody has now.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// The status that a server answers with, if any.
fn status(port: u16, request: &str) -> anyhow::Result<Option<u16>> {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return Ok(None);
    };
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut head = [0; 12];
    let asked = write!(stream, "{request}\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    if asked.and_then(|()| stream.read_exact(&mut head)).is_err() {
        return Ok(None);
    }
    // `HTTP/1.1 403`
    Ok(head
        .get(9..)
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()))
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}
