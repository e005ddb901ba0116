//! The flags of `firebrick run`, and what they ask for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use firebrick_store::Reference;
use firebrick_vmm::Job;

use crate::error::CliError;
use crate::home::Home;
use crate::image_file::printable;
use crate::images;
use crate::language::Language;
use crate::lazy::{self, Served};
use crate::remote::StoreArgs;
use crate::talk::Talk;
use crate::text;

use super::machine::MachineArgs;
use super::source;

const DEFAULT_LANG: &str = "python";

/// Boot a throw-away VM, run code or a command in it, and exit with its status
///
/// The image is not changed: what the program writes goes to memory and is gone afterwards. Without -c, -f or a command
/// the image's own ENTRYPOINT and CMD run. The program has the image's ENV, WORKDIR and USER.
///
/// Exit codes: the program's own (128 + N if signal N ended it); 124 if the time was up; 125 if firebrick failed.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| StoreArgs::requiring("lazy", &["image", "pool"], arg)))]
pub(crate) struct Args {
    /// The language of the code, and the image: rootfs-LANG.ext4 [default: python]
    ///
    /// In an image that is not named after a language, -c runs shell code, and -f goes by the end of the file's name. With
    /// -i it must be one of these, or the image's name: python, nodejs, bash, sh, ruby, php, perl, java, go, rust or dotnet.
    #[arg(short, long, value_name = "LANG", value_parser = text_parser())]
    lang: Option<String>,

    /// Another image than that of the language: a name or a path
    #[arg(short, long, value_name = "IMAGE")]
    image: Option<OsString>,

    /// An image of the store, of which only what is read is fetched
    #[arg(long, value_name = "NAME[:TAG][@DIGEST]", conflicts_with_all = ["image", "pool"], help_heading = "Store")]
    lazy: Option<Reference>,

    #[command(flatten)]
    store: StoreArgs,

    /// The code to run
    #[arg(short, long, conflicts_with_all = ["file", "command"])]
    code: Option<OsString>,

    /// The file with the code to run
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    file: Option<PathBuf>,

    /// A command and its arguments
    #[arg(last = true, value_name = "CMD", value_parser = OsStringValueParser::new().try_map(parse_word))]
    command: Vec<String>,

    /// Stop the program after so many seconds (booting is not counted; 0: never)
    #[arg(short, long, value_name = "SEC", default_value_t = 30)]
    timeout: u64,

    /// Set a variable for the program; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = text_parser().try_map(|text| parse_env(&text)))]
    env: Vec<(String, Option<String>)>,

    /// Start the program in this folder of the image
    #[arg(short, long, value_name = "DIR", value_parser = text_parser())]
    workdir: Option<String>,

    /// Run the program as this user of the image
    #[arg(short, long, value_name = "USER[:GROUP]", value_parser = text_parser())]
    user: Option<String>,

    /// Pass standard input on (it is anyway unless it is a terminal)
    #[arg(long)]
    stdin: bool,

    /// Give the program a terminal of its own, joined to this one: for shells and editors
    #[arg(long)]
    pub(crate) tty: bool,

    /// Copy a file or folder of this host into the VM before the program starts; root owns it there
    #[arg(long, value_name = "SRC:DST", value_parser = OsStringValueParser::new().try_map(parse_put))]
    pub(crate) put: Vec<(PathBuf, String)>,

    /// Copy a file or folder of the VM to this host after the program has ended, however it did
    #[arg(long, value_name = "SRC:DST", value_parser = OsStringValueParser::new().try_map(parse_get))]
    pub(crate) get: Vec<(String, PathBuf)>,
    /// Take a VM of the image's pool, and wait for one if none is warm
    ///
    /// Without it one is taken if there is a pool and it has one right now.
    #[arg(long)]
    pool: bool,

    /// Boot a VM even if there is a pool
    #[arg(long, conflicts_with = "pool")]
    no_pool: bool,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,

    /// Give up if the guest does not answer within so many seconds
    #[arg(
        long,
        value_name = "SEC",
        default_value_t = 120,
        help_heading = "Machine",
        hide_short_help = true
    )]
    boot_timeout: u64,
}

fn parse_env(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        Err("a variable needs a name".to_owned())
    } else {
        Ok((name.to_owned(), value))
    }
}

/// `SRC:DST`, where DST is an absolute path of the guest, so that SRC may have colons.
fn parse_put(word: OsString) -> Result<(PathBuf, String), String> {
    let bytes = word.as_encoded_bytes();
    let at = bytes
        .windows(2)
        .rposition(|pair| pair == b":/")
        .filter(|at| *at > 0);
    let at = at.ok_or("expected SRC:DST, with an absolute path of the VM as DST")?;
    let to = std::str::from_utf8(&bytes[at + 1..]).map_err(|_| not_text(&bytes[at + 1..]))?;
    Ok((OsStr::from_bytes(&bytes[..at]).into(), to.to_owned()))
}

/// `SRC:DST`, where SRC is an absolute path of the guest without colons.
fn parse_get(word: OsString) -> Result<(String, PathBuf), String> {
    let bytes = word.as_encoded_bytes();
    let at = bytes
        .iter()
        .position(|byte| *byte == b':')
        .filter(|_| bytes.starts_with(b"/"));
    let at = at
        .filter(|at| at + 1 < bytes.len())
        .ok_or("expected SRC:DST, with an absolute path of the VM as SRC")?;
    let from = std::str::from_utf8(&bytes[..at]).map_err(|_| not_text(&bytes[..at]))?;
    Ok((from.to_owned(), OsStr::from_bytes(&bytes[at + 1..]).into()))
}

/// Whether a VM must come from a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolUse {
    /// A VM is booted where none is warm.
    May,
    /// It is waited for.
    Must,
}

/// The image of a language, or of that name.
pub(crate) fn image_of_lang(home: &Home, word: &str) -> anyhow::Result<PathBuf> {
    // `-l node` means the image of nodejs, unless somebody has named one "node".
    let canonical = Language::named(word).map_or(word, |language| language.name);
    images::find(home, word.as_ref()).or_else(|error| match canonical == word {
        true => Err(error),
        false => images::find(home, canonical.as_ref()),
    })
}

/// Takes text only: the protocol to the guest is JSON, which has no other bytes.
fn text_parser() -> impl clap::builder::TypedValueParser<Value = String> {
    OsStringValueParser::new().try_map(|value| text::utf8(value).map_err(|bytes| not_text(&bytes)))
}

fn not_text(bytes: &[u8]) -> String {
    format!(
        "{} is not UTF-8, and only text can be sent to the guest",
        printable(bytes)
    )
}

/// A word of the command; the guest's shell can make what cannot be sent.
fn parse_word(word: OsString) -> Result<String, String> {
    text::utf8(word).map_err(|bytes| {
        let escaped: String = bytes
            .iter()
            .map(|byte| match byte {
                b'/' | b'.' | b'-' | b'_' => char::from(*byte).to_string(),
                _ if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
                _ => format!("\\{byte:03o}"),
            })
            .collect();
        let wrong = not_text(&bytes);
        format!("{wrong}; let the guest's shell make it: -- sh -c 'exec PROGRAM \"$(printf \"{escaped}\")\"'")
    })
}

impl Args {
    /// The image file.
    pub(crate) fn image(&self, home: &Home) -> anyhow::Result<PathBuf> {
        match (&self.image, &self.lang) {
            (Some(image), _) => images::find(home, image),
            (None, lang) => image_of_lang(home, lang.as_deref().unwrap_or(DEFAULT_LANG)),
        }
    }

    /// The image of the store, served, if it is to be one of those.
    pub(crate) fn lazy(&self, home: &Home, talk: &Talk) -> anyhow::Result<Option<Served>> {
        let Some(reference) = &self.lazy else {
            return Ok(None);
        };
        let opened = lazy::open(&self.store, reference, home, talk)?;
        Served::start(opened, home, talk).map(Some)
    }

    /// How a VM of a pool is to be had; `None` where none is wanted.
    pub(crate) fn pool(&self) -> Option<PoolUse> {
        // Of a boot that is over there is no timeline to draw.
        let is_own = self.no_pool || self.lazy.is_some() || self.machine.timeline.is_some();
        match (self.pool, is_own) {
            (true, _) => Some(PoolUse::Must),
            (false, true) => None,
            (false, false) => Some(PoolUse::May),
        }
    }

    /// Code needs a language that is known; only the name of an image need not be one.
    pub(crate) fn check_language(&self) -> Result<(), CliError> {
        let (Some(word), Some(image)) = (&self.lang, &self.image) else {
            return Ok(());
        };
        let is_used = self.code.is_some() || self.file.is_some();
        if is_used && Language::named(word).is_none() && images::name_of(image.as_ref()) != *word {
            return Err(CliError::NoSuchLanguage { word: word.clone() });
        }
        Ok(())
    }

    /// What shall run.
    pub(crate) fn job(&self) -> anyhow::Result<Job> {
        if let Some(code) = &self.code {
            let language = self.language(None);
            return match code.to_str().and_then(|code| language.snippet_argv(code)) {
                Some(argv) => Ok(Job::Argv(argv)),
                None => source::job(language, &language.snippet_file(), code.as_encoded_bytes()),
            };
        }
        if let Some(path) = &self.file {
            let language = self.language(Some(path));
            let code = source::read(path).with_context(|| format!("cannot read {path:?}"))?;
            return source::job(language, &source::guest_file_name(path, language), &code);
        }
        match self.command.is_empty() {
            true => Ok(Job::Default),
            false => Ok(Job::Argv(self.command.clone())),
        }
    }

    /// The language that -l names, else the one of the file's name, else the shell: an image need not be named after a
    /// language.
    fn language(&self, file: Option<&Path>) -> &'static Language {
        let image = self.image.as_deref().map(|image| images::name_of(image.as_ref()));
        let lazy = self
            .lazy
            .as_ref()
            .map(|reference| reference.tagged.name.to_string());
        let image = image.or(lazy);
        let word = self.lang.as_deref().or(image.as_deref()).unwrap_or(DEFAULT_LANG);
        Language::named(word)
            .or_else(|| Language::of_extension(file?.extension()?.to_str()?))
            .unwrap_or(Language::SHELL)
    }

    /// How long the program may run.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        (self.timeout > 0).then(|| Duration::from_secs(self.timeout))
    }

    /// How long the guest may take to answer.
    pub(crate) fn boot_timeout(&self) -> Duration {
        Duration::from_secs(self.boot_timeout)
    }

    /// Variables on top of the image's. What is on this terminal must know its kind.
    pub(crate) fn environment(&self) -> anyhow::Result<Vec<(String, String)>> {
        let resolve = |(name, value): &(String, Option<String>)| match value {
            Some(value) => Ok(Some((name.clone(), value.clone()))),
            None => match std::env::var(name) {
                Ok(value) => Ok(Some((name.clone(), value))),
                Err(std::env::VarError::NotPresent) => Ok(None), // as docker has it
                Err(error) => Err(error).with_context(|| format!("cannot pass variable {name} on")),
            },
        };
        let term = self.tty.then(|| ("TERM".to_owned(), None));
        Ok(term
            .iter()
            .chain(&self.env)
            .map(resolve)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    pub(crate) fn workdir(&self) -> Option<String> {
        self.workdir.clone()
    }

    pub(crate) fn user(&self) -> Option<String> {
        self.user.clone()
    }

    /// A program must not eat a terminal's input (or stop in the background for it) unless asked to.
    pub(crate) fn wants_stdin(&self) -> bool {
        self.stdin || self.tty || !std::io::IsTerminal::is_terminal(&std::io::stdin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        let words = ["run"].iter().chain(words);
        <Command as clap::Parser>::try_parse_from(words).map(|command| command.args)
    }

    fn job(words: &[&str]) -> Job {
        parse(words).unwrap().job().unwrap()
    }

    #[test]
    fn copies_name_both_sides() {
        let args = parse(&["--put", "a:b:/c:d", "--put", "x:/y", "--get", "/a:b:c"]).unwrap();
        assert_eq!(
            args.put,
            [("a:b".into(), "/c:d".to_owned()), ("x".into(), "/y".to_owned())]
        );
        assert_eq!(args.get, [("/a".to_owned(), "b:c".into())]);
        for wrong in [
            ["--put", "a"],
            ["--put", "a:b"],
            ["--put", ":/b"],
            ["--get", "a:b"],
            ["--get", "/a"],
            ["--get", "/a:"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn code_runs_in_the_language() {
        let argv = |words: &[&str]| Job::Argv(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(job(&["-c", "print(1)"]), argv(&["python3", "-c", "print(1)"]));
        assert_eq!(job(&["-l", "node", "-c", "1"]), argv(&["node", "-e", "1"]));
        assert_eq!(job(&["-l", "alpine", "--", "ls", "-l"]), argv(&["ls", "-l"]));
        assert_eq!(job(&[]), Job::Default);
        assert_eq!(job(&["-l", "alpine", "-c", "id"]), argv(&["sh", "-c", "id"]));
    }

    #[test]
    fn language_of_a_file_is_that_of_the_image_or_of_its_name() {
        let language = |image: &str, file: &str| {
            let args = parse(&["-l", image, "-f", file]).unwrap();
            args.language(Some(Path::new(file))).name
        };
        assert_eq!(
            parse(&["-i", "/x/rootfs-ruby.ext4"]).unwrap().language(None).name,
            "ruby"
        );
        assert_eq!(parse(&["-i", "app"]).unwrap().language(None).name, "sh");
        assert_eq!(language("python", "x.rb"), "python");
        assert_eq!(language("devbox", "x.rb"), "ruby");
        assert_eq!(language("devbox", "Makefile"), "sh");
        assert_eq!(parse(&["-f", "x.rb"]).unwrap().language(None).name, "python");
    }

    #[test]
    fn words_that_are_no_text_are_refused_with_a_way_out() {
        use std::os::unix::ffi::OsStringExt as _;
        let latin1 = OsString::from_vec(b"caf\xe9 1".to_vec());
        let parsed = |words: &[&str]| {
            let words = ["run"].iter().chain(words).map(OsString::from);
            let words = words.chain([latin1.clone()]);
            <Command as clap::Parser>::try_parse_from(words).map(|command| command.args)
        };
        let error = parsed(&["--", "cat"]).unwrap_err().to_string();
        let way_out = r#"caf\xe9 1 is not UTF-8, and only text can be sent to the guest; let the guest's shell make it: -- sh -c 'exec PROGRAM "$(printf "caf\351\0401")"'"#;
        assert!(error.contains(way_out), "{error}");
        for flag in ["--workdir", "--user", "--env", "--lang"] {
            let error = parsed(&[flag]).unwrap_err().to_string();
            assert!(
                error.contains(flag) && error.contains("caf\\xe9 1 is not UTF-8"),
                "{error}"
            );
        }
        // Code is a file's bytes.
        let Job::Argv(argv) = parsed(&["-l", "sh", "-c"]).unwrap().job().unwrap() else {
            panic!("it is run by a shell");
        };
        assert_eq!(argv[5..8], ["%b", "1", "caf\\0351 1"]);
    }

    #[test]
    fn usage_that_makes_no_sense_is_refused() {
        for words in [
            &["-c", "1", "-f", "x"][..],
            &["-c", "1", "--", "ls"],
            &["-e", "=x"],
            &["--vcpus", "0"],
            &["--mem", "x"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        let args = parse(&["-e", "A=b=c", "-e", "FIREBRICK_TEST_IS_UNSET"]).unwrap();
        assert_eq!(args.environment().unwrap(), [("A".to_owned(), "b=c".to_owned())]);
        // A terminal's program knows its kind, unless told another: the last one counts.
        let args = parse(&["--tty", "-e", "TERM=dumb"]).unwrap();
        let mut term = args.environment().unwrap();
        assert_eq!(term.pop(), Some(("TERM".to_owned(), "dumb".to_owned())));
        let own = std::env::var("TERM").ok().map(|term| ("TERM".to_owned(), term));
        assert_eq!(term.pop(), own);
    }
}
