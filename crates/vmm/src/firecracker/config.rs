//! What Firecracker is told of a machine: as requests, and as the file that `firecracker --config-file` reads.

use serde_json::{Map, Value, json};

use super::api::Request;
use crate::machine::{Drive, LaunchError, MachineSpec, Network, check_command_line};

/// The most processors that Firecracker gives a machine.
const VCPUS_MAX: u32 = 32;

/// The guest's vsock address. Each machine has a socket of its own, so all may be alike.
const GUEST_CID: u32 = 3;

/// The part of the kernel's command line that belongs to this VMM.
///
/// There is no power-off: `reboot=k` makes the guest's restart the end of Firecracker, and `panic=1` a panic. What there is of a
/// keyboard controller exists for that restart only, so nothing else of it is looked for; and there is no PCI bus.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet reboot=k panic=1 pci=off i8042.noaux i8042.nomux i8042.dumbkbd cryptomgr.notests";

/// What Firecracker itself puts there for each device is not longer: ` virtio_mmio.device=4K@0xd0001000:5`.
const DEVICE_WORD_LEN: usize = 40;

/// Files as Firecracker sees them.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) kernel: String,
    pub(super) initramfs: Option<String>,
    pub(super) drives: Vec<String>,
    /// The socket of the vsock, if there is one.
    pub(super) vsock: Option<String>,
}

/// What cannot be had from Firecracker is refused before it is started.
pub(super) fn check(spec: &MachineSpec) -> Result<(), LaunchError> {
    let unsupported = |what, reason: &str| {
        Err(LaunchError::Unsupported {
            what,
            reason: reason.to_owned(),
        })
    };
    if spec.network != Network::None {
        return unsupported(
            "a network under Firecracker",
            "it takes a TAP device of the host, which only root can make",
        );
    }
    if spec.drives.iter().any(Drive::is_served) {
        return unsupported(
            "a disk that is served under Firecracker",
            "it takes files only: fetch the image first, or use --vmm qemu",
        );
    }
    if spec.vcpus > VCPUS_MAX {
        return unsupported("so many processors", "Firecracker gives a machine 32 at most");
    }
    // Drives, vsock and random numbers.
    let devices = spec.drives.len().saturating_add(2);
    check_command_line(&boot_args(spec), DEVICE_WORD_LEN.saturating_mul(devices))
}

/// The requests that make a machine, in order. Nothing runs yet.
pub(super) fn requests(spec: &MachineSpec, files: &Files, log: &str) -> Vec<Request> {
    let mut requests = vec![
        logger(log),
        Request::put("/machine-config", machine_config(spec)),
        Request::put("/boot-source", boot_source(spec, files)),
    ];
    for drive in drives(spec, files) {
        let id = drive["drive_id"].as_str().unwrap_or_default();
        requests.push(Request::put(format!("/drives/{id}"), drive.clone()));
    }
    requests.extend(vsock(files).map(|vsock| Request::put("/vsock", vsock)));
    requests.push(Request::put("/entropy", json!({})));
    requests
}

/// Where Firecracker's own complaints go: otherwise they are on the console, between what the guest prints.
pub(super) fn logger(log: &str) -> Request {
    Request::put("/logger", json!({ "log_path": log, "level": "Warning" }))
}

/// Everything in one document.
pub(super) fn config_file(spec: &MachineSpec, files: &Files) -> Value {
    let mut config = Map::new();
    config.insert("boot-source".to_owned(), boot_source(spec, files));
    config.insert("machine-config".to_owned(), machine_config(spec));
    config.insert("drives".to_owned(), Value::Array(drives(spec, files)));
    if let Some(vsock) = vsock(files) {
        config.insert("vsock".to_owned(), vsock);
    }
    config.insert("entropy".to_owned(), json!({}));
    Value::Object(config)
}

/// Starts the guest.
pub(super) fn start() -> Request {
    action("InstanceStart")
}

/// Something that is done once: `InstanceStart`, `SendCtrlAltDel`.
pub(super) fn action(action_type: &str) -> Request {
    Request::put("/actions", json!({ "action_type": action_type }))
}

/// Stops or continues the guest's processors.
pub(super) fn state(state: &str) -> Request {
    Request::patch("/vm", json!({ "state": state }))
}

/// Writes a paused machine to two files.
pub(super) fn snapshot_create(state: &str, memory: &str) -> Request {
    let body = json!({ "snapshot_type": "Full", "snapshot_path": state, "mem_file_path": memory });
    Request::put("/snapshot/create", body)
}

/// Reads them back, and goes on.
pub(super) fn snapshot_load(state: &str, memory: &str) -> Request {
    let memory = json!({ "backend_type": "File", "backend_path": memory });
    let body = json!({ "snapshot_path": state, "mem_backend": memory, "resume_vm": true });
    Request::put("/snapshot/load", body)
}

fn machine_config(spec: &MachineSpec) -> Value {
    json!({ "vcpu_count": spec.vcpus.max(1), "mem_size_mib": spec.memory_mib })
}

fn boot_args(spec: &MachineSpec) -> String {
    [COMMAND_LINE, &spec.append].join(" ").trim().to_owned()
}

fn boot_source(spec: &MachineSpec, files: &Files) -> Value {
    let mut source = json!({ "kernel_image_path": files.kernel, "boot_args": boot_args(spec) });
    if let Some(initramfs) = &files.initramfs {
        source["initrd_path"] = json!(initramfs);
    }
    source
}

/// The drives become `/dev/vda` and so on in this order. None of them is the *root device*: Firecracker would add a `root=` of its
/// own to the command line, which has one.
fn drives(spec: &MachineSpec, files: &Files) -> Vec<Value> {
    let drives = spec.drives.iter().zip(&files.drives).enumerate();
    drives
        .map(|(index, (drive, path))| {
            let mut said = json!({
                "drive_id": drive_id(index),
                "path_on_host": path,
                "is_root_device": false,
                "is_read_only": drive.read_only,
            });
            if !drive.read_only {
                // Otherwise a guest's fsync would be promised and not done.
                said["cache_type"] = json!("Writeback");
            }
            said
        })
        .collect()
}

/// What a drive is called.
pub(super) fn drive_id(index: usize) -> String {
    format!("drive{index}")
}

fn vsock(files: &Files) -> Option<Value> {
    let socket = files.vsock.as_ref()?;
    Some(json!({ "guest_cid": GUEST_CID, "uds_path": socket }))
}
