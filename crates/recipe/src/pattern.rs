//! Patterns of file names, as `COPY` and `.dockerignore` have them.
//!
//! `*` and `?` stop at slashes, `**` does not; `[a-z]` and `[^a-z]` are sets; a backslash takes the next character as it is.

/// Whether a pattern means a path. Hostile patterns take time in proportion to both, times their stars.
pub fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    let path: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    // Which beginnings of the path the pattern so far means.
    let mut states = vec![false; path.len() + 1];
    states[0] = true;
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        for at in 0..=path.len() {
            if part == "**" {
                next[at] = states[..=at].iter().any(|&state| state);
            } else if let Some(name) = path.get(at)
                && states[at]
                && name_matches(part, name)
            {
                next[at + 1] = true;
            }
        }
        states = next;
    }
    states[path.len()]
}

/// A pattern's piece: what one character of a name must be.
enum Piece {
    Star,
    Any,
    One(char),
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

fn name_matches(pattern: &str, name: &str) -> bool {
    let pieces = pieces(pattern);
    let name: Vec<char> = name.chars().collect();
    let mut states = vec![false; name.len() + 1];
    states[0] = true;
    for piece in &pieces {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            let here = name.get(at).copied();
            match piece {
                Piece::Star => next[at] = states[..=at].iter().any(|&state| state),
                _ if !states[at] => {}
                _ => {
                    if here.is_some_and(|c| piece.takes(c)) {
                        next[at + 1] = true;
                    }
                }
            }
        }
        states = next;
    }
    states[name.len()]
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Piece::Star | Piece::Any => true,
            Piece::One(own) => *own == c,
            Piece::Set { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
        }
    }
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        pieces.push(match c {
            '*' => Piece::Star,
            '?' => Piece::Any,
            '\\' => Piece::One(rest.next().unwrap_or('\\')),
            '[' => match set(rest.as_str()) {
                Some((piece, len)) => {
                    rest = rest.as_str()[len..].chars();
                    piece
                }
                None => Piece::One('['),
            },
            other => Piece::One(other),
        });
    }
    pieces
}

/// The set behind a `[`, and how many bytes it takes.
fn set(text: &str) -> Option<(Piece, usize)> {
    let end = text.char_indices().skip(1).find(|(_, c)| *c == ']')?.0;
    let inside = &text[..end];
    let (negated, inside) = match inside.strip_prefix('^').or_else(|| inside.strip_prefix('!')) {
        Some(inside) => (true, inside),
        None => (false, inside),
    };
    let chars: Vec<char> = inside.chars().collect();
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(&from) = chars.get(at) {
        match (chars.get(at + 1), chars.get(at + 2)) {
            (Some('-'), Some(&to)) => {
                ranges.push((from, to));
                at += 3;
            }
            _ => {
                ranges.push((from, from));
                at += 1;
            }
        }
    }
    Some((Piece::Set { negated, ranges }, end + 1))
}

/// A `.dockerignore`: what of a folder is not there for `COPY`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    /// Patterns in order, and whether each takes back what others exclude.
    rules: Vec<(String, bool)>,
}

impl Ignore {
    /// Reads the lines of the file.
    pub fn parse(text: &str) -> Ignore {
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let rules = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| match line.strip_prefix('!') {
                Some(back) => (back.trim().to_owned(), true),
                None => (line.to_owned(), false),
            })
            .collect();
        Ignore { rules }
    }

    /// Whether a path from the folder is excluded: the last rule that means it, or a folder that it is in, counts.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for (pattern, back) in &self.rules {
            let prefixes = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
            if prefixes.into_iter().any(|prefix| matches(pattern, prefix)) {
                excluded = !back;
            }
        }
        excluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_slashes_unless_doubled() {
        for (pattern, path, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("**/*.txt", "a.txt", true),
            ("**/*.txt", "d/e/a.txt", true),
            ("d/**", "d/e/f", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("./a", "a", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        let stars = "*a".repeat(200);
        assert!(!matches(&stars, &"a".repeat(199)), "and in no time");
    }

    #[test]
    fn the_last_rule_counts() {
        let ignore = Ignore::parse("# comment\n*.log\n!keep.log\n/target\nnode_modules\n");
        for (path, excluded) in [
            ("a.log", true),
            ("keep.log", false),
            ("target/x/y", true),
            ("src/node_modules/x", false),
            ("node_modules/x", true),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.excludes(path), excluded, "{path}");
        }
    }
}
