"""Writes what a run of bench/store/run found: README.md with the circumstances and commands, summary.md with ratios and tables."""

import os
import shlex
import statistics
import sys

TOOLS = ["firebrick", "restic", "casync", "bita", "skopeo"]
# The 4 KiB blocks that are not in the first image, and what they take if all of them are compressed together.
CHANGED = "changed blocks"
LAZY = "lazy boot"
LAZY_GOAL = 0.15
FIRST = "first image"
IMAGES = {FIRST: "store-first", "base upgraded": "store-upgraded", "application edited": "store-edited", "agent replaced": "agent",
          "other application": "store-other"}


def pick(rows, what, tool, key="wall_s"):
    return [row[key] for row in rows if row["what"] == what and row["tool"] == tool]


def ratio(rows, ours, theirs):
    """For each round: one wall time over another; the median and the least."""
    found = []
    for number in sorted({row["round"] for row in rows}):
        here = [row for row in rows if row["round"] == number]
        mine, other = pick(here, *ours), pick(here, *theirs)
        if mine and other:
            found.append(mine[0] / other[0])
    return (statistics.median(found), min(found)) if found else None


def goals(rows, layer_bytes):
    """The lines of the table of goals."""
    lines = []
    for title, ours, theirs, goal in [
        ("first upload ÷ `zstd -T2 -3 \\| aws s3 cp`", ("first upload", "firebrick"), ("first upload", "zstd, aws"), 1.3),
        ("download ÷ `aws s3 cp \\| zstd -d --sparse`", ("download", "firebrick"), ("download", "zstd, aws"), 1.1),
        ("upload after one package ÷ first upload", ("one package more", "firebrick"), ("first upload", "firebrick"), 0.15),
    ]:
        found = ratio(rows, ours, theirs)
        if found:
            middle, least = found
            lines.append(f"| {title} | ≤ {goal} | {middle:.2f} | {least:.2f} | {'met' if middle <= goal else 'missed'} |")
    sent = pick(rows, "one package more", "firebrick", "bytes")
    if sent:
        goal = layer_bytes * 1.5 + (1 << 20)
        middle = statistics.median(sent)
        lines.append(f"| bytes sent after one package, layer of {layer_bytes:,} bytes | ≤ {goal:,.0f} | {middle:,.0f} | {min(sent):,} "
                     f"| {'met' if middle <= goal else 'missed'} |")
    ours = pick(rows, "agent replaced", "firebrick", "bytes")
    if ours:
        lines.append(f"| bytes sent, agent replaced | ≤ {3 << 20:,} | {ours[0]:,} | {min(ours):,} | {'met' if ours[0] <= 3 << 20 else 'missed'} |")
    for what in ("base upgraded", "application edited"):
        ours, there = pick(rows, what, "firebrick", "bytes"), pick(rows, what, CHANGED, "of")
        if ours and there:
            share = ours[0] / there[0]
            lines.append(f"| bytes sent ÷ bytes of changed blocks, {what} | ≤ 3 | {share:.2f} | {share:.2f} | {'met' if share <= 3 else 'missed'} |")
    for row in rows:
        if row["what"] == LAZY:
            share = row["bytes"] / row["of"]
            lines.append(f"| share of Debian with Python fetched until the agent answers | ≤ {LAZY_GOAL} | {share:.4f} | {share:.4f} "
                         f"| {'met' if share <= LAZY_GOAL else 'missed'} |")
    return lines


def table(rows):
    """MiB and seconds of each pair and program."""
    tools = [tool for tool in [*TOOLS, CHANGED] if any(row["tool"] == tool for row in rows)]
    lines = ["| | " + " | ".join(tools) + " |", "|---" * (len(tools) + 1) + "|"]
    for what in IMAGES:
        cells = []
        for tool in tools:
            bytes_, wall = pick(rows, what, tool, "bytes"), pick(rows, what, tool)
            seconds = f", {statistics.median(wall):.1f} s" if wall else ""
            if tool == CHANGED and wall:
                seconds = f" of {pick(rows, what, tool, 'of')[0] / 2**20:.1f} MiB"
            cells.append(f"{statistics.median(bytes_) / 2**20:.1f} MiB{seconds}" if wall else "–")
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return lines


def devbox(rows):
    lines = ["| devbox | program | MiB | seconds, median | least | CPU s |", "|---|---|---|---|---|---|"]
    for what in ("first upload", "download", "one package more", "download, first here"):
        for tool in ("firebrick", "zstd, aws"):
            wall = pick(rows, what, tool)
            if wall:
                cpu = [user + system for user, system in zip(pick(rows, what, tool, "user_s"), pick(rows, what, tool, "sys_s"))]
                mib = statistics.median(pick(rows, what, tool, "bytes")) / 2**20
                lines.append(f"| {what} | {tool} | {mib:.2f} | {statistics.median(wall):.2f} | {min(wall):.2f} | {statistics.median(cpu):.1f} |")
    return lines


def write(folder, about, bench, known):
    def shown(text):
        for long, short in known.items():
            text = text.replace(long, short)
        return text

    head = "| | goal | median of the rounds | best | |\n|---|---|---|---|---|"
    with open(os.path.join(folder, "summary.md"), "w", encoding="utf-8") as out:
        out.write("# Images to a store and back\n\n")
        out.write("\n".join([head, *goals(bench.rows, bench.layer_bytes()), "", *devbox(bench.rows), "", *table(bench.rows), ""]))
    with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as out:
        out.write(f"# Run {os.path.basename(os.path.normpath(folder))}\n\n    bench/store/run {shown(shlex.join(sys.argv[1:]))}\n\n")
        out.writelines(f"- {key}: {value}\n" for key, value in about.items())
        out.write("\nWhat was run, in the first round:\n\n")
        out.writelines(f"- {what}, {tool}: `{shown(command)}`\n" for (what, tool), command in bench.commands.items())
