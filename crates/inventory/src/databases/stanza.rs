//! The form that dpkg and Python's metadata share: paragraphs of `Name: value`, with more of a value on lines that begin with a blank.

/// The paragraphs of a text.
pub(super) fn stanzas(bytes: &[u8]) -> impl Iterator<Item = Stanza<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let mut lines = Vec::new();
        while !rest.is_empty() {
            let len = rest.iter().position(|byte| *byte == b'\n');
            let line = len.and_then(|len| rest.get(..len)).unwrap_or(rest);
            rest = len
                .and_then(|len| rest.get(len.saturating_add(1)..))
                .unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line.trim_ascii().is_empty() {
                false => lines.push(line),
                true if lines.is_empty() => {}
                true => break,
            }
        }
        (!lines.is_empty()).then_some(Stanza { lines })
    })
}

/// One paragraph.
#[derive(Debug)]
pub(super) struct Stanza<'a> {
    lines: Vec<&'a [u8]>,
}

impl<'a> Stanza<'a> {
    /// The first line of a field's value.
    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The first line of every field of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.lines.iter().filter_map(move |line| {
            let (head, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?;
            head.eq_ignore_ascii_case(name.as_bytes())
                .then(|| value.trim_ascii())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_fields() {
        let text =
            b"\n\nPackage: a\nDescription: one\n Package: not this\nVersion:1\r\n \nPACKAGE: b\nClass: x\nClass: y";
        let found: Vec<_> = stanzas(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("Package"), Some(&b"a"[..]));
        assert_eq!(found[0].get("version"), Some(&b"1"[..]));
        assert_eq!(found[0].get("Vers"), None);
        assert_eq!(found[1].get("Package"), Some(&b"b"[..]));
        assert_eq!(found[1].all("Class").collect::<Vec<_>>(), [b"x", b"y"]);
        assert_eq!(stanzas(b"").count(), 0);
    }
}
