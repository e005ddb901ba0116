//! The languages of the job protocol: what their code's file is called, how it is compiled, and what runs it.

/// A language.
#[derive(Debug, Clone, Copy)]
pub struct Language {
    /// Its name.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// The file that `code` is put into.
    pub file: &'static str,
    /// Command lines that compile it, of which the first whose program is there is used. None: it is not compiled.
    pub compile: &'static [&'static [Word]],
    /// Command lines that run it, chosen likewise.
    pub run: &'static [&'static [Word]],
}

/// A word of a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// As it stands.
    Text(&'static str),
    /// The main file.
    Main,
    /// The main file, then all others beside it whose names end as its name does.
    Sources,
    /// The program that the compiler makes, `runbin` in the work folder.
    Program,
    /// The main file's name without its end: the class that is in it.
    Class,
}

use Word::{Class, Main, Program, Sources, Text};

/// `program FILE`.
macro_rules! with_file {
    ($($word:literal),+) => {
        &[$(Text($word)),+, Main]
    };
}

/// All of them.
pub const LANGUAGES: [Language; 14] = [
    interpreted(
        "python",
        &["python3", "py"],
        "script.py",
        &[with_file!("python3"), with_file!("python")],
    ),
    interpreted(
        "nodejs",
        &["node", "javascript", "js"],
        "script.js",
        &[with_file!("node"), with_file!("nodejs")],
    ),
    interpreted(
        "go",
        &["golang"],
        "script.go",
        &[&[Text("go"), Text("run"), Sources]],
    ),
    Language {
        name: "rust",
        aliases: &["rs"],
        file: "script.rs",
        compile: &[&[Text("rustc"), Text("-o"), Program, Main]],
        run: &[&[Program]],
    },
    interpreted("bash", &["base"], "script.sh", &[with_file!("bash")]),
    interpreted("sh", &["shell"], "script.sh", &[with_file!("sh")]),
    Language {
        name: "java",
        aliases: &[],
        file: "Main.java",
        // Classes go where the program starts, also those of a source that is in a folder.
        compile: &[&[Text("javac"), Text("-d"), Text("."), Sources]],
        run: &[&[Text("java"), Class]],
    },
    interpreted("ruby", &["rb"], "script.rb", &[with_file!("ruby")]),
    interpreted("php", &[], "script.php", &[with_file!("php")]),
    interpreted(
        "dotnet",
        &["csharp", "cs"],
        "script.cs",
        &[
            with_file!("/usr/local/bin/csharp-run"),
            with_file!("dotnet-script"),
            with_file!("dotnet", "run"),
        ],
    ),
    interpreted("perl", &[], "script.pl", &[with_file!("perl")]),
    interpreted("lua", &[], "script.lua", &[with_file!("lua")]),
    Language {
        name: "c",
        aliases: &[],
        file: "script.c",
        compile: &[
            &[Text("gcc"), Text("-o"), Program, Sources],
            &[Text("cc"), Text("-o"), Program, Sources],
        ],
        run: &[&[Program]],
    },
    Language {
        name: "cpp",
        aliases: &["c++"],
        file: "script.cpp",
        compile: &[
            &[Text("g++"), Text("-o"), Program, Sources],
            &[Text("c++"), Text("-o"), Program, Sources],
        ],
        run: &[&[Program]],
    },
];

const fn interpreted(
    name: &'static str,
    aliases: &'static [&'static str],
    file: &'static str,
    run: &'static [&'static [Word]],
) -> Language {
    Language {
        name,
        aliases,
        file,
        compile: &[],
        run,
    }
}

impl Language {
    /// The language of that name or alias.
    pub fn named(name: &str) -> Option<&'static Language> {
        LANGUAGES
            .iter()
            .find(|language| language.name == name || language.aliases.contains(&name))
    }
}
