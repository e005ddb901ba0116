#!/usr/bin/env python3
"""What it costs to change one file of a large image, beside `cp` of that image.

    bench/edit.py FIREBRICK FOLDER [MIB] [ROUNDS] [CSV]

Makes an ext4 of MIB (default 2048) full of random bytes in FOLDER with mke2fs, then by turns: `cp`, `cp` and `sync` of the copy, and
`firebrick rootfs edit --add` of one small file with `-o`. Prints the medians and their ratios, and adds a line for each measurement to CSV. e2fsck judges the last result.
"""

import os
import statistics
import subprocess
import sys
import time


def timed(*command):
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def main():
    firebrick, folder = sys.argv[1:3]
    mib = int(sys.argv[3]) if len(sys.argv) > 3 else 2048
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    image, copy, out, content, small = (
        os.path.join(folder, name) for name in ("image.ext4", "copy.ext4", "out.ext4", "content", "small")
    )
    os.makedirs(content, exist_ok=True)
    left = mib * 94 // 100
    for number in range(64):
        with open(os.path.join(content, f"file-{number}"), "wb") as file:
            for _ in range(left // 64):
                file.write(os.urandom(1 << 20))
    with open(small, "w", encoding="ascii") as file:
        file.write("small\n")
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", content, image, f"{mib}M"], check=True)
    subprocess.run(["rm", "-r", content], check=True)
    subprocess.run(["sync"], check=True)
    times = {"cp": [], "cp and sync": [], "edit": []}
    for _ in range(rounds):
        for target in (copy, out):
            if os.path.exists(target):
                os.remove(target)
        times["cp"].append(timed("cp", "--reflink=auto", image, copy))
        subprocess.run(["sync", copy], check=True)
        os.remove(copy)
        times["cp and sync"].append(timed("sh", "-c", 'cp --reflink=auto "$0" "$1" && sync "$1"', image, copy))
        times["edit"].append(
            timed(firebrick, "-q", "rootfs", "edit", image, "--add", f"{small}:/small", "-o", out)
        )
    shared = "shared" in subprocess.run(["filefrag", "-v", out], check=True, capture_output=True, text=True).stdout
    subprocess.run(["e2fsck", "-fn", out], check=True, stdout=subprocess.DEVNULL)
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], check=True, capture_output=True, text=True).stdout.strip()
    print(f"{mib} MiB on {kind}, blocks {'shared' if shared else 'copied'}")
    if len(sys.argv) > 5:
        is_new = not os.path.exists(sys.argv[5])
        with open(sys.argv[5], "a", encoding="ascii") as file:
            if is_new:
                file.write("filesystem,mib,blocks,what,round,seconds\n")
            for name, all_of in times.items():
                for number, one in enumerate(all_of):
                    file.write(f"{kind},{mib},{'shared' if shared else 'copied'},{name},{number},{one:.4f}\n")
    medians = {name: statistics.median(all_of) for name, all_of in times.items()}
    for name, all_of in times.items():
        print(f"{name:12} {medians[name]:7.3f} s  " + " ".join(f"{one:.3f}" for one in all_of))
    print(f"edit / cp            {medians['edit'] / medians['cp']:.2f}")
    print(f"edit / cp and sync   {medians['edit'] / medians['cp and sync']:.2f}")
    for path in (image, copy, out, small):
        os.remove(path)


main()
