//! The duties of PID 1 that the other tests do not see: modules with parameters, name servers, control groups that are not there,
//! signals for the image's own program, and an end that nobody can refuse.

use firebrick_customise::{Init, Service};
use firebrick_protocol::agent::{Exec, JobOptions};
use firebrick_vmm::client::Client;
use firebrick_vmm::kernel::modules::ModInfo;
use firebrick_vmm::{Job, Machine, Network, RunOutcome};
use serde_json::json;

use crate::host::{ANSWER_LIMIT, Host, exec, host, output, shell};
use crate::images::{Recipe, Root, layer};

/// Modules of this kernel as a distribution has them: with `modules.dep`, in a folder of the release's name.
fn modules(host: &Host, wanted: &str) -> Vec<u8> {
    let folder = format!("lib/modules/{}", host.kernel.manifest().release);
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{folder}/{name}"), bytes)
            .expect("an entry");
    };
    let bytes = |name: &str| {
        let module = host
            .kernel
            .manifest()
            .modules
            .iter()
            .find(|module| module.name == name);
        std::fs::read(host.kernel.module_path(module.expect("a module"))).expect("a module")
    };
    // In the order of modules.dep: what a module needs first stands last.
    let mut needed = Vec::new();
    let mut pending = vec![wanted.to_owned()];
    while let Some(name) = pending.pop() {
        let module = bytes(&name);
        add(format!("kernel/{}.ko", name.replace('_', "-")), &module);
        pending.extend(ModInfo::parse(&module).expect("a module").depends);
        needed.retain(|known| *known != name);
        needed.push(name);
    }
    let path = |name: &String| format!("kernel/{}.ko", name.replace('_', "-"));
    let line = format!(
        "{}: {}\n",
        path(&needed[0]),
        needed[1..].iter().map(path).collect::<Vec<_>>().join(" ")
    );
    let others: String = needed[1..]
        .iter()
        .map(|name| format!("{}:\n", path(name)))
        .collect();
    add("modules.dep".to_owned(), (line + &others).as_bytes());
    tar.into_inner().expect("a tar")
}

/// Told of USR1 it notes it, asked to stop as its image wants it says so, and TERM alone does not end it.
const PROGRAM: &str = "trap 'touch /tmp/heard' USR1; trap 'echo stopped as asked; exit 0' QUIT; trap '' TERM; \
                       echo started as $(id -u); while :; do sleep 0.1; done";

#[test]
fn pid_1_does_all_that_it_documents() {
    let Some(host) = host() else { return };
    // (The first is what stage 1 knows its initramfs by.)
    let files = "f 0644 /lib/firebrick/modules \"no\"
                 l /etc/resolv.conf -> /proc/net/pnp
                 f 0644 /etc/modules-load.d/net.conf \"# a comment\\n\\n; another\\n  virtio-net napi_weight=33\\nno-such-module\\n\"";
    let recipe = Recipe {
        config: json!({ "Entrypoint": ["/bin/sh", "-c", PROGRAM], "User": "65534", "StopSignal": "SIGQUIT" }),
        more: vec![modules(&host, "virtio_net"), layer(files)],
        words: vec![
            "firebrick.run=entrypoint".to_owned(),
            "firebrick.cgroup=v1:pids,nonsense".to_owned(),
        ],
        ..Recipe::default()
    };
    let Some(image) = recipe.of(Root::Alpine) else {
        return;
    };
    let mut spec = host.spec_of(&image);
    spec.network = Network::User;
    // The image's module is to be loaded, not stage 1's.
    let mut machine = spec.machine(&firebrick_vmm::qemu::facts()).expect("a machine");
    let no_network = host
        .spec_of(&image)
        .machine(&firebrick_vmm::qemu::facts())
        .expect("a machine");
    machine.initramfs = no_network.initramfs;
    let (machine, mut client) =
        crate::overlay::attend(&host, &machine).unwrap_or_else(|console| panic!("{console}"));
    the_machine_is_set_up(&mut client);
    nobody_else_takes_it_over(&mut client);
    it_ends(&*machine, &mut client);
}

fn the_machine_is_set_up(client: &mut Client) {
    let warnings = client.status(ANSWER_LIMIT).expect("a status").warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("module no_such_module is not in /lib/modules/"),
        "{warnings:?}"
    );
    assert_eq!(
        warnings[1],
        "firebrick.cgroup=: this kernel has no controller nonsense"
    );
    assert_eq!(
        output(client, "cat /sys/module/virtio_net/parameters/napi_weight"),
        "33\n"
    );
    assert_eq!(
        output(
            client,
            "cat /etc/resolv.conf; ip -4 addr show eth0 | grep -o 'inet [0-9.]*'"
        ),
        "nameserver 10.0.2.3\ninet 10.0.2.15\n"
    );
    assert_eq!(output(client, "ls /sys/fs/cgroup"), "pids\n");
    // Alpine's own lines, and the machine's name.
    let hosts = output(client, "cat /etc/hosts; hostname");
    let named =
        hosts.contains("127.0.0.1\tlocalhost") && hosts.ends_with("127.0.1.1\tfirebrick\nfirebrick\n");
    assert!(named, "{hosts}");
}

/// What PID 1 does to its machine, another process that is asked for it does not do.
fn nobody_else_takes_it_over(client: &mut Client) {
    for word in ["--stage1", "--init", "--overlay"] {
        let command = format!("/{} {word}", firebrick_customise::GUEST_PATH);
        let (code, _, said) = exec(client, &command, JobOptions::default());
        assert!(
            code == 2 && said.contains("is for PID 1 of a VM"),
            "{word}: {code} {said}"
        );
    }
    output(client, "test -e /etc/passwd && test -c /dev/null");
}

/// The image's program hears what it is told, and nothing that a program does about TERM keeps the machine up.
fn it_ends(machine: &dyn Machine, client: &mut Client) {
    output(
        client,
        "kill -USR1 1; until test -e /tmp/heard; do sleep 0.1; done",
    );
    output(
        client,
        "setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" > /dev/null 2>&1 & until pgrep -f 'while :; do sleep 1' > /dev/null; do :; done; sleep 1",
    );
    let end = Exec {
        cmd: Some("kill -TERM 1".to_owned()),
        ..Exec::default()
    };
    let _ = client.exec(end, ANSWER_LIMIT); // whose answer may come too late
    assert!(
        machine.wait(ANSWER_LIMIT).expect("it is waited for").is_some(),
        "it goes on"
    );
    std::thread::sleep(std::time::Duration::from_millis(100));
    let console = String::from_utf8_lossy(&machine.console()).into_owned();
    for line in [
        "started as 65534",
        "stopped as asked",
        "killing processes that did not end",
        "reboot: Power down",
    ] {
        assert!(console.contains(line), "no {line:?} in\n{console}");
    }
}

/// `firebrick run` starts the init that an image was made for by name.
#[test]
fn a_run_goes_through_the_images_init() {
    let Some(host) = host() else { return };
    let recipe = Recipe {
        init: Init::Busybox,
        service: Service {
            user: Some("1000:1000".parse().expect("a user")),
            minimal: false,
        },
        ..Recipe::default()
    };
    let Some(image) = recipe.of(Root::Alpine) else {
        return;
    };
    let job: Job = shell("cat /proc/1/comm; id -u; exit 7");
    let ran = host.run(&image.path, job, std::time::Duration::from_secs(60));
    assert_eq!(ran.outcome, RunOutcome::Exited { code: 7 });
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "init\n1000\n");
}

#[test]
fn an_init_that_is_missing_is_told_with_what_to_do() {
    let Some(host) = host() else { return };
    let Some(image) = Recipe::default().of(Root::Alpine) else {
        return;
    };
    for (init, told) in [
        (
            "/sbin/nothing",
            "fatal: init=: cannot run /sbin/nothing: no such file or directory (errno 2); the image has no such program",
        ),
        (
            "/etc/passwd",
            "fatal: init=: cannot run /etc/passwd: permission denied (errno 13); it is not executable",
        ),
    ] {
        let mut spec = host.spec_of(&image);
        spec.init = Some(init.to_owned());
        let machine = spec.machine(&firebrick_vmm::qemu::facts()).expect("a machine");
        let console = crate::overlay::fails(&host, &machine);
        assert!(console.contains(told), "{console}");
    }
}
