//! What ends a tool and removes its scratch folder when this process is killed, and can do neither.
//!
//! A shell that waits for a word from us: hearing the end of the pipe in its place, it knows that we are gone.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

/// Arguments: the first signal, the tool's process group, the folder, and the words of what removes it before `rm` does.
const SCRIPT: &str = r#"
read -r word && exit
signal=$1 group=$2 folder=$3
shift 3
kill -s "$signal" -- "-$group"
tries=0
while kill -s 0 -- "-$group" && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
kill -s KILL -- "-$group"
[ -n "$folder" ] || exit
[ $# = 0 ] || "$@" "$folder"
rm -rf -- "$folder"
"#;

/// The shell; it ends by [`Guard::dismiss`] without doing anything.
pub(crate) struct Guard(Child);

impl Guard {
    /// Watches over a tool, which is told to end by the first of these signals and then by `KILL`.
    pub(crate) fn over(
        group: Pid,
        signals: &[Signal],
        folder: Option<&Path>,
        remove: &[OsString],
    ) -> io::Result<Guard> {
        let signal = match signals.first() {
            Some(&Signal::TERM) => "TERM",
            _ => "KILL",
        };
        Command::new("/bin/sh")
            .args(["-c", SCRIPT, "firebrick-guard", signal])
            .arg(group.as_raw_nonzero().to_string())
            .arg(folder.unwrap_or(Path::new("")))
            .args(remove)
            .current_dir("/")
            // What a terminal sends to us is not for it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Guard)
    }

    /// Nothing is left for it to do.
    pub(crate) fn dismiss(mut self) {
        if let Some(mut word) = self.0.stdin.take() {
            let _ = word.write_all(b"done\n"); // somebody may have ended it
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn sleeper() -> Child {
        let mut sleep = Command::new("sleep");
        sleep.arg("600").process_group(0);
        sleep.spawn().expect("sleep starts")
    }

    fn eventually(mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(60), "it never was");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn who_is_not_dismissed_ends_the_tool_and_removes_its_folder() {
        for signals in [&[Signal::TERM, Signal::KILL][..], &[Signal::KILL]] {
            let folder = tempfile::tempdir().expect("a folder").keep();
            std::fs::write(folder.join("file"), "x").expect("a file");
            let mut tool = sleeper();
            let remove = ["touch", "-d", "@0"].map(OsString::from);
            let mut guard =
                Guard::over(Pid::from_child(&tool), signals, Some(&folder), &remove).expect("a shell starts");
            drop(guard.0.stdin.take()); // as when we are killed
            eventually(|| tool.try_wait().expect("it is ours").is_some());
            eventually(|| !folder.exists());
            guard.0.wait().expect("it is ours");
        }
    }

    #[test]
    fn who_is_dismissed_does_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut tool = sleeper();
        Guard::over(Pid::from_child(&tool), &[Signal::KILL], Some(folder.path()), &[])
            .expect("a shell starts")
            .dismiss();
        assert!(tool.try_wait().expect("it is ours").is_none());
        assert!(folder.path().exists());
        tool.kill().expect("it runs");
        tool.wait().expect("it is ours");
    }
}
