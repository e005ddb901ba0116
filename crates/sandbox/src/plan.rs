//! Steps one after the other, each over the layers of those before it, none that is in the cache.

use std::io::Write;
use std::time::Instant;

use firebrick_digest::Digest;

use crate::cache::{Key, MadeLayer, StepCache};
use crate::error::SandboxError;
use crate::host::{Options, Sandbox};
use crate::steps::{Limits, Step};
use crate::tail::Tail;

/// Lines of a failed step's output that its error carries.
const TAIL_LINES: usize = 20;

/// Why the base could not be unpacked.
pub type UnpackError = Box<dyn std::error::Error + Send + Sync>;

/// Steps and what they run on.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// How the sandbox is to be.
    pub options: &'a Options,
    /// The diff IDs of the base's layers, lowest first.
    pub base: &'a [Digest],
    /// What runs, in this order.
    pub steps: &'a [Step],
    /// What each may take.
    pub limits: Limits,
    /// Where the layers go.
    pub cache: &'a StepCache,
    /// Layers that are in the cache are taken from there, and new ones kept.
    pub use_cache: bool,
}

/// What happens, for whoever shows it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// This step's layer was in the cache.
    Cached(&'a Step),
    /// The base is being unpacked.
    Unpacking,
    /// This step runs.
    Started(&'a Step),
    /// It printed something.
    Output(&'a [u8]),
    /// It ended well, after so many seconds, and left this layer.
    Finished(&'a Step, f64, &'a MadeLayer),
}

/// Runs the steps, and gives a layer for each. `unpack` writes the flat tar of the base with these layers on top of it; it is called
/// only if a step has to run.
///
/// # Errors
/// [`SandboxError`]: of the step that failed nothing is kept; the layers of those before it stay in the cache.
pub fn run_steps(
    plan: &Plan<'_>,
    unpack: impl FnOnce(&[MadeLayer], &mut dyn Write) -> Result<(), UnpackError>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<MadeLayer>, SandboxError> {
    let owners = plan.options.owners();
    let mut below = plan.base.to_vec();
    let mut layers: Vec<MadeLayer> = Vec::new();
    let key = |below: &[Digest], step: &Step| Key::of(below, step, owners, plan.options.created);
    while plan.use_cache
        && let Some(step) = plan.steps.get(layers.len())
        && let Some(layer) = plan.cache.find(key(&below, step))
    {
        progress(Progress::Cached(step));
        below.push(layer.diff_id);
        layers.push(layer);
    }
    let rest = &plan.steps[layers.len()..];
    if rest.is_empty() {
        return Ok(layers);
    }
    progress(Progress::Unpacking);
    let mut options = plan.options.clone();
    if !rest.iter().any(|step| step.network) {
        options.resolver = None;
    }
    let mut sandbox = Sandbox::start(&options)?;
    unpack_into(&mut sandbox, &layers, unpack)?;
    for step in rest {
        progress(Progress::Started(step));
        let started = Instant::now();
        let mut tail = Tail::new(TAIL_LINES);
        let limits = Limits {
            time: step.time.unwrap_or(plan.limits.time),
            ..plan.limits
        };
        let outcome = sandbox.run(step, &limits, &mut |bytes| {
            tail.push(bytes);
            progress(Progress::Output(bytes));
        })?;
        if !outcome.is_success() {
            return Err(SandboxError::Step {
                step: step.name.clone(),
                network: step.network,
                outcome,
                tail: tail.text(),
            });
        }
        let layer = plan.cache.put(plan.use_cache.then(|| key(&below, step)), |out| {
            sandbox.layer(out)
        })?;
        progress(Progress::Finished(step, started.elapsed().as_secs_f64(), &layer));
        below.push(layer.diff_id);
        layers.push(layer);
    }
    Ok(layers)
}

fn unpack_into(
    sandbox: &mut Sandbox,
    layers: &[MadeLayer],
    unpack: impl FnOnce(&[MadeLayer], &mut dyn Write) -> Result<(), UnpackError>,
) -> Result<(), SandboxError> {
    let mut unpacker = sandbox.unpack();
    let unpacked = unpack(layers, &mut unpacker);
    match unpacked {
        Ok(()) => unpacker.finish(),
        // A broken socket says less than whoever broke it.
        Err(source) => Err(SandboxError::Unpack { source }),
    }
}
