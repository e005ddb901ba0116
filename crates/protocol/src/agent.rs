//! The agent's methods: their names, parameters and results. `docs/protocol-jsonrpc.md` is the contract.
//!
//! A *job* is one `exec` or `exec_code` request until its response; its id is the request's id, and `output`, `stdin`
//! and `signal` notifications name it by that. Unknown fields are refused, so that an option which an older agent
//! does not know is an error and never silently without effect.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rpc::Id;

/// Method names, as they stand on the wire.
pub mod method {
    /// Answers [`super::Pong`].
    pub const PING: &str = "ping";
    /// Runs a program; [`super::Exec`] → [`super::ExecResult`].
    pub const EXEC: &str = "exec";
    /// Runs a snippet of code; [`super::ExecCode`] → [`super::ExecResult`].
    pub const EXEC_CODE: &str = "exec_code";
    /// Tells versions and boot timings; no parameters → [`super::Status`].
    pub const STATUS: &str = "status";
    /// Ends the VM in order; [`super::Shutdown`] → an empty object, sent before the VM goes.
    pub const SHUTDOWN: &str = "shutdown";
    /// Tells a text file; [`crate::files::PathParams`] → [`crate::files::FileContent`].
    pub const READ_FILE: &str = "read_file";
    /// Writes a text file; [`crate::files::WriteFile`] → [`crate::files::Written`].
    pub const WRITE_FILE: &str = "write_file";
    /// Lists a folder; [`crate::files::PathParams`] → [`crate::files::Listing`].
    pub const LIST_DIR: &str = "list_dir";
    /// Takes a file or tree; [`crate::files::Put`] → [`crate::files::Transferred`].
    pub const PUT: &str = "put";
    /// Gives a file or tree; [`crate::files::Get`] → [`crate::files::Transferred`].
    pub const GET: &str = "get";
    /// Tells about a file; [`crate::files::StatParams`] → [`crate::files::FileStatus`].
    pub const STAT: &str = "stat";
    /// Removes a file or folder; [`crate::files::Remove`] → an empty object.
    pub const REMOVE: &str = "remove";
    /// Makes a folder; [`crate::files::MakeDir`] → an empty object.
    pub const MAKE_DIR: &str = "make_dir";
    /// Sets the clock; [`crate::files::ClockSync`] → [`crate::files::ClockSynced`].
    pub const CLOCK_SYNC: &str = "clock_sync";
    /// Mixes random bytes in; [`crate::files::Reseed`] → an empty object.
    pub const RESEED: &str = "reseed";
    /// Notification from the agent: [`super::Output`].
    pub const OUTPUT: &str = "output";
    /// Notification to the agent: [`super::Stdin`].
    pub const STDIN: &str = "stdin";
    /// Notification to the agent: [`super::SignalJob`].
    pub const SIGNAL: &str = "signal";
    /// Notification to the agent: [`super::Resize`].
    pub const RESIZE: &str = "resize";
}

/// Where stdout and stderr of a job that does not stream are cut, each, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// What stands behind output that was cut.
pub const TRUNCATED: &str = "\n... [output truncated]";

/// Output that was cut at any byte, without the letter of UTF-8 that the cut went through.
pub fn whole_letters(output: &[u8]) -> &[u8] {
    // A letter has at most three bytes behind its first.
    for behind in 1..=3 {
        let at = output.len().saturating_sub(behind);
        let letter_bytes = match output.get(at) {
            Some(0x80..=0xbf) => continue,
            Some(0xc2..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf4) => 4,
            _ => 1,
        };
        return if letter_bytes > behind {
            output.get(..at).unwrap_or_default()
        } else {
            output
        };
    }
    output
}

/// The most jobs that one connection may have running.
pub const MAX_JOBS: usize = 64;

/// The most variables that one job can be given. Each costs the agent ten times as much memory as a word of `argv`.
pub const MAX_VARIABLES: usize = 8192;

/// The longest data that one `output` or `stdin` notification of ours carries, in bytes before base64.
pub const MAX_DATA_BYTES: usize = 32 * 1024;

/// The languages of `exec_code`, each with its other names and the program and option that take the code.
pub const LANGUAGES: [Language; 4] = [
    Language {
        name: "python",
        aliases: &["python3"],
        program: "python3",
        option: "-c",
    },
    Language {
        name: "node",
        aliases: &["nodejs", "javascript", "js"],
        program: "node",
        option: "-e",
    },
    Language {
        name: "bash",
        aliases: &[],
        program: "bash",
        option: "-c",
    },
    Language {
        name: "sh",
        aliases: &[],
        program: "sh",
        option: "-c",
    },
];

/// A language that `exec_code` knows.
#[derive(Debug, Clone, Copy)]
pub struct Language {
    /// Its name.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// The program, looked up in the job's PATH.
    pub program: &'static str,
    /// The option behind which the code goes.
    pub option: &'static str,
}

impl Language {
    /// The language of that name or alias.
    pub fn named(name: &str) -> Option<&'static Language> {
        LANGUAGES
            .iter()
            .find(|language| language.name == name || language.aliases.contains(&name))
    }
}

/// Parameters of a method that has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// The result of `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Always true.
    pub pong: bool,
}

/// Options that `exec` and `exec_code` share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobOptions {
    /// Variables on top of the image's ENV, at most [`MAX_VARIABLES`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "variables")]
    pub env: BTreeMap<String, String>,
    /// The working directory; else `/`, or the image's WORKDIR with `image_defaults`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `user[:group]`, names of the image or numbers; else root, or the image's USER with `image_defaults`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Standard input will follow in [`Stdin`] notifications; else it is empty.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub stdin: bool,
    /// Kill the job's process group after so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Send output as it comes, in [`Output`] notifications, instead of in the result.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub stream: bool,
    /// Use the image's WORKDIR and USER, and ENTRYPOINT with CMD where no program is given.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub image_defaults: bool,
    /// Run it on a terminal of its own. All output is then `stdout`, and the end of `stdin` is typed as the terminal's end of
    /// file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pty: Option<TerminalSize>,
}

/// Reads variables, and of too many not even all.
fn variables<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("an object of variables")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut variables = BTreeMap::new();
            while let Some((name, value)) = entries.next_entry()? {
                variables.insert(name, value);
                if variables.len() > MAX_VARIABLES {
                    return Err(A::Error::custom(alloc::format!(
                        "env: at most {MAX_VARIABLES} variables can be given"
                    )));
                }
            }
            Ok(variables)
        }
    }
    deserializer.deserialize_map(Visitor)
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// A new size for the terminal of a job; its foreground processes are told by SIGWINCH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// The job.
    pub id: Id,
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// Parameters of `exec`: `cmd` or `argv`, or neither with `image_defaults`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exec {
    /// A command line for `/bin/sh -c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// A program, looked up in PATH unless it has a slash, and its arguments. Never empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// How to run it.
    #[serde(flatten)]
    pub options: JobOptions,
}

/// Parameters of `exec_code`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecCode {
    /// A language of [`LANGUAGES`] or an alias.
    pub lang: String,
    /// The code.
    pub code: String,
    /// How to run it.
    #[serde(flatten)]
    pub options: JobOptions,
}

/// The result of `exec` and `exec_code`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecResult {
    /// The program's exit code; 128 + the signal's number when a signal ended it; -1 when it could not be started.
    pub exit_code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// `timeout_ms` ran out and the job was killed.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub timed_out: bool,
    /// Standard output, unless it was streamed. Bytes that are not UTF-8 become U+FFFD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Standard error, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
}

/// One of a job's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of a streaming job's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The job.
    pub id: Id,
    /// Which stream.
    pub stream: OutputStream,
    /// The bytes.
    #[serde(default, skip_serializing_if = "Data::is_empty")]
    pub data: Data,
    /// So many bytes follow the line as they are, instead of `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<u32>,
}

/// A piece of a job's standard input, or its end, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stdin {
    /// The job.
    pub id: Id,
    /// The bytes.
    #[serde(default, skip_serializing_if = "Data::is_empty")]
    pub data: Data,
    /// So many bytes follow the line as they are, behind those of `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<u32>,
    /// Nothing follows: the job sees end of file after these bytes.
    #[serde(default)]
    pub eof: bool,
}

/// A signal for a job's whole process group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalJob {
    /// The job.
    pub id: Id,
    /// Which signal.
    pub signal: Signal,
}

/// A signal, by number or by name with or without `SIG` on the wire; sent as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(u8);

/// Names of the signals 1 to 31, the same on x86_64 and aarch64.
const SIGNAL_NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Signal {
    /// The signal of that number, 1 to 64.
    pub fn new(number: i32) -> Option<Signal> {
        u8::try_from(number)
            .ok()
            .filter(|number| (1..=64).contains(number))
            .map(Signal)
    }

    /// The signal of that name (`TERM`, `SIGTERM`) or number in digits, as an image's StopSignal writes it.
    pub fn named(name: &str) -> Option<Signal> {
        if let Ok(number) = name.parse() {
            return Signal::new(number);
        }
        let bare = name.strip_prefix("SIG").unwrap_or(name);
        let index = SIGNAL_NAMES.iter().position(|known| *known == bare)?;
        Signal::new(i32::try_from(index).ok()?.checked_add(1)?)
    }

    /// The kernel's number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Signal, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(i32),
            Name(String),
        }
        match Form::deserialize(deserializer) {
            Ok(Form::Number(number)) => Signal::new(number),
            Ok(Form::Name(name)) => Signal::named(&name),
            Err(_) => None,
        }
        .ok_or_else(|| D::Error::custom("a signal is a number from 1 to 64 or a name such as \"TERM\""))
    }
}

/// Bytes that may be no text: standard base64 with padding on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Data(pub Vec<u8>);

impl Data {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        /// Decodes the text where it lies: it may be millions of bytes.
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Data;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a text of base64")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Data, E> {
                let decoded = STANDARD.decode(text).map(Data);
                decoded.map_err(|_| E::custom("data is base64 with padding"))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// The result of `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version, as `firebrick --version` has it.
    pub version: String,
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub protocol: u32,
    /// Whether the agent is the VM's init.
    pub pid1: bool,
    /// Microseconds since the kernel started (CLOCK_BOOTTIME), now.
    pub boottime_us: u64,
    /// What happened when while the guest started, in order.
    pub boot: Vec<Stamp>,
    /// The jobs running now, of all connections.
    pub jobs: u32,
    /// The connections open now.
    pub connections: u32,
    /// Things found wrong while starting that did not stop it, as printed on the console.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The kernel's release.
    #[serde(default)]
    pub kernel: String,
    /// The time of day, in microseconds since 1970.
    #[serde(default)]
    pub unix_us: u64,
    /// The machine's memory.
    #[serde(default)]
    pub memory: Space,
    /// The filesystem at `/`.
    #[serde(default)]
    pub disk: Space,
    /// The memory that the agent itself holds now, in bytes.
    #[serde(default)]
    pub agent_bytes: u64,
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What programs can still have, in bytes.
    pub available_bytes: u64,
}

/// Something that happened while the guest started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// What: `stage1_start`, `modules_loaded`, `root_mounted`, `pid1_start`, `mounts_done`, `network_up`,
    /// `agent_listening`, `first_answer`.
    pub event: String,
    /// When, in microseconds since the kernel started (CLOCK_BOOTTIME).
    pub boottime_us: u64,
}

/// Parameters of `shutdown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How the machine ends; else what `firebrick.exit=` on the kernel command line says, else power-off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ShutdownMode>,
    /// How long processes have between SIGTERM and SIGKILL; else 2000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// How a machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownMode {
    /// ACPI or PSCI power-off.
    Poweroff,
    /// Restart, which Firecracker and `-no-reboot` take as the end.
    Reboot,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_cut_takes_no_more_than_the_letter_that_it_went_through() {
        for text in ["", "x", "aé", "a\u{20ac}", "a\u{1f600}", "\u{1f600}b"] {
            for len in 0..=text.len() {
                let whole = (0..=len)
                    .rev()
                    .find(|len| text.is_char_boundary(*len))
                    .unwrap_or(0);
                assert_eq!(
                    whole_letters(&text.as_bytes()[..len]),
                    &text.as_bytes()[..whole],
                    "{text} {len}"
                );
            }
        }
        // What is no text is not cut shorter.
        for bytes in [
            &[0x80; 9][..],
            &[0x80],
            &[0xff; 9],
            b"a\xc1",
            b"x\x80\x80",
            b"\xf0\x80\x80\x80\x80",
        ] {
            assert_eq!(whole_letters(bytes), bytes);
        }
    }

    #[test]
    fn the_seeds_exec_is_just_cmd() {
        let exec: Exec = serde_json::from_str(r#"{"cmd":"ls"}"#).expect("params");
        assert_eq!(
            exec,
            Exec {
                cmd: Some("ls".into()),
                ..Exec::default()
            }
        );
        assert_eq!(serde_json::to_string(&exec).expect("json"), r#"{"cmd":"ls"}"#);
    }

    #[test]
    fn unknown_options_are_refused() {
        for params in [
            r#"{"cmd":"ls","pty":true}"#,
            r#"{"cmd":"ls","stream":1}"#,
            r#"{"argv":"ls"}"#,
        ] {
            serde_json::from_str::<Exec>(params).expect_err(params);
        }
        serde_json::from_str::<ExecCode>(r#"{"lang":"sh","code":"","pty":true}"#).expect_err("pty");
    }

    #[test]
    fn exec_keeps_every_option() {
        let exec = Exec {
            argv: Some(vec!["a".into()]),
            options: JobOptions {
                env: BTreeMap::from([("K".into(), "v".into())]),
                cwd: Some("/w".into()),
                user: Some("nobody".into()),
                stdin: true,
                timeout_ms: Some(5),
                stream: true,
                image_defaults: true,
                pty: Some(TerminalSize { rows: 24, cols: 80 }),
            },
            ..Exec::default()
        };
        let text = serde_json::to_string(&exec).expect("json");
        assert_eq!(serde_json::from_str::<Exec>(&text).expect("params"), exec);
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("15", 15),
            ("\"TERM\"", 15),
            ("\"SIGKILL\"", 9),
            ("\"2\"", 2),
            ("64", 64),
        ] {
            assert_eq!(serde_json::from_str::<Signal>(text).expect(text).number(), number);
        }
        for text in ["0", "65", "-1", "\"term\"", "\"SIGSIG\"", "[]", "1.5"] {
            serde_json::from_str::<Signal>(text).expect_err(text);
        }
    }

    #[test]
    fn data_is_binary_safe() {
        let data = Data((0..=255).collect());
        let text = serde_json::to_string(&data).expect("json");
        assert_eq!(serde_json::from_str::<Data>(&text).expect("data"), data);
        serde_json::from_str::<Data>("\"a\"").expect_err("no base64");
    }

    #[test]
    fn languages_have_aliases() {
        assert_eq!(
            Language::named("javascript").map(|language| language.program),
            Some("node")
        );
        assert_eq!(
            Language::named("python3").map(|language| language.name),
            Some("python")
        );
        assert!(Language::named("cobol").is_none());
    }
}
