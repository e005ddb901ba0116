//! Framed jobs: a connection's one exchange, from the frame to the answer. `docs/protocol-jobs.md` is the contract.
//!
//! A *run* is a job that is being worked on. Its *steps* are the compilation, if its language has one, then the program,
//! once for each standard input; each step is a job of the agent's (`job`), and its end leads to the next.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use firebrick_protocol::agent::{JobOptions, MAX_OUTPUT_BYTES, TRUNCATED, whole_letters};
use firebrick_protocol::jobs::{
    COMPILATION_EXCEPTION, DEFAULT_TIMEOUT_S, FrameReader, FrameState, Input, Job, JobResult, Language,
    MAX_BATCH_OUTPUT_BYTES, MAX_FILES, MAX_JOB_BYTES, MAX_NAME_BYTES, MAX_STDIN_BYTES, NO_CODE,
    NO_PROGRAM_EXIT_CODE, STDIN_TOO_LONG, SourceFile, TIMED_OUT, TIMEOUT_EXCEPTION, TIMEOUT_EXIT_CODE,
    TIMEOUT_STDERR, UNSUPPORTED_LANGUAGE, Word, frame,
};
use rustix::fs::Access;

use super::Agent;
use super::budget::MAX_JOBS_OF_ALL;
use super::conn::{Conn, Speech};
use super::folder::Folder;
use super::job::{End, Plan, Purpose};
use super::methods::{DEFAULT_PATH, c_string, command_of};
use super::outbox::{Outbox, escaped_len};
use crate::errno;
use crate::kernel::{self, Clock};

/// Where compilers and interpreters are besides PATH, in the images of today's hosts.
const MORE_PATH: [&str; 5] = [
    "/usr/local/go/bin",
    "/opt/cargo/bin",
    "/opt/java/openjdk/bin",
    "/usr/share/dotnet",
    "/root/.dotnet/tools",
];

/// Variables that each job has, unless the image says otherwise.
const DEFAULT_ENV: [(&str, &str); 8] = [
    ("LANG", "C.UTF-8"),
    ("GOCACHE", "/tmp/go-cache"),
    ("GOPATH", "/tmp/go"),
    ("NO_COLOR", "1"),
    ("DOTNET_CLI_TELEMETRY_OPTOUT", "1"),
    ("DOTNET_NOLOGO", "1"),
    ("UV_USE_IO_URING", "0"),
    ("TMPDIR", "/tmp"),
];

/// What a job's program is called when it was compiled.
const PROGRAM: &str = "runbin";

/// A connection's one framed job.
pub(super) enum Exchange {
    Receiving(FrameReader),
    Running(Box<Run>),
    /// Answered, or given up.
    Over,
}

/// A job that is being worked on.
pub(super) struct Run {
    trace_id: String,
    language: &'static Language,
    folder: Folder,
    /// The main file, by its full path.
    main: String,
    /// All files of the main file's kind, itself first.
    sources: Vec<String>,
    env: BTreeMap<String, String>,
    /// The standard inputs that are still to be run, the current one first.
    inputs: VecDeque<String>,
    is_batch: bool,
    /// Its files are in the folder.
    is_filled: bool,
    is_compiled: bool,
    results: Vec<Outcome>,
    /// The output in them.
    kept_bytes: usize,
    timeout_ns: u64,
    /// When the current result's work began.
    started_ns: u64,
}

/// How a run of the program has ended.
struct Outcome {
    /// All but the outputs.
    result: JobResult,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// The answer to a job that is not run.
type Refusal = Box<JobResult>;

impl Exchange {
    pub(super) fn new() -> Exchange {
        Exchange::Receiving(FrameReader::new(MAX_JOB_BYTES))
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if let Exchange::Receiving(reader) = self {
            reader.push(bytes);
        }
    }
}

impl Agent {
    /// Takes a frame that is whole, of a connection that is taken out.
    pub(super) fn take_frame(&mut self, number: u32, conn: &mut Conn) {
        let is_open = conn.is_open();
        let Speech::Frame(exchange) = &mut conn.speech else {
            return;
        };
        match exchange {
            Exchange::Receiving(reader) => match reader.state() {
                FrameState::Empty => return,
                FrameState::Partial if is_open => return,
                _ => {}
            },
            Exchange::Running(_) | Exchange::Over => return,
        }
        // Taken out, so that it can be borrowed from and is gone when it was read.
        let Exchange::Receiving(reader) = core::mem::replace(exchange, Exchange::Over) else {
            return;
        };
        let ended = match reader.state() {
            FrameState::Empty => return,
            FrameState::Partial => {
                Err(JobResult::broken("", 1, "failed to read message data: unexpected end").into())
            }
            FrameState::TooLong { len } => {
                let words = alloc::format!("the job has {len} bytes, at most {MAX_JOB_BYTES} can be taken");
                Err(JobResult::broken("", 1, &words).into())
            }
            FrameState::Whole(json) => self.begin(number, conn, json),
        };
        if !self.has_answered {
            self.has_answered = true;
            self.boot.stamp("first_answer");
        }
        match ended {
            Ok(run) => conn.speech = Speech::Frame(Exchange::Running(Box::new(run))),
            Err(result) => answer(conn, &result),
        }
    }

    /// Answers a job that is not even read.
    pub(super) fn refuse_frame(&mut self, conn: &mut Conn, reason: &str) {
        answer(conn, &JobResult::broken("", 1, reason));
    }

    /// Reads a job and starts to fill its work folder.
    fn begin(&mut self, number: u32, conn: &mut Conn, json: &[u8]) -> Result<Run, Refusal> {
        let job = Job::parse(json)
            .map_err(|error| JobResult::broken("", 1, &alloc::format!("invalid job format: {error}")))?;
        let refused = |exit_code, error: &str| JobResult::refused(&job.trace_id, exit_code, error);
        let Some(language) = Language::named(&job.lang) else {
            let error = [UNSUPPORTED_LANGUAGE, &job.lang].concat();
            return Err(refused(NO_PROGRAM_EXIT_CODE, &error).into());
        };
        if job.code.is_empty() && job.files.is_empty() {
            return Err(refused(1, NO_CODE).into());
        }
        let timeout_s = match u64::try_from(job.timeout) {
            Ok(0) => DEFAULT_TIMEOUT_S,
            Ok(seconds) => seconds,
            Err(_) => return Err(refused(1, "timeout must not be negative").into()),
        };
        let is_batch = matches!(job.stdin, Input::Batch(_));
        let inputs: VecDeque<String> = match job.stdin {
            Input::None => [String::new()].into(),
            Input::One(text) => [text].into(),
            Input::Batch(list) => list.into(),
        };
        if inputs.iter().any(|input| input.len() > MAX_STDIN_BYTES) {
            return Err(JobResult::refused(&job.trace_id, 1, STDIN_TOO_LONG).into());
        }
        let trace_id = job.trace_id.to_string();
        let broken = |reason: String| JobResult::broken(&trace_id, 1, &reason);
        let code = [SourceFile {
            name: language.file.into(),
            content: job.code,
        }];
        let files = if job.files.is_empty() {
            &code[..]
        } else {
            &job.files
        };
        let env = self.job_environment().map_err(broken)?;
        check_files(files).map_err(broken)?;
        if self.jobs.len() >= MAX_JOBS_OF_ALL {
            return Err(broken(alloc::format!("{MAX_JOBS_OF_ALL} jobs are running")).into());
        }
        let in_words = |what: &str, error| broken(alloc::format!("{what}: {}", errno::describe(error)));
        let timeout_ns = timeout_s.saturating_mul(1_000_000_000);
        let folder = Folder::make().map_err(|error| in_words("create temp dir", error))?;
        if let Err(error) = self.start_fill(number, conn, timeout_ns, || fill(&folder, files)) {
            folder.remove();
            return Err(in_words("write files", error).into());
        }
        Ok(Run {
            is_filled: false,
            trace_id: trace_id.clone(),
            language,
            main: files
                .first()
                .map_or_else(String::new, |main| alloc::format!("{folder}/{}", main.name)),
            sources: sources(files)
                .map(|name| alloc::format!("{folder}/{name}"))
                .collect(),
            folder,
            env,
            inputs,
            is_batch,
            is_compiled: language.compile.is_empty(),
            results: Vec::new(),
            kept_bytes: 0,
            timeout_ns,
            started_ns: Clock::Boottime.now_ns(),
        })
    }

    fn job_environment(&self) -> Result<BTreeMap<String, String>, String> {
        let user = self.user(&JobOptions::default()).map_err(|error| error.message)?;
        let mut env = self
            .environment(&user, &BTreeMap::new())
            .map_err(|error| error.message)?;
        for (name, value) in DEFAULT_ENV {
            env.entry(name.into()).or_insert_with(|| value.into());
        }
        env.insert("HOME".into(), "/tmp".into());
        let path = env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
        for more in MORE_PATH {
            if !path.split(':').any(|folder| folder == more) {
                path.push(':');
                path.push_str(more);
            }
        }
        Ok(env)
    }

    /// Starts the step that is next, or answers.
    fn next_step(&mut self, number: u32, conn: &mut Conn, mut run: Box<Run>) {
        while let Some(input) = run.inputs.front() {
            let stdin = if run.is_compiled {
                input.clone()
            } else {
                String::new()
            };
            match self.start_step(number, conn, &run, !stdin.is_empty()) {
                Ok(()) => {
                    if !stdin.is_empty()
                        && let Some(job) = conn.jobs.last()
                    {
                        self.job_stdin(*job, stdin.into_bytes().into(), true);
                    }
                    conn.speech = Speech::Frame(Exchange::Running(run));
                    return;
                }
                Err(reason) => {
                    run.push(JobResult::broken("", 1, &reason), Vec::new(), Vec::new());
                }
            }
        }
        let Run {
            folder,
            results,
            is_batch,
            ..
        } = *run;
        folder.remove();
        tell(results, is_batch, &mut conn.out);
        close(conn);
    }

    fn start_step(&mut self, number: u32, conn: &mut Conn, run: &Run, stdin: bool) -> Result<(), String> {
        let in_words = |error: firebrick_protocol::rpc::RpcError| error.message;
        let user = self.user(&JobOptions::default()).map_err(in_words)?;
        let folder = c_string("folder", run.folder.to_string()).map_err(in_words)?;
        let command =
            command_of(run.argv(), run.env.clone(), folder, user, self.open_files).map_err(in_words)?;
        let spent = Clock::Boottime.now_ns().saturating_sub(run.started_ns);
        let left_ns = run.timeout_ns.saturating_sub(spent);
        let keep_bytes = if run.is_batch {
            MAX_BATCH_OUTPUT_BYTES
                .saturating_sub(run.kept_bytes)
                .min(MAX_OUTPUT_BYTES)
        } else {
            MAX_OUTPUT_BYTES
        };
        let plan = Plan {
            purpose: Purpose::Step,
            command,
            stdin,
            pty: None,
            timeout_ms: Some(left_ns.div_ceil(1_000_000)),
            keep_bytes,
        };
        self.start_job(number, conn, plan).map_err(in_words)
    }

    /// A step has ended: on to the next.
    pub(super) fn step_ended(&mut self, number: u32, end: End) {
        let Some(mut conn) = self.conns.remove(&number) else {
            return;
        };
        if let Speech::Frame(exchange) = &mut conn.speech
            && let Exchange::Running(mut run) = core::mem::replace(exchange, Exchange::Over)
        {
            if run.is_filled {
                run.take(end);
                self.next_step(number, &mut conn, run);
            } else if end.exit_code == 0 {
                run.is_filled = true;
                self.next_step(number, &mut conn, run);
            } else {
                let reason = match end.stderr.as_slice() {
                    [] => "write files: ended by a signal".into(),
                    reason => String::from_utf8_lossy(reason),
                };
                answer(&mut conn, &JobResult::broken(&run.trace_id, 1, &reason));
                run.folder.remove();
            }
        }
        self.settle(number, conn);
    }

    /// Gives up an exchange whose client is gone, or that is answered. Its jobs are killed already.
    pub(super) fn end_exchange(&mut self, conn: &mut Conn) {
        if let Speech::Frame(exchange) = &mut conn.speech
            && let Exchange::Running(run) = core::mem::replace(exchange, Exchange::Over)
        {
            run.folder.remove();
        }
    }

    /// Gives up all exchanges, with their work folders.
    pub(super) fn end_all_exchanges(&mut self) {
        let mut conns = core::mem::take(&mut self.conns);
        for conn in conns.values_mut() {
            self.end_exchange(conn);
        }
        self.conns = conns;
    }
}

/// Whether these files can be put into a work folder.
fn check_files(files: &[SourceFile<'_>]) -> Result<(), String> {
    if files.len() > MAX_FILES {
        return Err(alloc::format!("write files: at most {MAX_FILES} can be taken"));
    }
    if let Some(bad) = files.iter().find(|file| !file.has_good_name()) {
        return Err(alloc::format!(
            "write files: {:?} does not name a place in the work folder",
            shortened(&bad.name)
        ));
    }
    Ok(())
}

/// Puts files into a work folder. This runs in a copy of the agent; what is wrong goes to its standard error.
fn fill(folder: &Folder, files: &[SourceFile<'_>]) -> i32 {
    let told = |name: &str, error| {
        let words = alloc::format!("write files: {name}: {}", errno::describe(error));
        let _ = crate::file::write_all(kernel::standard(2), words.as_bytes());
        1
    };
    if let Err(error) = folder.enter() {
        return told(".", error);
    }
    let failed = files
        .iter()
        .find_map(|file| Some((file, Folder::write(file).err()?)));
    failed.map_or(0, |(file, error)| told(&file.name, error))
}

/// The beginning of a name that may be very long.
fn shortened(name: &str) -> &str {
    name.char_indices()
        .nth(MAX_NAME_BYTES)
        .map_or(name, |(end, _)| &name[..end])
}

/// The one answer, behind which the connection ends.
fn answer(conn: &mut Conn, result: &JobResult) {
    conn.send(frame(result));
    close(conn);
}

fn close(conn: &mut Conn) {
    conn.speech = Speech::Frame(Exchange::Over);
    conn.close_after_answers();
}

/// Where the outputs go in a result's JSON. No text in it can look like that: there the quotes have a backslash.
const OUTPUTS: &[u8] = b"\"stdout\":\"\",\"stderr\":null";

/// The frame of the answer, in which the outputs become JSON as it is sent.
fn tell(results: Vec<Outcome>, is_batch: bool, out: &mut Outbox) {
    let json = |outcome: &Outcome| serde_json::to_vec(&outcome.result).unwrap_or_default();
    let quotes = |text: &[u8]| if text.is_empty() { "null".len() } else { 2 };
    let len_of = |outcome: &Outcome| {
        json(outcome)
            .len()
            .saturating_add(escaped_len(&outcome.stdout))
            .saturating_add(escaped_len(&outcome.stderr))
            .saturating_add(quotes(&outcome.stderr))
            .saturating_sub("null".len())
    };
    let mut len: usize = results.iter().map(len_of).sum();
    if is_batch {
        len = len
            .saturating_add(results.len().saturating_sub(1))
            .saturating_add(2);
    }
    out.push(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes().to_vec());
    let mut before: &[u8] = if is_batch { b"[" } else { b"" };
    for outcome in results {
        let json = json(&outcome);
        let at = json.windows(OUTPUTS.len()).position(|found| found == OUTPUTS);
        let (head, tail) = json.split_at(at.unwrap_or(json.len()));
        out.push([core::mem::replace(&mut before, b","), head, b"\"stdout\":\""].concat());
        out.push_text(outcome.stdout);
        if outcome.stderr.is_empty() {
            out.push(b"\",\"stderr\":null".to_vec());
        } else {
            out.push(b"\",\"stderr\":\"".to_vec());
            out.push_text(outcome.stderr);
            out.push(b"\"".to_vec());
        }
        out.push(tail.get(OUTPUTS.len()..).unwrap_or_default().to_vec());
    }
    if is_batch {
        out.push(b"]".to_vec());
    }
}

/// The main file, then those beside it whose names end alike.
fn sources<'a>(files: &'a [SourceFile<'_>]) -> impl Iterator<Item = &'a str> {
    fn parts(name: &str) -> (&str, &str) {
        let (folder, name) = name.rsplit_once('/').unwrap_or(("", name));
        (folder, name.rsplit_once('.').map_or("", |(_, end)| end))
    }
    let main = files.first().map_or("", |main| &*main.name);
    let beside = files
        .iter()
        .skip(1)
        .map(|file| &*file.name)
        .filter(move |name| parts(name) == parts(main) && *name != main);
    core::iter::once(main).chain(beside)
}

impl Run {
    /// The command line of the step that is next.
    fn argv(&self) -> Vec<String> {
        let alternatives = if self.is_compiled {
            self.language.run
        } else {
            self.language.compile
        };
        let path = self.env.get("PATH").map_or("", String::as_str);
        let is_there = |argv: &&&[Word]| match argv.first() {
            Some(Word::Text(program)) => finds(program, path),
            _ => true,
        };
        // Where none is there, the first one's name is told.
        let chosen = alternatives.iter().find(is_there).or(alternatives.first());
        chosen.map_or_else(Vec::new, |words| self.words(words))
    }

    fn words(&self, words: &[Word]) -> Vec<String> {
        let mut argv = Vec::new();
        for word in words {
            match word {
                Word::Text(text) => argv.push((*text).to_string()),
                Word::Main => argv.push(self.main.clone()),
                Word::Sources => argv.extend(self.sources.iter().cloned()),
                Word::Program => argv.push(alloc::format!("{}/{PROGRAM}", self.folder)),
                Word::Class => {
                    let name = self.main.rsplit('/').next().unwrap_or_default();
                    argv.push(name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_string());
                }
            }
        }
        argv
    }

    /// Takes in how a step has ended.
    fn take(&mut self, end: End) {
        if let Some(reason) = end.not_started {
            return self.push(
                JobResult::broken("", NO_PROGRAM_EXIT_CODE, &reason),
                Vec::new(),
                Vec::new(),
            );
        }
        let End {
            exit_code,
            timed_out,
            stdout,
            mut stderr,
            ..
        } = end;
        if !self.is_compiled && exit_code == 0 && !timed_out {
            self.is_compiled = true;
            return;
        }
        let mut result = JobResult {
            exit_code,
            ..JobResult::default()
        };
        if timed_out {
            stderr.extend_from_slice(TIMEOUT_STDERR.as_bytes());
            result.exit_code = TIMEOUT_EXIT_CODE;
            result.exception = Some(TIMEOUT_EXCEPTION.into());
            result.error = TIMED_OUT.into();
        } else if !self.is_compiled {
            result.exception = Some(COMPILATION_EXCEPTION.into());
        }
        self.push(result, stdout, stderr);
    }

    /// Keeps the current input's result, and goes on to the next input.
    fn push(&mut self, mut result: JobResult, stdout: Vec<u8>, mut stderr: Vec<u8>) {
        let now = Clock::Boottime.now_ns();
        let stdin = self.inputs.pop_front().unwrap_or_default();
        result.trace_id.clone_from(&self.trace_id);
        result.execution_time_ms = now.saturating_sub(self.started_ns) / 1_000_000;
        if let Some(reason) = result.stderr.take() {
            stderr = reason.into_bytes();
        }
        if self.is_batch {
            result.stdin = stdin;
        }
        self.kept_bytes = self
            .kept_bytes
            .saturating_add(stdout.len())
            .saturating_add(stderr.len());
        self.started_ns = now;
        self.results.push(Outcome {
            result,
            stdout,
            stderr,
        });
    }

    /// Cuts the longest output of the results to half of it.
    pub(super) fn cut_output(&mut self) {
        let outputs = self
            .results
            .iter_mut()
            .flat_map(|outcome| [&mut outcome.stdout, &mut outcome.stderr]);
        let Some(longest) = outputs.max_by_key(|output| output.len()) else {
            return;
        };
        let before = longest.len();
        longest.truncate(before / 2);
        longest.truncate(whole_letters(longest).len());
        longest.shrink_to_fit();
        longest.extend_from_slice(TRUNCATED.as_bytes());
        let gone = before.saturating_sub(longest.len());
        self.kept_bytes = self.kept_bytes.saturating_sub(gone);
    }

    /// The output in its results, in bytes.
    pub(super) fn output_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// All that is held for it.
    pub(super) fn held_bytes(&self) -> usize {
        let inputs: usize = self.inputs.iter().map(String::len).sum();
        let told: usize = self
            .results
            .iter()
            .map(|outcome| outcome.result.stdin.len())
            .sum();
        inputs.saturating_add(told).saturating_add(self.kept_bytes)
    }
}

/// Whether a program is in one of the folders of `path`, or at its own.
fn finds(program: &str, path: &str) -> bool {
    let is_program = |path: &str| rustix::fs::access(path, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return is_program(program);
    }
    path.split(':')
        .any(|folder| is_program(&alloc::format!("{folder}/{program}")))
}
