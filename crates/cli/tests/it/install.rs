//! Packages that scripts install with `--network`: apt's and pip's from the registries that this machine uses, apk's from a signed
//! repository of the fixtures. Judged by `dpkg --verify` and `apk audit` in a VM of the result, which runs what was installed.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_testkit::oracle::Image;
use firebrick_testkit::{debian, fixtures};

use crate::support::vm::{self, Home};

/// Builds an image out of a tar with a script, which must work; `e2fsck` looks at it. What the script printed.
fn made(home: &Home, name: &str, tar: &Path, script: &str) -> String {
    let file = home.at("install.sh");
    fs::write(&file, script).expect("a script");
    let (reference, file) = (
        format!("tar:{}", tar.display()),
        file.to_str().expect("text").to_owned(),
    );
    let args = ["-v", "rootfs", "from-docker", "-n", name, "-i", &reference];
    let (code, _, said) = home.output(&[&args[..], &["--network", "--script", &file]].concat());
    assert_eq!(code, Some(0), "{said}");
    let image = home.path().join(format!("images/rootfs-{name}.ext4"));
    Image::check(&image).expect("a sound image");
    said
}

/// What a script prints in a VM of the image.
fn run(home: &Home, name: &str, script: &str) -> String {
    let limit = vm::LIMIT.as_secs().to_string();
    let boot = ["run", "-i", name, "-t", &limit, "--boot-timeout", &limit];
    let (code, stdout, stderr) = home.output(&[&boot[..], &["--", "/bin/sh", "-c", script]].concat());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    stdout
}

/// Lines of a script that know the registries as this machine does: proxies of apt, the index of pip, and whom to trust.
fn registries() -> String {
    let mut lines = String::new();
    for scheme in ["http", "https"] {
        let variable = format!("Acquire::{scheme}::Proxy");
        let proxy = Command::new("apt-config")
            .args(["shell", "PROXY", &variable])
            .output()
            .expect("apt");
        let proxy = String::from_utf8(proxy.stdout).expect("text");
        if let Some(proxy) = proxy.trim().strip_prefix("PROXY=") {
            writeln!(lines, "export {scheme}_proxy={proxy}").expect("memory");
        }
    }
    let index = Command::new("python3")
        .args(["-m", "pip", "config", "get", "global.index-url"])
        .output();
    let index = index.ok().filter(|output| output.status.success());
    let index = index.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if let Some(index) = std::env::var("PIP_INDEX_URL").ok().or(index) {
        writeln!(lines, "export PIP_INDEX_URL='{index}'").expect("memory");
    }
    let trusted = std::env::var("PIP_CERT").map_or_else(
        |_| PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
        PathBuf::from,
    );
    let trusted = fs::read_to_string(trusted).expect("certificates (Debian package ca-certificates)");
    write!(
        lines,
        "cat > /dev/shm/ca.pem <<'END'\n{trusted}\nEND\nexport PIP_CERT=/dev/shm/ca.pem\n"
    )
    .expect("memory");
    lines
}

#[test]
fn debian_boots_with_what_apt_and_pip_installed() {
    let Some(home) = Home::new() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(tar) = debian::root(folder, "openrc", "openrc,sysvinit-core") else {
        return;
    };
    let script = format!(
        "set -x\ndpkg --verify > /root/before\n{}\napt-get -q update\napt-get -q install -y --no-install-recommends python3-pip jq\n\
         python3 -m pip install -q --break-system-packages --no-cache-dir six\n\
         apt-get clean\nfind /var/lib/apt/lists -type f -delete\nid -u _apt > /root/apt\n",
        registries()
    );
    made(&home, "debian", &tar, &script);
    let said = run(
        &home,
        "debian",
        "dpkg --verify | diff - /root/before && echo sound\n\
         echo '[40,2]' | jq add\npython3 -c 'import six; print(six.__name__)'\n\
         stat -c %U /var/lib/apt/lists/partial\nls /dev/shm/ca.pem /dev/firebrick-step 2>/dev/null; true",
    );
    assert_eq!(said, "sound\n42\nsix\n_apt\n", "{said}");
    home.no_process_is_left();
}

#[test]
fn alpine_boots_with_what_apk_installed() {
    let (Some(tar), Some(repository)) = (
        fixtures::fixture(fixtures::ALPINE[1]),
        fixtures::fixture("apk/repository"),
    ) else {
        return;
    };
    let Some(home) = Home::new() else { return };
    let address = serve(repository.clone());
    let key = fs::read_to_string(repository.join("melange.rsa.pub")).expect("a key");
    // Without the key apk takes nothing.
    let script = format!(
        "apk audit | sort > /root/before\n\
         if apk add --repositories-file /dev/null -X http://{address} custom-ca-certs-1; then exit 9; fi\n\
         cat > /etc/apk/keys/melange.rsa.pub <<'END'\n{key}\nEND\n\
         apk add --repositories-file /dev/null -X http://{address} custom-ca-certs-1\n\
         rm /etc/apk/keys/melange.rsa.pub\n"
    );
    let said = made(&home, "alpine", &tar, &script);
    assert!(said.contains("Installing custom-ca-certs-1"), "{said}");
    let said = run(
        &home,
        "alpine",
        // /etc/hosts got the machine's name when it started.
        "apk audit | sort | grep -v -e etc/firebrick/ -e etc/hosts > /tmp/now\n\
         grep -v etc/resolv.conf /root/before | diff /tmp/now -  && echo sound\napk info -e custom-ca-certs-1\n\
         head -n 1 /usr/local/share/ca-certificates/cert-a.crt",
    );
    assert_eq!(
        said, "sound\ncustom-ca-certs-1\n-----BEGIN CERTIFICATE-----\n",
        "{said}"
    );
    home.no_process_is_left();
}

/// Serves the files of a folder over HTTP as long as the test runs. Its address.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            lines.find(String::is_empty);
            let path = request.split(' ').nth(1).unwrap_or_default();
            let found = fs::read(folder.join(path.trim_start_matches('/')));
            let (status, body) = match found {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let sent = (&stream)
                .write_all(head.as_bytes())
                .and_then(|()| (&stream).write_all(&body));
            drop(sent); // who goes away early wants no more
        }
    });
    address
}

/// Debian's scripts for System V's runlevels, which OpenRC reads with a dozen processes each: half a minute of an emulated machine.
/// What they do, stage 1 has done.
const WITHOUT_LSB_SCRIPTS: &str = "cd /etc/init.d\n\
    rm -f bootlogs brightness checkfs.sh checkroot-bootclean.sh checkroot.sh halt hostname.sh hwclock.sh killprocs \
    mount-configfs mountall-bootclean.sh mountall.sh mountdevsubfs.sh mountkernfs.sh mountnfs-bootclean.sh mountnfs.sh \
    rc.local reboot rmnologin sendsigs single umountfs umountnfs.sh umountroot urandom\n\
    rm -f /etc/runlevels/sysinit/* /etc/runlevels/default/* /etc/runlevels/off/* /etc/runlevels/recovery/*\n";

/// As Nex has it: its agent runs as the user nex under OpenRC, and so does ours.
#[test]
fn nex_boots_its_agent_under_openrc() {
    let Some(home) = Home::new() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(tar) = debian::root(folder, "openrc", "openrc,sysvinit-core") else {
        return;
    };
    let at = |name: &str| home.at(name).to_str().expect("text").to_owned();
    fs::write(
        home.at("agent.c"),
        "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n",
    )
    .expect("a file");
    let cc = Command::new("cc")
        .args(["-static", "-o", &at("agent"), &at("agent.c")])
        .status()
        .expect("a C compiler");
    assert!(cc.success());
    let script = format!("{WITHOUT_LSB_SCRIPTS}id nex > /etc/ran\n");
    fs::write(home.at("script"), script).expect("a script");
    let (reference, output) = (format!("tar:{}", tar.display()), at("nex.ext4"));
    let make = [
        "rootfs",
        "--image",
        &reference,
        "--agent",
        &at("agent"),
        "--size",
        "419430400",
    ];
    let (code, _, said) =
        home.output(&[&make[..], &["--script", &at("script"), "--output", &output]].concat());
    assert_eq!(code, Some(0), "{said}");
    Image::check(Path::new(&output)).expect("a sound image");
    let said = run(
        &home,
        &output,
        "id -u; id -g; cat /proc/1/comm /etc/ran; readlink /etc/resolv.conf\n\
         for try in 1 2 3 4 5 6 7 8 9 10; do\n\
           for process in /proc/[0-9]*; do\n\
             test \"$(cat $process/comm)\" = agent || continue\n\
             stat -c %U:%G $process; cat /proc/$(cut -d' ' -f4 $process/stat)/comm; exit\n\
           done; sleep 1\n\
         done",
    );
    assert_eq!(
        said,
        "1000\n1000\ninit\nuid=1000(nex) gid=1000(nex) groups=1000(nex)\n/proc/net/pnp\nnex:nex\nsupervise-daemo\n"
    );
    home.no_process_is_left();
}
