//! A real registry with an image in it.

use firebrick_testkit::docker_registry::{DockerRegistry, Setup};

use super::{LayoutDir, PLATFORM, noise, tar};

/// A registry with an image `test/image:v1` of these uncompressed layers.
pub(crate) fn registry_with(setup: &Setup, layers: &[Vec<u8>]) -> DockerRegistry {
    let registry = DockerRegistry::start(setup);
    let layout = LayoutDir::new();
    layout.finish(&[layout.image(PLATFORM, layers, "")]);
    registry.push(&layout.reference(), "test/image:v1");
    registry
}

/// Layers that do not compress: about 3 MiB and 300 KiB.
pub(crate) fn layers() -> Vec<Vec<u8>> {
    vec![
        tar(&[("big", &noise(3 << 20, 1))]),
        tar(&[("small", &noise(300 << 10, 2))]),
    ]
}
