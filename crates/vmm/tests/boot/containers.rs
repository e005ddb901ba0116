//! Profile `containerd`: an image that starts containers of its own with `runc`, under either init and either version of control
//! groups.

use firebrick_customise::{CustomiseError, ImageJson, Init, Profile, Request, plan};
use firebrick_vmm::Network;
use firebrick_vmm::client::Client;
use serde_json::{Value, json};

use crate::host::{host, output};
use crate::images::{Recipe, Root};

/// Starts a container whose root is the image itself, read-only, and gives what it said.
fn run_container(client: &mut Client) -> String {
    let spec = output(
        client,
        "mkdir -p /run/pod && cd /run/pod && runc spec && cat config.json",
    );
    let mut spec: Value = serde_json::from_str(&spec).expect("JSON");
    spec["root"] = json!({ "path": "/rom", "readonly": true });
    spec["hostname"] = "pod".into();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = json!(["/bin/sh", "-c", "echo in $$ $(hostname); cat /proc/self/cgroup"]);
    spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    spec["linux"]["resources"]["pids"] = json!({ "limit": 20 });
    output(
        client,
        &format!("cat > /run/pod/config.json <<'END'\n{spec}\nEND"),
    );
    output(client, "cd /run/pod && runc run one < /dev/null")
}

fn recipe(init: Init, words: &[&str]) -> Recipe {
    Recipe {
        init,
        words: words.iter().map(|&word| word.to_owned()).collect(),
        profile: Some(Profile::Containerd),
        ..Recipe::default()
    }
}

#[test]
fn runc_runs_a_container_on_named_version_1_controllers() {
    let named = ["cpu", "cpuacct", "memory", "pids", "devices", "freezer"];
    let words = format!("firebrick.cgroup=v1:{}", named.join(","));
    let Some(host) = host() else { return };
    let Some(image) = recipe(Init::Firebrick, &[&words]).of(Root::Debian) else {
        return;
    };
    let mut booted = host.boot(&image);
    let client = &mut booted.client;
    let said = run_container(client);
    assert!(said.starts_with("in 1 pod\n"), "{said}");
    let mounts = output(client, "grep ' cgroup ' /proc/mounts | cut -d' ' -f2");
    let expected: Vec<String> = named
        .iter()
        .map(|name| format!("/sys/fs/cgroup/{name}"))
        .collect();
    assert_eq!(mounts.lines().collect::<Vec<_>>(), expected);
    // The container was in groups of its own, of those controllers.
    for name in ["memory", "pids"] {
        let is_in = said.lines().any(|line| line.contains(&format!(":{name}:/one")));
        assert!(is_in, "no {name} in {said}");
    }
    assert!(
        booted
            .client
            .status(crate::host::ANSWER_LIMIT)
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn runc_runs_a_container_under_the_minimal_systemd() {
    let Some(host) = host() else { return };
    let Some(image) = recipe(Init::Systemd, &[]).of(Root::Debian) else {
        return;
    };
    let mut spec = host.spec_of(&image);
    spec.network = Network::User;
    let mut booted = host.boot_with(&spec);
    let client = &mut booted.client;
    assert_eq!(output(client, "cat /proc/1/comm"), "systemd\n");
    assert_eq!(output(client, "systemctl get-default"), "firebrick.target\n");
    assert_eq!(
        output(
            client,
            "systemctl is-active firebrick.target firebrick-agent.service"
        ),
        "active\nactive\n"
    );
    // Nothing in this image reads `ip=`, so stage 1 has.
    let addresses = output(client, "cat /proc/net/fib_trie");
    assert!(addresses.contains("10.0.2.15"), "{addresses}");
    // The rest was left out.
    let rest = output(
        client,
        "systemctl is-active multi-user.target basic.target || true",
    );
    assert_eq!(rest, "inactive\ninactive\n");
    let said = run_container(client);
    // Version 2: one tree, seen from inside the container's own namespace or from the machine's.
    assert!(said.starts_with("in 1 pod\n0::/"), "{said}");
}

#[test]
fn an_image_without_runc_says_where_to_get_it() {
    let nothing = |_: &[u8]| None;
    let json = ImageJson::default();
    let mut request = Request::new(Some(b"guest"), &json, Init::Auto);
    request.profile = Some(Profile::Containerd);
    let error = plan(&request, &nothing).expect_err("it has no runc");
    assert_eq!(error, CustomiseError::NoRunc);
    assert!(error.to_string().contains("package runc"));
}
