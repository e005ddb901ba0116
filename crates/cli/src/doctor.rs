//! What will stop this host, this kernel or an image from booting, found out without booting.
//!
//! A *finding* is one thing that was looked at: what was found, how bad that is, and the command that puts it right.
//! Its id stays the same from version to version; `docs/doctor.md` lists them all.

pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod kernel;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Nothing is wrong.
    Ok,
    /// Something will be slower, or cannot be used.
    Warning,
    /// It will not boot, or not run.
    Problem,
}

impl Severity {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    /// What was found, in a sentence.
    pub(crate) found: String,
    /// What puts it right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(crate) fn ok(id: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            id,
            severity: Severity::Ok,
            found: found.into(),
            fix: None,
        }
    }

    pub(crate) fn warning(id: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            id,
            severity: Severity::Warning,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    pub(crate) fn problem(id: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Problem,
            ..Finding::warning(id, found, fix)
        }
    }
}
