//! Runs `conformance.py`, a client that shares no code with ours, against the agent.

use std::path::Path;
use std::process::Command;

#[test]
fn the_agent_keeps_its_contract() {
    let agent = crate::common::Agent::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance.py");
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
}
