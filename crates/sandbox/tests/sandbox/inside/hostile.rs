//! Scripts that try to reach the host. Each must fail at it, and leave the host as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use firebrick_sandbox::{Outcome, Sandbox};

use crate::support::{Lab, options, step};

/// Files of the host, and everything that is mounted: what no script may change.
struct Canary {
    dir: tempfile::TempDir,
    before: BTreeMap<String, String>,
}

impl Canary {
    fn new() -> Canary {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let before = look(dir.path());
        Canary { dir, before }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn check(&self) {
        assert_eq!(look(self.dir.path()), self.before);
    }
}

fn look(dir: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        let content = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let text = format!(
            "{content} {:?} {:?}",
            metadata.permissions(),
            metadata.modified().unwrap()
        );
        seen.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    for file in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/overcommit_memory",
    ] {
        seen.insert(file.to_owned(), std::fs::read_to_string(file).unwrap_or_default());
    }
    // Other tests of this process mount nothing either, in this namespace.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    seen.insert(
        "mounts".to_owned(),
        mounts
            .lines()
            .map(|line| line.split(' ').nth(1).unwrap().to_owned() + "\n")
            .collect(),
    );
    seen
}

/// Processes of this machine whose command line holds a word.
fn processes_with(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(word) && !command.contains("--test-threads") {
            found.push(command);
        }
    }
    found
}

/// Commands that must fail, and what each prints if it does not.
#[test]
fn what_is_refused_is_refused() {
    let Some(mut lab) = Lab::new() else { return };
    let canary = Canary::new();
    for command in [
        "mount -t tmpfs none /mnt",
        "mount -o bind / /mnt",
        "mount -o remount,rw /proc/sys",
        "umount /dev/null",
        "umount -l /proc",
        "mknod /tmp/d b 8 0",
        "mknod /tmp/c c 1 1",
        "unshare -U true",
        "unshare -m true",
        "unshare -n true",
        "chroot / mount -t proc none /mnt",
        "echo b > /proc/sysrq-trigger",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/vm/overcommit_memory",
        "echo 1 > /proc/sys/kernel/panic",
        "sysctl -w kernel.panic=1",
        "hostname other",
        "date -s 2001-01-01 >/dev/null; test $(date +%Y) = 2001",
        "swapon /tmp/x",
        "reboot -f",
        "dmesg",
        "insmod /tmp/x.ko",
        "cat /proc/1/mem",
        "cat /proc/1/environ",
        "readlink /proc/1/fd/0",
        "cat /proc/kcore | grep .",
        "echo > /sys/x",
        "test -c /dev/kmsg -o -c /dev/mem -o -c /dev/console",
        "test -e /dev/mem",
        "test -e /dev/sda -o -e /dev/vda",
        "renice -n -5 1",
        "nsenter -t 1 -m true",
        "losetup /dev/loop0 /etc/motd",
        "kill -0 3000000",
    ] {
        // exit 3: it was refused. busybox' own "not found" would be no proof, so the applet must be there.
        let program = command.split(' ').next().unwrap();
        let (outcome, output) = lab.run(&format!(
            "type {program} >/dev/null || exit 9\nif ({command}); then exit 0; else exit 3; fi"
        ));
        assert_eq!(outcome, Outcome::Exited(3), "{command}: {output}");
        canary.check();
    }
    assert_eq!(
        lab.layer()
            .said()
            .iter()
            .filter(|line| line.starts_with("+mnt/"))
            .count(),
        0
    );
    lab.end();
}

#[test]
fn the_rights_of_a_step_are_few() {
    let Some(mut lab) = Lab::new() else { return };
    let output =
        lab.done("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; cat /proc/self/mountinfo | wc -l");
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, sys_chroot, setfcap.
    let mask = "00000000800400fb";
    for expected in [
        format!("CapPrm:\t{mask}"),
        format!("CapEff:\t{mask}"),
        format!("CapBnd:\t{mask}"),
        "CapInh:\t0000000000000000".to_owned(),
        "CapAmb:\t0000000000000000".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
        "Seccomp:\t2".to_owned(),
    ] {
        assert!(output.contains(&expected), "{expected}\n{output}");
    }
    // The root of the sandbox may be root outside only where its caller is nobody but that.
    let map = lab.done("cat /proc/self/uid_map");
    let outside = map.split_whitespace().nth(1).unwrap();
    assert!(lab.single() || outside != "0", "{map}");
    lab.end();
}

#[test]
fn nothing_of_the_host_can_be_seen() {
    let Some(mut lab) = Lab::new() else { return };
    let canary = Canary::new();
    let script = format!(
        "ln -s {0}/a /tmp/l; ln -s /proc/1/root/../../../..{0} /tmp/m; mkdir -p /tmp/up; cd /tmp/up
        for f in {0}/a /tmp/l /tmp/m/a /proc/1/root{0}/a /proc/self/cwd/../../../../..{0}/a /../../..{0}/a; do cat $f 2>/dev/null && exit 5; done
        echo owned > /tmp/l 2>/dev/null && exit 6
        ls /proc/self/fd | grep -v '^[0123]$' && exit 7
        test \"$(readlink /proc/self/fd/0)\" = /dev/null || exit 8
        env | grep -v -E '^(PATH|HOME|SHLVL|PWD|OLDPWD|APT_CONFIG)=' && exit 9
        exit 0",
        canary.path()
    );
    let (outcome, output) = lab.run(&script);
    assert_eq!(outcome, Outcome::Exited(0), "{output}");
    canary.check();
    // The layer has the links as links.
    let layer = lab.layer();
    assert!(layer.said().contains(&"+tmp/l".to_owned()), "{:?}", layer.said());
    lab.end();
}

#[test]
fn inherited_descriptors_are_closed() {
    let Some(mut lab) = Lab::new() else { return };
    // Without O_CLOEXEC, as a careless parent leaves them.
    let canary = Canary::new();
    let output = lab.done("for n in 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 99; do (eval \"echo owned >&$n\") 2>/dev/null && echo $n; done; true");
    assert_eq!(output, "");
    canary.check();
    lab.end();
}

#[test]
fn killing_everything_kills_the_step_only() {
    let Some(mut lab) = Lab::new() else { return };
    let (outcome, _) =
        lab.run("sleep 100 & kill -9 -1 || true; kill -TERM 1 || true; kill -9 1 || true; sleep 0.5; exit 4");
    assert!(
        matches!(outcome, Outcome::Signal(9) | Outcome::Exited(4)),
        "{outcome:?}"
    );
    lab.done("true");
    lab.end();
}

#[test]
fn a_daemon_ends_with_its_step() {
    let Some(mut lab) = Lab::new() else { return };
    lab.done(
        "(setsid sh -c 'trap \"\" HUP TERM; sleep 98765; echo late > /late' >/dev/null 2>&1 &) ; sleep 0.2",
    );
    assert_eq!(processes_with("sleep 98765"), Vec::<String>::new());
    assert!(!lab.layer().said().contains(&"+late".to_owned()));
    lab.end();
}

#[test]
fn a_daemon_that_holds_the_output_does_not_hold_the_step() {
    let Some(mut lab) = Lab::new() else { return };
    assert_eq!(lab.done("sleep 87654 & echo done"), "done\n");
    assert_eq!(processes_with("sleep 87654"), Vec::<String>::new());
    lab.end();
}

#[test]
fn a_fork_bomb_is_bounded() {
    let Some(mut lab) = Lab::new() else { return };
    lab.limits.processes = 100;
    lab.limits.time = Duration::from_secs(5);
    let (outcome, _) = lab.run("bomb() { bomb | bomb & }; bomb; sleep 1000");
    let bounded = match &outcome {
        Outcome::TimedOut(_) | Outcome::Exited(_) | Outcome::Signal(_) => true,
        Outcome::OverLimit { what, .. } => what == "processes",
        _ => false,
    };
    assert!(bounded, "{outcome:?}");
    lab.limits.processes = 2048;
    lab.done("true");
    lab.end();
}

/// `fork` fails in it, also for root, whom no other bound of the kernel stops; so nobody has to be ended.
#[test]
fn a_group_bounds_a_bomb_of_anybody() {
    // Where all is slow, a root of little.
    let root = std::env::var_os("SANDBOX_ROOT").map(|tar| Lab::of(&std::fs::read(tar).unwrap()));
    let Some(mut lab) = root.or_else(Lab::new) else {
        return;
    };
    let has_group = lab.sandbox.as_ref().unwrap().has_group();
    if !has_group {
        let expected = std::env::var_os("SANDBOX_GROUP");
        assert_eq!(expected, None, "there should be a control group");
        return;
    }
    lab.limits.processes = 40;
    let (outcome, output) = lab.run("for i in $(seq 120); do sleep 60 & done; echo all of them");
    assert!(matches!(outcome, Outcome::Exited(1..)), "{outcome:?} {output}");
    assert!(
        output.contains("can't fork") && !output.contains("all of them"),
        "{output}"
    );
    // Of each step anew.
    lab.limits.processes = 200;
    if !lab.single() {
        return lab.end(); // what the last step had may still count for its user
    }
    lab.done("for i in $(seq 120); do sleep 0.1 & done; wait");
    lab.end();
}

#[test]
fn memory_is_bounded() {
    let Some(mut lab) = Lab::new() else { return };
    lab.limits.memory_bytes = 64 << 20;
    // One process by its limit, many by what they take together.
    let one = "head -c 300000000 /dev/zero | tail -c 250000000 > /dev/null";
    assert_ne!(lab.run(&format!("set -o pipefail; {one}")).0, Outcome::Exited(0));
    let many = "for i in 1 2 3 4 5 6; do (head -c 40000000 /dev/zero | tail -c 30000000; sleep 30) & done | cat > /dev/null; exit 0";
    let many = many.replace(
        "tail -c 30000000",
        "sh -c 'x=$(head -c 20000000 /dev/zero | tr \"\\0\" x); sleep 20'",
    );
    let (outcome, output) = lab.run(&many);
    assert!(
        matches!(&outcome, Outcome::OverLimit { what, .. } if what == "memory"),
        "{outcome:?} {output}"
    );
    lab.end();
}

#[test]
fn the_disk_is_bounded() {
    let Some(mut lab) = Lab::new() else { return };
    lab.limits.disk_bytes = 100 << 20;
    // One file by its limit, several by what is gone of the disk.
    let (outcome, output) = lab.run("exec head -c 300000000 /dev/zero > /srv/big");
    let over = Outcome::OverLimit {
        what: "disk".to_owned(),
        limit: 100 << 20,
    };
    assert_eq!(outcome, over, "{output}");
    let (outcome, output) = lab.run("rm -f /srv/big; for i in 1 2 3 4 5 6 7 8; do head -c 90000000 /dev/urandom > /srv/$i; sleep 0.2; done");
    assert!(
        matches!(&outcome, Outcome::OverLimit { what, .. } if what == "disk"),
        "{outcome:?} {output}"
    );
    lab.end();
}

#[test]
fn an_endless_output_holds_nobody_up() {
    let Some(mut lab) = Lab::new() else { return };
    lab.limits.time = Duration::from_secs(3);
    let (outcome, output) = lab.run("yes 0123456789");
    assert_eq!(outcome, Outcome::TimedOut(Duration::from_secs(3)));
    assert!(output.len() >= 1 << 20);
    lab.end();
}

#[test]
fn odd_trees_are_removed_and_refused_in_words() {
    let Some(mut lab) = Lab::new() else { return };
    let (outcome, output) = lab.run(
        "cd /srv; mkdir deeper-and-deeper-still; i=0
        while [ $i -lt 300 ]; do mkdir n; mv deeper-and-deeper-still n/; mv n deeper-and-deeper-still; i=$((i+1)); done
        chmod 0 deeper-and-deeper-still",
    );
    assert_eq!(outcome, Outcome::Exited(0), "{output}");
    let sandbox = lab.sandbox.as_mut().unwrap();
    let error = sandbox.layer(&mut std::io::sink()).unwrap_err().to_string();
    assert!(error.contains("too long"), "{error}");
    lab.end();
    let Some(mut lab) = Lab::new() else { return };
    lab.done("touch /srv/.wh.x; mkdir -p /srv/none/below; chmod 0 /srv/none");
    let error = lab
        .sandbox
        .as_mut()
        .unwrap()
        .layer(&mut std::io::sink())
        .unwrap_err()
        .to_string();
    assert!(error.contains(".wh.x"), "{error}");
    lab.end();
}

#[test]
fn a_hostile_base_is_refused_or_harmless() {
    use firebrick_layer::tar::{Writer, WriterEntry};
    use firebrick_tree::{LayerPath, Metadata};
    let canary = Canary::new();
    let path = |text: &str| LayerPath::parse(text.as_bytes()).unwrap();
    let meta = Metadata::default();
    // A link out, and a file through it; links where the sandbox mounts.
    for entries in [
        vec![("out", Some(canary.path())), ("out/owned", None)],
        vec![("dev", Some(canary.path()))],
        vec![("proc", Some("/"))],
        vec![("sys", None)],
    ] {
        let mut tar = Writer::new(Vec::new());
        tar.entry(&path(""), &meta, WriterEntry::Directory).unwrap();
        for (name, target) in entries {
            let entry = match target {
                Some(target) => WriterEntry::Symlink(target.as_bytes()),
                None => WriterEntry::File(b"owned"),
            };
            tar.entry(&path(name), &meta, entry).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let mut sandbox = Sandbox::start(&options(dir.path())).unwrap();
        let mut unpacker = sandbox.unpack();
        std::io::Write::write_all(&mut unpacker, &tar.finish().unwrap()).unwrap();
        unpacker.finish().unwrap_err();
        drop(sandbox);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        canary.check();
    }
}

#[test]
fn a_killed_host_leaves_nothing_running_and_the_next_removes_the_rest() {
    let Some(lab) = Lab::new() else { return };
    // What a keeper leaves that was killed too: a folder that nobody holds.
    let left = lab.dir.path().join("run-1-1");
    std::fs::create_dir_all(left.join("copy/a")).unwrap();
    std::fs::write(left.join("copy/a/f"), "x").unwrap();
    drop(Sandbox::start(&options(lab.dir.path())).unwrap());
    if lab.single() || !rustix::process::geteuid().is_root() || left.exists() {
        // Root's sandbox may not be able to remove what belongs to root; a real one's belongs to the sandbox.
        _ = std::fs::remove_dir_all(&left);
    }
    assert!(!left.exists());
    lab.end();
}

#[test]
fn a_step_with_a_network_still_has_no_more_rights() {
    let Some(mut lab) = Lab::new() else { return };
    let canary = Canary::new();
    let mut asked = step(
        "ifconfig lo down && exit 5; route add default gw 127.0.0.1 && exit 6; mount -t tmpfs none /mnt && exit 7; exit 0",
    );
    asked.network = true;
    let (outcome, output) = lab.step(&asked);
    assert_eq!(outcome, Outcome::Exited(0), "{output}");
    canary.check();
    lab.end();
}
