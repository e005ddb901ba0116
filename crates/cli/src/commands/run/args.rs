//! The flags of `firebrick run`, and what they ask for.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use firebrick_vmm::Job;

use crate::home::Home;
use crate::images;
use crate::language::Language;
use crate::text;

use super::machine::MachineArgs;

const DEFAULT_LANG: &str = "python";

/// Boot a throw-away VM, run code or a command in it, and exit with its status
///
/// The image is not changed: what the program writes goes to memory and is gone afterwards. Without -c, -f or a command
/// the image's own ENTRYPOINT and CMD run. The program has the image's ENV, WORKDIR and USER.
///
/// Exit codes: the program's own (128 + N if signal N ended it); 124 if the time was up; 125 if firebrick failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The language of the code, and the image: rootfs-LANG.ext4 [default: python]
    ///
    /// In an image that is not named after a language, -c runs shell code, and -f goes by the end of the file's name.
    #[arg(short, long, value_name = "LANG")]
    lang: Option<String>,

    /// Another image than that of the language: a name or a path
    #[arg(short, long, value_name = "IMAGE")]
    image: Option<OsString>,

    /// The code to run
    #[arg(short, long, conflicts_with_all = ["file", "command"])]
    code: Option<String>,

    /// The file with the code to run
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    file: Option<PathBuf>,

    /// A command and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,

    /// Stop the program after so many seconds (booting is not counted; 0: never)
    #[arg(short, long, value_name = "SEC", default_value_t = 30)]
    timeout: u64,

    /// Set a variable for the program; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse_env)]
    env: Vec<(String, Option<String>)>,

    /// Start the program in this folder of the image
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// Run the program as this user of the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Pass standard input on (it is anyway unless it is a terminal)
    #[arg(long)]
    stdin: bool,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,

    /// Give up if the guest does not answer within so many seconds
    #[arg(long, value_name = "SEC", default_value_t = 120, help_heading = "Machine")]
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

/// Longest source file, in bytes: it travels as arguments of one program, of which Linux takes 2 MiB.
const MAX_SOURCE_LEN: usize = 1 << 20;

impl Args {
    /// The image file.
    pub(crate) fn image(&self, home: &Home) -> anyhow::Result<PathBuf> {
        match (&self.image, &self.lang) {
            (Some(image), _) => images::find(home, image),
            (None, lang) => {
                let word = lang.as_deref().unwrap_or(DEFAULT_LANG);
                // `-l node` means the image of nodejs, unless somebody has named one "node".
                let canonical = Language::named(word).map_or(word, |language| language.name);
                images::find(home, word.as_ref()).or_else(|error| match canonical == word {
                    true => Err(error),
                    false => images::find(home, canonical.as_ref()),
                })
            }
        }
    }

    /// What shall run.
    pub(crate) fn job(&self) -> anyhow::Result<Job> {
        if let Some(code) = &self.code {
            let language = self.language(None);
            return match language.snippet_argv(code) {
                Some(argv) => Ok(Job::Argv(argv)),
                None => source_job(language, &language.snippet_file(), code),
            };
        }
        if let Some(path) = &self.file {
            let language = self.language(Some(path));
            let code = fs::read_to_string(path).with_context(|| format!("cannot read {path:?}"))?;
            return source_job(language, &guest_file_name(path, language), &code);
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

    /// Variables on top of the image's.
    pub(crate) fn environment(&self) -> anyhow::Result<Vec<(String, String)>> {
        let resolve = |(name, value): &(String, Option<String>)| match value {
            Some(value) => Ok(Some((name.clone(), value.clone()))),
            None => match std::env::var(name) {
                Ok(value) => Ok(Some((name.clone(), value))),
                Err(std::env::VarError::NotPresent) => Ok(None), // as docker has it
                Err(error) => Err(error).with_context(|| format!("cannot pass variable {name} on")),
            },
        };
        Ok(self
            .env
            .iter()
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
        self.stdin || !std::io::IsTerminal::is_terminal(&std::io::stdin())
    }
}

/// Puts the code into a file of a folder of its own, then becomes the command that the rest of the arguments are.
/// `$1` is the file's name, `$2` the number of pieces, then come the pieces and the command.
const PUT_AND_RUN: &str = r#"
set -e
dir=$(mktemp -d /tmp/run.XXXXXX)
file=$dir/$1 pieces=$2
shift 2
: > "$file"
while [ "$pieces" -gt 0 ]; do
    printf %s "$1" >> "$file"
    pieces=$((pieces - 1))
    shift
done
exec "$@" "$file"
"#;

/// The job that runs code from a file named `name`, put into the guest as arguments of a shell.
fn source_job(language: &Language, name: &str, code: &str) -> anyhow::Result<Job> {
    if code.len() > MAX_SOURCE_LEN {
        bail!(
            "the code has {}, at most {} can be run",
            text::bytes_of(code.len()),
            text::bytes_of(MAX_SOURCE_LEN)
        );
    }
    if code.contains('\0') {
        bail!("the code contains a NUL byte");
    }
    let pieces = pieces(code);
    let mut argv: Vec<String> = ["sh", "-c", PUT_AND_RUN, "sh", name].map(str::to_owned).to_vec();
    argv.push(pieces.len().to_string());
    argv.extend(pieces.into_iter().map(str::to_owned));
    argv.extend(language.file_argv());
    Ok(Job::Argv(argv))
}

/// Cuts text into pieces that each fit one argument.
fn pieces(mut text: &str) -> Vec<&str> {
    const PIECE_LEN: usize = 100_000;
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let (piece, rest) = text.split_at(text.floor_char_boundary(PIECE_LEN));
        pieces.push(piece);
        text = rest;
    }
    pieces
}

/// The file's own name, so that messages of the interpreter are recognised; a name of ours if it is odd.
fn guest_file_name(path: &Path, language: &Language) -> String {
    let good = |name: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        name.bytes().all(plain) && !name.starts_with(['-', '.']) && name.len() <= 200
    };
    let name = path.file_name().and_then(|name| name.to_str()).filter(good);
    name.map_or_else(|| language.snippet_file(), str::to_owned)
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
    fn files_keep_plain_names() {
        let python = Language::named("python").unwrap();
        for (path, name) in [
            ("/a/script.py", "script.py"),
            ("-x.py", "main.py"),
            ("a b.py", "main.py"),
            ("/", "main.py"),
        ] {
            assert_eq!(guest_file_name(Path::new(path), python), name, "{path}");
        }
    }

    #[test]
    fn files_travel_in_pieces() {
        let code = "x".to_owned() + &"é".repeat(150_000); // 300 KB, and a cut would fall inside a letter
        let Job::Argv(argv) = source_job(Language::named("python").unwrap(), "main.py", &code).unwrap()
        else {
            panic!("a source is run by a shell");
        };
        assert_eq!(argv[3..6], ["sh", "main.py", "4"]);
        assert_eq!(argv[6..10].concat(), code);
        assert_eq!(argv[10..], ["python3"]);
        assert!(argv.iter().all(|argument| argument.len() < 128 * 1024));
        let error = source_job(Language::named("sh").unwrap(), "x", &"x".repeat(2 << 20)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the code has 2.0 MiB, at most 1.0 MiB can be run"
        );
    }

    /// The script itself, run by the shell of this machine.
    #[test]
    fn file_arrives_whole() {
        let code = format!(
            "printf '%s' \"$0\" | sed 's/.*[.]//'; echo ' {}'",
            "%s \\n".repeat(30_000)
        );
        let Job::Argv(argv) = source_job(Language::named("sh").unwrap(), "a.sh", &code).unwrap() else {
            panic!("a source is run by a shell");
        };
        let output = std::process::Command::new(&argv[0])
            .args(&argv[1..])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("sh"), "{}", &text[..40.min(text.len())]);
        assert!(text.len() > 100_000);
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
    }
}
