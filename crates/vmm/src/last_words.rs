//! What a guest's console says about its end: nothing else does, since QEMU's exit code tells no panic from a power-off.

/// How the kernel begins the line that it ends with.
const PANIC: &str = "Kernel panic - not syncing";
/// How our stage 1 and init begin theirs.
const FATAL: &str = "firebrick-guest: fatal: ";

/// Lines that every boot or every power-off prints, and that have frightened people.
const HARMLESS: [&str; 2] = [
    // There is no PCI bus on a `microvm`.
    "PCI: Fatal: No config space access function found",
    // Said in both: it is not what went wrong.
    "reboot: ",
];

/// How many lines are shown before the one that tells of the end.
const LEAD: usize = 3;

/// The console as lines for a terminal: no control characters, no empty lines, and none that is harmless.
fn lines(console: &str) -> Vec<String> {
    console
        .lines()
        .map(|line| {
            let shown = line.chars().filter(|c| *c == '\t' || !c.is_control());
            shown.collect::<String>().trim_end().to_owned()
        })
        .filter(|line| !line.is_empty())
        .filter(|line| !HARMLESS.iter().any(|known| message(line).starts_with(known)))
        .collect()
}

/// What the kernel says in a line, behind its time stamp: `[    1.234567] `. It may have broken into a line of somebody else's.
fn message(line: &str) -> &str {
    let is_stamp = |text: &str| text.chars().all(|c| c.is_ascii_digit() || " .".contains(c));
    line.match_indices('[')
        .filter_map(|(at, _)| line[at + 1..].split_once("] "))
        .find(|(stamp, _)| is_stamp(stamp))
        .map_or(line, |(_, message)| message)
}

/// The number of the line that tells why the machine ended.
fn telling(lines: &[String]) -> Option<usize> {
    let begins = |start| move |line: &String| message(line).starts_with(start);
    lines
        .iter()
        .rposition(begins(PANIC))
        .or_else(|| lines.iter().rposition(begins(FATAL)))
}

/// What the guest itself said of why it ended: a panic of its kernel, or an init that could not go on. `None` if it said
/// neither, as in an orderly power-off.
pub fn bad_end(console: &[u8]) -> Option<String> {
    let lines = lines(&String::from_utf8_lossy(console));
    telling(&lines).map(|at| message(&lines[at]).to_owned())
}

/// At most `count` lines, those that a person needs to see: around the one that tells why, else the last.
fn tail(text: &str, count: usize) -> Vec<String> {
    let mut lines = lines(text);
    let last = lines.len().saturating_sub(count);
    let from = telling(&lines).map_or(last, |at| at.saturating_sub(LEAD).min(last));
    lines.drain(..from);
    lines.truncate(count);
    lines
}

/// The last words of the console and of the VMM, in words that go behind "it ended; ".
pub(crate) fn of(console: &[u8], complaints: &str) -> String {
    let shown = |text: &str, count| -> String {
        tail(text, count)
            .iter()
            .map(|line| format!("\n  {line}"))
            .collect()
    };
    let (console, complaints) = (shown(&String::from_utf8_lossy(console), 12), shown(complaints, 4));
    match (console.is_empty(), complaints.is_empty()) {
        (true, true) => "its console is empty".to_owned(),
        (false, true) => format!("its console:{console}"),
        (true, false) => format!("its console is empty; the VMM says:{complaints}"),
        (false, false) => format!("its console:{console}\nthe VMM says:{complaints}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_made_safe_to_print() {
        let text = of(b"one\x1b[31m\r\n\ntwo\x07\n", "");
        assert_eq!(text, "its console:\n  one[31m\n  two");
        assert_eq!(of(b"", ""), "its console is empty");
        assert_eq!(
            of(b"\n", "qemu: no"),
            "its console is empty; the VMM says:\n  qemu: no"
        );
        let many: String = (0..50).map(|n| format!("line {n}\n")).collect();
        let text = of(many.as_bytes(), "");
        assert!(
            text.contains("line 49") && text.contains("line 38") && !text.contains("line 37"),
            "{text}"
        );
    }

    #[test]
    fn what_is_said_of_the_end_is_found() {
        let harmless = "[    0.091245] PCI: Fatal: No config space access function found\n";
        let traced: String = (0..40).map(|n| format!("[    2.1] trace {n}\n")).collect();
        let panic = format!(
            "{harmless}a\nb\nc\nd\n[    2.093213] Kernel panic - not syncing: Attempted to kill init!\n{traced}"
        );
        assert_eq!(
            bad_end(panic.as_bytes()).unwrap(),
            "Kernel panic - not syncing: Attempted to kill init!"
        );
        let shown = tail(&panic, 12);
        assert_eq!(
            (shown.len(), &*shown[0], &*shown[11]),
            (12, "b", "[    2.1] trace 7")
        );

        let fatal = format!(
            "{harmless}firebrick-guest: fatal: cannot mount /dev/vda\n[    2.0] reboot: Power down\n"
        );
        assert_eq!(
            bad_end(fatal.as_bytes()).unwrap(),
            "firebrick-guest: fatal: cannot mount /dev/vda"
        );
        assert_eq!(
            tail(&fatal, 12),
            ["firebrick-guest: fatal: cannot mount /dev/vda"]
        );

        // The kernel does not wait for what others have not printed to the end.
        assert_eq!(
            bad_end(b"line-4[    7.1] Kernel panic - not syncing: x\n").unwrap(),
            "Kernel panic - not syncing: x"
        );

        // Nor does a program that speaks of panics end in one.
        let orderly =
            format!("{harmless}grep 'Kernel panic - not syncing' log\n[    9.0] reboot: Power down\n");
        assert_eq!(bad_end(orderly.as_bytes()), None);
        assert_eq!(bad_end(b""), None);
    }
}
