//! What a store tells while it works, shown.

use std::path::Path;
use std::sync::Arc;

use firebrick_store::{Progress, StoreError, Tagged};

use crate::talk::{Steps, Talk};
use crate::text::{self, quoted};

/// Shows what a store tells.
pub(crate) fn listener(steps: &Arc<Steps>, talk: &Talk) -> Box<firebrick_store::Listener> {
    let (steps, talk) = (Arc::clone(steps), *talk);
    Box::new(move |progress| match progress {
        Progress::Table(version) => talk.detail(&format!("      reading the table of {}", version.tagged)),
        Progress::Ignored(version, error) => talk.warn(&ignored(&version.tagged, error)),
        Progress::Waiting(lock) => talk.warn(&waiting(lock)),
        Progress::Upload { done, of, sent } => {
            steps.begin(
                steps.total().min(2),
                &format!("Reading {}, sending what is new", text::bytes(of)),
            );
            steps.progress(done, of, &format!("{} sent", text::bytes(sent)));
        }
        Progress::Download { done, of, came } => {
            steps.begin(
                steps.total().min(2),
                &format!("Putting {} together", text::bytes(of)),
            );
            steps.progress(done, of, &format!("{} came", text::bytes(came)));
        }
        _ => {}
    })
}

/// That somebody else holds a lock.
pub(crate) fn waiting(lock: &Path) -> String {
    format!("somebody else holds {}: waiting for it", quoted(lock))
}

fn ignored(tagged: &Tagged, error: &StoreError) -> String {
    format!(
        "{tagged} cannot be read, so nothing is shared with it: {:#}",
        Chain(error)
    )
}

/// An error with its causes, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
