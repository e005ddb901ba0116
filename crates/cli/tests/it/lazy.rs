//! A VM whose image stays in a store: only what is read of it comes.

use std::fs;

use crate::support::vm::Home;

/// Bytes that no compression shortens.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn an_image_of_a_store_runs_without_being_fetched() {
    let Some(home) = Home::new() else { return };
    fs::write(home.at("root/big"), noise(12 << 20)).expect("a file");
    home.make_image();
    let store = home.at("store").display().to_string();
    let (code, _, talk) = home.output(&["rootfs", "upload", "-l", "busybox", "-b", &store]);
    assert_eq!(code, Some(0), "{talk}");
    fs::remove_file(home.path().join("images/rootfs-busybox.ext4")).expect("it is there");
    let (code, out, talk) = home.output(&["run", "--lazy", "busybox", "-b", &store, "--", "echo", "hello"]);
    assert_eq!((code, out.as_str()), (Some(0), "hello\n"), "{talk}");
    let report = talk
        .lines()
        .find(|line| line.ends_with("until the agent answered"));
    let report = report.unwrap_or_else(|| panic!("{talk}"));
    let share = report
        .split_once(" % of")
        .and_then(|(start, _)| start.rsplit(' ').next())
        .expect("a share");
    assert!(share.parse::<f64>().is_ok_and(|share| share < 15.0), "{report}");
    // Neither a socket nor a process stays.
    assert_eq!(
        fs::read_dir(home.path().join("run")).map_or(0, Iterator::count),
        0
    );
    home.no_process_is_left();
}
