//! What a person can do about a failure: the libraries' errors carry facts, the advice is here.

use std::error::Error;

use firebrick_source::SourceError;

use crate::error::CliError;
use crate::home::NoHome;

/// Advice for the errors in the chain, outermost first, each once.
pub(crate) fn of(error: &anyhow::Error) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for hint in error.chain().flat_map(of_one) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints
}

fn of_one(error: &(dyn Error + 'static)) -> Vec<String> {
    if let Some(error) = error.downcast_ref::<CliError>() {
        return of_cli(error);
    }
    if let Some(error) = error.downcast_ref::<SourceError>() {
        return of_source(error).into_iter().collect();
    }
    if error.is::<NoHome>() {
        return vec!["say where: export FIREBRICK_HOME=/some/folder".to_owned()];
    }
    Vec::new()
}

fn of_cli(error: &CliError) -> Vec<String> {
    match error {
        CliError::NoSuchImage { known, .. } => {
            if known.is_empty() {
                return Vec::new();
            }
            vec![format!("there are: {}", known.join(", "))]
        }
        CliError::ClosedStdout => Vec::new(),
    }
}

/// The library knows what helps.
fn of_source(error: &SourceError) -> Option<String> {
    error.hint()
}
