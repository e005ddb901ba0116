//! What each method does.

use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use firebrick_protocol::agent::{
    Exec, ExecCode, ExecResult, JobOptions, LANGUAGES, Language, MAX_JOBS, MAX_OUTPUT_BYTES, NoParams, Pong,
    Resize, Shutdown, SignalJob, Stdin, TerminalSize, method,
};
use firebrick_protocol::files::Remove;
use firebrick_protocol::rpc::{
    BUSY, INVALID_REQUEST, Id, METHOD_NOT_FOUND, Request, RpcError, error_line, result_line,
};

use rustix::io::Errno;
use rustix::process::Rlimit;

use super::budget::MAX_JOBS_OF_ALL;
use super::conn::{Conn, Raw};
use super::job::{Plan, Purpose};
use super::spawn::{self, Command};
use super::work::{Direction, Work};
use super::{Agent, Ending, files, work};
use crate::kernel::StringList;
use crate::users::{self, User};

/// What PATH is where the image says nothing.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The most arguments and variables of a program together, and the most bytes in them. Each costs the agent some memory
/// beside its text, and kernels take no more as a rule.
const MAX_WORDS: usize = 65_536;
const MAX_WORD_BYTES: usize = 2 * 1024 * 1024;

/// So long a text is written to its file at once.
const AT_ONCE_BYTES: usize = 64 * 1024;

impl Agent {
    /// Answers one line of a connection that is taken out.
    pub(super) fn answer(&mut self, number: u32, conn: &mut Conn, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        if !self.has_answered {
            self.has_answered = true;
            self.boot.stamp("first_answer");
        }
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(bad) => return conn.misread(&bad.id, &bad.error),
        };
        match request.id.clone() {
            None => self.notified(conn, &request),
            Some(_) if request.method == method::STDIN => {
                let error = RpcError::new(INVALID_REQUEST, "stdin is a notification: it has no id");
                conn.break_off(&error);
            }
            Some(id) => {
                if let Err(error) = self.requested(number, conn, &id, &request) {
                    conn.send(error_line(&id, &error));
                }
            }
        }
    }

    /// Notifications are never answered, whatever is wrong with them.
    fn notified(&mut self, conn: &mut Conn, request: &Request<'_>) {
        match &*request.method {
            method::STDIN => match request.params() {
                Ok(Stdin { id, data, raw, eof }) => {
                    let job = self.job_of(conn, &id).unwrap_or(0);
                    let left = raw.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
                    conn.raw = Some(Raw { job, left, eof }).filter(|raw| raw.left > 0);
                    conn.has_announced |= raw.is_some();
                    self.job_stdin(job, data.0.into(), eof && left == 0);
                }
                // It may announce bytes; they must not be taken for lines.
                Err(error) => conn.break_off(&error),
            },
            method::SIGNAL | method::RESIZE => {
                let _ = self.tell_job(conn, request);
            }
            _ => {}
        }
    }

    /// `signal` and `resize`, with an id or without.
    fn tell_job(&self, conn: &Conn, request: &Request<'_>) -> Result<(), RpcError> {
        let job_of = |id| {
            let job = self.job_of(conn, id).and_then(|job| self.jobs.get(&job));
            job.ok_or_else(|| RpcError::invalid_params("no job of this connection has that `id`"))
        };
        if request.method == method::SIGNAL {
            let SignalJob { id, signal } = request.params()?;
            job_of(&id)?.signal(signal);
        } else {
            let Resize { id, rows, cols } = request.params()?;
            job_of(&id)?.resize(TerminalSize { rows, cols });
        }
        Ok(())
    }

    fn requested(
        &mut self,
        number: u32,
        conn: &mut Conn,
        id: &Id,
        request: &Request<'_>,
    ) -> Result<(), RpcError> {
        match &*request.method {
            method::PING => {
                request.params::<NoParams>()?;
                conn.send(result_line(id, Pong { pong: true }));
            }
            method::EXEC => {
                let exec: Exec = request.params()?;
                let failure_is_result = exec.cmd.is_some();
                let argv = self.argv_of(exec.cmd, exec.argv, exec.options.image_defaults)?;
                self.run_job(number, conn, id, argv, exec.options, failure_is_result)?;
            }
            method::EXEC_CODE => {
                let ExecCode { lang, code, options } = request.params()?;
                let Some(language) = Language::named(&lang.to_ascii_lowercase()) else {
                    conn.send(result_line(id, unsupported(&lang)));
                    return Ok(());
                };
                let argv = [language.program.into(), language.option.into(), code].into();
                self.run_job(number, conn, id, argv, options, true)?;
            }
            method::PUT => self.run_work(number, conn, id, Work::Put(request.params()?))?,
            method::GET => self.run_work(number, conn, id, Work::Get(request.params()?))?,
            method::REMOVE => {
                let remove: Remove = request.params()?;
                files::check_removal(&remove.place)?;
                if remove.recursive {
                    self.run_work(number, conn, id, Work::Remove(remove))?;
                } else {
                    conn.send(result_line(id, files::remove(&remove)?));
                }
            }
            method::READ_FILE => files::read_file(&request.params()?, id, &mut conn.out)?,
            method::WRITE_FILE => self.write_file(number, conn, id, request)?,
            method::LIST_DIR => files::list_dir(&request.params()?, id, &mut conn.out)?,
            method::STAT => conn.send(result_line(id, files::stat(&request.params()?)?)),
            method::MAKE_DIR => conn.send(result_line(id, files::make_dir(&request.params()?)?)),
            method::CLOCK_SYNC => conn.send(result_line(id, files::clock_sync(&request.params()?)?)),
            method::RESEED => conn.send(result_line(id, files::reseed(&request.params()?)?)),
            method::SIGNAL | method::RESIZE => {
                self.tell_job(conn, request)?;
                conn.send(result_line(id, NoParams {}));
            }
            method::STATUS => {
                request.params::<NoParams>()?;
                conn.send(result_line(id, self.status()));
            }
            method::SHUTDOWN => self.shut_down(conn, id, request.params()?)?,
            other => {
                return Err(RpcError::new(
                    METHOD_NOT_FOUND,
                    alloc::format!("method not found: {other}"),
                ));
            }
        }
        Ok(())
    }

    fn shut_down(&mut self, conn: &mut Conn, id: &Id, shutdown: Shutdown) -> Result<(), RpcError> {
        if !self.is_init {
            let words = "this agent is not PID 1: shut the machine down by its own init";
            return Err(RpcError::internal(words, None));
        }
        conn.send(result_line(id, NoParams {}));
        self.end(Ending::Asked(shutdown));
        Ok(())
    }

    /// A long text is copied when it is read, so a copy of the agent does that.
    fn write_file(
        &mut self,
        number: u32,
        conn: &mut Conn,
        id: &Id,
        request: &Request<'_>,
    ) -> Result<(), RpcError> {
        let write = || request.params().and_then(|params| files::write_file(&params));
        if request.params_len() <= AT_ONCE_BYTES {
            conn.send(result_line(id, write()?));
            return Ok(());
        }
        self.check_room(conn, id)?;
        self.start_work(
            number,
            conn,
            id.clone(),
            Direction::None,
            || work::report(write()),
        )
    }

    pub(super) fn argv_of(
        &self,
        cmd: Option<String>,
        argv: Option<Vec<String>>,
        image_defaults: bool,
    ) -> Result<Vec<String>, RpcError> {
        match (cmd, argv) {
            (Some(cmd), None) => Ok(["/bin/sh".into(), "-c".into(), cmd].into()),
            (None, Some(argv)) if !argv.is_empty() => Ok(argv),
            (None, None) if image_defaults => {
                let command = self.image.command();
                if command.is_empty() {
                    return Err(RpcError::invalid_params(
                        "the image has neither ENTRYPOINT nor CMD: say what to run",
                    ));
                }
                Ok(command)
            }
            (None, Some(_)) => Err(RpcError::invalid_params("`argv` is empty")),
            (Some(_), Some(_)) => Err(RpcError::invalid_params("`cmd` and `argv` exclude each other")),
            (None, None) => Err(RpcError::invalid_params("`cmd` or `argv` is needed")),
        }
    }

    fn run_job(
        &mut self,
        number: u32,
        conn: &mut Conn,
        id: &Id,
        argv: Vec<String>,
        options: JobOptions,
        failure_is_result: bool,
    ) -> Result<(), RpcError> {
        self.check_room(conn, id)?;
        if options.timeout_ms == Some(0) {
            let message = "timeout_ms: expected at least 1; leave it out for no limit";
            return Err(RpcError::invalid_params(message));
        }
        let command = self.command(argv, &options)?;
        let JobOptions {
            stdin,
            stream,
            timeout_ms,
            pty,
            ..
        } = options;
        let plan = Plan {
            purpose: Purpose::Request {
                id: id.clone(),
                stream,
                failure_is_result,
            },
            command,
            stdin,
            pty,
            timeout_ms,
            keep_bytes: MAX_OUTPUT_BYTES,
        };
        self.start_job(number, conn, plan)
    }

    /// Starts work on files, which is answered when it ends.
    fn run_work(&mut self, number: u32, conn: &mut Conn, id: &Id, work: Work) -> Result<(), RpcError> {
        self.check_room(conn, id)?;
        self.start_work(number, conn, id.clone(), work.direction(), || work.run())
    }

    /// Whether one more job may run on the connection, under this id.
    fn check_room(&self, conn: &Conn, id: &Id) -> Result<(), RpcError> {
        if self.job_of(conn, id).is_some() {
            return Err(RpcError::new(INVALID_REQUEST, "a job with this id is running"));
        }
        if self.jobs.len() >= MAX_JOBS_OF_ALL {
            return Err(RpcError::new(
                BUSY,
                alloc::format!("{MAX_JOBS_OF_ALL} jobs are running"),
            ));
        }
        if conn.jobs.len() >= MAX_JOBS {
            return Err(RpcError::new(
                BUSY,
                alloc::format!("{MAX_JOBS} jobs are running on this connection"),
            ));
        }
        Ok(())
    }

    /// Decides everything about a program before the fork.
    pub(super) fn command(&self, argv: Vec<String>, options: &JobOptions) -> Result<Command, RpcError> {
        let user = self.user(options)?;
        let env = self.environment(&user, &options.env)?;
        let cwd = self.working_directory(options)?;
        command_of(argv, env, cwd, user, self.open_files)
    }

    pub(super) fn user(&self, options: &JobOptions) -> Result<User, RpcError> {
        let of_image = if options.image_defaults {
            self.image.user.as_str()
        } else {
            ""
        };
        let spec = options.user.as_deref().unwrap_or(of_image);
        let own = rustix::process::geteuid().as_raw();
        // An agent that is not root can only run as itself.
        let spec = if spec.is_empty() && own != 0 {
            own.to_string()
        } else {
            spec.into()
        };
        let user = users::resolve(
            &spec,
            &crate::file::text("/etc/passwd"),
            &crate::file::text("/etc/group"),
        )
        .map_err(RpcError::invalid_params)?;
        // Where only the user is named, the group that comes with it is not asked for; the start refuses other users.
        if own != 0 && spec.contains(':') && user.gid != rustix::process::getegid().as_raw() {
            return Err(RpcError::internal(
                alloc::format!("cannot become group {}: only root can", user.gid),
                Some(Errno::PERM.raw_os_error()),
            ));
        }
        Ok(user)
    }

    pub(super) fn environment(
        &self,
        user: &User,
        extra: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, RpcError> {
        let mut env: BTreeMap<String, String> = self
            .image
            .env
            .iter()
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
        env.entry("HOME".into()).or_insert_with(|| user.home.clone());
        for (name, value) in extra {
            if name.is_empty() || name.contains('=') {
                return Err(RpcError::invalid_params(alloc::format!(
                    "{name:?} is no name of a variable"
                )));
            }
            env.insert(name.clone(), value.clone());
        }
        Ok(env)
    }

    fn working_directory(&self, options: &JobOptions) -> Result<CString, RpcError> {
        let of_image =
            Some(self.image.working_dir.as_str()).filter(|dir| options.image_defaults && !dir.is_empty());
        if let (None, Some(dir)) = (&options.cwd, of_image) {
            // Container runtimes make a WORKDIR that is missing. If that fails, entering it says why.
            let _ = crate::file::make_dirs(dir, 0o755);
        }
        c_string("cwd", options.cwd.as_deref().or(of_image).unwrap_or("/").into())
    }
}

/// The result for a language that is not there: as if it had been started in vain.
fn unsupported(lang: &str) -> ExecResult {
    let known: Vec<&str> = LANGUAGES.iter().map(|language| language.name).collect();
    let known = known.join(", ");
    ExecResult {
        exit_code: -1,
        stdout: Some(String::new()),
        stderr: Some(alloc::format!(
            "unsupported language: {lang} (there are: {known})"
        )),
        ..ExecResult::default()
    }
}

/// A program with all that it needs.
pub(super) fn command_of(
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: CString,
    user: User,
    open_files: Rlimit,
) -> Result<Command, RpcError> {
    let words = argv.len().saturating_add(env.len());
    let variables = env
        .iter()
        .map(|(name, value)| name.len().saturating_add(value.len()));
    let bytes: usize = argv.iter().map(String::len).chain(variables).sum();
    if words > MAX_WORDS || bytes > MAX_WORD_BYTES {
        return Err(RpcError::invalid_params(alloc::format!(
            "{words} arguments and variables of {bytes} bytes: at most {MAX_WORDS} of {MAX_WORD_BYTES} bytes can be given"
        )));
    }
    let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let argv = argv
        .into_iter()
        .map(|word| c_string("argv", word))
        .collect::<Result<Vec<_>, _>>()?;
    let candidates = argv
        .first()
        .map(|program| spawn::candidates(program, path))
        .unwrap_or_default();
    let env = env
        .into_iter()
        .map(|(name, value)| c_string("env", alloc::format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Command {
        candidates,
        argv: StringList::new(argv),
        env: StringList::new(env),
        cwd,
        user,
        open_files,
    })
}

/// A string for the kernel.
pub(super) fn c_string(what: &str, text: String) -> Result<CString, RpcError> {
    CString::new(text).map_err(|_| RpcError::invalid_params(alloc::format!("`{what}` holds a zero byte")))
}
