//! The picture itself: SVG that needs nothing but a browser, and is readable on light and on dark ground.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Part, Stretch};

const WIDTH: u32 = 900;
/// Where the bars begin; the labels end before.
const LEFT: u32 = 210;
/// What is left behind the longest bar, for its time.
const RIGHT: u32 = 90;
const ROW: u32 = 26;
const TOP: u32 = 84;

/// Class, and what the legend says.
const PARTS: [(Part, &str, &str); 5] = [
    (Part::Vmm, "vmm", "VMM"),
    (Part::Kernel, "kernel", "kernel"),
    (Part::Stage1, "stage1", "stage 1"),
    (Part::Init, "init", "init"),
    (Part::Agent, "agent", "agent"),
];

/// Plain colours and no variables, which not every program that shows SVG knows.
const STYLE: &str = "\
text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.faint { fill: #59636e; } .ground { fill: #ffffff; } .line { stroke: #d1d9e0; stroke-width: 1; }
.vmm { fill: #8250df; } .kernel { fill: #6e7781; } .stage1 { fill: #bf5700; } .init { fill: #0969da; } .agent { fill: #1a7f37; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; } .faint { fill: #9198a1; } .ground { fill: #0d1117; } .line { stroke: #3d444d; }
.vmm { fill: #ab7df8; } .kernel { fill: #9198a1; } .stage1 { fill: #f0883e; } .init { fill: #4493f8; } .agent { fill: #3fb950; }
}
";

/// Draws a boot that took `total`.
pub(super) fn draw(title: &str, stretches: &[Stretch], total: Duration) -> String {
    let rows = u32::try_from(stretches.len()).unwrap_or(0);
    let bottom = TOP + rows * ROW;
    let height = bottom + 34;
    let scale = Scale::of(total);
    let mut svg = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| {
        svg.write_fmt(text).expect("writing to a String cannot fail");
        svg.push('\n');
    };
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">"
    ));
    put(format_args!("<title>{}</title>", escape(title)));
    put(format_args!("<style>\n{STYLE}</style>"));
    put(format_args!(
        "<rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>"
    ));
    put(format_args!(
        "<text class=\"title\" x=\"16\" y=\"28\">{}</text>",
        escape(title)
    ));
    let mut x = 16;
    for (_, class, name) in PARTS {
        let name_len = u32::try_from(name.len()).unwrap_or(0);
        put(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"42\" width=\"12\" height=\"12\" rx=\"2\"/><text class=\"faint\" x=\"{}\" y=\"53\">{name}</text>",
            x + 18
        ));
        x += 38 + name_len * 7;
    }
    for tick in scale.ticks() {
        let x = scale.x(tick);
        put(format_args!(
            "<line class=\"line\" x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom}\"/><text class=\"faint middle\" x=\"{x:.1}\" y=\"{}\">{}</text>",
            TOP - 8,
            bottom + 20,
            scale.label(tick)
        ));
    }
    for (row, stretch) in (0_u32..).zip(stretches) {
        put(format_args!("{}", bar(row, stretch, &scale)));
    }
    put(format_args!("</svg>"));
    svg
}

/// A label, a bar, and how long it took.
fn bar(row: u32, stretch: &Stretch, scale: &Scale) -> String {
    let y = TOP + row * ROW;
    let (from, to) = (scale.x(stretch.from), scale.x(stretch.to));
    // What took no time to speak of is still to be seen.
    let width = (to - from).max(2.0);
    let class = PARTS
        .iter()
        .find(|(part, ..)| *part == stretch.part)
        .map_or("init", |(_, class, _)| class);
    format!(
        "<text class=\"end\" x=\"{}\" y=\"{}\">{}</text><rect class=\"{class}\" x=\"{from:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"16\" \
         rx=\"2\"/><text class=\"faint\" x=\"{:.1}\" y=\"{}\">{}</text>",
        LEFT - 12,
        y + 14,
        escape(&stretch.label),
        y + 2,
        from + width + 6.0,
        y + 14,
        took(stretch.to.saturating_sub(stretch.from))
    )
}

/// `0.7 ms`, `47 ms`, `1.83 s`.
pub(super) fn took(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

/// Time to place.
struct Scale {
    total_s: f64,
    step_s: f64,
}

impl Scale {
    fn of(total: Duration) -> Scale {
        let total_s = total.as_secs_f64().max(1e-6);
        // Four to ten steps of 1, 2 or 5 times a power of ten.
        let power = 10_f64.powf((total_s / 4.0).log10().floor());
        let step_s = [5.0, 2.0, 1.0]
            .into_iter()
            .map(|digit| digit * power)
            .find(|step| total_s / step >= 4.0)
            .unwrap_or(power);
        Scale { total_s, step_s }
    }

    fn ticks(&self) -> Vec<f64> {
        let ticks = std::iter::successors(Some(0.0), |tick| Some(tick + self.step_s));
        ticks
            .take_while(|tick| *tick <= self.total_s * 1.0001)
            .take(32)
            .collect()
    }

    fn x(&self, time: impl Seconds) -> f64 {
        f64::from(LEFT) + f64::from(WIDTH - LEFT - RIGHT) * (time.seconds() / self.total_s).clamp(0.0, 1.0)
    }

    fn label(&self, tick: f64) -> String {
        match self.total_s {
            total if total < 1.0 && self.step_s < 0.001 => format!("{:.1} ms", tick * 1000.0),
            total if total < 1.0 => format!("{:.0} ms", tick * 1000.0),
            _ if self.step_s < 1.0 => format!("{tick:.1} s"),
            _ => format!("{tick:.0} s"),
        }
    }
}

trait Seconds {
    fn seconds(&self) -> f64;
}

impl Seconds for Duration {
    fn seconds(&self) -> f64 {
        self.as_secs_f64()
    }
}

impl Seconds for f64 {
    fn seconds(&self) -> f64 {
        *self
    }
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}
