//! Programs in real VMs, by the command itself. The image is busybox out of a Debian package, so nothing else is needed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use firebrick_testkit::fixtures::{BUSYBOX, fixture};
use firebrick_testkit::oracle;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::folder::names_in;
use crate::support::processes;

/// Where `firebrick setup` puts the kernel: one for all runs of the tests in this target folder.
fn state() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("run-state")
}

fn firebrick(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("firebrick"));
    command.args(args).env("FIREBRICK_HOME", state());
    command
}

/// Gets the kernel, once: tests are processes of their own, and all start together.
fn set_up() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        fs::create_dir_all(state()).expect("a folder");
        let lock = fs::File::create(state().join("lock")).expect("a file");
        lock.lock().expect("a lock");
        if state().join("kernels/default").exists() {
            return;
        }
        let setup = firebrick(&["setup"]).output().expect("the binary starts");
        assert!(
            setup.status.success(),
            "{}",
            String::from_utf8_lossy(&setup.stderr)
        );
    });
}

/// An image of busybox in a folder.
fn make_image(folder: &Path) -> PathBuf {
    make_root(&folder.join("root"));
    make_image_of(folder)
}

/// The same, with files and links where others have folders.
fn make_odd_image(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    make_root(&root);
    for file in ["dev", "rom"] {
        fs::write(root.join(file), "no folder").expect("a file");
    }
    for (link, target) in [
        ("proc", "proc"),
        ("sys", "/etc"),
        ("overlay", "/bin"),
        ("tmp", "srv"),
    ] {
        symlink(target, root.join(link)).expect("a link");
    }
    // Whoever opens one of these without care waits for ever.
    fs::create_dir_all(root.join("etc/modules-load.d")).expect("a folder");
    for fifo in [
        "hostname",
        "hosts",
        "passwd",
        "group",
        "resolv.conf",
        "modules-load.d/a.conf",
    ] {
        let made = Command::new("mkfifo").arg(root.join("etc").join(fifo)).status();
        assert!(made.expect("mkfifo is part of coreutils").success());
    }
    make_image_of(folder)
}

fn make_root(root: &Path) {
    let bin = root.join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    for applet in ["sh", "cat", "sleep", "echo", "id", "mktemp"] {
        symlink("busybox", bin.join(applet)).expect("a link");
    }
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).expect("a mode");
}

fn make_image_of(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    let path = folder.join("busybox.ext4");
    let reference = format!("dir:{}", root.display());
    let made = firebrick(&[
        "rootfs",
        "from-docker",
        "-q",
        "-n",
        "busybox",
        "-i",
        &reference,
        "-o",
    ])
    .arg(&path)
    .output()
    .expect("the binary starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    oracle::Image::check(&path).expect("a sound image");
    path
}

/// A squashfs of the root in a folder, under a name that does not tell.
fn make_squashfs_of(folder: &Path, compression: &str) -> PathBuf {
    let path = folder.join(format!("busybox.{compression}"));
    let reference = format!("dir:{}", folder.join("root").display());
    let made = firebrick(&["rootfs", "from-docker", "-q", "-n", "busybox", "-i", &reference])
        .args(["--format", "squashfs", "--compression", compression, "-o"])
        .arg(&path)
        .output()
        .expect("the binary starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

/// `firebrick run` on an image of busybox, with a folder of its own for temporary files.
struct Run {
    image: PathBuf,
    temp: tempfile::TempDir,
    _folder: tempfile::TempDir,
}

impl Run {
    /// `None` where the person who runs the tests asked to leave real VMs out.
    fn new() -> Option<Run> {
        let tools = ["qemu-system-x86_64", "busybox"];
        if !tools
            .iter()
            .all(|tool| oracle::have(tool).expect("what the tests need"))
        {
            return None;
        }
        set_up();
        let folder = tempfile::tempdir().expect("a folder");
        Some(Run {
            image: make_image(folder.path()),
            temp: tempfile::tempdir().expect("a folder"),
            _folder: folder,
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = firebrick(&["run", "-i"]);
        command
            .arg(&self.image)
            .args(args)
            .env("TMPDIR", self.temp.path())
            .stdin(Stdio::null());
        command
    }

    /// Exit code, stdout and stderr.
    fn output(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(args).output().expect("the binary starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (
            output.status.code().expect("no signal"),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// No process of this run, and no file.
    fn check_nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Some(line) = self.machine() {
            assert!(Instant::now() < deadline, "a machine is left: {line}");
            std::thread::sleep(Duration::from_millis(20)); // a killed process needs a moment to go
        }
        assert_eq!(names_in(self.temp.path()), [""; 0], "left in TMPDIR");
    }

    /// The command line of a QEMU that this run started: its environment names our folder.
    fn machine(&self) -> Option<String> {
        let ours = format!("TMPDIR={}", self.temp.path().display());
        processes::with_variable(&ours).into_iter().next()
    }

    /// Runs a command line on a terminal of its own, and types once it has shown `until`. Exit code, and all that was shown.
    fn in_terminal(&self, command: &str, until: &str, typed: &[u8]) -> (Option<i32>, String) {
        let mut child = Command::new("script")
            .args(["-qec", command, "/dev/null"])
            .env("FIREBRICK_HOME", state())
            .env("TMPDIR", self.temp.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is part of bsdutils");
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut shown = String::new();
        while !shown.contains(until) {
            assert!(stdout.read_line(&mut shown).expect("text") > 0, "{shown}");
        }
        stdin.write_all(typed).expect("it reads");
        stdout.read_to_string(&mut shown).expect("text");
        (child.wait().expect("it ends").code(), shown)
    }

    /// Starts a program that says `up` and sleeps, and waits until it has said so.
    fn sleeping(&self) -> Child {
        let mut child = self
            .command(&["-t", "300", "--", "sh", "-c", "echo up; sleep 250"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("text");
        assert_eq!(line, "up\n");
        child
    }
}

fn digest(path: &Path) -> String {
    oracle::run_ok("sha256sum", [path]).expect("coreutils")
}

/// The format is told by the image's first bytes, the kernel has its module, and over it everything can be written.
#[test]
fn a_squashfs_boots_under_a_writable_layer() {
    let Some(mut run) = Run::new() else { return };
    for compression in ["zstd", "gzip", "lz4"] {
        run.image = make_squashfs_of(run._folder.path(), compression);
        let before = fs::read(&run.image).expect("the image");
        let script = "cat /proc/mounts; echo new > /bin/new && echo more > /etc/hostname && cat /bin/new";
        let (code, stdout, stderr) = run.output(&["--", "sh", "-c", script]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{compression}: {stdout}");
        assert!(stdout.contains(" squashfs ro"), "{compression}: {stdout}");
        assert!(stdout.ends_with("\nnew\n"), "{compression}: {stdout}");
        assert!(
            fs::read(&run.image).expect("the image") == before,
            "{compression}: the image changed"
        );
    }
    run.check_nothing_is_left();
}

#[test]
fn programs_run_with_their_streams_and_status() {
    let Some(run) = Run::new() else { return };
    let before = digest(&run.image);
    let script = "echo out; echo err >&2; echo x > /written; cat /written; exit 7";
    // The longest limits that can be said are none.
    let most = u64::MAX.to_string();
    let limits = ["-t", &most, "--boot-timeout", &most];
    let (code, stdout, stderr) = run.output(&[&limits[..], &["--", "sh", "-c", script]].concat());
    assert_eq!((code, &*stdout, &*stderr), (7, "out\nx\n", "err\n"));
    let (code, stdout, _) = run.output(&[
        "-l",
        "sh",
        "-e",
        "A=b c",
        "-w",
        "/tmp",
        "-c",
        "echo $A; pwd; id -u",
    ]);
    assert_eq!((code, &*stdout), (0, "b c\n/tmp\n0\n"));
    assert_eq!(digest(&run.image), before, "the image was changed");
    run.check_nothing_is_left();
}

#[test]
fn input_and_output_are_bytes() {
    let Some(run) = Run::new() else { return };
    let mut child = run
        .command(&["--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let bytes: Vec<u8> = (0..600_000_u32).map(|number| (number % 251) as u8).collect();
    let mut stdin = child.stdin.take().expect("piped");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it takes all");
    assert!(output.status.success());
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
    run.check_nothing_is_left();
}

#[test]
fn a_file_of_code_runs_under_its_name() {
    let Some(run) = Run::new() else { return };
    let file = run.temp.path().join("greet.sh");
    fs::write(&file, "echo \"${0##*/} $#\"\n").expect("a file");
    let (code, stdout, stderr) = run.output(&["-f", file.to_str().expect("text")]);
    fs::remove_file(&file).expect("a file");
    assert_eq!((code, &*stdout, &*stderr), (0, "greet.sh 0\n", ""));
    run.check_nothing_is_left();
}

#[test]
fn failures_have_codes_of_their_own() {
    let Some(run) = Run::new() else { return };
    let (code, _, stderr) = run.output(&["--", "/nowhere"]);
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    let (code, stdout, stderr) = run.output(&["-t", "1", "--", "sh", "-c", "echo before; sleep 100"]);
    assert_eq!((code, &*stdout), (124, "before\n"));
    assert!(
        stderr.contains("1.0 s") && stderr.contains("--timeout"),
        "{stderr}"
    );
    let (code, _, stderr) = run.output(&["-u", "nobody123", "--", "true"]);
    let hint = format!(
        "hint: see its users: firebrick rootfs cat {} /etc/passwd",
        run.image.display()
    );
    assert!(code == 125 && stderr.contains(&hint), "{stderr}");
    let crash = "echo c > /proc/sysrq-trigger; cat";
    let (code, _, stderr) = run.output(&["--", "sh", "-c", crash]);
    let panic = "Kernel panic - not syncing: sysrq triggered crash";
    assert!(
        code == 125 && stderr.contains(panic) && stderr.contains("hint: ") && !stderr.contains("PCI: Fatal"),
        "{stderr}"
    );
    // The image has no command of its own, which is seen without a boot.
    let (code, _, stderr) = run.output(&[]);
    let hint = format!(
        "hint: say what to run: firebrick run -i {} -- COMMAND",
        run.image.display()
    );
    assert!(code == 125 && stderr.contains(&hint), "{stderr}");
    let (code, _, stderr) = run.output(&["--mem", "1T", "--", "true"]);
    assert!(
        code == 125 && stderr.contains("this host has") && stderr.contains("hint: "),
        "{stderr}"
    );
    let (code, _, stderr) = run.output(&["--overlay-size", "1G", "--", "true"]);
    assert!(code == 125 && stderr.contains("--mem 2048"), "{stderr}");
    let (code, _, stderr) = run.output(&["--kernel-that-is-not-there"]);
    assert_eq!(code, 2, "{stderr}");
    run.check_nothing_is_left();
}

/// Ctrl-C and `kill` reach the program; the process ends by that signal and nothing stays behind. After `kill -9`
/// neither.
#[test]
fn signals_leave_nothing() {
    let Some(run) = Run::new() else { return };
    for by in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut child = run.sleeping();
        kill_process(Pid::from_child(&child), by).expect("it is there");
        let ended = child.wait().expect("it ends");
        let number = by.as_raw();
        assert!(
            ended.signal() == Some(number) || ended.code() == Some(128 + number),
            "{by:?}: {ended}"
        );
        run.check_nothing_is_left();
    }
}

#[test]
fn output_that_nobody_reads_ends_the_run_in_silence() {
    let Some(run) = Run::new() else { return };
    let mut child = run
        .command(&["--", "sh", "-c", "while :; do echo y; done"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut first = [0; 2];
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut first).expect("output");
    drop(stdout);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    run.check_nothing_is_left();
}

/// Images may have anything where firebrick mounts; the VM has folders there all the same.
#[test]
fn odd_mount_points_do_not_stop_a_boot() {
    let Some(run) = Run::new() else { return };
    let odd = tempfile::tempdir().expect("a folder");
    let path = make_odd_image(odd.path());
    let output = firebrick(&["run", "-i"])
        .arg(&path)
        .args([
            "--net",
            "--",
            "sh",
            "-c",
            "cat /proc/sys/kernel/ostype; echo x > /dev/shm/x; cat /dev/shm/x",
        ])
        .env("TMPDIR", run.temp.path())
        .output()
        .expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Linux\nx\n");
    run.check_nothing_is_left();
}

#[test]
fn what_is_no_image_is_told_before_a_boot() {
    let Some(run) = Run::new() else { return };
    let file = run.temp.path().join("not-an-image");
    fs::write(&file, [7; 5000]).expect("a file");
    let output = firebrick(&["run", "-i"])
        .arg(&file)
        .args(["--", "true"])
        .output()
        .expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("neither ext4 nor squashfs"), "{stderr}");
}

/// `firebrick boot` with a console that the test reads and types at.
struct Console {
    child: Child,
    said: String,
}

impl Console {
    fn of(run: &Run, args: &[&str]) -> Console {
        let child = firebrick(&["boot"])
            .arg(&run.image)
            .args(args)
            .env("TMPDIR", run.temp.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        Console {
            child,
            said: String::new(),
        }
    }

    /// Reads until the console has said this.
    fn wait_for(&mut self, text: &str) {
        let stdout = self.child.stdout.as_mut().expect("piped");
        let mut byte = [0];
        while !self.said.ends_with(text) {
            assert_eq!(stdout.read(&mut byte).expect("bytes"), 1, "{}", self.said);
            self.said.push(byte[0].into());
        }
    }

    fn type_in(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .expect("it listens");
    }

    /// How it ends: the code, all that the console said, and stderr.
    fn end(mut self) -> (Option<i32>, String, String) {
        let mut rest = Vec::new();
        let stdout = self.child.stdout.as_mut().expect("piped");
        stdout.read_to_end(&mut rest).expect("bytes");
        let output = self.child.wait_with_output().expect("it ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            self.said + &text(&rest),
            text(&output.stderr),
        )
    }
}

/// A console that is typed at, and an orderly end. The kernel is told what it is told in a run.
#[test]
fn boot_is_a_console() {
    let Some(run) = Run::new() else { return };
    let mut console = Console::of(&run, &["--init", "/bin/sh", "--net", "--append", "word=1"]);
    console.wait_for("# ");
    console.type_in("cat /proc/cmdline");
    console.wait_for("word=1\r\n");
    for word in [
        " init=/bin/sh ",
        " ip=10.0.2.15::",
        " firebrick.epoch=",
        " firebrick.hostname=firebrick ",
    ] {
        assert!(console.said.contains(word), "no {word:?} in {}", console.said);
    }
    console.type_in("/bin/busybox poweroff -f");
    let (code, said, stderr) = console.end();
    assert_eq!((code, &*stderr), (Some(0), "Ctrl-C ends the VM\n"), "{said}");
    run.check_nothing_is_left();
}

#[test]
fn boot_fails_where_the_machine_did_not_end_in_order() {
    let Some(run) = Run::new() else { return };
    let (code, said, stderr) = Console::of(&run, &["--init", "/nowhere"]).end();
    assert!(said.contains("/nowhere"), "{said}");
    let error = "error: the VM did not end in order: firebrick-guest: fatal: init=: cannot run /nowhere";
    assert!(
        code == Some(1) && stderr.contains(error) && stderr.contains("hint: "),
        "{code:?} {stderr}"
    );

    let mut console = Console::of(&run, &["--init", "/bin/sh"]);
    console.wait_for("# ");
    console.type_in("exit 3");
    let (code, said, stderr) = console.end();
    let error = "error: the VM did not end in order: Kernel panic - not syncing: Attempted to kill init!";
    assert!(
        code == Some(1) && stderr.contains(error),
        "{code:?} {stderr} {said}"
    );
    run.check_nothing_is_left();
}

#[test]
fn boot_ends_by_the_signal_that_comes() {
    let Some(run) = Run::new() else { return };
    let mut console = Console::of(&run, &["--init", "/bin/sh"]);
    console.wait_for("# ");
    kill_process(Pid::from_child(&console.child), Signal::TERM).expect("it is there");
    let ended = console.child.wait().expect("it ends");
    assert_eq!(ended.signal(), Some(15));
    run.check_nothing_is_left();
}

#[test]
fn boot_says_that_its_console_has_no_login() {
    let Some(run) = Run::new() else { return };
    let mut console = Console::of(&run, &[]);
    let mut stderr = BufReader::new(console.child.stderr.take().expect("piped")).lines();
    let mut line = || stderr.next().expect("a line").expect("text");
    assert_eq!(line(), "Ctrl-C ends the VM");
    assert!(line().ends_with("for a shell: --init /bin/sh"));
    kill_process(Pid::from_child(&console.child), Signal::TERM).expect("it is there");
    console.child.wait().expect("it ends");
    run.check_nothing_is_left();
}

#[test]
fn the_boots_timeline_is_drawn_by_run_and_by_boot() {
    let Some(run) = Run::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let check = |path: &Path| {
        let svg = fs::read_to_string(path).expect("a picture");
        let labels = [
            "kernel",
            "modules load",
            "root mounts",
            "PID 1 starts",
            "PID 1 mounts",
            "agent listens",
            "first answer",
        ];
        for label in labels {
            assert!(svg.contains(&format!(">{label}<")), "no {label} in {svg}");
        }
        assert!(
            svg.contains("busybox.ext4, Linux ") && svg.contains(" s to the first answer"),
            "{svg}"
        );
        // A reader that is not ours; where it is not installed the rest of the test stands.
        if let Ok(read) = Command::new("python3")
            .args(["-c", "import sys, xml.dom.minidom as m; m.parse(sys.argv[1])"])
            .arg(path)
            .status()
        {
            assert!(read.success(), "{svg}");
        }
    };
    let drawn = folder.path().join("run.svg");
    let (code, stdout, stderr) =
        run.output(&["--timeline", drawn.to_str().expect("text"), "--", "echo", "hi"]);
    assert_eq!((code, &*stdout, &*stderr), (0, "hi\n", ""));
    check(&drawn);

    let drawn = folder.path().join("boot.svg");
    let mut boot = firebrick(&["boot"])
        .arg(&run.image)
        .arg("--timeline")
        .arg(&drawn)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let deadline = Instant::now() + Duration::from_secs(120);
    while !drawn.exists() {
        assert!(Instant::now() < deadline, "nothing was drawn");
        std::thread::sleep(Duration::from_millis(50));
    }
    check(&drawn);
    let id = Pid::from_raw(i32::try_from(boot.id()).expect("an id")).expect("an id");
    kill_process(id, Signal::TERM).expect("it runs");
    boot.wait().expect("it ends");
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that was left out should be seen")]
fn an_arm_image_runs_where_it_is_asked_for() {
    let Some(layout) = fixture(BUSYBOX[2]) else { return };
    if !firebrick_embed::can_build_for("aarch64-unknown-linux-gnu") {
        eprintln!(
            "skipped: this Rust cannot build the guest for ARM (rustup target add aarch64-unknown-linux-gnu)"
        );
        return;
    }
    if !oracle::have("qemu-system-aarch64").expect("qemu-system-aarch64 (Debian package qemu-system-arm)") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join("arm.ext4");
    let succeed = |mut command: Command| {
        let output = command.output().expect("the binary starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        String::from_utf8(output.stdout).expect("text")
    };
    let arm = ["--platform", "linux/arm64"];
    let reference = format!("oci:{}", layout.display());
    let mut make = firebrick(&["rootfs", "from-docker", "-q", "-n", "arm", "-i", &reference]);
    make.args(arm).arg("-o").arg(&image);
    succeed(make);
    let mut setup = firebrick(&["setup", "-q"]);
    setup.args(arm);
    succeed(setup);
    let mut run = firebrick(&["run", "--boot-timeout", "180", "-i"]);
    run.arg(&image).args(arm).args(["--", "uname", "-m"]);
    assert_eq!(succeed(run), "aarch64\n");
}

#[test]
fn files_go_in_and_come_out() {
    let Some(run) = Run::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("deep")).expect("a folder");
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(300_000).collect();
    fs::write(tree.join("deep/bytes"), &bytes).expect("a file");
    fs::set_permissions(tree.join("deep/bytes"), fs::Permissions::from_mode(0o750)).expect("a mode");
    symlink("deep/bytes", tree.join("link")).expect("a link");
    fs::write(folder.path().join("file"), "from the host\n").expect("a file");
    let put = |name: &str, to: &str| format!("{}:{to}", folder.path().join(name).display());
    let get = |from: &str, name: &str| format!("{from}:{}", folder.path().join(name).display());
    let script =
        "cat /srv/in; id -u; mkdir -p /out; cat /data/deep/bytes > /out/copy; echo done > /out/word; exit 7";
    let words = [
        "--put",
        &put("tree", "/data"),
        "--put",
        &put("file", "/srv/in"),
        "--get",
        &get("/out", "out"),
        "--get",
        &get("/data", "back"),
        "--get",
        &get("/srv/in", "again"),
        "--",
        "sh",
        "-c",
        script,
    ];
    let (code, stdout, stderr) = run.output(&words);
    assert_eq!((code, stdout.as_str()), (7, "from the host\n0\n"), "{stderr}");
    assert!(fs::read(folder.path().join("out/copy")).expect("it came out") == bytes);
    assert_eq!(
        fs::read_to_string(folder.path().join("again")).expect("it came out"),
        "from the host\n"
    );
    let back = folder.path().join("back");
    assert!(fs::read(back.join("deep/bytes")).expect("it came out") == bytes);
    let mode = fs::metadata(back.join("deep/bytes"))
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o750);
    assert_eq!(
        fs::read_link(back.join("link")).expect("a link"),
        Path::new("deep/bytes")
    );
    // What is not there is told, on either side.
    let (code, _, stderr) = run.output(&["--put", "/no/such/file:/x", "--", "sh", "-c", "exit 0"]);
    assert!(code == 125 && stderr.contains("/no/such/file"), "{stderr}");
    let (code, _, stderr) = run.output(&["--get", "/no/such/file:x", "--", "sh", "-c", "exit 0"]);
    assert!(code == 125 && stderr.contains("no such file"), "{stderr}");
    // How the program failed says more.
    let (code, _, stderr) = run.output(&["--get", "/no/such/file:x", "--", "sh", "-c", "exit 3"]);
    assert!(
        code == 3 && stderr.contains("warning:") && stderr.contains("no such file"),
        "{stderr}"
    );
    run.check_nothing_is_left();
}

/// The keys are the program's only once it runs: this one would not heed Ctrl-C.
#[test]
fn ctrl_c_ends_a_boot_that_has_a_terminal() {
    let Some(run) = Run::new() else { return };
    let command = format!(
        "exec {} -v run -i {} --tty -- sh -c 'trap \"\" INT; echo started; busybox sleep 60'",
        assert_cmd::cargo::cargo_bin("firebrick").display(),
        run.image.display()
    );
    let (code, shown) = run.in_terminal(&command, "kernel ", b"\x03");
    assert_eq!(code, Some(130), "{shown}");
    assert!(!shown.contains("started"), "{shown}");
    run.check_nothing_is_left();
}

#[test]
fn a_terminal_is_joined_to_ours() {
    let Some(run) = Run::new() else { return };
    let firebrick = assert_cmd::cargo::cargo_bin("firebrick");
    let command = format!(
        "stty rows 33 cols 77; {} run -q -i {} --tty -- sh -c 'busybox stty size; read -r word; echo \"<$word>\"; exit 5'; echo code $?; stty -a",
        firebrick.display(),
        run.image.display()
    );
    let (code, shown) = run.in_terminal(&command, "33 77", b"typed\r");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("<typed>") && shown.contains("code 5"), "{shown}");
    // The mode is as it was before.
    assert!(shown.contains(" icanon") && shown.contains(" echo "), "{shown}");
    run.check_nothing_is_left();
}
