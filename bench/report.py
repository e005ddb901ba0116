"""Writes what a run found: README.md with the circumstances, summary.md with medians and ratios to the goals."""

import os
import statistics


def pick(rows, name, tool, key="wall_s"):
    return [row[key] for row in rows if row["input"] == name and row["tool"] == tool]


def ratios(rows, name, ours, others):
    """For each round: our median over the other's, or over what `others` makes of several."""
    found = []
    for number in sorted({row["round"] for row in rows}):
        here = [row for row in rows if row["round"] == number]
        mine = pick(here, name, ours)
        theirs = others(here)
        if mine and theirs:
            found.append(statistics.median(mine) / theirs)
    return found


def one(name, tool):
    def of(rows):
        found = pick(rows, name, tool)
        return statistics.median(found) if found else None
    return of


def both(choose, name, *names):
    """The `min` or the `max` of several tools in a round."""
    def of(rows):
        found = [one(name, tool)(rows) for tool in names]
        return None if None in found else choose(found)
    return of


def slower_limit(rows):
    """What no build of `devbox` gets below: inflating it, or writing it the quicker way of the two."""
    write = both(min, "devbox", "write alone (page cache)", "write alone (O_DIRECT)")(rows)
    inflate = one("devbox", "inflate alone")(rows)
    return None if None in (write, inflate) else max(write, inflate)


FB = "firebrick"
GOALS = [
    ("devbox", "umoci + mke2fs -d", one("devbox", "umoci + mke2fs -d"), 0.20),
    ("devbox", "arcbox-ext4, which verifies nothing", one("devbox", "arcbox-ext4"), 1.0),
    ("devbox", "the slower of inflating alone and writing alone", slower_limit, 1.25),
    ("manyfiles", "mke2fs -d", one("manyfiles", "mke2fs -d"), 0.04),
    ("manyfiles", "the better of mkext4 and arcbox-ext4", both(min, "manyfiles", "mkext4", "arcbox-ext4"), 1.1),
    ("nodetree", "mke2fs -d", one("nodetree", "mke2fs -d"), 0.04),
    ("nodetree", "the better of mkext4 and arcbox-ext4", both(min, "nodetree", "mkext4", "arcbox-ext4"), 1.1),
]


def verdict(value, goal):
    return "met" if value <= goal else "missed"


def goals(rows, pair):
    """The lines of the table of goals."""
    lines = []
    for name, what, others, goal in GOALS:
        found = ratios(rows, name, FB, others)
        if found:
            middle = statistics.median(found)
            lines.append(f"| {name}: firebrick ÷ {what} | ≤ {goal:.2f} | {middle:.3f} | {min(found):.3f} "
                         f"| {verdict(middle, goal)} |")
    small = [second * 1000 for second in pick(rows, "small", FB)]
    if small:
        middle = statistics.median(small)
        lines.append(f"| small: firebrick, ms | ≤ 30 | {middle:.1f} | {min(small):.1f} | {verdict(middle, 30)} |")
    for name in ("devbox", "manyfiles"):
        peaks = [kib / 1024 for kib in pick(rows, name, FB, "peak_kib")]
        if peaks:
            middle = statistics.median(peaks)
            lines.append(f"| {name}: peak memory, MiB | ≤ 300 | {middle:.0f} | {min(peaks):.0f} | {verdict(middle, 300)} |")
    if pair:
        shown = pair["blocks"] - pair["hidden in one"]
        share = 100 * pair["same"] / max(shown, 1)
        lines.append(f"| pair: blocks of the base region that are the same in both, of those that neither alone hides, % "
                     f"| 100 | {share:.2f} | {share:.2f} | {'met' if pair['same'] == shown > 0 else 'missed'} |")
    return lines


def squashfs(rows):
    """firebrick beside each other maker of squashfs: time and size at the same compressor and level."""
    lines = []
    for name, tool in dict.fromkeys((row["input"], row["tool"]) for row in rows):
        if not tool.startswith("firebrick squashfs "):
            continue
        title = tool.removeprefix("firebrick squashfs ")
        for other in ("mksquashfs", "tar2sqfs"):
            if pick(rows, name, f"{other} {title}"):
                times = ratios(rows, name, tool, one(name, f"{other} {title}"))
                ours, theirs = (statistics.median(pick(rows, name, each, "image_bytes")) for each in (tool, f"{other} {title}"))
                lines.append(f"| {name} {title}: firebrick ÷ {other} | {statistics.median(times):.3f} | {min(times):.3f} "
                             f"| {ours / theirs:.3f} | {ours / 2**20:.1f} |")
    return lines


def table(rows):
    """The lines of the table of all tools."""
    lines = []
    for name, tool in dict.fromkeys((row["input"], row["tool"]) for row in rows):
        wall = pick(rows, name, tool)
        cpu = [u + s for u, s in zip(pick(rows, name, tool, "user_s"), pick(rows, name, tool, "sys_s"))]
        peak = statistics.median(pick(rows, name, tool, "peak_kib")) / 1024
        lines.append(f"| {name} | {tool} | {statistics.median(wall):.3f} | {min(wall):.3f} "
                     f"| {statistics.median(cpu):.2f} | {peak:.0f} | {len(wall)} |")
    return lines


def write(folder, about, inputs, rows, commands, pair, arguments):
    summary = [
        f"# Summary of {os.path.basename(folder)}", "",
        "Median and best over the rounds; a ratio is taken within each round. Seconds are this machine's; see README.md.", "",
        "| Goal | wanted | median | best | |", "|---|---|---|---|---|", *goals(rows, pair), "",
        *(["| squashfs | time, median | best | size | MiB |", "|---|---|---|---|---|", *squashfs(rows), ""] if squashfs(rows) else []),
        "| Input | Tool | wall s, median | wall s, best | CPU s | peak MiB | runs |", "|---|---|---|---|---|---|---|", *table(rows), "",
    ]
    with open(os.path.join(folder, "summary.md"), "w") as out:
        out.write("\n".join(summary))
    readme = [f"# Run {os.path.basename(folder)}", "", f"    bench/run {' '.join(arguments)}", ""]
    readme += [f"- {key}: {value}" for key, value in about.items()]
    loads = [row["load"] for row in rows]
    readme += [f"- load average while it ran: {min(loads)} to {max(loads)}", "", "## Inputs", ""]
    for name, fact in inputs.items():
        readme.append(f"- `{name}`: {fact['layers']} layers, {fact['entries']:,} entries, {fact['bytes']:,} bytes as plain tar; "
                      f"largest folder {max(each['largest_folder_entries'] for each in fact['of_each']):,} entries")
    readme += ["", "## Commands", ""]
    for (name, tool), command in commands.items():
        readme += [f"{name}, {tool}:", "", f"    {command}", ""]
    if pair:
        readme += [f"pair: {pair['same']:,} of {pair['blocks']:,} blocks of the base region are the same in both images; "
                   f"{pair['hidden in one']:,} are a hole in one, whose upper layer hides them; "
                   f"{pair['as in the tar']:,} are as in the base layer's tar (the others are holes: hidden by both upper layers).", ""]
    with open(os.path.join(folder, "README.md"), "w") as out:
        out.write("\n".join(readme))
