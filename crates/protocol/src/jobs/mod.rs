//! The job protocol: one [`Job`] in, one answer out, each a length and JSON; then the connection ends.
//!
//! - A *frame* is a `u32`, big-endian, and so many bytes of JSON ([`FrameReader`], [`frame`]).
//! - A *job* is code in a *language* ([`Language`]), with files, standard input and a time limit.
//! - A *batch* is a job whose `stdin` is a list: the code runs once for each, and the answer is a list of [`JobResult`]s.
//!
//! `docs/protocol-jobs.md` is the contract.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

mod languages;

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

pub use languages::{LANGUAGES, Language, Word};

/// The longest job, and so the most that a client can make the agent hold. Its length starts with a zero byte, by which a
/// frame is told from a line of JSON where both come to one port.
pub const MAX_JOB_BYTES: usize = 4 * 1024 * 1024;

/// The longest standard input.
pub const MAX_STDIN_BYTES: usize = 1_000_000;

/// The most source files.
pub const MAX_FILES: usize = 1000;

/// The most parts that a source file's name has: folders, and its own.
pub const MAX_NAME_PARTS: usize = 32;

/// The longest name of a source file, folders included, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// How long a job may take that does not say.
pub const DEFAULT_TIMEOUT_S: u64 = 10;

/// The most output that all runs of a batch keep together, in bytes.
pub const MAX_BATCH_OUTPUT_BYTES: usize = 4 * 1024 * 1024;

/// `error` when the time was up.
pub const TIMED_OUT: &str = "E001: operation timed out";
/// `error` when standard input is longer than [`MAX_STDIN_BYTES`].
pub const STDIN_TOO_LONG: &str = "E005: stdin too long";
/// `error` when there is no such language: this, and its name.
pub const UNSUPPORTED_LANGUAGE: &str = "E006: unsupported language ";
/// `error` when there is nothing to run.
pub const NO_CODE: &str = "either 'code' or 'files' must be provided";

/// `exception` when the time was up.
pub const TIMEOUT_EXCEPTION: &str = "Timeout";
/// What stands at the end of `stderr` then.
pub const TIMEOUT_STDERR: &str = "\nExecution timed out";
/// `exit_code` then.
pub const TIMEOUT_EXIT_CODE: i32 = 124;
/// The most runs of a batch.
pub const MAX_INPUTS: usize = 1000;
/// `exception` when the compiler refused the code.
pub const COMPILATION_EXCEPTION: &str = "Compilation failed";
/// `exit_code` when there is no such language, or its programs are not in the image.
pub const NO_PROGRAM_EXIT_CODE: i32 = 127;

/// What to run. Unknown fields are passed over, and `null` is as good as nothing, as with the hosts of today.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Job<'frame> {
    /// Comes back in the answer.
    #[serde(default, borrow, deserialize_with = "text")]
    pub trace_id: Cow<'frame, str>,
    /// A language of [`LANGUAGES`].
    #[serde(default, borrow, deserialize_with = "text")]
    pub lang: Cow<'frame, str>,
    /// The code, unless there are files.
    #[serde(default, borrow, deserialize_with = "text")]
    pub code: Cow<'frame, str>,
    /// Source files; the first is the main one.
    #[serde(default, borrow, deserialize_with = "files")]
    pub files: Vec<SourceFile<'frame>>,
    /// Standard input.
    #[serde(default)]
    pub stdin: Input,
    /// Seconds; 0 means [`DEFAULT_TIMEOUT_S`].
    #[serde(default, deserialize_with = "number")]
    pub timeout: i64,
}

/// A source file of a job.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SourceFile<'frame> {
    /// Its path in the work folder.
    #[serde(borrow)]
    pub name: Cow<'frame, str>,
    /// Its text.
    #[serde(default, borrow, deserialize_with = "text")]
    pub content: Cow<'frame, str>,
}

impl SourceFile<'_> {
    /// Whether the name leads to a place inside the work folder: relative, of plain names parted by single slashes, and
    /// neither longer nor deeper than [`MAX_NAME_BYTES`] and [`MAX_NAME_PARTS`].
    pub fn has_good_name(&self) -> bool {
        let good = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
        self.name.len() <= MAX_NAME_BYTES
            && !self.name.contains('\0')
            && self.name.split('/').count() <= MAX_NAME_PARTS
            && self.name.split('/').all(good)
    }
}

/// A job's standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Input {
    /// Empty.
    #[default]
    None,
    /// One text.
    One(String),
    /// One for each run of a batch, at least one.
    Batch(Vec<String>),
}

/// What stands where a text is wanted, as a text: numbers and truth values as JSON writes them.
struct Scalar(String);

/// Reads one, or a list of them where `list` allows that. Nothing else is built, however long it is.
struct InputVisitor {
    list: bool,
}

const NO_INPUT: &str = "stdin is a text or a list of texts";

impl<'de> serde::de::Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_unit<E>(self) -> Result<Input, E> {
        Ok(Input::None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Input, E> {
        Ok(Input::One(text.into()))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Input, E> {
        Ok(Input::One(truth.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Input, E> {
        Ok(Input::One(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Input, E> {
        Ok(Input::One(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Input, E> {
        Ok(Input::One(
            serde_json::Number::from_f64(number).map_or_else(String::new, |number| number.to_string()),
        ))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, _: A) -> Result<Input, A::Error> {
        Err(A::Error::custom(NO_INPUT))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Input, A::Error> {
        if !self.list {
            return Err(A::Error::custom(NO_INPUT));
        }
        let mut list = Vec::new();
        while let Some(Scalar(text)) = items.next_element()? {
            if list.len() >= MAX_INPUTS {
                return Err(A::Error::custom(alloc::format!(
                    "stdin: at most {MAX_INPUTS} can be taken"
                )));
            }
            list.push(text);
        }
        Ok(if list.is_empty() {
            Input::None
        } else {
            Input::Batch(list)
        })
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Input, D::Error> {
        deserializer.deserialize_any(InputVisitor { list: true })
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        deserializer
            .deserialize_any(InputVisitor { list: false })
            .map(|input| match input {
                Input::One(text) => Scalar(text),
                Input::None | Input::Batch(_) => Scalar(String::new()),
            })
    }
}

/// A text, borrowed from the frame where it has no escapes.
struct Text<'frame>(Cow<'frame, str>);

impl<'de: 'frame, 'frame> Deserialize<'de> for Text<'frame> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'frame>, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Owned(text.to_string()))
            }

            fn visit_string<E>(self, text: String) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Owned(text))
            }
        }
        deserializer.deserialize_str(Visitor).map(Text)
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    let text: Option<Text<'de>> = Option::deserialize(deserializer)?;
    Ok(text.map_or_else(Cow::default, |text| text.0))
}

/// The files; of too many only one too many.
fn files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SourceFile<'de>>, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Vec<SourceFile<'de>>;

        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("a list of files")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut files = Vec::new();
            while files.len() <= MAX_FILES {
                match items.next_element()? {
                    Some(file) => files.push(file),
                    None => return Ok(files),
                }
            }
            while items.next_element::<serde::de::IgnoredAny>()?.is_some() {}
            Ok(files)
        }
    }
    deserializer.deserialize_any(Visitor)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl<'frame> Job<'frame> {
    /// Reads a frame's JSON.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(frame: &'frame [u8]) -> Result<Job<'frame>, serde_json::Error> {
        let text = core::str::from_utf8(frame).map_err(serde_json::Error::custom)?;
        // Serde would take a list for the fields in their order.
        if text.trim_ascii_start().starts_with('[') {
            return Err(serde_json::Error::custom("a job is an object"));
        }
        serde_json::from_str(text)
    }
}

/// How a job ended: a job of one run is answered by one, a batch by a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobResult {
    /// That of the job; left out if empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// Whether the job was run, however it ended.
    pub status: JobStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error; `null` if empty.
    pub stderr: Option<String>,
    /// What went wrong around the code: its compilation, its time; `null` if nothing.
    pub exception: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(rename = "executionTime")]
    pub execution_time_ms: u64,
    /// The program's exit code; left out if 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub exit_code: i32,
    /// Why the job was not run, or its time; left out if empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// In a batch, what this run was given; left out if empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdin: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Whether a job was run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// It was run.
    #[default]
    Success,
    /// It was not.
    Failed,
}

impl JobResult {
    /// The answer to a job that is not run.
    pub fn refused(trace_id: &str, exit_code: i32, error: impl Into<String>) -> JobResult {
        JobResult {
            trace_id: trace_id.to_string(),
            status: JobStatus::Failed,
            exit_code,
            error: error.into(),
            ..JobResult::default()
        }
    }

    /// The answer to a job that could not be read or set up: the reason stands wherever a host may look for it.
    pub fn broken(trace_id: &str, exit_code: i32, reason: &str) -> JobResult {
        JobResult {
            stderr: Some(reason.to_string()),
            exception: Some(reason.to_string()),
            ..JobResult::refused(trace_id, exit_code, reason)
        }
    }
}

/// A message as a frame: its length and its JSON.
///
/// # Panics
/// When the JSON is longer than 4 GiB.
pub fn frame<M: Serialize + ?Sized>(message: &M) -> Vec<u8> {
    let json = serde_json::to_vec(message).expect("our messages have string keys and no failing serializer");
    let length = u32::try_from(json.len()).expect("messages are bounded");
    let mut bytes = json;
    bytes.splice(..0, length.to_be_bytes());
    bytes
}

/// Collects the bytes of one frame.
#[derive(Debug)]
pub struct FrameReader {
    bytes: Vec<u8>,
    limit_bytes: usize,
}

/// How far a frame has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameState<'a> {
    /// Nothing has come.
    Empty,
    /// Some of it is missing.
    Partial,
    /// Its JSON. What came behind it is passed over.
    Whole(&'a [u8]),
    /// It is longer than the limit.
    TooLong {
        /// How long it says it is.
        len: u32,
    },
}

impl FrameReader {
    /// A reader of a frame whose JSON is at most `limit_bytes` long.
    pub const fn new(limit_bytes: usize) -> FrameReader {
        FrameReader {
            bytes: Vec::new(),
            limit_bytes,
        }
    }

    /// Takes the next bytes of the stream. It holds what has come, never what a length promises, and nothing behind the frame.
    pub fn push(&mut self, bytes: &[u8]) {
        let wanted = match self.state() {
            FrameState::Empty | FrameState::Partial => self
                .limit_bytes
                .saturating_add(4)
                .saturating_sub(self.bytes.len()),
            FrameState::Whole(_) | FrameState::TooLong { .. } => 0,
        };
        let bytes = bytes.get(..wanted).unwrap_or(bytes);
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes are held.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What has come so far.
    pub fn state(&self) -> FrameState<'_> {
        if self.bytes.is_empty() {
            return FrameState::Empty;
        }
        let Some((prefix, json)) = self.bytes.split_first_chunk() else {
            return FrameState::Partial;
        };
        let len = u32::from_be_bytes(*prefix);
        match usize::try_from(len) {
            Ok(wanted) if wanted <= self.limit_bytes => match json.get(..wanted) {
                Some(json) => FrameState::Whole(json),
                None => FrameState::Partial,
            },
            _ => FrameState::TooLong { len },
        }
    }
}

#[cfg(test)]
mod tests;
