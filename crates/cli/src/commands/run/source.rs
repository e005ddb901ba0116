//! Code on its way into the guest: a shell there puts it into a file, since an argument has neither the room nor all bytes.

use std::borrow::Cow;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use firebrick_vmm::Job;

use crate::error::CliError;
use crate::language::Language;

/// The most that a source may be as arguments of one program, in bytes: Linux takes 2 MiB, the environment included.
const MAX_SOURCE_LEN: usize = 1 << 20;

/// Puts the code into a file of a folder of its own, then becomes the command that the rest of the arguments are.
/// `$1` is the file's name, `$2` how `printf` writes a piece, `$3` the number of pieces, then come the pieces and the command.
const PUT_AND_RUN: &str = r#"
set -e
dir=$(mktemp -d /tmp/run.XXXXXX)
file=$dir/$1 form=$2 pieces=$3
shift 3
: > "$file"
while [ "$pieces" -gt 0 ]; do
    printf "$form" "$1" >> "$file"
    pieces=$((pieces - 1))
    shift
done
exec "$@" "$file"
"#;

/// Reads a source, but not without end: one that is too long is refused later.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut code = Vec::new();
    let limit = u64::try_from(MAX_SOURCE_LEN)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    fs::File::open(path)?.take(limit).read_to_end(&mut code)?;
    Ok(code)
}

/// The job that runs code from a file named `name`, put into the guest as arguments of a shell. Any bytes can be code: what
/// is no text travels in octal.
pub(super) fn job(language: &Language, name: &str, code: &[u8]) -> anyhow::Result<Job> {
    let (form, code) = match std::str::from_utf8(code) {
        Ok(code) if !code.contains('\0') => ("%s", Cow::Borrowed(code)),
        _ => ("%b", Cow::Owned(octal(code))),
    };
    if code.len() > MAX_SOURCE_LEN {
        return Err(CliError::CodeTooLong {
            len: code.len(),
            limit: MAX_SOURCE_LEN,
        }
        .into());
    }
    let pieces = pieces(&code);
    let mut argv: Vec<String> = ["sh", "-c", PUT_AND_RUN, "sh", name, form]
        .map(str::to_owned)
        .to_vec();
    argv.push(pieces.len().to_string());
    argv.extend(pieces.into_iter().map(str::to_owned));
    argv.extend(language.file_argv());
    Ok(Job::Argv(argv))
}

/// Bytes as `printf %b` takes them: `\0ooo` for all that is not plain text.
fn octal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' | 0x7f.. => text.push_str(&format!("\\0{byte:03o}")),
            b'\n' | b'\t' | b' '.. => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\0{byte:03o}")),
        }
    }
    text
}

/// Cuts text into pieces that each fit one argument, and none of them inside a letter or an escape.
fn pieces(mut text: &str) -> Vec<&str> {
    const PIECE_LEN: usize = 100_000;
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let mut end = text.floor_char_boundary(PIECE_LEN);
        if end < text.len()
            && let Some(escape) = text[..end].rfind('\\').filter(|at| end - at < "\\0ooo".len())
        {
            end = escape;
        }
        let (piece, rest) = text.split_at(end);
        pieces.push(piece);
        text = rest;
    }
    pieces
}

/// The file's own name, so that messages of the interpreter are recognised; a name of ours if it is odd.
pub(super) fn guest_file_name(path: &Path, language: &Language) -> String {
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

    fn source_argv(language: &str, name: &str, code: &[u8]) -> Vec<String> {
        match job(Language::named(language).unwrap(), name, code).unwrap() {
            Job::Argv(argv) => argv,
            other => panic!("a source is run by a shell: {other:?}"),
        }
    }

    #[test]
    fn files_travel_in_pieces() {
        let code = "x".to_owned() + &"é".repeat(150_000); // 300 KB, and a cut would fall inside a letter
        let argv = source_argv("python", "main.py", code.as_bytes());
        assert_eq!(argv[3..7], ["sh", "main.py", "%s", "4"]);
        assert_eq!(argv[7..11].concat(), code);
        assert_eq!(argv[11..], ["python3"]);
        assert!(argv.iter().all(|argument| argument.len() < 128 * 1024));
        let error = job(Language::named("sh").unwrap(), "x", &[b'x'; 2 << 20]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the code has 2.0 MiB or more, at most 1.0 MiB can be sent"
        );
    }

    /// The script itself, run by the shells that tests have.
    #[test]
    fn file_arrives_whole() {
        let text = format!("printf '%s %s' \"$1\" '{}'", "%s \\n".repeat(30_000));
        let latin1 = b"printf 'caf\xe9 \\n' # \\0101".repeat(3000);
        let zeros = (0..=255).cycle().take(70_001).collect::<Vec<u8>>();
        for code in [text.as_bytes(), &latin1, &zeros] {
            let mut argv = source_argv("sh", "a.sh", code);
            assert_eq!(argv.pop().unwrap(), "sh");
            argv.extend(["cat".to_owned()]);
            for shell in [&["sh"][..], &["busybox", "sh"]] {
                let output = std::process::Command::new(shell[0])
                    .args(&shell[1..])
                    .args(&argv[1..])
                    .output()
                    .unwrap();
                assert!(output.stdout == code, "{shell:?}: {output:?}");
            }
        }
    }
}
