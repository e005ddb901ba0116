//! What firebrick says on stderr while it works: numbered steps always, bars only on a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use anstyle::Style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How much is said, and whether a person is watching.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    verbose: u8,
    quiet: bool,
    terminal: bool,
}

impl Talk {
    pub(crate) fn new(verbose: u8, quiet: bool) -> Talk {
        Talk {
            verbose,
            quiet,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Says a line, unless told to be quiet.
    pub(crate) fn say(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(anstream::stderr(), "{line}"); // a closed stderr is no reason to stop
        }
    }

    /// Says a line only with `-v`.
    pub(crate) fn detail(&self, line: &str) {
        if self.verbose >= 1 {
            self.say(line);
        }
    }

    /// Says a line only with `-vv`.
    pub(crate) fn event(&self, line: &str) {
        if self.verbose >= 2 {
            self.say(line);
        }
    }

    /// Says that something is not as it should be, though the work goes on.
    pub(crate) fn warn(&self, line: &str) {
        if !self.quiet {
            let yellow = Style::new()
                .bold()
                .fg_color(Some(anstyle::AnsiColor::Yellow.into()));
            let _ = writeln!(anstream::stderr(), "{yellow}warning:{yellow:#} {line}");
        }
    }
}

/// Work in a known number of steps: `[2/6] Reading layers`.
#[derive(Debug)]
pub(crate) struct Steps {
    talk: Talk,
    total: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: usize,
    bar: Option<ProgressBar>,
}

impl Steps {
    pub(crate) fn new(talk: &Talk, total: usize) -> Steps {
        Steps {
            talk: *talk,
            total,
            state: Mutex::default(),
        }
    }

    /// How many there are.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Begins step `number` (from 1), if it is not begun already: steps never go back.
    pub(crate) fn begin(&self, number: usize, text: &str) {
        let mut state = self.lock();
        if number <= state.done {
            return;
        }
        state.done = number;
        state.clear_bar();
        let bold = Style::new().bold();
        self.talk
            .say(&format!("{bold}[{number}/{}]{bold:#} {text}", self.total));
    }

    /// A line below the current step.
    pub(crate) fn note(&self, text: &str) {
        let mut state = self.lock();
        state.clear_bar();
        self.talk.say(&format!("      {text}"));
    }

    /// Moves the bar to `done` of `total` bytes (total 0: unknown), on a terminal only.
    pub(crate) fn progress(&self, done: u64, total: u64, what: &str) {
        if self.talk.quiet || !self.talk.terminal {
            return;
        }
        let mut state = self.lock();
        let bar = state.bar.get_or_insert_with(new_bar);
        if bar.length() != Some(total) {
            bar.set_length(total);
        }
        bar.set_message(what.to_owned());
        bar.set_position(done);
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        self.lock().clear_bar();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.finish();
    }
}

fn new_bar() -> ProgressBar {
    let style = "      {msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
    let style = ProgressStyle::with_template(style).expect("the template is a valid constant");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(style.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
