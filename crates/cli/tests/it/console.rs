//! `firebrick boot` at a terminal: raw while it runs and as before afterwards, however it ends; escapes; window sizes; drives. And the
//! document for Firecracker that it prints.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};

use crate::support::vm::{self, Home, LIMIT};

/// A terminal with `firebrick boot` at it.
struct Terminal {
    master: File,
    /// Held, so that the terminal outlives the program.
    slave: File,
    child: Child,
    printed: Receiver<Vec<u8>>,
    said: String,
}

impl Terminal {
    fn boot(home: &Home, args: &[&str]) -> Terminal {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().expect("text"))
            .expect("a terminal");
        let end = || Stdio::from(OwnedFd::from(slave.try_clone().expect("a descriptor")));
        // The terminal becomes the program's own, so that it hears of a new size.
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(assert_cmd::cargo::cargo_bin("firebrick"))
            .args(["boot", "busybox"])
            .args(args)
            .env("FIREBRICK_HOME", home.path())
            .stdin(end())
            .stdout(end())
            .stderr(end());
        let child = command.spawn().expect("setsid is part of util-linux");
        let master = File::from(master);
        let mut reader = master.try_clone().expect("a descriptor");
        let (sender, printed) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            master,
            slave,
            child,
            printed,
            said: String::new(),
        }
    }

    /// Waits until this is on the screen, and forgets what came before it.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.said.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.printed.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|_| panic!("no {text:?} in {}", self.said));
            self.said.push_str(&String::from_utf8_lossy(&bytes));
        }
        let at = self.said.find(text).expect("just seen");
        self.said.drain(..at + text.len());
    }

    fn type_in(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("a terminal");
    }

    /// Whether each key goes through at once, Ctrl-C too.
    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("a terminal").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn end(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_go_to_the_guest_and_escapes_to_firebrick() {
    let Some(home) = Home::new() else { return };
    let mut terminal = Terminal::boot(&home, &["--init", "/bin/sh"]);
    terminal.wait_for("Ctrl-A x ends the VM");
    terminal.wait_for("# ");
    assert!(terminal.is_raw());
    terminal.type_in(b"echo $((6 * 7))-\r");
    terminal.wait_for("42-");
    // Ctrl-C interrupts the guest's line, and not us; Ctrl-A goes to its shell when it is typed twice.
    terminal.type_in(b"echo never\x03echo af\x01\x01\x1b[3~ter\r");
    terminal.wait_for("# ");
    terminal.type_in(b"\x01h");
    terminal.wait_for("send Ctrl-A to the VM");
    // More is typed than there is room for before a VM that hangs.
    let firebrick = terminal.child.id();
    let children = fs::read_dir(format!("/proc/{firebrick}/task")).expect("it is there");
    let children = children.map(|task| fs::read_to_string(task.expect("a thread").path().join("children")));
    let children: String = children.map(Result::unwrap_or_default).collect();
    let vmm = children.split_whitespace().next().expect("it runs a VMM");
    let vmm = Pid::from_raw(vmm.parse().expect("a number")).expect("a process");
    kill_process(vmm, Signal::STOP).expect("it is there");
    terminal.type_in(&[b'x'; 600_000]);
    terminal.type_in(b"\x01x");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(!terminal.is_raw(), "the terminal is as before");
    home.no_process_is_left();
}

#[test]
fn the_terminal_is_put_back_however_it_ends() {
    use std::os::unix::process::ExitStatusExt as _;
    let Some(home) = Home::new() else { return };
    // A signal.
    let mut terminal = Terminal::boot(&home, &["--init", "/bin/sh"]);
    terminal.wait_for("# ");
    let pid = Pid::from_child(&terminal.child);
    // Stopped, it is as the shell that takes over wants it; going on, it is ours again.
    kill_process(pid, Signal::TSTP).expect("it is there");
    vm::eventually(LIMIT, || !terminal.is_raw());
    kill_process(pid, Signal::CONT).expect("it is there");
    vm::eventually(LIMIT, || terminal.is_raw());
    terminal.type_in(b"echo $((40 + 2))-\r");
    terminal.wait_for("42-");
    kill_process(pid, Signal::TERM).expect("it is there");
    assert_eq!(terminal.end().signal(), Some(15));
    assert!(!terminal.is_raw());
    // The end of the machine, here by a panic.
    let mut terminal = Terminal::boot(&home, &["--init", "/bin/sh"]);
    terminal.wait_for("# ");
    terminal.type_in(b"exit\r");
    assert_eq!(terminal.end().code(), Some(1));
    assert!(!terminal.is_raw());
    home.no_process_is_left();
}

fn read_to_prompt(stdout: &mut impl std::io::Read) {
    let mut printed = Vec::new();
    while !printed.ends_with(b"# ") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("a prompt");
        printed.push(byte[0]);
    }
}

/// What a guest prints faster than it is read waits; none of it is lost.
#[test]
fn a_slow_reader_gets_all_that_is_printed() {
    const LINES: usize = 40_000;
    let Some(home) = Home::new() else { return };
    let mut child = home
        .firebrick(&["boot", "busybox", "--init", "/bin/sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let script = format!(
        "i=1; while [ $i -le {LINES} ]; do echo line-$i-of-many; i=$((i+1)); done; echo the-end; stty -echo; exit\n"
    );
    read_to_prompt(&mut stdout);
    // `stty` waits until all is printed; a kernel that panics does not.
    stdin.write_all(script.as_bytes()).expect("a pipe");
    // Long enough for the guest to fill every buffer on the way.
    std::thread::sleep(Duration::from_secs(20));
    let mut printed = Vec::new();
    let mut buffer = [0; 16 << 10];
    while let len @ 1.. = stdout.read(&mut buffer).expect("a pipe") {
        printed.extend_from_slice(&buffer[..len]);
        std::thread::sleep(Duration::from_millis(2));
    }
    // A shell that ends as PID 1 is a panic.
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    let printed = String::from_utf8_lossy(&printed).replace('\r', "");
    let lines = printed
        .lines()
        .filter(|line| line.starts_with("line-") && line.ends_with("-of-many"));
    let mut expected = (1..=LINES).map(|n| format!("line-{n}-of-many"));
    for line in lines {
        assert_eq!(Some(line), expected.next().as_deref());
    }
    assert_eq!(expected.next(), None, "lines are missing at the end");
    assert!(printed.contains("\nthe-end\n"));
    home.no_process_is_left();
}

/// Calls the agent behind a vsock socket.
fn call(socket: &Path, method: &str, params: Value) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(b"CONNECT 52\n").ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.starts_with("OK ").then_some(())?;
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    writeln!(reader.get_mut(), "{request}").ok()?;
    line.clear();
    reader.read_line(&mut line).ok()?;
    serde_json::from_str::<Value>(&line).ok()?.get("result").cloned()
}

#[test]
fn the_guest_learns_the_windows_size_and_ends_in_order() {
    let Some(home) = Home::new() else { return };
    let socket = home.at("vsock");
    let mut terminal = Terminal::boot(&home, &["--vsock", socket.to_str().expect("text")]);
    terminal.wait_for("Ctrl-A x ends the VM");
    let size = |rows, columns| Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let guest_has = |wanted: &str| {
        let stty = json!({ "cmd": "stty -F /dev/console size" });
        call(&socket, "exec", stty).is_some_and(|ran| ran["stdout"] == wanted)
    };
    tcsetwinsize(&terminal.master, size(33, 101)).expect("a terminal");
    vm::eventually(LIMIT, || guest_has("33 101\n"));
    tcsetwinsize(&terminal.master, size(50, 132)).expect("a terminal");
    vm::eventually(LIMIT, || guest_has("50 132\n"));
    terminal.type_in(b"\x01x");
    terminal.wait_for("reboot: Power down");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn drives_are_written_only_where_it_is_said() {
    let Some(home) = Home::new() else { return };
    let (kept, open) = (home.at("kept:ro"), home.at("open"));
    for path in [&kept, &open] {
        fs::write(path, [b'.'; 4096]).expect("a file");
    }
    let (ro, rw) = (format!("{}:ro", kept.display()), format!("{}:rw", open.display()));
    let mut terminal = Terminal::boot(
        &home,
        &[
            "--init", "/bin/sh", "--share", "ro", "--drive", &ro, "--drive", &rw,
        ],
    );
    terminal.wait_for("# ");
    terminal.type_in(b"echo written > /dev/vdc && sync && echo yes-$((1 + 1)); echo written > /dev/vdb || echo no-$((1 + 1))\r");
    terminal.wait_for("yes-2");
    terminal.wait_for("no-2");
    terminal.type_in(b"\x01x");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(fs::read(&open).expect("a file").starts_with(b"written\n"));
    assert_eq!(fs::read(&kept).expect("a file"), [b'.'; 4096]);
    let missing = home.output(&["boot", "busybox", "--drive", "/no/such/file"]);
    assert!(
        missing.0 == Some(1) && missing.2.contains("cannot open /no/such/file"),
        "{missing:?}"
    );
    // Nobody opens the other end.
    let pipe = home.at("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .expect("it runs")
            .success()
    );
    let piped = home.output(&["boot", "busybox", "--drive", &pipe.display().to_string()]);
    assert!(
        piped.0 == Some(1) && piped.2.contains("caused by: it is neither a file nor a disk"),
        "{piped:?}"
    );
}

/// A folder with a program `firecracker` that boots what it is told with QEMU.
fn fake_firecracker(home: &Home) -> PathBuf {
    let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vmm/tests/firecracker/fake-firecracker");
    let folder = home.at("firecracker");
    fs::create_dir_all(&folder).expect("a folder");
    let program = folder.join("firecracker");
    let script = format!(
        "#!/bin/sh\nexport FAKE_GUEST=qemu\nexec '{}' \"$@\"\n",
        fake.display()
    );
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    folder
}

#[test]
fn who_insists_ends_what_waits_for_a_vmm_that_does_not_answer() {
    use std::os::unix::process::ExitStatusExt as _;
    let Some(home) = Home::new() else { return };
    let path = format!(
        "{}:{}",
        fake_firecracker(&home).display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut child = home
        .firebrick(&["boot", "busybox", "--vmm", "firecracker"])
        .env("PATH", path)
        .env("FAKE_MODE", "hang:/machine-config")
        .env("FAKE_LOG", home.at("requests"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    vm::eventually(LIMIT, || home.at("requests").exists());
    let pid = Pid::from_child(&child);
    let begun = Instant::now();
    for _ in 0..3 {
        kill_process(pid, Signal::INT).expect("it is there");
        std::thread::sleep(Duration::from_millis(600));
    }
    assert_eq!(child.wait().expect("it ends").signal(), Some(2));
    assert!(
        begun.elapsed() < Duration::from_secs(50),
        "it has not waited for Firecracker"
    );
    home.no_process_is_left();
}

#[test]
fn the_printed_document_boots_as_it_stands() {
    let Some(home) = Home::new() else { return };
    let print = || {
        home.output(&[
            "boot",
            "busybox",
            "--print-config",
            "--mem",
            "300",
            "--vcpus",
            "1",
        ])
    };
    let (code, config, stderr) = print();
    assert_eq!((code, &*stderr), (Some(0), ""));
    let (code, config_of_none, stderr) =
        home.output(&["boot", "busybox", "--print-config", "--drive", "/nonexistent:rw"]);
    assert_eq!((code, &*config_of_none), (Some(1), ""));
    assert!(
        stderr.contains("cannot open the drive \"/nonexistent\""),
        "{stderr}"
    );
    let long = "a".repeat(1800);
    let (code, _, stderr) = home.output(&["boot", "busybox", "--print-config", "--append", &long]);
    assert!(
        code == Some(1)
            && stderr.contains("so long a kernel command line")
            && stderr.contains("hint: say less with --append"),
        "{stderr}"
    );
    let parsed: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(parsed["machine-config"]["mem_size_mib"], 300);
    let again = print();
    assert_eq!(again.1, config, "the same machine has the same document");
    assert!(!config.contains("firebrick.epoch"), "it may be used tomorrow");
    let file = home.at("vm.json");
    fs::write(&file, &config).expect("a file");
    let mut child = Command::new(fake_firecracker(&home).join("firecracker"))
        .args(["--no-api", "--config-file"])
        .arg(&file)
        .current_dir(home.at("root"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let socket = PathBuf::from(parsed["vsock"]["uds_path"].as_str().expect("a path"));
    vm::eventually(LIMIT, || {
        assert!(
            child.try_wait().expect("a child").is_none(),
            "it refuses the document"
        );
        call(&socket, "ping", json!({})).is_some_and(|answer| answer["pong"] == true)
    });
    child.kill().expect("it is there");
    child.wait().expect("it ends");
}

/// With a shell as its init nobody answers for the agent.
#[test]
fn a_guest_without_an_agent_is_told_by_the_keyboard_to_end() {
    let Some(home) = Home::new() else { return };
    let log = home.at("requests");
    let asked = |word: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(word));
    let path = format!(
        "{}:{}",
        fake_firecracker(&home).display(),
        std::env::var("PATH").expect("a PATH")
    );
    let mut child = home
        .firebrick(&["boot", "busybox", "--vmm", "firecracker", "--init", "/bin/sh"])
        .env("PATH", &path)
        .env("FAKE_LOG", &log)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Said when it listens for signals and is attached.
    let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
    stderr
        .find(|line| {
            line.as_ref()
                .is_ok_and(|line| line.contains("Ctrl-C ends the VM"))
        })
        .expect("it is said")
        .expect("text");
    assert!(asked("InstanceStart") && !asked("SendCtrlAltDel"));
    // The kernel hears the key from the moment that it has a driver for it; its shell prompts later.
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    read_to_prompt(&mut stdout);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("it is there");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    child.wait().expect("it ends");
    assert!(asked("SendCtrlAltDel"));
    assert!(rest.contains("reboot: Restarting system"), "{rest}");
    home.no_process_is_left();
}

#[test]
fn the_vmm_is_the_one_that_is_asked_for() {
    let Some(home) = Home::new() else { return };
    let path = format!(
        "{}:{}",
        fake_firecracker(&home).display(),
        std::env::var("PATH").expect("a PATH")
    );
    let run = |args: &[&str]| {
        let output = home
            .firebrick(&["-v", "run", "-i", "busybox", "--boot-timeout", "180"])
            .args(args)
            .args(["--", "sh", "-c", "cat /proc/cmdline; exit 7"])
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, words, stderr) = run(&["--vmm", "firecracker"]);
    assert_eq!(code, Some(7), "{stderr}");
    assert!(
        words.contains(" reboot=k ") && stderr.contains(", Firecracker\n"),
        "{words} {stderr}"
    );
    // Here KVM runs no guests, or there would be no need of a fake: so auto is QEMU.
    let (code, words, stderr) = run(&[]);
    assert_eq!(code, Some(7), "{stderr}");
    assert!(
        !words.contains(" reboot=k ") && stderr.contains(", QEMU with "),
        "{words} {stderr}"
    );
    let refused = run(&["--vmm", "firecracker", "--net"]);
    assert_eq!(refused.0, Some(125));
    assert!(
        refused.2.contains("a network under Firecracker is not supported")
            && refused.2.contains("--vmm qemu --net")
    );
    let refused = run(&["--vmm", "qemu", "--jailer", "1000"]);
    assert!(
        refused.0 == Some(125) && refused.2.contains("--jailer"),
        "{}",
        refused.2
    );
    home.no_process_is_left();
}
