//! Warm pools by the command itself: VMs that answer at once, are used once, and go with their pool, however it ends.

mod faults;
mod lending;

use std::fs;

use serde_json::Value;

use crate::support::vm::Home;

fn status(home: &Home) -> Value {
    let (code, json, stderr) = home.output(&["pool", "status", "-l", "busybox", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str::<Value>(&json).expect("JSON")[0].take()
}

fn start(home: &Home, args: &[&str]) {
    let (code, stdout, stderr) = home.output(&[&["pool", "start", "-l", "busybox"], args].concat());
    assert_eq!((code, &*stdout), (Some(0), ""), "{stderr}");
    assert!(stderr.contains("use them: firebrick run -l busybox"), "{stderr}");
}

fn run(home: &Home, args: &[&str], command: &str) -> (Option<i32>, String, String) {
    let fixed = ["-v", "run", "-l", "busybox", "--boot-timeout", "180"];
    home.output(&[&fixed, args, &["--", "sh", "-c", command]].concat())
}

fn warm(home: &Home) -> u64 {
    status(home)["warm"].as_u64().expect("a number")
}

/// The keeper, its VMs and its files are gone.
fn is_clean(home: &Home) {
    home.no_process_is_left();
    let left: Vec<_> = fs::read_dir(home.path().join("run")).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
