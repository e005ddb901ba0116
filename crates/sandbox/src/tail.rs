//! The last lines of an output of any length.

use std::collections::VecDeque;

/// Longest line that is kept, in bytes; of a longer one its start.
const LINE_MAX: usize = 1000;

/// Keeps the last lines of what is pushed.
#[derive(Debug)]
pub struct Tail {
    lines: VecDeque<Vec<u8>>,
    current: Vec<u8>,
    count: usize,
}

impl Tail {
    /// Of `count` lines.
    pub fn new(count: usize) -> Tail {
        Tail {
            lines: VecDeque::new(),
            current: Vec::new(),
            count,
        }
    }

    /// Some more output. A line may come in pieces.
    pub fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (line, ends) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            let room = LINE_MAX.saturating_sub(self.current.len());
            self.current.extend(line.iter().take(room));
            if ends {
                self.lines.push_back(std::mem::take(&mut self.current));
                if self.lines.len() > self.count {
                    self.lines.pop_front();
                }
            }
        }
    }

    /// The lines, printable: control characters, escape sequences among them, become `?`.
    pub fn text(&self) -> String {
        let unfinished = (!self.current.is_empty()).then_some(&self.current);
        let lines: Vec<&Vec<u8>> = self.lines.iter().chain(unfinished).collect();
        let from = lines.len().saturating_sub(self.count);
        let printable = |line: &&Vec<u8>| -> String {
            // What stands behind a carriage return is what a terminal would show.
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let shown = line.rsplit(|&byte| byte == b'\r').next().unwrap_or(line);
            String::from_utf8_lossy(shown)
                .chars()
                .map(|c| if c.is_control() && c != '\t' { '?' } else { c })
                .collect()
        };
        lines[from..].iter().map(printable).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_of_pieces() {
        let mut tail = Tail::new(2);
        for piece in ["a\nb", "b\nc\n", "50%\r60%\x1b[1m"] {
            tail.push(piece.as_bytes());
        }
        assert_eq!(tail.text(), "c\n60%?[1m");
        tail.push(b"\n");
        assert_eq!(tail.text(), "c\n60%?[1m");
        assert_eq!(Tail::new(3).text(), "");
    }

    #[test]
    fn memory_is_bounded() {
        let mut tail = Tail::new(3);
        for _ in 0..100 {
            tail.push(&[b'x'; 100_000]);
        }
        assert_eq!(tail.text().len(), LINE_MAX);
        assert!(tail.current.capacity() < 4 * LINE_MAX);
    }
}
