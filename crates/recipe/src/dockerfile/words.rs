//! Words, quotes and variables of a Dockerfile.

/// Longest text that variables may make of one, in bytes.
const EXPANDED_LEN_MAX: usize = 1 << 20;

/// Gives a variable's value.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Splits at blanks that are not quoted; quotes and backslashes stay where they are.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.push(c);
                word.extend(chars.next());
            }
            (c, Some(open)) => {
                word.push(c);
                if c == open {
                    quote = None;
                }
            }
            ('"' | '\'', None) => {
                word.push(c);
                quote = Some(c);
            }
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, None) => word.push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// Takes quotes and backslashes away, and leaves variables alone.
pub(super) fn unquoted(text: &str) -> Result<String, String> {
    resolve(text.trim(), None)
}

/// Takes quotes and backslashes away, and puts variables in where they are not in single quotes.
pub(super) fn expand_quoted(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    resolve(text, Some(lookup))
}

/// Puts variables in; quotes are letters like others.
pub(super) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'$') => out.extend(chars.next()),
            '$' => out.push_str(&variable(&mut chars, lookup)?),
            other => out.push(other),
        }
        if out.len() > EXPANDED_LEN_MAX {
            return Err("its variables make it longer than a mebibyte".to_owned());
        }
    }
    Ok(out)
}

fn resolve(text: &str, lookup: Option<Lookup<'_>>) -> Result<String, String> {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote, lookup) {
            ('\\', None | Some('"'), _) => match chars.next() {
                // Inside quotes only these mean anything behind a backslash.
                Some(next) if quote.is_none() || ['"', '\\', '$'].contains(&next) => {
                    if next == '$' && lookup.is_none() {
                        out.push('\\');
                    }
                    out.push(next);
                }
                Some(next) => out.extend(['\\', next]),
                None => out.push('\\'),
            },
            (c, Some(open), _) if c == open => quote = None,
            ('"' | '\'', None, _) => quote = Some(c),
            ('$', None | Some('"'), Some(lookup)) => out.push_str(&variable(&mut chars, lookup)?),
            (c, _, _) => out.push(c),
        }
        if out.len() > EXPANDED_LEN_MAX {
            return Err("its variables make it longer than a mebibyte".to_owned());
        }
    }
    match quote {
        Some(_) => Err("a quote is not closed".to_owned()),
        None => Ok(out),
    }
}

/// What stands behind a `$`: `NAME`, `{NAME}`, `{NAME:-default}`, `{NAME:+other}`.
fn variable(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    if chars.peek() != Some(&'{') {
        let mut name = String::new();
        while let Some(c) = chars.next_if(is_name) {
            name.push(c);
        }
        return Ok(match name.is_empty() {
            true => "$".to_owned(),
            false => lookup(&name).unwrap_or_default(),
        });
    }
    chars.next();
    let mut inside = String::new();
    let mut depth = 1_usize;
    for c in chars.by_ref() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        // A default in a default in a default: nobody writes that.
        if depth > 8 {
            return Err("its variables lie too deep in each other".to_owned());
        }
        inside.push(c);
    }
    if depth > 0 {
        return Err("a ${ has no }".to_owned());
    }
    let end = inside.find(|c| !is_name(&c)).unwrap_or(inside.len());
    let (name, operator) = inside.split_at(end);
    let value = lookup(name);
    let is_set = value.as_ref().is_some_and(|value| !value.is_empty());
    match (operator.get(..2), operator) {
        _ if name.is_empty() => Err(format!("${{{inside}}} names no variable")),
        (_, "") => Ok(value.unwrap_or_default()),
        (Some(":-"), _) if is_set => Ok(value.unwrap_or_default()),
        (Some(":-"), other) => expand(&other[2..], lookup),
        (Some(":+"), other) if is_set => expand(&other[2..], lookup),
        (Some(":+"), _) => Ok(String::new()),
        _ => Err(format!(
            "${{{inside}}} is not read: write ${{NAME}}, ${{NAME:-default}} or ${{NAME:+other}}"
        )),
    }
}
