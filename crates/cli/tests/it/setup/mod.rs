//! `setup` against a server of our own: what is pinned arrives, what breaks off is gone on with, what is another is refused.

mod flags;
mod signals;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use firebrick_digest::Digest;

use crate::support::Home;

/// Serves `bytes` at every address. The first answer breaks off in the middle if `breaks`.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

fn serve(bytes: Vec<u8>, breaks: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let first = log.lock().expect("no panic").is_empty();
            answer(&stream, &bytes, breaks && first, &log);
        }
    });
    Server { url, requests }
}

fn answer(mut stream: &TcpStream, bytes: &[u8], breaks: bool, log: &Mutex<Vec<String>>) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(first) = lines.first() else { return };
    let range = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("range").then(|| value.to_owned())
    });
    let start: usize = range
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    log.lock().expect("no panic").push(format!("{first} {start}"));
    let head = match start {
        0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", bytes.len()),
        start => format!(
            "HTTP/1.1 206 Part\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n",
            bytes.len() - start,
            bytes.len() - 1,
            bytes.len()
        ),
    };
    let body = &bytes[start..];
    let body = if breaks { &body[..body.len() / 2] } else { body };
    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
    let _ = stream.write_all(body);
}

/// The smallest file that passes for a kernel here: one that says so, and can be started by nothing.
fn kernel() -> Vec<u8> {
    let mut bytes = vec![0; 200_000];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16..20].copy_from_slice(&[2, 0, 62, 0]);
    bytes[1000..1025].copy_from_slice(b"Linux version 5.10.223 (x");
    bytes
}

/// A program for this host that is all header.
fn elf() -> Vec<u8> {
    let machine = if cfg!(target_arch = "aarch64") {
        183_u16
    } else {
        62
    };
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(18, 0);
    program.extend_from_slice(&machine.to_le_bytes());
    program
}

/// A release archive of Firecracker, whose programs are all header.
fn release(version: &str) -> Vec<u8> {
    let program = elf();
    let folder = tempfile::tempdir().expect("a folder");
    let name = format!("release-v{version}-{}", std::env::consts::ARCH);
    fs::create_dir(folder.path().join(&name)).expect("a folder");
    for one in ["firecracker", "jailer"] {
        let file = format!("{name}/{one}-v{version}-{}", std::env::consts::ARCH);
        fs::write(folder.path().join(file), &program).expect("a file");
    }
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(folder.path())
        .args(["-cz", &name])
        .output();
    tar.expect("tar").stdout
}

fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Runs `setup` where there is no QEMU and no apt.
fn setup(home: &Home, args: &[&str]) -> (String, i32) {
    let output = home
        .firebrick(&[&["setup"], args].concat())
        .env("PATH", "/nowhere")
        .output()
        .expect("it starts");
    let text = [output.stdout, output.stderr].concat();
    (
        String::from_utf8(text).expect("text"),
        output.status.code().expect("no signal"),
    )
}

#[test]
fn a_kernel_arrives_though_the_connection_breaks_in_the_middle() {
    let (home, bytes) = (Home::new(), kernel());
    let server = serve(bytes.clone(), true);
    let url = format!("{}/vmlinux", server.url);
    let args = ["--url", &url, "--digest", &digest(&bytes)];
    let (text, code) = setup(&home, &args);
    // What is missing is QEMU, and only that.
    assert!(text.contains("qemu-system") && code == 1, "{text}");
    let requests = server.requests.lock().expect("no panic").clone();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(requests[1].ends_with(" 100000"), "{requests:?}");
    let link = home.path().join("fb/kernels/default");
    assert!(fs::read(link.join("vmlinux")).expect("a kernel") == bytes);
    let json = fs::read_to_string(link.join("kernel.json")).expect("a manifest");
    assert!(json.contains(&digest(&bytes)), "{json}");
    let (text, code) = setup(&home, &["--check"]);
    assert!(
        text.contains("ok       kernel  5.10.223 (") && text.contains("missing  QEMU") && code == 1,
        "{text}"
    );
    for (version, word) in [
        ("5.10", "ok"),
        ("5.10.223", "ok"),
        ("5.1", "missing"),
        ("6.1", "missing"),
    ] {
        let (text, _) = setup(&home, &["--check", "--kernel-version", version]);
        assert!(text.starts_with(&format!("{word} ")), "{version}: {text}");
    }
}

#[test]
fn what_was_fetched_is_in_the_cache_and_can_be_pruned() {
    let (home, bytes) = (Home::new(), kernel());
    let server = serve(bytes.clone(), false);
    let url = format!("{}/vmlinux", server.url);
    setup(&home, &["--url", &url, "--digest", &digest(&bytes)]);
    let listed = home.transcript(&["cache", "list"]);
    assert!(
        listed.contains(&digest(&bytes)) && listed.contains("for setup"),
        "{listed}"
    );
    let pruned = home.transcript(&["cache", "prune", "-v"]);
    assert!(
        pruned.contains(&format!("deleted {} for setup", digest(&bytes))),
        "{pruned}"
    );
    let listed = home.transcript(&["cache", "list"]);
    assert!(listed.contains("is empty"), "{listed}");
    // The kernel itself is not the cache's.
    assert!(fs::read(home.path().join("fb/kernels/default/vmlinux")).expect("a kernel") == bytes);
}

#[test]
fn a_wrong_digest_is_refused_and_nothing_is_set_up() {
    let home = Home::new();
    let server = serve(kernel(), false);
    let url = format!("{}/vmlinux", server.url);
    let (text, code) = setup(&home, &["--url", &url, "--digest", &digest(b"another")]);
    assert!(text.contains("is not what was promised") && code == 1, "{text}");
    assert!(!home.path().join("fb/kernels/default").exists());
    let left: Vec<_> = fs::read_dir(home.path().join("fb/cache/setup"))
        .expect("a folder")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // Neither of the two can be left out.
    for args in [&["--url", &*url][..], &["--digest", &digest(b"x")]] {
        let text = home.transcript(&[&["setup"], args].concat());
        assert!(text.ends_with("exit code 2\n"), "{text}");
    }
}

/// Where there is no apt, Firecracker's kernel of that version is taken; the server here has another, and says so.
#[test]
fn without_debian_the_pinned_kernel_is_asked_for() {
    let home = Home::new();
    let server = serve(kernel(), false);
    let (text, code) = setup(&home, &["--kernel-version", "5.10", "--mirror", &server.url]);
    assert!(
        text.contains("Firecracker's own is taken") && text.contains("is not what was promised"),
        "{text}"
    );
    assert_eq!(code, 1);
    let requests = server.requests.lock().expect("no panic").clone();
    assert!(
        requests[0].contains(&format!("/{}/vmlinux-5.10.", std::env::consts::ARCH)),
        "{requests:?}"
    );
    let (text, code) = setup(&home, &["--kernel-version", "2.4", "--mirror", &server.url]);
    assert!(
        text.contains("cannot run apt-") && text.contains("--deb FILE") && code == 1,
        "{text}"
    );
}

/// As on a distribution that has apt and no cloud kernel, and on one without apt; nothing leads to the network here.
#[test]
fn without_debian_and_without_a_version_the_usual_kernel_of_firecrackers_is_taken() {
    let home = Home::new();
    let config = home.path().join("apt.conf");
    let lines = ["Etc::SourceList", "Etc::SourceParts"].map(|key| format!("Dir::{key} \"/dev/null\";\n"));
    let lists = format!("Dir::State::lists \"{}\";\n", home.path().join("lists").display());
    fs::write(&config, lines.concat() + &lists).expect("a file");
    let nowhere = "http://127.0.0.1:9";
    let setup = |name: &str, value: &std::path::Path| {
        let output = home
            .firebrick(&["setup"])
            .env(name, value)
            .env("HTTPS_PROXY", nowhere)
            .output()
            .expect("the binary starts");
        (
            String::from_utf8(output.stderr).expect("text"),
            output.status.code(),
        )
    };
    for (name, value) in [("APT_CONFIG", &*config), ("PATH", home.path())] {
        let (text, code) = setup(name, value);
        assert!(
            text.contains("Firecracker's own is taken") && text.contains("/vmlinux-6.1."),
            "{name}: {text}"
        );
        assert_eq!(code, Some(1), "{text}");
    }
}

#[test]
fn firecracker_arrives_is_checked_and_is_not_fetched_twice() {
    let (home, archive) = (Home::new(), release("1.99.0"));
    let kernel = home.path().join("vmlinux");
    fs::write(&kernel, self::kernel()).expect("a file");
    let server = serve(archive.clone(), true);
    let digest = digest(&archive);
    let of_version = [
        "--kernel",
        "vmlinux",
        "--mirror",
        &*server.url,
        "--firecracker-version",
        "1.99.0",
    ];
    // Nobody has said what it must be.
    let (text, code) = setup(&home, &of_version);
    assert!(
        text.contains("does not know what Firecracker 1.99.0 must be") && code == 1,
        "{text}"
    );
    assert!(text.contains("hint: give the digest that is published"), "{text}");
    let pinned = [&of_version[..], &["--firecracker-digest", &digest]].concat();
    let (text, code) = setup(&home, &pinned);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("VMs run with Firecracker 1.99.0"), "{text}");
    for program in ["firecracker", "jailer"] {
        assert!(home.path().join("fb/bin").join(program).is_file(), "{program}");
    }
    let requests = server.requests.lock().expect("no panic").len();
    assert_eq!(requests, 2);
    let (text, code) = setup(&home, &pinned);
    assert!(text.contains("it is there already") && code == 0, "{text}");
    assert_eq!(server.requests.lock().expect("no panic").len(), requests);

    let check = ["--check", "--firecracker-version", "1.99.0"];
    let (text, code) = setup(&home, &check);
    assert!(text.contains(&digest) && code == 0, "{text}");
    let (_, code) = setup(&home, &["--check", "--firecracker-version", "1.98.0"]);
    assert_eq!(code, 1);
    fs::write(home.path().join("fb/bin/jailer"), "x").expect("a file");
    let (text, code) = setup(&home, &check);
    assert!(text.contains("is not as it was set up") && code == 1, "{text}");
}

#[test]
fn a_dry_run_tells_what_would_be_pinned_and_changes_nothing() {
    let home = Home::new();
    let (text, code) = setup(&home, &["--dry-run", "--firecracker-version", "1.15.1"]);
    assert_eq!(code, 0, "{text}");
    let archive = format!(
        "/v1.15.1/firecracker-v1.15.1-{}.tgz, which must be sha256:",
        std::env::consts::ARCH
    );
    assert!(text.contains(&archive), "{text}");
    assert!(!home.path().join("fb").exists());
}

/// apt says so in words only, and would go on with other lists.
#[test]
fn a_disk_that_is_full_is_called_so() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let apt = home.path().join("bin/apt-cache");
    fs::create_dir(home.path().join("bin")).expect("a folder");
    let script = "#!/bin/sh\necho 'E: Write error - write (28: No space left on device)' >&2\nexit 100\n";
    fs::write(&apt, script).expect("a file");
    fs::set_permissions(&apt, fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut setup = home.firebrick(&["setup"]);
    let output = setup
        .env("PATH", home.path().join("bin"))
        .output()
        .expect("it starts");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(
        text.contains("caused by: cannot download packages into ")
            && text.contains("hint: see what is full: df -h"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(1));
}

/// Who has Firecracker in PATH needs neither QEMU nor another Firecracker.
#[test]
fn a_firecracker_in_path_is_enough() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let program = home.path().join("bin/firecracker");
    fs::create_dir(home.path().join("bin")).expect("a folder");
    fs::write(&program, "#!/bin/sh\necho Firecracker v1.99.0\n").expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::write(home.path().join("vmlinux"), kernel()).expect("a file");
    let setup = |args: &[&str]| {
        let output = home
            .firebrick(&[&["setup"], args].concat())
            .env("PATH", home.path().join("bin"))
            .output()
            .expect("it starts");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        (text, output.status.code())
    };
    let (text, code) = setup(&["--kernel", "vmlinux"]);
    assert!(text.contains("VMs run with Firecracker 1.99.0"), "{text}");
    assert_eq!(code, Some(0));
    let (text, code) = setup(&["--check"]);
    assert!(
        text.contains("ok  Firecracker  1.99.0 (") && code == Some(0),
        "{text}"
    );
    let (text, code) = setup(&["--check", "--firecracker-version", "1.98.0"]);
    assert!(
        text.contains("missing  Firecracker  1.99.0") && code == Some(1),
        "{text}"
    );
    // For another processor it is of no use.
    let other = if cfg!(target_arch = "x86_64") {
        "arm64"
    } else {
        "amd64"
    };
    let (text, code) = setup(&["--check", "--platform", &format!("linux/{other}")]);
    assert!(text.contains("missing  QEMU") && code == Some(1), "{text}");
    // One in a file is told of by a dry run, and nothing else.
    let (text, code) = setup(&["--dry-run", "--firecracker", "bin/firecracker"]);
    assert!(
        text.contains("would do: take Firecracker 1.99.0 (bin/firecracker) into ") && code == Some(0),
        "{text}"
    );
    assert!(!home.path().join("fb/bin").exists());
    // One in PATH is not the one in a file, which nobody has set up.
    let (text, code) = setup(&["--check", "--firecracker", "bin/firecracker"]);
    assert!(
        text.contains("missing  Firecracker  1.99.0 (") && code == Some(1),
        "{text}"
    );
}
