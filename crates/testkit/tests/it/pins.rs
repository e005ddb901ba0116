//! Digests of images that are written down: who changes bytes has to mean it.

/// Compares with what `file` says; with `FIREBRICK_PIN` it is written anew, if the version was raised or images were only added.
/// `advice` tells what else is to be done.
pub(crate) fn check(file: &str, actual: &str, advice: &str) {
    let pinned = std::fs::read_to_string(file).unwrap_or_default();
    if actual == pinned {
        return;
    }
    let raised = pinned.lines().next() != actual.lines().next();
    let more_images = pinned
        .lines()
        .all(|line| actual.lines().any(|actual| actual == line));
    assert!(
        std::env::var_os("FIREBRICK_PIN").is_some() && (raised || more_images),
        "an image's bytes are not those of {file}:\n{actual}\n\
         If that is not meant, it is a bug: builds by two versions of firebrick would differ under one build key.\n\
         {advice}"
    );
    std::fs::write(file, actual).unwrap();
}
