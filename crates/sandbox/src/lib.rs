//! Runs *steps* in an unpacked copy of a root filesystem, without root, and gives what each changed as a layer.
//!
//! ```text
//! this process ──socket── keeper ──clone── PID 1 ──fork── the step
//! (the host's     own user and mount       own pid, mount, ipc, uts,
//!  namespaces)    namespace, its root is   cgroup and network namespace,
//!                 the work folder          its root is the copy
//! ```
//!
//! - The *work folder* holds the *copy*; it is made in a folder of the caller's choice and goes when the sandbox does.
//! - The *keeper* is this program once more ([`child_main`]), in a user namespace of its own. It unpacks a flat tar into the copy,
//!   writes down what every file is like then (the *record*), starts steps, compares, and removes the copy. It sees nothing of the
//!   host but `/dev` and `/proc`.
//! - A *step* is a script or a command. It starts without capabilities that reach beyond the copy, under a seccomp filter,
//!   and with everything that it started it is gone when it ends.
//! - A step's *layer* is the difference between two records as an OCI layer, whiteouts included. A [`StepCache`] keeps it under a
//!   key of everything that the step saw; [`run_steps`] runs only what is not there.
//!
//! What is guaranteed, and what not: `docs/sandbox.md`.
//!
//! Invariant: what comes back from the keeper is data from outside, as any tar is. A hostile step that took the keeper over would
//! hold no right outside of its own user namespace.

mod cache;
mod cgroup;
mod error;
mod host;
mod ids;
mod inner;
mod plan;
mod seccomp;
mod steps;
mod sys;
mod tail;
mod users;
mod wire;

pub use cache::{CachedStep, Key, MadeLayer, PruneSteps, PrunedSteps, StepCache};
pub use error::SandboxError;
pub use host::{Options, Sandbox, Unpacker};
pub use ids::{Ids, Owners};
pub use inner::{child_main, keep_inherited_files};
pub use plan::{Plan, Progress, UnpackError, run_steps};
pub use steps::{Limits, Outcome, Run, Step};
pub use tail::Tail;

/// Part of every [`Key`]: layers that another version made are not taken from the cache.
pub const SANDBOX_VERSION: u32 = 1;
