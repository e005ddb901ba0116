//! A boot as a picture: a bar for each stretch between two things that happened, on the host's clock.

mod svg;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use firebrick_vmm::Timeline;

use crate::host::Host;
use crate::images;

/// Whose work a stretch is; each has its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Vmm,
    Kernel,
    Stage1,
    Init,
    Agent,
}

/// A stretch of the boot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    part: Part,
    label: String,
    from: Duration,
    to: Duration,
}

/// Finds out before the boot whether there is a place for the drawing.
pub(crate) fn must_have_a_place(path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let writing = || format!("cannot write the timeline {path:?}");
    let may_write = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK);
    may_write.map_err(std::io::Error::from).with_context(writing)?;
    anyhow::ensure!(!path.is_dir(), "{}: that is a folder", writing());
    Ok(())
}

/// Draws the boot into a file, which appears whole.
pub(crate) fn write(path: &Path, timeline: &Timeline, title: &str) -> anyhow::Result<()> {
    let writing = || format!("cannot write the timeline {path:?}");
    let title = format!("{title}: {} to the first answer", svg::took(timeline.answered));
    let text = svg::draw(&title, &stretches(timeline), timeline.answered);
    let mut name = path.file_name().with_context(writing)?.to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    std::fs::write(&part, text).with_context(writing)?;
    std::fs::rename(&part, path).with_context(writing)
}

/// What booted, and on what.
pub(crate) fn title(image: &Path, host: &Host) -> String {
    let image: String = images::name_of(image).chars().take(30).collect();
    let release = host.parts.kernel.release();
    // Why it is not another one is too long to stand there.
    let vmm = host.name.split(" (").next().unwrap_or_default();
    format!("{image}, Linux {release}, {vmm}")
}

/// What happens up to each stamp. One that is unknown here is shown under its own name.
fn stretches(timeline: &Timeline) -> Vec<Stretch> {
    let mut stretches = vec![Stretch {
        part: Part::Vmm,
        label: "to the kernel's first tick".to_owned(),
        from: Duration::ZERO,
        to: timeline.kernel_start,
    }];
    let mut from = timeline.kernel_start;
    for (event, at) in &timeline.stamps {
        // The guest may stamp its first answer after the host has it, or with another's.
        if event == "first_answer" || *at > timeline.answered {
            continue;
        }
        let (part, label) = words(event);
        stretches.push(Stretch {
            part,
            label,
            from,
            to: *at,
        });
        from = *at;
    }
    stretches.push(Stretch {
        part: Part::Agent,
        label: "first answer".to_owned(),
        from,
        to: timeline.answered,
    });
    stretches
}

fn words(event: &str) -> (Part, String) {
    let (part, label) = match event {
        "stage1_start" => (Part::Kernel, "kernel"),
        "modules_loaded" => (Part::Stage1, "modules load"),
        "root_mounted" => (Part::Stage1, "root mounts"),
        "overlay_formatted" => (Part::Stage1, "writable layer is formatted"),
        "overlay_laid" => (Part::Stage1, "writable layer is laid"),
        "pid1_start" => (Part::Init, "PID 1 starts"),
        "mounts_done" => (Part::Init, "PID 1 mounts"),
        "network_up" => (Part::Init, "network comes up"),
        "agent_start" => (Part::Init, "init gets to the agent"),
        "agent_listening" => (Part::Agent, "agent listens"),
        "entrypoint_started" => (Part::Init, "entrypoint starts"),
        other => (Part::Init, other),
    };
    // Whatever a guest says: one line, and not a long one.
    let label = label.replace('_', " ");
    let label: String = label.chars().filter(|c| !c.is_control()).take(40).collect();
    (part, label)
}

#[cfg(test)]
mod tests;
