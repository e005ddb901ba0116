"""What the recipe `python` promises: Python with its library, pip, and environments of their own."""
import ensurepip
import json
import lzma
import platform
import sqlite3
import ssl
import subprocess
import sys
import tempfile

database = sqlite3.connect(":memory:")
database.execute("create table t (n integer)")
database.executemany("insert into t values (?)", ((n,) for n in range(10)))
assert database.execute("select sum(n) from t").fetchone() == (45,)
assert lzma.decompress(lzma.compress(b"x" * 1000)) == b"x" * 1000
assert json.loads("[1, 2]") == [1, 2]
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50
assert subprocess.check_output(["python", "-c", "print(6 * 7)"]) == b"42\n"
with tempfile.TemporaryDirectory() as folder:
    # Without pip: it would be unpacked and compiled for minutes where the processor is emulated. That it could be is asked below.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    assert subprocess.check_output([f"{folder}/bin/python", "-c", "import sys; print(sys.prefix)"], text=True).strip() == folder
assert ensurepip.version()
pip = subprocess.check_output(["pip", "--version"], text=True).split()
print(f"ok: Python {platform.python_version()}, pip {pip[1]}, venv")
