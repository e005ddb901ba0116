//! Debian and Ubuntu, installed by `mmdebstrap`.
//!
//! It is given whole `sources.list` lines, which also become the image's own, so what they say is the same on every host: the
//! suite, its updates and its security archive, and the path that the base's keyring has in the image as on the host.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use firebrick_source::Platform;
use rustix::process::Signal;

use crate::error::{BootstrapError, Cause, Ending};
use crate::ids::Mode;
use crate::prepare::Options;
use crate::run::{Event, Spec};
use crate::set::PackageSet;
use crate::sources::{Source, sources};
use crate::time;

/// In every image of a base that has it.
const APT: &str = "apt";

/// Fetches single files as apt does, proxies included.
const APT_HELPER: &str = "usr/lib/apt/apt-helper";

/// What the host's names and addresses would leave in the image. The guest brings its own.
const FORGET_HOST: &str = r#"rm -f "$1/etc/hostname" "$1/etc/resolv.conf""#;

/// No package brings `/etc/hosts`: Debian's installer writes it. Without one nobody finds `localhost`.
const KNOW_LOCALHOST: &str = r#"[ -e "$1/etc/hosts" ] ||
    printf "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" > "$1/etc/hosts""#;

/// Takes the time out of OpenJDK's keystore of authorities: commands for the shell in a root of Debian or Ubuntu, once packages are installed.
///
/// As `ca-certificates-java` makes it (a JKS), it has the time at which each authority was taken into it, so no two installations have the
/// same bytes. In the format that OpenJDK itself ships since 18, PKCS #12 without a password, it has none, nor a seal with a salt. Every
/// OpenJDK of today reads both, whichever it is told that it is; so do the scripts of that package, which go on in the format that
/// they find. A keystore that cannot be read (it has another password) stays as it is.
pub const FORGET_KEYSTORE_TIMES: &str = r#"
store=/etc/ssl/certs/java/cacerts
if [ -e /usr/share/ca-certificates-java ] && [ "$(head -c 4 $store 2> /dev/null | od -An -tx1 | tr -d " ")" = feedfeed ]; then
    plain="-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE -J-Dkeystore.pkcs12.macAlgorithm=NONE"
    if said=$(keytool -J-XX:-UsePerfData $plain -importkeystore -noprompt \
        -srckeystore $store -srcstoretype JKS -srcstorepass changeit \
        -destkeystore $store.new -deststoretype PKCS12 -deststorepass changeit 2>&1); then
        chmod 644 $store.new
        mv $store.new $store
    else
        rm -f $store.new
        echo "W: $store keeps the time of each certificate: $said" >&2
    fi
fi
"#;

/// What installs the set, and the time that it is given.
pub(crate) fn spec(set: &PackageSet, mode: Mode, options: &Options) -> Result<(Spec, i64), BootstrapError> {
    let architecture = set.architecture()?;
    // Before the network is asked for anything.
    quiet("mmdebstrap", &["--version"]).map_err(BootstrapError::starting("mmdebstrap", "mmdebstrap"))?;
    let scratch = scratch(&options.temp_dir)?;
    let sources = sources(set, &options.root, scratch.path())?;
    let seconds = match (options.time, &set.snapshot) {
        (Some(seconds), _) => seconds,
        (None, Some(snapshot)) => snapshot.seconds(),
        (None, None) => {
            (options.events)(Event::Stage(format!("looking for {}", set.title())));
            released(set, &sources, scratch.path(), &options.root)?
        }
    };
    let mode_name = match mode {
        // Namespaces of mounts and processes are worth having for root as well: whatever ends it ends all of it.
        Mode::Root if !can_unshare_mounts() => "root",
        _ => "unshare",
    };
    let mut command: Vec<OsString> = vec![
        "mmdebstrap".into(),
        format!("--mode={mode_name}").into(),
        "--variant=minbase".into(),
        "--format=tar".into(),
        format!("--architectures={architecture}").into(),
        "--skip=check/signed-by".into(), // the lines say it
    ];
    command.extend(hooks());
    if set.platform.architecture != Platform::host().architecture {
        // That its programs run here is known, and without `arch-test`, which this wants.
        command.push("--skip=check/qemu".into());
    }
    if let Some(keys) = &set.keys {
        command.push(keyring(keys)?);
    }
    // Ubuntu has it not among the required ones, and without it nothing more can be installed in the image.
    let packages: Vec<&str> = [APT]
        .into_iter()
        .chain(set.packages.iter().map(String::as_str))
        .collect();
    command.push(format!("--include={}", packages.join(",")).into());
    command.extend(["--".into(), set.suite.clone().into(), "-".into()]);
    command.extend(sources.iter().map(|source| source.line.clone().into()));
    let remove = match mode {
        Mode::Root => Vec::new(),
        Mode::Unshare => ["mmdebstrap", "--unshare-helper", "rm", "-rf"]
            .map(Into::into)
            .to_vec(),
    };
    let spec = Spec {
        program: "mmdebstrap",
        task: format!("install {}", set.title()),
        command,
        starter: ("mmdebstrap", "mmdebstrap"),
        env: vec![
            ("SOURCE_DATE_EPOCH", seconds.to_string().into()),
            ("TMPDIR", scratch.path().into()),
            // dpkg waits for the disk after each file. It is read again at once, and thrown away.
            ("DPKG_FORCE", "unsafe-io".into()),
        ],
        remove,
        // It has mounts to undo and a folder of its own to remove.
        signals: &[Signal::TERM, Signal::KILL],
        scratch,
        hear,
    };
    Ok((spec, seconds))
}

/// Whom to trust.
fn keyring(keys: &Path) -> Result<OsString, BootstrapError> {
    let keys = std::path::absolute(keys).map_err(file_error("find", keys))?;
    fs::metadata(&keys).map_err(file_error("read", &keys))?;
    let mut word = OsString::from("--keyring=");
    word.push(keys);
    Ok(word)
}

/// What is done in the root once all packages are installed.
fn hooks() -> [OsString; 3] {
    [
        FORGET_HOST.to_owned(),
        KNOW_LOCALHOST.to_owned(),
        format!(r#"chroot "$1" /bin/sh -euc '{FORGET_KEYSTORE_TIMES}'"#),
    ]
    .map(|hook| format!("--customize-hook={hook}").into())
}

/// A folder that every user of a namespace may write to, as `mmdebstrap` wants it.
fn scratch(temp_dir: &Path) -> Result<tempfile::TempDir, BootstrapError> {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = tempfile::Builder::new()
        .prefix("firebrick-create.")
        .tempdir_in(temp_dir)
        .map_err(file_error("make a folder in", temp_dir))?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o1777))
        .map_err(file_error("open to others", scratch.path()))?;
    Ok(scratch)
}

pub(crate) fn file_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl Fn(std::io::Error) -> BootstrapError + use<'a> {
    move |source| BootstrapError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Whether root may have mounts of its own; in some containers it may not.
fn can_unshare_mounts() -> bool {
    quiet(
        "unshare",
        &["--mount", "--propagation", "unchanged", "--", "true"],
    )
    .is_ok_and(|status| status.success())
}

fn quiet(program: &str, args: &[&str]) -> std::io::Result<ExitStatus> {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
}

/// When the suite was last released: the date of its Release file.
///
/// The suite's own, not that of its updates: those change every day, and images would with them, packages or no packages. It
/// is not verified here; all that a wrong date can do is to be the time of files that have none of their own.
fn released(
    set: &PackageSet,
    sources: &[Source],
    scratch: &Path,
    root: &Path,
) -> Result<i64, BootstrapError> {
    let file = scratch.join("Release");
    let helper = root.join(APT_HELPER);
    fs::metadata(&helper).map_err(BootstrapError::starting("apt-helper", "apt"))?;
    let mut failure = None;
    let names = ["InRelease", "Release"];
    let urls = sources.iter().filter_map(|source| source.dist.as_deref()).take(1);
    for url in urls.flat_map(|dist| names.map(|name| format!("{dist}/{name}"))) {
        // It ends with us, whatever ends us.
        let output = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&helper)
            .args([
                "-o",
                "APT::Sandbox::User=root",
                "-o",
                "Acquire::Retries=1",
                "download-file",
                &url,
            ])
            .arg(&file)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .map_err(BootstrapError::starting("setpriv", "util-linux"))?;
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(&file); // the folder goes as a whole
        if let (true, Some(seconds)) = (output.status.success(), time::release_date(&text)) {
            return Ok(seconds);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let words: Vec<String> = match output.status.success() {
            true => vec![format!("E: {url} says no date")],
            false => said
                .lines()
                .filter(|line| line.starts_with("E:"))
                .map(str::to_owned)
                .collect(),
        };
        // Of two failures the first is the one to mend.
        failure.get_or_insert(BootstrapError::Failed {
            program: "apt",
            task: format!("find {}", set.title()),
            status: Ending(output.status),
            cause: match Cause::of(&words) {
                Cause::DiskFull => Cause::DiskFull,
                _ => Cause::Mirror,
            },
            words,
        });
    }
    Err(failure.unwrap_or_else(|| BootstrapError::Word {
        what: "mirror",
        word: set.mirrors.join(" "),
        expected: "a line with an address and a suite, such as: deb http://mirror.example/debian bookworm main",
    }))
}

/// `I: downloading packages with apt...` begins something; `W: …` and apt's own `W:` warn.
fn hear(line: &str) -> Event {
    if let Some(stage) = line.strip_prefix("I: ") {
        return Event::Stage(stage.trim_end_matches('.').to_owned());
    }
    match line.strip_prefix("W: ") {
        Some(warning) => Event::Warning(warning.to_owned()),
        None => Event::Line(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What the script leaves in the folder of the keystore, and says, where `keytool` is this script.
    fn after(store: &[u8], keytool: &str) -> (Vec<String>, Vec<u8>, String) {
        let root = crate::testing::host(&[("java/cacerts", ""), ("bin/keytool", keytool)]);
        let at = |path: &str| root.path().join(path);
        fs::write(at("java/cacerts"), store).unwrap();
        fs::set_permissions(at("bin/keytool"), fs::Permissions::from_mode(0o755)).unwrap();
        let script = FORGET_KEYSTORE_TIMES
            .replace("/etc/ssl/certs", root.path().to_str().unwrap())
            .replace("/usr/share/ca-certificates-java", root.path().to_str().unwrap());
        let path = format!("{}:/usr/bin:/bin", at("bin").display());
        let output = Command::new("/bin/sh")
            .args(["-euc", &script])
            .env("PATH", path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut names: Vec<String> = fs::read_dir(at("java"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let said = [output.stdout, output.stderr].concat();
        (
            names,
            fs::read(at("java/cacerts")).unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }

    /// What a real `keytool` makes of it: the ignored test that installs Java, and `scripts/profiles --twice java`.
    #[test]
    fn a_keystore_is_another_or_as_it_was() {
        const JKS: &[u8] = b"\xfe\xed\xfe\xed\0\0\0\x02\n";
        let only = vec!["cacerts".to_owned()];
        let works =
            "#!/bin/sh\nwhile [ \"$1\" != -destkeystore ]; do shift; done\necho made > \"$2\"\necho noise\n";
        let fails = "#!/bin/sh\nwhile [ \"$1\" != -destkeystore ]; do shift; done\necho half > \"$2\"\necho no password\nexit 1\n";
        assert_eq!(
            after(JKS, works),
            (only.clone(), b"made\n".to_vec(), String::new())
        );
        let (names, store, said) = after(JKS, fails);
        assert_eq!((names, store), (only.clone(), JKS.to_vec()));
        assert!(
            said.starts_with("W: ") && said.ends_with(": no password\n"),
            "{said}"
        );
        // One of another format is left alone.
        assert_eq!(after(b"0\x82", fails), (only, b"0\x82".to_vec(), String::new()));
        assert!(!FORGET_KEYSTORE_TIMES.contains('\''), "it stands within quotes");
    }
}
