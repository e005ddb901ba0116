#!/usr/bin/env python3
"""Draws boots under several inits on one axis, from the stamps that bench/boot keeps.

usage: bench/timeline.py bench/runs/DATE-MACHINE/boot-stamps.csv > docs/boot-inits.svg

Lines of the file: `stamp`, what booted, what happened, milliseconds of the host's clock since the start of the VMM. Of several
boots of one kind the one with the median time to the first answer is drawn, as it was.
"""

import csv
import sys
from html import escape

# What is drawn: the words of bench/boot, and how the row is called.
ROWS = [
    ("debian", "firebrick's init"),
    ("debian with systemd, minimal target", "systemd, minimal target"),
    ("debian with systemd", "systemd"),
    ("debian with OpenRC", "OpenRC"),
]
# Where each part ends, by the first of these stamps that a boot has; class, and what the legend says.
PARTS = [
    ("vmm", "VMM", ["kernel_start"]),
    ("kernel", "kernel", ["stage1_start"]),
    ("stage1", "stage 1", ["root_mounted"]),
    ("init", "PID 1, until the agent can start", ["agent_start", "network_up", "mounts_done"]),
    ("agent", "agent, until its first answer", ["answered"]),
]
# The colours of `firebrick boot --timeline`.
STYLE = """\
text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.faint { fill: #59636e; } .ground { fill: #ffffff; } .line { stroke: #d1d9e0; stroke-width: 1; }
.vmm { fill: #8250df; } .kernel { fill: #6e7781; } .stage1 { fill: #bf5700; } .init { fill: #0969da; } .agent { fill: #1a7f37; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; } .faint { fill: #9198a1; } .ground { fill: #0d1117; } .line { stroke: #3d444d; }
.vmm { fill: #ab7df8; } .kernel { fill: #9198a1; } .stage1 { fill: #f0883e; } .init { fill: #4493f8; } .agent { fill: #3fb950; }
}"""
WIDTH, LEFT, RIGHT, TOP, ROW = 900, 190, 310, 84, 34


def boots(path):
    """What booted: its boots, each a dictionary of stamps."""
    found = {}
    with open(path, newline="") as file:
        for row in csv.reader(line for line in file if line.startswith("stamp,")):
            # A name may hold a comma.
            what, event, at = ",".join(row[1:-2]), row[-2], float(row[-1])
            runs = found.setdefault(what, [])
            if event == "kernel_start":
                runs.append({})
            runs[-1][event] = at
    return found


def median(runs):
    return sorted(runs, key=lambda run: run["answered"])[(len(runs) - 1) // 2]


def seconds(ms):
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"


def draw(found):
    rows = [(name, median(found[what]), len(found[what])) for what, name in ROWS if what in found]
    total = max(run["answered"] for _, run, _ in rows)
    step = next(s for s in (500, 1000, 2000, 5000, 10000, 20000, 50000) if total / s <= 8)
    x = lambda ms: LEFT + (WIDTH - LEFT - RIGHT) * ms / total
    bottom = TOP + len(rows) * ROW
    height = bottom + 34
    title = "Debian 12 from the VMM's start to the agent's first answer, emulated"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text class="title" x="16" y="28">{escape(title)}</text>',
    ]
    at = 16
    for name, words, _ in PARTS:
        out.append(f'<rect class="{name}" x="{at}" y="42" width="12" height="12" rx="2"/><text class="faint" x="{at + 18}" y="53">{words}</text>')
        at += 40 + len(words) * 6
    for tick in range(0, int(total) + 1, step):
        out.append(
            f'<line class="line" x1="{x(tick):.1f}" y1="{TOP - 10}" x2="{x(tick):.1f}" y2="{bottom}"/>'
            f'<text class="faint middle" x="{x(tick):.1f}" y="{bottom + 20}">{tick // 1000} s</text>'
        )
    for index, (name, run, _) in enumerate(rows):
        y = TOP + index * ROW
        out.append(f'<text class="end" x="{LEFT - 12}" y="{y + 17}">{escape(name)}</text>')
        since = 0
        for part, _, ends in PARTS:
            # What is not stamped is not drawn: its time is the next one's.
            until = next((run[event] for event in ends if event in run), since)
            if until > since:
                out.append(f'<rect class="{part}" x="{x(since):.1f}" y="{y + 2}" width="{max(x(until) - x(since), 1):.1f}" height="22"/>')
                since = until
        own = run["agent_listening"] - run["root_mounted"]
        words = f'{seconds(run["answered"])}, from PID 1 to a listening agent {seconds(own)}'
        out.append(f'<text x="{x(run["answered"]) + 8:.1f}" y="{y + 17}" class="faint">{words}</text>')
    out.append("</svg>")
    return "\n".join(out)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(draw(boots(sys.argv[1])))
