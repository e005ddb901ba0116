//! The languages that `run` takes code in, and how each is run inside the guest.

/// A language.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Language {
    /// Its name, which is also the name of its image (`rootfs-python.ext4`).
    pub(crate) name: &'static str,
    aliases: &'static [&'static str],
    /// What its source files end with.
    extension: &'static str,
    /// Program and option before a snippet of code; empty where code must be in a file.
    snippet: &'static [&'static str],
    run_file: RunFile,
}

#[derive(Debug, PartialEq, Eq)]
enum RunFile {
    /// This program and these options, then the file.
    Interpreter(&'static [&'static str]),
    /// A shell script whose `$1` is the file; its folder is writable.
    Script(&'static str),
}

static LANGUAGES: [Language; 11] = [
    interpreted(
        "python",
        &["python3", "py"],
        "py",
        &["python3", "-c"],
        &["python3"],
    ),
    interpreted(
        "nodejs",
        &["node", "js", "javascript"],
        "js",
        &["node", "-e"],
        &["node"],
    ),
    interpreted("bash", &[], "sh", &["bash", "-c"], &["bash"]),
    interpreted("sh", &["shell"], "sh", &["sh", "-c"], &["sh"]),
    interpreted("ruby", &["rb"], "rb", &["ruby", "-e"], &["ruby"]),
    interpreted("php", &[], "php", &[], &["php"]),
    interpreted("perl", &["pl"], "pl", &["perl", "-e"], &["perl"]),
    interpreted("java", &[], "java", &[], &["java"]),
    compiled(
        "go",
        &["golang"],
        "go",
        r#"cd "${1%/*}" && HOME=${HOME:-/tmp} && export HOME && exec go run "$1""#,
    ),
    compiled(
        "rust",
        &["rs"],
        "rs",
        r#"cd "${1%/*}" && rustc -O -o program "$1" && exec ./program"#,
    ),
    // The first is of our recipe and of Runner Codes' images, the second is in .NET 10.
    compiled(
        "dotnet",
        &["csharp", "cs"],
        "cs",
        r#"if command -v csharp-run > /dev/null; then exec csharp-run "$1"; else exec dotnet run "$1"; fi"#,
    ),
];

const fn interpreted(
    name: &'static str,
    aliases: &'static [&'static str],
    extension: &'static str,
    snippet: &'static [&'static str],
    interpreter: &'static [&'static str],
) -> Language {
    Language {
        name,
        aliases,
        extension,
        snippet,
        run_file: RunFile::Interpreter(interpreter),
    }
}

const fn compiled(
    name: &'static str,
    aliases: &'static [&'static str],
    extension: &'static str,
    script: &'static str,
) -> Language {
    Language {
        name,
        aliases,
        extension,
        snippet: &[],
        run_file: RunFile::Script(script),
    }
}

/// One argument of a Linux program has at most 128 KiB with its NUL (`MAX_ARG_STRLEN`).
const MAX_SNIPPET_LEN: usize = 128 * 1024 - 1;

impl Language {
    /// The language that a word names, in any case.
    pub(crate) fn named(word: &str) -> Option<&'static Language> {
        let word = word.to_ascii_lowercase();
        LANGUAGES
            .iter()
            .find(|language| language.name == word || language.aliases.contains(&word.as_str()))
    }

    /// The names of all.
    pub(crate) fn names() -> Vec<&'static str> {
        LANGUAGES.iter().map(|language| language.name).collect()
    }

    /// What runs code that no language is named for.
    pub(crate) const SHELL: &'static Language = &LANGUAGES[3];

    /// The language whose source files end so, without the dot.
    pub(crate) fn of_extension(extension: &str) -> Option<&'static Language> {
        let mut languages = LANGUAGES.iter().filter(|language| language.name != "bash"); // `.sh` is for any shell
        languages.find(|language| language.extension == extension)
    }

    /// The command for a snippet, if it can be given as an argument; else it must become a file.
    pub(crate) fn snippet_argv(&self, code: &str) -> Option<Vec<String>> {
        let fits = code.len() <= MAX_SNIPPET_LEN && !code.contains('\0') && !self.snippet.is_empty();
        fits.then(|| {
            self.snippet
                .iter()
                .copied()
                .chain([code])
                .map(str::to_owned)
                .collect()
        })
    }

    /// The name of the file that a snippet becomes.
    pub(crate) fn snippet_file(&self) -> String {
        match self.name {
            "java" => "Main.java".to_owned(),
            _ => format!("main.{}", self.extension),
        }
    }

    /// The command for a file in the guest, whose path must be added at the end.
    pub(crate) fn file_argv(&self) -> Vec<String> {
        let words = match self.run_file {
            RunFile::Interpreter(words) => words.to_vec(),
            RunFile::Script(script) => vec!["sh", "-c", script, "sh"],
        };
        words.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_one_word_each() {
        let mut words: Vec<&str> = LANGUAGES
            .iter()
            .flat_map(|language| language.aliases.iter().chain([&language.name]))
            .copied()
            .collect();
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
        assert_eq!(
            Language::named("JavaScript").map(|language| language.name),
            Some("nodejs")
        );
        assert_eq!(Language::named("alpine"), None);
        assert_eq!(Language::SHELL.name, "sh");
        assert_eq!(Language::of_extension("sh"), Some(Language::SHELL));
    }

    #[test]
    fn snippets_that_are_no_argument_become_files() {
        let python = Language::named("py").unwrap();
        assert_eq!(
            python.snippet_argv("print(1)").unwrap(),
            ["python3", "-c", "print(1)"]
        );
        assert_eq!(python.snippet_argv(&"#".repeat(128 * 1024)), None);
        assert_eq!(python.snippet_file(), "main.py");
        assert_eq!(python.file_argv(), ["python3"]);
        let rust = Language::named("rust").unwrap();
        assert_eq!(rust.snippet_argv("fn main() {}"), None);
        assert_eq!(rust.file_argv()[..2], ["sh", "-c"]);
    }

    /// But `devbox`, which has many, each image that firebrick makes is of a language that its code can be run in.
    #[test]
    fn each_recipe_of_a_language_is_one() {
        for name in firebrick_recipe::languages() {
            assert_eq!(Language::named(name).map(|language| language.name), Some(name));
        }
    }
}
