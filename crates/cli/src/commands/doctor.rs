//! `firebrick doctor`.

use std::ffi::OsString;
use std::process::ExitCode;

use firebrick_vmm::Arch;
use serde_json::json;

use crate::doctor::host::HostView;
use crate::doctor::image::{Patient, has_systemd};
use crate::doctor::kernel::{self, Wishes};
use crate::doctor::{Finding, Severity};
use crate::error::write_stdout;
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::{host, images, text};

/// Find what will stop this host, its kernel, or an image from booting
///
/// Looks at everything that a boot needs, without booting the image, and says what is wrong and what puts it right.
///
/// Exit codes: 0 if there is no problem (warnings there may be), 1 if there is one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also look into this image: a name or a path
    image: Option<OsString>,

    /// A machine with another processor: linux/arm64
    #[arg(long, value_name = "OS/ARCH", value_parser = host::parse_arch)]
    platform: Option<Arch>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let home = Home::of_process()?;
    let findings = examine(args, &home)?;
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
    if args.json {
        let report = json!({ "problems": problems, "warnings": warnings, "findings": findings });
        write_stdout(&text::json_line(&report))?;
    } else {
        write_stdout(report(&findings, problems, warnings).as_bytes())?;
    }
    Ok(match problems {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn examine(args: &Args, home: &Home) -> anyhow::Result<Vec<Finding>> {
    let arch = args.platform.unwrap_or(Arch::HOST);
    let path = args
        .image
        .as_ref()
        .map(|image| images::find(home, image))
        .transpose()?;
    let image = path.map(ImageFile::open_file);
    let opened = image.as_ref().and_then(|image| image.as_ref().ok());
    let wishes = Wishes {
        filesystem: opened.map_or("ext4", |image| image.filesystem.name()),
        compression: opened.and_then(|image| image.filesystem.compression()),
        systemd: opened.is_some_and(has_systemd),
    };
    let (kernel, of_kernel) = kernel::findings(home.data(), arch, &wishes);
    let mut findings = HostView::real(home.data(), arch).findings(kernel.as_ref());
    findings.extend(of_kernel);
    match &image {
        Some(Ok(image)) => {
            let kernel = kernel.as_ref();
            findings.extend(Patient { image, arch, kernel }.findings());
        }
        Some(Err(error)) => findings.push(Finding::problem(
            "image.filesystem",
            format!("{error:#}"),
            "make it again: firebrick rootfs from-docker …",
        )),
        None => {}
    }
    Ok(findings)
}

/// A line a finding, and below it what puts it right.
fn report(findings: &[Finding], problems: usize, warnings: usize) -> String {
    let width = |of: fn(&Finding) -> usize| findings.iter().map(of).max().unwrap_or(0);
    let words = width(|finding| finding.severity.word().len());
    let ids = width(|finding| finding.id.len());
    let mut out = String::new();
    for finding in findings {
        let (word, id, found) = (finding.severity.word(), finding.id, &finding.found);
        out.push_str(&format!("{word:<words$}  {id:<ids$}  {found}\n"));
        if let Some(fix) = &finding.fix {
            let indent = " ".repeat(words + ids + 4);
            out.push_str(&format!("{indent}fix: {fix}\n"));
        }
    }
    let as_u64 = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let counts = format!(
        "{}, {}\n",
        text::count(as_u64(problems), "problem"),
        text::count(as_u64(warnings), "warning")
    );
    out + &counts
}
