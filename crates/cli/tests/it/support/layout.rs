//! OCI layouts in a home.

use firebrick_testkit::layers::{oci, text};
use serde_json::Value;

use crate::support::Home;

/// A home with the OCI layout `img` of these layers, in testkit's text form, and this `config`.
pub(crate) fn home_with(layers: &[&str], config: Value) -> Home {
    let home = Home::new();
    let options = oci::Options {
        config,
        ..oci::Options::default()
    };
    oci::write_layout(&home.path().join("img"), &text::layers(layers), &options).expect("a layout");
    home
}
