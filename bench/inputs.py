#!/usr/bin/env python3
"""Makes the benchmark inputs in bench/work from Debian's packages; what is there already is kept.

usage: bench/inputs.py [devbox] [manyfiles] [nodetree] [small] [pair] [systemd]

Needs mmdebstrap and a package mirror. The same SOURCE_DATE_EPOCH and package versions give the same bytes.
"""

import fcntl
import glob
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

os.environ["SOURCE_DATE_EPOCH"] = "1735689600"  # 2025-01-01
import layers  # noqa: E402 (needs the variable above)

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.environ.get("FIREBRICK_BENCH_WORK", os.path.join(HERE, "work"))
SUITE = "bookworm"

BASE = ["ca-certificates"]
TOOLS = BASE + (
    "build-essential git curl wget gdb strace vim-tiny cmake zstd xz-utils bzip2 zip unzip rsync jq openssh-client "
    "iproute2 iputils-ping dnsutils netcat-openbsd less man-db procps sqlite3 subversion mercurial"
).split()
LANGUAGES = TOOLS + (
    "python3-full python3-dev python3-pip python3-numpy nodejs npm rustc cargo openjdk-17-jdk-headless "
    "ruby php-cli clang perl-doc"
).split()
MANY = (
    "rust-src golang-1.19-src npm nodejs-doc node-core-js node-lodash node-rxjs numix-icon-theme "
    "elementary-xfce-icon-theme breeze-icon-theme suru-icon-theme mate-icon-theme faenza-icon-theme"
).split()
NODE = "npm nodejs-doc golang-1.19-src node-core-js node-lodash node-rxjs node-typescript webpack gulp".split()


def path(*parts):
    return os.path.join(WORK, *parts)


def debian(out, packages, variant="minbase"):
    """A root of these packages as a tar, under `out` whole or not at all."""
    if os.path.exists(out):
        return out
    partial = out + ".part.tar"
    command = ["mmdebstrap", "--quiet", f"--variant={variant}", SUITE, partial]
    if packages:
        command[3:3] = [f"--include={','.join(packages)}"]
    print("+", " ".join(command), flush=True)
    subprocess.run(command, check=True)
    os.rename(partial, out)
    return out


def oci(name, tars):
    """An OCI layout of these layers, under its name whole or not at all."""
    for leftover in (name, name + ".part"):
        shutil.rmtree(path(leftover), ignore_errors=True)
    layers.layout(path(name + ".part"), tars)
    os.rename(path(name + ".part"), path(name))


def devbox():
    """Three gzip layers: base, tools, languages; each the difference between two complete roots."""
    if os.path.exists(path("devbox.json")):
        return
    steps = [
        debian(path("step0.tar"), BASE),
        debian(path("step1.tar"), TOOLS),
        debian(path("step2.tar"), LANGUAGES),
    ]
    tars = [steps[0]]
    for lower, upper in zip(steps, steps[1:]):
        tars.append(path(f"devbox-layer{len(tars)}.tar"))
        layers.diff(lower, upper, tars[-1])
    oci("devbox", tars)
    describe("devbox", tars)
    for leftover in tars[1:] + steps[1:]:
        os.unlink(leftover)


def manyfiles():
    """A plain tar of very many small files."""
    if not os.path.exists(path("manyfiles.json")):
        describe("manyfiles", [debian(path("manyfiles.tar"), MANY, "extract")])


def nodetree():
    """A plain tar with one folder of 43,000 files beside the trees they come from."""
    if os.path.exists(path("nodetree.json")):
        return
    source = debian(path("node.tar"), NODE, "extract")
    layers.flatten(source, path("nodetree.part"), "srv/flat", 43_000)
    os.rename(path("nodetree.part"), path("nodetree.tar"))
    os.unlink(source)
    describe("nodetree", [path("nodetree.tar")])


def small():
    """The Alpine root of the fixtures where they are, else a small root of Debian packages."""
    if os.path.exists(path("small.json")):
        return
    fixtures = os.environ.get("FIREBRICK_FIXTURES", os.path.join(HERE, "..", "..", "shared", "fixtures"))
    machine = os.uname().machine
    found = sorted(glob.glob(os.path.join(fixtures, "alpine", f"alpine-minirootfs-*-{machine}.tar.gz")))
    if found:
        with open(path("small.tar"), "wb") as out:
            out.write(layers.read_blob(found[-1]))
    else:
        print("no Alpine fixture: the small image is busybox-static and base-files of Debian")
        debian(path("small.tar"), ["busybox-static", "base-files"], "custom")
    oci("small", [path("small.tar")])
    describe("small", [path("small.tar")])


def pair():
    """Two images over one base layer of about 200 MB, each with a different layer above."""
    if os.path.exists(path("pair.json")):
        return
    base = debian(path("pair-base.tar"), ["python3-minimal", "ca-certificates"])
    for name, packages in (("a", "less,file"), ("b", "zstd,jq")):
        full = debian(path(f"pair-{name}-full.tar"), ["python3-minimal", "ca-certificates", *packages.split(",")])
        layers.diff(base, full, path(f"pair-{name}.tar"))
        oci(f"pair-{name}", [base, path(f"pair-{name}.tar")])
        os.unlink(full)
    describe("pair", [base])


READY = """[Unit]
Description=Tells on the console when services of multi-user.target run

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "READY $(cut -d" " -f1 /proc/uptime) $(systemctl show -P UserspaceTimestampMonotonic)" > /dev/console'
ExecStartPost=/bin/systemctl --no-block poweroff

[Install]
WantedBy=multi-user.target
"""


def systemd():
    """A Debian that boots systemd, with a unit where an agent's unit would stand; bench/boot times it."""
    if os.path.exists(path("systemd.json")):
        return
    root = debian(path("systemd.tar"), ["systemd-sysv", "udev", "dbus"])
    with tarfile.open(path("systemd-ready.tar"), "w", format=tarfile.PAX_FORMAT) as layer:
        units = "etc/systemd/system"
        for name, text, target in (
            (f"{units}/ready.service", READY, None),
            (f"{units}/multi-user.target.wants/ready.service", "", "/etc/systemd/system/ready.service"),
        ):
            info = tarfile.TarInfo(name)
            info.mode, info.mtime, info.size = 0o644, int(os.environ["SOURCE_DATE_EPOCH"]), len(text)
            if target:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
            layer.addfile(info, io.BytesIO(text.encode()))
    oci("systemd", [root, path("systemd-ready.tar")])
    describe("systemd", [root])


def describe(name, tars):
    """Writes what the input is, for the run's report; this file says that the input is complete."""
    facts = [layers.count(tar) for tar in tars]
    total = {"layers": len(tars), "entries": sum(f["entries"] for f in facts), "bytes": sum(f["bytes"] for f in facts),
             "of_each": facts}
    with open(path(name + ".json"), "w") as out:
        json.dump(total, out, indent=1)
    print(name, json.dumps(total), flush=True)


def main():
    os.makedirs(WORK, exist_ok=True)
    makers = {maker.__name__: maker for maker in (small, pair, manyfiles, nodetree, devbox, systemd)}
    with open(path(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makers would write to the same steps
        for name in sys.argv[1:] or makers:
            if name not in makers:
                raise SystemExit(f"no such input: {name}; there are {', '.join(makers)}")
            makers[name]()


if __name__ == "__main__":
    main()
