//! Archives that hold an OCI image: what `skopeo` and `docker save` write.
//! Formats: <https://github.com/moby/docker-image-spec/blob/main/v1.2.md> and tars of an OCI image layout.

use std::fs::File;
use std::path::Path;

use firebrick_digest::Digest;
use serde_json::json;

use super::oci::{self, Blob, Options};

fn member(archive: &mut ::tar::Builder<File>, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut header = ::tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    Ok(archive.append_data(&mut header, name, bytes)?)
}

/// Writes `oci-archive:FILE`.
///
/// # Errors
/// What the host fails with.
pub fn write_oci_archive(file: &Path, layers: &[Blob], options: &Options) -> anyhow::Result<()> {
    let layout = tempfile::tempdir()?;
    oci::write_layout_of_blobs(layout.path(), layers, options)?;
    let mut archive = ::tar::Builder::new(File::create(file)?);
    archive.append_dir_all(".", layout.path())?;
    archive.into_inner()?.sync_all()?;
    Ok(())
}

/// Writes `docker-archive:FILE` in the old form, named as `options.tag` of `example.test/image`.
///
/// # Errors
/// What the host fails with.
pub fn write_docker_archive(file: &Path, layers: &[Blob], options: &Options) -> anyhow::Result<()> {
    let mut archive = ::tar::Builder::new(File::create(file)?);
    let mut names = Vec::new();
    for (number, blob) in layers.iter().enumerate() {
        let name = format!("{number}/layer.tar");
        member(&mut archive, &name, &blob.bytes)?;
        names.push(name);
    }
    let config = oci::config(layers, options).to_string();
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    member(&mut archive, &config_name, config.as_bytes())?;
    let tag = format!("example.test/image:{}", options.tag);
    let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": names}]);
    member(&mut archive, "manifest.json", manifest.to_string().as_bytes())?;
    archive.into_inner()?.sync_all()?;
    Ok(())
}
