//! Runs clients that share no code with ours against the agent: one for each protocol, written from its page.

use std::path::Path;
use std::process::Command;

fn check(script: &str) {
    let agent = crate::common::Agent::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let output = Command::new("python3")
        .arg(script)
        .args([agent.address.ip().to_string(), agent.address.port().to_string()])
        .output()
        .expect("python3 is needed for this test");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("checks passed"));
    crate::common::assert_nothing_left(&agent);
}

#[test]
fn json_rpc_keeps_its_contract() {
    check("conformance.py");
}

#[test]
fn jobs_keep_their_contract() {
    check("jobs.py");
}
