//! The real guest binary as an ordinary process, and a plain client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take on a busy machine before a test fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The guest binary, built once for all tests of this crate.
pub(crate) fn guest() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = if cfg!(target_arch = "aarch64") {
            "aarch64-unknown-linux-gnu"
        } else {
            "x86_64-unknown-linux-gnu"
        };
        firebrick_embed::build_guest_for(target, Path::new(env!("CARGO_TARGET_TMPDIR")))
            .expect("the guest builds")
    })
}

/// A running `--agent --tcp`. Dropping it ends it.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    pub(crate) process: Child,
    stderr: BufReader<ChildStderr>,
    /// The descriptors that it has open without any client.
    pub(crate) files: usize,
}

impl Agent {
    pub(crate) fn start() -> Agent {
        Agent::run(Command::new(guest()), &[])
    }

    /// With more options.
    pub(crate) fn start_with(options: &[&str]) -> Agent {
        Agent::run(Command::new(guest()), options)
    }

    /// In a shell, after commands of its own.
    pub(crate) fn start_after(commands: &str) -> Agent {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("{commands}\nexec \"$0\" \"$@\"")])
            .arg(guest());
        Agent::run(shell, &[])
    }

    fn run(mut command: Command, options: &[&str]) -> Agent {
        let mut process = command
            .args(["--agent", "--tcp", "127.0.0.1:0"])
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the guest starts");
        let mut stderr = BufReader::new(process.stderr.take().expect("a pipe"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(
                stderr.read_line(&mut line).expect("a line") > 0,
                "the guest ended"
            );
            if let Some((_, address)) = line.split_once("listening on tcp ") {
                break address.trim().parse().expect("an address");
            }
        };
        let mut agent = Agent {
            address,
            process,
            stderr,
            files: 0,
        };
        agent.files = agent.open_files();
        agent
    }

    pub(crate) fn dial(&self) -> Client {
        Client::over(TcpStream::connect(self.address).expect("a connection"))
    }

    /// Sends one framed job and gives its answer.
    pub(crate) fn job(&self, job: &Value) -> Value {
        self.job_text(&job.to_string())
    }

    /// The same for a job as it stands on the wire.
    pub(crate) fn job_text(&self, json: &str) -> Value {
        let mut socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let length = u32::try_from(json.len()).expect("short").to_be_bytes();
        socket
            .write_all(&[&length, json.as_bytes()].concat())
            .expect("the agent takes it");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("an answer in time");
        let (length, json) = answer.split_first_chunk().expect("a frame");
        assert_eq!(
            u32::from_be_bytes(*length),
            u32::try_from(json.len()).expect("short")
        );
        serde_json::from_slice(json).expect("JSON")
    }

    /// A field of `/proc/PID/status`, such as `VmRSS`, in its first number.
    pub(crate) fn proc_status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(path).expect("the process's status");
        let line = text
            .lines()
            .find(|line| line.starts_with(field))
            .expect("the field");
        line.split_whitespace()
            .nth(1)
            .expect("a value")
            .parse()
            .expect("a number")
    }

    /// Ends it, and gives all that it has printed since its start.
    pub(crate) fn last_words(&mut self) -> String {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
        let mut words = String::new();
        self.stderr.read_to_string(&mut words).expect("text");
        words
    }

    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id()))
            .expect("the process's files")
            .count()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client that knows JSON and lines, and none of the crate's code.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn over(socket: TcpStream) -> Client {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let lines = BufReader::new(socket.try_clone().expect("a second handle"));
        Client { socket, lines }
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the agent takes it");
    }

    pub(crate) fn send(&mut self, id: Value, method: &str, params: Value) {
        let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        if !id.is_null() {
            message["id"] = id;
        }
        self.send_raw(format!("{message}\n").as_bytes());
    }

    /// The next line.
    pub(crate) fn receive_line(&mut self) -> String {
        let mut line = String::new();
        assert!(
            self.lines.read_line(&mut line).expect("a line in time") > 0,
            "the agent closed the connection"
        );
        line
    }

    /// The next line, if one comes before the socket's timeout.
    pub(crate) fn try_receive_line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .ok()
            .filter(|count| *count > 0)
            .map(|_| line)
    }

    /// The next line, parsed.
    pub(crate) fn receive(&mut self) -> Value {
        let line = self.receive_line();
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["jsonrpc"], "2.0");
        value
    }

    /// Sends a request and gives its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(json!(1), method, params);
        let reply = self.receive();
        assert_eq!(reply["id"], 1);
        assert!(reply["error"].is_null(), "{reply}");
        reply["result"].clone()
    }

    /// Sends a request and gives its error.
    pub(crate) fn fail(&mut self, method: &str, params: Value) -> Value {
        self.send(json!(1), method, params);
        let reply = self.receive();
        assert_eq!(reply["id"], 1);
        assert!(reply["result"].is_null(), "{reply}");
        reply["error"].clone()
    }

    pub(crate) fn at_end(&mut self) -> bool {
        let mut rest = Vec::new();
        self.lines.read_to_end(&mut rest).is_ok()
    }
}

/// What the agent may hold at any time, in KiB.
const RSS_LIMIT_KIB: u64 = 16 * 1024;

/// The agent has never held more than it may.
pub(crate) fn assert_small(agent: &Agent) {
    let rss_kib = agent.proc_status("VmHWM");
    assert!(rss_kib <= RSS_LIMIT_KIB, "{rss_kib} KiB");
}

/// After its clients have gone, the agent has no child, no connection and no work folder.
pub(crate) fn assert_nothing_left(agent: &Agent) {
    let id = agent.process.id();
    let children = format!("/proc/{id}/task/{id}/children");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let children = std::fs::read_to_string(&children).expect("the agent's children");
        if children.is_empty() {
            break;
        }
        let told = |pid: &str| {
            let read =
                |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            format!("{:?} {}", read("cmdline"), read("stat"))
        };
        let left: Vec<_> = children.split_whitespace().map(told).collect();
        assert!(Instant::now() < deadline, "children are left: {left:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    wait_until("no descriptor is left", || agent.open_files() <= agent.files);
    let prefix = format!("job-{id}-");
    let folders = || {
        let names = std::fs::read_dir("/tmp").expect("a folder").flatten();
        names
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .count()
    };
    wait_until("no work folder is left", || folders() == 0);
}

/// Waits until something holds; fails the test when it never does.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a process with that number runs (a zombie does not).
pub(crate) fn runs(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| !rest.starts_with('Z'))
    })
}
