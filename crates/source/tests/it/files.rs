//! Single files, pinned by digest: broken off, gone on with, wrong, too long, and with no room for them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use firebrick_digest::Digest;
use firebrick_source::{Options, RegistryError, RegistryOptions, Retry, SourceError, fetch_file};
use firebrick_testkit::http::{Answer, Request, Server};

const LIMIT: u64 = 1 << 20;

fn bytes() -> Vec<u8> {
    (0..300_000_u32)
        .flat_map(|number| number.to_le_bytes())
        .take(700_000)
        .collect()
}

fn options(attempts: u32) -> Options {
    Options {
        registry: RegistryOptions {
            retry: Retry {
                attempts,
                first_delay: Duration::from_millis(1),
                max_delay: Duration::from_millis(5),
                ..Retry::default()
            },
            ..RegistryOptions::default()
        },
        ..Options::default()
    }
}

/// Where an answer begins: what the request's range says.
fn start(request: &Request) -> usize {
    let range = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="));
    range.map_or(0, |range| range.trim_end_matches('-').parse().expect("a number"))
}

fn answer(bytes: &[u8], from: usize) -> Answer {
    match from {
        0 => Answer::new(200, bytes.to_vec()),
        from if from >= bytes.len() => Answer::new(416, Vec::new()),
        from => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Answer::new(206, bytes[from..].to_vec()).with("Content-Range", &range)
        }
    }
}

/// A server of these bytes; `cut` says after how many bytes the nth answer breaks off.
fn server(bytes: Vec<u8>, cut: impl Fn(usize) -> Option<usize> + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| {
        let mut answer = answer(&bytes, start(request));
        answer.cut = cut(count.fetch_add(1, Ordering::Relaxed));
        answer
    })
}

fn url(server: &Server) -> String {
    format!("http://{}/vmlinux", server.address)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_break_in_the_middle_is_gone_on_with() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), bytes());
    let server = server(bytes.clone(), |number| (number < 2).then_some(200_000));
    let dest = folder.path().join("kernel");
    fetch_file(&url(&server), Digest::of(&bytes), &dest, LIMIT, &options(3)).unwrap();
    assert!(fs::read(&dest).unwrap() == bytes);
    let starts: Vec<usize> = server.requests().iter().map(start).collect();
    assert_eq!(starts, [0, 200_000, 400_000]);
    assert_eq!(names(folder.path()), ["kernel"]);
    // It is there: no more requests.
    fetch_file(&url(&server), Digest::of(&bytes), &dest, LIMIT, &options(1)).unwrap();
    assert_eq!(server.requests().len(), 3);
    assert_eq!(names(folder.path()), ["kernel"]);
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_gave_up() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), bytes());
    let digest = Digest::of(&bytes);
    let dest = folder.path().join("kernel");
    let broken = server(bytes.clone(), |_| Some(300_000));
    let error = fetch_file(&url(&broken), digest, &dest, LIMIT, &options(1)).unwrap_err();
    assert!(
        matches!(error, SourceError::Registry(RegistryError::Transport { .. })),
        "{error}"
    );
    let part = format!(".{}.part", digest.hex());
    assert_eq!(names(folder.path()), [part]);
    let whole = server(bytes.clone(), |_| None);
    fetch_file(&url(&whole), digest, &dest, LIMIT, &options(1)).unwrap();
    assert_eq!(whole.requests().iter().map(start).collect::<Vec<_>>(), [300_000]);
    assert!(fs::read(&dest).unwrap() == bytes);
}

#[test]
fn wrong_bytes_never_get_the_name() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), bytes());
    let dest = folder.path().join("kernel");
    fs::write(&dest, "the old one").unwrap();
    let server = server(bytes.clone(), |_| None);
    let promised = Digest::of(b"another");
    match fetch_file(&url(&server), promised, &dest, LIMIT, &options(1)) {
        Err(SourceError::FileMismatch { actual, .. }) => assert_eq!(actual, Digest::of(&bytes)),
        other => panic!("{other:?}"),
    }
    assert_eq!(names(folder.path()), ["kernel"]);
    assert_eq!(fs::read(&dest).unwrap(), b"the old one");
}

#[test]
fn a_part_of_something_else_is_thrown_away() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), bytes());
    let digest = Digest::of(&bytes);
    fs::write(folder.path().join(format!(".{}.part", digest.hex())), [7; 1000]).unwrap();
    let server = server(bytes.clone(), |_| None);
    let dest = folder.path().join("kernel");
    fetch_file(&url(&server), digest, &dest, LIMIT, &options(1)).unwrap();
    assert_eq!(server.requests().iter().map(start).collect::<Vec<_>>(), [1000, 0]);
    assert!(fs::read(&dest).unwrap() == bytes);
}

#[test]
fn a_server_without_ranges_and_one_that_lies_about_them_are_coped_with() {
    let bytes = Arc::new(bytes());
    let digest = Digest::of(&bytes);
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join(format!(".{}.part", digest.hex()));
    let dest = folder.path().join("kernel");
    fs::write(&part, &bytes[..1000]).unwrap();
    let all = Arc::clone(&bytes);
    let server = Server::start(move |_| Answer::new(200, all.to_vec()));
    fetch_file(&url(&server), digest, &dest, LIMIT, &options(1)).unwrap();
    assert!(fs::read(&dest).unwrap() == *bytes);

    fs::remove_file(&dest).unwrap();
    fs::write(&part, &bytes[..1000]).unwrap();
    let liar = Server::start(|_| Answer::new(206, vec![1; 10]).with("Content-Range", "bytes 5000-5009/5010"));
    let error = fetch_file(&url(&liar), digest, &dest, LIMIT, &options(1)).unwrap_err();
    assert!(
        matches!(error, SourceError::Registry(RegistryError::Protocol { .. })),
        "{error}"
    );
    assert!(!dest.exists());
}

#[test]
fn what_is_missing_or_too_long_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("kernel");
    let missing = Server::start(|_| Answer::new(404, Vec::new()));
    let error = fetch_file(&url(&missing), Digest::of(b""), &dest, LIMIT, &options(3)).unwrap_err();
    assert!(
        matches!(
            error,
            SourceError::Registry(RegistryError::Status { status: 404, .. })
        ),
        "{error}"
    );
    assert_eq!(missing.requests().len(), 1);
    let long = server(bytes(), |_| None);
    let error = fetch_file(&url(&long), Digest::of(b"x"), &dest, 1000, &options(3)).unwrap_err();
    assert!(
        matches!(error, SourceError::FileTooLong { limit: 1000, .. }),
        "{error}"
    );
    assert!(!dest.exists());
}

/// The file system's own "no space left", on one that has none: nothing gets the name, and with room it goes on.
#[test]
fn a_full_disk_is_told_and_gone_on_from() {
    // A limit on the size of files stands in for a full disk; it holds for a process, so for one of its own.
    const CHILD: &str = "FIREBRICK_TEST_FULL_DISK";
    let bytes = bytes();
    let digest = Digest::of(&bytes);
    if let Ok(task) = std::env::var(CHILD) {
        let (url, folder) = task.split_once(' ').unwrap();
        let error =
            fetch_file(url, digest, &Path::new(folder).join("kernel"), LIMIT, &options(1)).unwrap_err();
        match error {
            SourceError::File { action: "write", .. } => return,
            other => panic!("{other}"),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let server = server(bytes.clone(), |_| None);
    let test = std::env::current_exe().unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -f 400; exec '{}' --exact files::a_full_disk_is_told_and_gone_on_from",
        test.display()
    );
    let status = std::process::Command::new("bash")
        .args(["-c", &script])
        .env(CHILD, format!("{} {}", url(&server), folder.path().display()))
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let dest = folder.path().join("kernel");
    assert!(!dest.exists());
    fetch_file(&url(&server), digest, &dest, LIMIT, &options(1)).unwrap();
    assert!(fs::read(&dest).unwrap() == bytes);
    assert!(start(server.requests().last().unwrap()) > 0, "it began anew");
}
