"""The S3 server that bench/store/run sends images to, SeaweedFS, and how many bytes are where."""

import contextlib
import glob
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

KEYS = {"AWS_ACCESS_KEY_ID": "benchkey", "AWS_SECRET_ACCESS_KEY": "benchsecret"}
BUCKET = "bench"


def ports(count):
    """Ports that nobody has now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return found


def status(url):
    try:
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def wait(process, is_ready):
    """Until the server answers."""
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with {process.returncode}")
        if is_ready():
            return
        time.sleep(0.1)
    raise SystemExit(f"{process.args[0]} does not answer")


@contextlib.contextmanager
def running(command, folder, is_ready, environment=None):
    """A server whose folder goes with it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.join(folder, "data"))
    with open(os.path.join(folder, "log"), "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    try:
        wait(process, is_ready)
        yield
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def seaweed(folder):
    """SeaweedFS with one empty bucket; what a client must have in its environment."""
    names = ["s3", "s3.port.grpc", "master", "master.port.grpc", "volume", "volume.port.grpc", "filer", "filer.port.grpc",
             "admin", "admin.port.grpc"]
    found = dict(zip(names, ports(len(names))))
    flags = [f"-{name}={port}" if "." in name else f"-{name}.port={port}" for name, port in found.items()]
    data = os.path.join(folder, "data")
    command = ["weed", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}", *flags,
               f"-s3.localSocket={data}/s3.sock", f"-filer.localSocket={data}/filer.sock", "-webdav=false", "-admin.ui=false",
               "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]

    def is_ready():
        filer = status(f"http://127.0.0.1:{found['filer']}/buckets/{BUCKET}")
        return filer == 200 and status(f"http://127.0.0.1:{found['s3']}/{BUCKET}") == 403

    endpoint = f"http://127.0.0.1:{found['s3']}"
    try:
        with running(command, folder, is_ready, dict(os.environ, **KEYS)):
            yield {**KEYS, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint,
                   "AWS_EC2_METADATA_DISABLED": "true"}
    finally:
        for port in found.values():
            for path in glob.glob(f"/tmp/seaweedfs-*-grpc-{port}.sock"):
                os.unlink(path)


def files(folder):
    """Bytes of all files in a folder."""
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)


def objects(prefix, environment):
    """Bytes of all objects below a prefix, as the AWS client lists them."""
    command = ["aws", "s3", "ls", "--recursive", "--summarize", f"s3://{BUCKET}/{prefix}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=dict(os.environ, **environment), text=True, check=False)
    totals = [line.split(":")[1] for line in done.stdout.splitlines() if "Total Size" in line]
    return int(totals[0]) if totals else 0
