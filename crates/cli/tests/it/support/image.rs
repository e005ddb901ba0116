//! Images in a home.

use crate::support::Home;

/// Makes the image that a reference becomes.
pub(crate) fn make(home: &Home, name: &str, reference: &str, more: &[&str]) {
    let args = ["rootfs", "from-docker", "-q", "-n", name, "-i", reference];
    let output = home
        .firebrick(&args)
        .args(more)
        .output()
        .expect("the binary starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
