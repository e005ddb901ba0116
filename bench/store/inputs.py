#!/usr/bin/env python3
"""Makes the images that bench/store compares, in bench/work: one image, and what may come after it.

usage: bench/store/inputs.py [FIREBRICK HOME [AGENT]]

  store-first     Debian with Python as released, and an application (node packages) as a second layer
  store-upgraded  the same application over Debian with all updates and security fixes
  store-edited    the application edited: 1 file in 100 has lines more, some are new, some gone
  store-other     another application over the first base
  store-python    the first base alone

OCI layouts. With FIREBRICK also the image files of them in HOME, those of bench/inputs.py's devbox and of the same with one package
more, and one of store-first with another agent: AGENT, or this one built for speed. What is there is kept. Needs mmdebstrap and a
package mirror.
"""

import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import inputs  # noqa: E402
import layers  # noqa: E402

BASE = "ca-certificates,python3,openssl,curl,git,perl,libxml2,libgnutls30,openssh-client"
APPLICATION = ["node-typescript", "webpack", "node-rxjs", "node-lodash"]
OTHER = ["python3-numpy", "python3-pil", "python3-lxml"]
PLUS = """from = {{ image = "oci:{devbox}" }}

[packages]
all = ["htop"]
"""


def released():
    """The mirror's line for the suite alone: without updates, without security fixes."""
    sites = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"], check=True, capture_output=True, text=True
    ).stdout
    site = next(line.split()[0] for line in sites.splitlines() if line.endswith(f" {inputs.SUITE}"))
    return f"deb {site} {inputs.SUITE} main"


def base(name, *sources):
    """A root of the base packages."""
    out = inputs.path(name)
    if not os.path.exists(out):
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={BASE}", inputs.SUITE, out + ".part.tar", *sources]
        subprocess.run(command, check=True)
        os.rename(out + ".part.tar", out)
    return out


def edited(application, out):
    """The application's layer after a day's work: every 100th file longer, every 200th gone, 20 new."""
    count = 0
    with tarfile.open(application) as before, tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as after:
        for member in before:
            count += member.isreg()
            if not member.isreg():
                after.addfile(member)
                continue
            content = before.extractfile(member).read()
            if count % 200 == 50:
                continue
            if count % 100 == 0:
                middle = len(content) // 2
                content = content[:middle] + f"\n// edited {count}\n".encode() * 20 + content[middle:]
            member.size = len(content)
            after.addfile(member, io.BytesIO(content))
        for number in range(20):
            new = tarfile.TarInfo(f"srv/app/new-{number}.js")
            content = "".join(f"export const value{line} = {line * number};\n" for line in range(400)).encode()
            new.size, new.mtime = len(content), int(os.environ["SOURCE_DATE_EPOCH"])
            after.addfile(new, io.BytesIO(content))


def other_agent():
    """This firebrick's agent as a compiler makes it that cares for speed: the same program, and most of its bytes are others."""
    out, source = inputs.path("store-agent"), inputs.path("store-agent.src")
    root = os.path.dirname(os.path.dirname(HERE))
    shutil.rmtree(source, ignore_errors=True)
    os.makedirs(source)
    subprocess.run(f"git -C {shlex.quote(root)} archive HEAD | tar -x -C {shlex.quote(source)}", shell=True, check=True)
    manifest = os.path.join(source, "Cargo.toml")
    with open(manifest, encoding="utf-8") as file:
        text = file.read()
    # The profile of the agent alone says "z".
    assert text.count('opt-level = "z"') == 1
    with open(manifest, "w", encoding="utf-8") as file:
        file.write(text.replace('opt-level = "z"', "opt-level = 2"))
    target = f"{os.uname().machine}-unknown-linux-gnu"
    environment = dict(os.environ, CARGO_TARGET_DIR=inputs.path("store-agent.d"))
    subprocess.run(["cargo", "xtask", "guest", "--target", target, "--output", out], check=True, cwd=source, env=environment)
    shutil.rmtree(source)
    return out


def images(firebrick, home, agent=None):
    """The image files."""
    def make(name, *words):
        if not os.path.exists(os.path.join(home, "images", f"rootfs-{name}.ext4")):
            command = [firebrick, "-q", "rootfs", words[0], "-n", name, *words[1:]]
            subprocess.run(command, check=True, env=dict(os.environ, FIREBRICK_HOME=home))

    names = ["store-first", "store-upgraded", "store-edited", "store-other", "store-python", "devbox"]
    for name in names:
        make(name, "from-docker", "-i", f"oci:{inputs.path(name)}:latest")
    if not os.path.exists(os.path.join(home, "images", "rootfs-agent.ext4")):
        make("agent", "from-docker", "--agent", agent or other_agent(), "-i", f"oci:{inputs.path('store-first')}:latest")
    recipe = inputs.path("plus.toml")
    with open(recipe, "w", encoding="utf-8") as file:
        file.write(PLUS.format(devbox=inputs.path("devbox")))
    make("devbox2", "build", recipe)


def main():
    os.makedirs(inputs.WORK, exist_ok=True)
    if not os.path.exists(inputs.path("store.json")):
        layouts()
    if sys.argv[1:]:
        inputs.devbox()
        images(*sys.argv[1:])


def layouts():
    """The OCI layouts."""
    old, new = base("store-old.tar", released()), base("store-new.tar")
    application = inputs.debian(inputs.path("store-app.tar"), APPLICATION, "extract")
    other = inputs.debian(inputs.path("store-other.tar"), OTHER, "extract")
    day = inputs.path("store-app-edited.tar")
    edited(application, day)
    for name, tars in (
        ("store-first", [old, application]),
        ("store-upgraded", [new, application]),
        ("store-edited", [old, day]),
        ("store-other", [old, other]),
        ("store-python", [old]),
    ):
        inputs.oci(name, tars)
    inputs.describe("store", [old, new, application, day, other])


if __name__ == "__main__":
    main()
