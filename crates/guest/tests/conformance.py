"""Checks an agent against docs/protocol-jsonrpc.md, with nothing but the standard library and GNU tar.

usage: conformance.py HOST PORT [guest]     with "guest": the agent is PID 1 of a machine, and a shell and tar are there
"""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

checks = 0


class Client:
    def __init__(self):
        self.socket = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=300)
        self.lines = self.socket.makefile("rb")

    def raw(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())
        return self

    def send(self, **message):
        return self.raw(json.dumps({"jsonrpc": "2.0", **message}) + "\n")

    def read(self):
        line = self.lines.readline()
        assert line.endswith(b"\n"), line
        reply = json.loads(line)
        assert reply["jsonrpc"] == "2.0", reply
        return reply

    def call(self, method, **params):
        return self.send(id=1, method=method, params=params).read()


    def put(self, data, piece=24000, end=True, **params):
        """A transfer to the agent: its response, which may come before all was sent."""
        self.send(id="put", method="put", params=params)
        for at in range(0, len(data), piece):
            self.send(method="stdin", params={"id": "put", "data": base64.b64encode(data[at:at + piece]).decode()})
        if end:
            self.send(method="stdin", params={"id": "put", "eof": True})
            return self.read()

    def get(self, **params):
        """A transfer from the agent: its bytes and its response."""
        self.send(id="get", method="get", params=params)
        data = b""
        while "id" not in (message := self.read()):
            assert (message["method"], message["params"]["id"], message["params"]["stream"]) == ("output", "get", "stdout")
            data += base64.b64decode(message["params"]["data"])
        assert message["id"] == "get"
        return data, message


def same(found, expected):
    global checks
    checks += 1
    assert found == expected, f"\nfound    {found}\nexpected {expected}"


def error_code(reply, id):
    assert "result" not in reply, reply
    same(reply["id"], id)
    assert isinstance(reply["error"]["message"], str) and reply["error"]["message"], reply
    return reply["error"]["code"]


client = Client()
in_guest = sys.argv[3:] == ["guest"]

# ping, with and without parameters
same(client.call("ping"), {"jsonrpc": "2.0", "id": 1, "result": {"pong": True}})
same(client.send(id="a", method="ping").read(), {"jsonrpc": "2.0", "id": "a", "result": {"pong": True}})

# exec as the seed's hosts use it
same(client.call("exec", cmd="echo hello; echo oh >&2; exit 3")["result"],
     {"exit_code": 3, "stdout": "hello\n", "stderr": "oh\n"})
same(client.call("exec", cmd="kill -9 $$")["result"], {"exit_code": 137, "signal": 9, "stdout": "", "stderr": ""})

# exec_code
snippets = [("sh", "echo 42")]
if not in_guest:
    snippets += [("python", "print(6 * 7)"), ("python3", "print(42)"), ("bash", "echo $((6 * 7))")]
for lang, code in snippets:
    same(client.call("exec_code", lang=lang, code=code)["result"]["stdout"], "42\n")
same(client.call("exec_code", lang="SH", code="echo 42")["result"]["stdout"], "42\n")
result = client.call("exec_code", lang="cobol", code="")["result"]
same((result["exit_code"], result["stdout"]), (-1, ""))
for lang in ["unsupported language: cobol", "python", "node", "bash", "sh"]:
    assert lang in result["stderr"], result

# errors
same(error_code(client.raw("{nonsense\n").read(), None), -32700)
same(error_code(client.raw(b"\xff\xfe\n").read(), None), -32700)
same(error_code(client.raw("[]\n").read(), None), -32600)
same(error_code(client.raw('["2.0", 5, "ping"]\n').read(), None), -32600)
same(error_code(client.raw('[{"jsonrpc": "2.0", "id": 5, "method": "ping"}]\n').read(), None), -32600)
same(error_code(client.raw('{"id": 5, "method": "ping"}\n').read(), 5), -32600)
same(error_code(client.raw('{"jsonrpc": "2.0", "id": 6}\n').read(), 6), -32600)
same(error_code(client.call("read_minds"), 1), -32601)
same(error_code(client.call("exec"), 1), -32602)
same(error_code(client.call("exec", cmd=5), 1), -32602)
same(error_code(client.call("exec", cmd="true", colour="red"), 1), -32602)
same(error_code(client.call("exec_code", lang="sh"), 1), -32602)
reply = client.call("exec", argv=["/no/such/program"])
same(error_code(reply, 1), -32603)
same(reply["error"]["data"]["errno"], 2)

# a line too long, then an ordinary one; empty lines and notifications are not answered
client.raw("x" * (4 * 1024 * 1024 + 1) + "\n")
same(error_code(client.read(), None), -32600)
client.raw("\n \r\n").send(method="ping").send(method="no such method")
same(client.call("ping")["result"], {"pong": True})

# streaming, as the page shows it
client.send(id="a", method="exec", params={"argv": ["cat"], "stdin": True, "stream": True})
client.send(method="stdin", params={"id": "a", "data": "aGkK", "eof": True})
same(client.read(), {"jsonrpc": "2.0", "method": "output", "params": {"id": "a", "stream": "stdout", "data": "aGkK"}})
same(client.read(), {"jsonrpc": "2.0", "id": "a", "result": {"exit_code": 0}})

# answers come as work ends; notifications name their job
client.send(id="slow", method="exec", params={"cmd": "read line; printf '\\000%s' \"$line\"", "stdin": True, "stream": True})
same(client.call("ping")["result"], {"pong": True})
client.send(method="stdin", params={"id": "slow", "data": base64.b64encode(b"\xc3\xbc\n").decode()})
same(base64.b64decode(client.read()["params"]["data"]), b"\0\xc3\xbc")
same(client.read()["result"], {"exit_code": 0})

# signals by name and number; timeouts
for signal, number in [("TERM", 15), ("SIGINT", 2), (9, 9)]:
    client.send(id=7, method="exec", params={"argv": ["sleep", "60"]})
    client.send(method="signal", params={"id": 7, "signal": signal})
    same(client.read()["result"]["signal"], number)
# the same as requests, which tell whether there was such a job
client.send(id=7, method="exec", params={"argv": ["sleep", "60"]})
for params in [{"id": 8, "signal": "TERM"}, {"id": 7, "signal": "KILLL"}, {"id": 7, "signal": 0}, {"id": 7, "signal": 99}]:
    same(client.call("signal", **params)["error"]["code"], -32602)
same(client.call("resize", id=8, rows=1, cols=2)["error"]["code"], -32602)
same(client.call("signal", id=7, signal="TERM")["result"], {})
same(client.read()["result"]["signal"], 15)
result = client.call("exec", argv=["sleep", "60"], timeout_ms=50)["result"]
same((result["timed_out"], result["signal"]), (True, 9))

# env, cwd, truncation
same(client.call("exec", cmd='echo "$X"; pwd', env={"X": "a b"}, cwd="/usr")["result"]["stdout"], "a b\n/usr\n")
stdout = client.call("exec", cmd="head -c 2000000 /dev/zero | tr '\\0' z")["result"]["stdout"]
same(stdout, "z" * 1048576 + "\n... [output truncated]")

# a terminal
run = client.call("exec", cmd="test -t 0 && test -t 1 && test -t 2 && stty size; echo oh >&2; printf 'a\\tb'",
                  pty={"rows": 31, "cols": 97}, env={"PATH": "/bin:/usr/bin"})["result"]
same(run, {"exit_code": 0, "stdout": "31 97\r\noh\r\na\tb", "stderr": ""})
client.send(id="t", method="exec", params={"cmd": "trap 'stty size' WINCH; echo ready; while read -r x; do echo \"<$x>\"; done; echo end",
                                           "pty": {"rows": 1, "cols": 2}, "stdin": True, "stream": True})
shown = ""


def until(text):
    global shown
    while text not in shown:
        message = client.read()
        assert message.get("method") == "output" and message["params"]["stream"] == "stdout", message
        shown += base64.b64decode(message["params"]["data"]).decode()
    shown = shown[shown.index(text) + len(text):]


until("ready\r\n")
client.send(method="stdin", params={"id": "t", "data": base64.b64encode(b"typed\n").decode()})
until("typed\r\n<typed>\r\n")
client.send(method="resize", params={"id": "t", "rows": 40, "cols": 120})
client.send(method="resize", params={"id": "nobody", "rows": 1, "cols": 1})
client.send(method="stdin", params={"id": "t", "data": base64.b64encode(b"\n").decode()})
until("40 120\r\n")
client.send(method="stdin", params={"id": "t", "eof": True})
until("end\r\n")
while "id" not in (message := client.read()):
    pass
same(message["result"], {"exit_code": 0})
client.send(id="t", method="exec", params={"cmd": "echo ready; exec sleep 60", "pty": {"rows": 1, "cols": 2}, "stdin": True, "stream": True})
until("ready")
time.sleep(0.3)
client.send(method="stdin", params={"id": "t", "data": base64.b64encode(b"\x03").decode()})
while "id" not in (message := client.read()):
    pass
same(message["result"], {"exit_code": 130, "signal": 2})
same(error_code(client.call("exec", cmd="true", pty=True), 1), -32602)

# text files, as the seed's hosts use them
folder = client.call("exec", cmd="mktemp -d /tmp/conformance-XXXXXX")["result"]["stdout"].strip()
same(client.call("write_file", path=f"{folder}/a/b/text", content="grüße\n\0\"")["result"], {"success": True})
same(client.call("read_file", path=f"{folder}/a/b/text")["result"], {"content": "grüße\n\0\""})
same(client.call("write_file", path=f"{folder}/a/b/text", content="")["result"], {"success": True})
same(client.call("read_file", path=f"{folder}/a/b/text")["result"], {"content": ""})
client.call("exec", cmd=f"cd {folder}; printf 12345 > z; ln -s z link; mkdir dir; mkfifo pipe; printf 'a\\377' > latin1; truncate -s 11000000 large")
same(client.call("list_dir", path=folder)["result"],
     {"entries": [{"name": "a", "is_dir": True, "size": 0}, {"name": "dir", "is_dir": True, "size": 0},
                  {"name": "large", "is_dir": False, "size": 11000000}, {"name": "latin1", "is_dir": False, "size": 2},
                  {"name": "link", "is_dir": False, "size": 0}, {"name": "pipe", "is_dir": False, "size": 0},
                  {"name": "z", "is_dir": False, "size": 5}]})
same(client.call("read_file", path=f"{folder}/link")["result"], {"content": "12345"})
for path, errno in [("none", 2), ("dir", 21), ("latin1", 84), ("large", 27), ("pipe", 22)]:
    reply = client.call("read_file", path=f"{folder}/{path}")
    same((error_code(reply, 1), reply["error"]["data"]["errno"]), (-32603, errno))
same(client.call("list_dir", path=f"{folder}/z")["error"]["data"]["errno"], 20)
same(client.call("write_file", path=f"{folder}/dir", content="x")["error"]["data"]["errno"], 21)
for method, params in [("read_file", {}), ("read_file", {"path": 5}), ("write_file", {"path": "/x"}), ("list_dir", {"paths": "/"}),
                       ("read_file", {"path": "a\0b"}), ("list_dir", {"path": ""})]:
    same(error_code(client.call(method, **params), 1), -32602)
text = "ü" * 1_500_000 + "end"
same(client.call("write_file", path=f"{folder}/long", content=text[:300000])["result"], {"success": True})
same(client.call("read_file", path=f"{folder}/long")["result"]["content"], text[:300000])
client.call("exec", cmd=f"for i in 1 2 3 4 5 6 7 8 9 10; do cat {folder}/long; done > {folder}/longer")
same(client.call("read_file", path=f"{folder}/longer")["result"]["content"], text[:300000] * 10)

# one name
client.call("exec", cmd=f"cd {folder}; chmod 4711 z; touch -d @1000000000 z")
status = client.call("stat", path=f"{folder}/z")["result"]
owner = status["uid"], status["gid"]
same(status, {"kind": "file", "size": 5, "mode": 0o4711, "uid": owner[0], "gid": owner[1], "mtime_us": 10**15, "links": 1})
status = client.call("stat", path=f"{folder}/link")["result"]
same((status["kind"], status["target"]), ("symlink", "z"))
same(client.call("stat", path=f"{folder}/link", follow=True)["result"]["size"], 5)
same([client.call("stat", path=path)["result"]["kind"] for path in [folder, f"{folder}/pipe", "/dev/null", "/"]], ["dir", "fifo", "char", "dir"])
same(client.call("make_dir", path=f"{folder}/m", mode=0o1777)["result"], {})
same(client.call("stat", path=f"{folder}/m/")["result"]["mode"], 0o1777)
same(client.call("make_dir", path=f"{folder}/m")["error"]["data"]["errno"], 17)
same(client.call("make_dir", path=f"{folder}/x/y/z")["error"]["data"]["errno"], 2)
same(client.call("make_dir", path=f"{folder}/x/y/z", parents=True)["result"], {})
same(client.call("make_dir", path=f"{folder}/x/y/z", parents=True)["result"], {})
same(client.call("remove", path=f"{folder}/x")["error"]["data"]["errno"], 39)
same(client.call("remove", path=f"{folder}/x/y/z")["result"], {})
same(client.call("remove", path=f"{folder}/x", recursive=True)["result"], {})
same(client.call("remove", path=f"{folder}/x", recursive=True)["error"]["data"]["errno"], 2)
same(client.call("remove", path=f"{folder}/link")["result"], {})
same(client.call("stat", path=f"{folder}/z")["result"]["size"], 5)
for method, params in [("remove", {"path": "/"}), ("remove", {"path": ".", "root": folder}), ("stat", {"path": "relative"}), ("stat", {"path": "/x/.."}),
                       ("make_dir", {"path": "/x", "mode": 99999}), ("make_dir", {"path": "/x", "owner": "no such user"}),
                       ("stat", {"path": "../etc", "root": folder}), ("put", {"path": "a/../../x", "root": folder}),
                       ("stat", {"path": "x", "root": folder, "follow": True}), ("clock_sync", {}), ("clock_sync", {"unix_us": -1}),
                       ("clock_sync", {"unix_us": 2**64 - 1}), ("reseed", {}), ("reseed", {"data": "AAAA"}), ("reseed", {"data": "A" * 88})]:
    same(error_code(client.call(method, **params), 1), -32602)

# files as they are: any bytes, any length, whole or not at all
data = bytes(range(256)) * 4000 + b"end"
same(client.put(data, path=f"{folder}/file", mode=0o640)["result"], {"bytes": len(data), "entries": 1})
found, reply = client.get(path=f"{folder}/file")
same((found == data, reply["result"]), (True, {"bytes": len(data), "entries": 1}))
same(client.call("stat", path=f"{folder}/file")["result"]["mode"], 0o640)
same(client.put(b"", path=f"{folder}/file")["result"], {"bytes": 0, "entries": 1})
same(client.call("stat", path=f"{folder}/file")["result"]["mode"], 0o640)
same(client.put(b"x", path=f"{folder}/p/q/file")["error"]["data"]["errno"], 2)
same(client.put(b"x", path=f"{folder}/p/q/file", parents=True)["result"]["bytes"], 1)
same(client.put(b"x", path=f"{folder}/dir")["error"]["data"]["errno"], 21)
same(client.put(b"x", path=f"{folder}/new/", parents=True)["error"]["data"]["errno"], 21)
same(client.call("stat", path=f"{folder}/new")["error"]["data"]["errno"], 2)
same(client.get(path=f"{folder}/dir")[1]["error"]["data"]["errno"], 21)
same(client.get(path=f"{folder}/pipe")[1]["error"]["data"]["errno"], 22)
same(client.get(path=f"{folder}/none")[1]["error"]["data"]["errno"], 2)
vanishing = Client()
vanishing.put(b"half of it", end=False, path=f"{folder}/file")
same(vanishing.call("ping")["result"]["pong"], True)
vanishing.socket.close()
vanishing.lines.close()
for _ in range(100):
    if client.call("status")["result"]["jobs"] == 0:
        break
time.sleep(0.3)
same(client.call("exec", cmd=f"ls -A {folder} | grep put; wc -c < {folder}/file")["result"]["stdout"].strip(), "0")

# bytes as they are, behind lines that say how many; both forms may be mixed, and lines of other answers come between
client.send(id="put", method="put", params={"path": f"{folder}/raw"})
client.send(method="stdin", params={"id": "put", "raw": 7}).raw(b"\n\0{}\n\xff\n")
client.send(method="stdin", params={"id": "put", "data": "QUJD", "raw": 3}).raw(b"DEF").send(id="p", method="ping")
client.send(method="stdin", params={"id": "put", "raw": len(data), "eof": True}).raw(data)
replies = {reply["id"]: reply["result"] for reply in [client.read(), client.read()]}
same(replies, {"p": {"pong": True}, "put": {"bytes": 13 + len(data), "entries": 1}})
client.send(id="get", method="get", params={"path": f"{folder}/raw", "raw": True}).send(id="p", method="ping")
found, replies = b"", {}
while "get" not in replies:
    message = client.read()
    if "id" in message:
        replies[message["id"]] = message["result"]
    else:
        same((message["method"], message["params"]["id"], message["params"]["stream"], "data" in message["params"]), ("output", "get", "stdout", False))
        found += client.lines.read(message["params"]["raw"])
same((found == b"\n\0{}\n\xff\nABCDEF" + data, replies), (True, {"p": {"pong": True}, "get": {"bytes": 13 + len(data), "entries": 1}}))
client.send(method="stdin", params={"id": "nobody", "raw": 9}).raw(b"\n[{nobody")
client.send(id="cat", method="exec", params={"argv": ["cat"], "stdin": True})
client.send(method="stdin", params={"id": "cat", "raw": 4, "eof": True}).raw(b"cat\n")
same(client.read()["result"]["stdout"], "cat\n")
same(error_code(client.send(id=1, method="get", params={"path": f"{folder}/none", "raw": True}).read(), 1), -32603)
cut = Client()
cut.send(id="put", method="put", params={"path": f"{folder}/cut"}).send(method="stdin", params={"id": "put", "raw": 100, "eof": True}).raw(b"not all of it")
cut.socket.shutdown(socket.SHUT_WR)
same(cut.lines.read(), b"")
same(client.call("stat", path=f"{folder}/cut")["error"]["data"]["errno"], 2)

# below a root nothing leads out
client.call("exec", cmd=f"cd {folder}; mkdir root; ln -s /etc root/etc; ln -s {folder}/z root/z")
for params in [{"path": "etc/passwd"}, {"path": "/etc/passwd"}, {"path": "etc/../../z"}]:
    assert "error" in client.call("stat", root=f"{folder}/root", **params), params
    assert "error" in client.put(b"x", root=f"{folder}/root", **params), params
same(client.put(b"x", root=f"{folder}/root", path="z")["result"]["bytes"], 1)
same(client.call("stat", path=f"{folder}/root/z")["result"]["kind"], "file")
same(client.call("stat", path=f"{folder}/z")["result"]["size"], 5)

# trees, as somebody else's tar writes and reads them


def packed(entries, **options):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for name, kind, extra in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mtime = 1234567890.5
            content = extra.pop("content", b"")
            info.size = len(content)
            for key, value in extra.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


long_name = "d/" + "n" * 200
for style in [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]:
    tree = packed([("d", tarfile.DIRTYPE, {"mode": 0o500}), ("d/file", tarfile.REGTYPE, {"content": data, "mode": 0o4755, "uid": 1234, "gid": 77}),
                   ("./d/hard", tarfile.LNKTYPE, {"linkname": "d/file"}), ("soft", tarfile.SYMTYPE, {"linkname": "/etc/passwd"}),
                   (long_name, tarfile.REGTYPE, {"content": b"long"}), ("d/grüße", tarfile.REGTYPE, {}),
                   ("new/parent/x", tarfile.REGTYPE, {"content": b"x" * 512}), ("fifo", tarfile.FIFOTYPE, {})], format=style)
    target = f"{folder}/tree{style}"
    same(client.put(tree, tree=True, path=target)["result"], {"bytes": len(data) + 4 + 512, "entries": 8})
    same(client.call("stat", path=f"{target}/d")["result"]["mode"], 0o500)
    status = client.call("stat", path=f"{target}/d/file")["result"]
    same((status["size"], status["mode"], status["links"], status["mtime_us"]), (len(data), 0o4755, 2, 1234567890 * 10**6))
    if owner == (0, 0):
        same((status["uid"], status["gid"]), (1234, 77))
    same(client.call("stat", path=f"{target}/soft")["result"]["target"], "/etc/passwd")
    same(client.call("stat", path=f"{target}/{long_name}")["result"]["size"], 4)

    found, reply = client.get(tree=True, path=target)
    with tarfile.open(fileobj=io.BytesIO(found)) as archive:
        members = {os.path.normpath(info.name): info for info in archive}
        same(sorted(members), sorted([".", "d", "d/file", "d/hard", "soft", long_name, "d/grüße", "new", "new/parent", "new/parent/x", "fifo"]))
        same(reply["result"]["entries"], len(members))
        same(archive.extractfile(members["d/hard"]).read() == data, True)
        same((members["d/hard"].islnk(), members["soft"].linkname, members["fifo"].isfifo()), (True, "/etc/passwd", True))
        same((members["d/file"].mode, members["d/file"].mtime, members["d"].mode), (0o4755, 1234567890, 0o500))
same(client.put(packed([("x", tarfile.REGTYPE, {"uid": 5, "gid": 6})]), tree=True, path=f"{folder}/owned", owner="1:2" if owner == (0, 0) else None)["result"]["entries"], 1)
if owner == (0, 0):
    same([client.call("stat", path=f"{folder}/owned{p}")["result"]["uid"] for p in ["", "/x"]], [1, 1])
found, reply = client.get(tree=True, path=f"{folder}/z")
same(tarfile.open(fileobj=io.BytesIO(found)).getnames(), ["z"])

# times before 1970, as two other tars write and read them
with tempfile.TemporaryDirectory() as here:
    with open(f"{here}/old", "w"):
        os.utime(f"{here}/old", ns=(-1500000000, -1500000000))
    command = ["tar", "-C", here, "--numeric-owner"]
    old = [subprocess.run([*command, f"--format={style}", "-cf", "-", "old"], check=True, stdout=subprocess.PIPE).stdout for style in ["gnu", "posix"]]
    old += [packed([("old", tarfile.REGTYPE, {"mtime": mtime})], format=style) for mtime, style in [(-2, tarfile.GNU_FORMAT), (-1.5, tarfile.PAX_FORMAT)]]
    for one in old:
        same(client.put(one, tree=True, path=f"{folder}/old")["result"]["entries"], 1)
        same(client.call("stat", path=f"{folder}/old/old")["result"]["mtime_us"], -2 * 10**6)
        client.call("remove", path=f"{folder}/old", recursive=True)
    ancient = packed([("old", tarfile.REGTYPE, {"mtime": -(2**31)})], format=tarfile.GNU_FORMAT)
    same(client.put(ancient, tree=True, path=f"{folder}/old")["result"]["entries"], 1)
    found, reply = client.get(tree=True, path=f"{folder}/old/old")
    same([info.mtime for info in tarfile.open(fileobj=io.BytesIO(found))], [-(2**31)])
    listed = subprocess.run(["tar", "--utc", "--full-time", "-tvf", "-"], input=found, check=True, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"})
    assert b"1901-12-13 20:45:52" in listed.stdout, listed.stdout

# more folders than an agent remembers at a time, and more names than it holds
if not in_guest:
    # in memory where that can be: a disk may remove no more than hundreds of folders a second
    many = tempfile.mkdtemp(prefix="conformance-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    names = [f"{n * 7919 % 30000:095d}" for n in range(30000)]
    tree_of_many = packed([("many", tarfile.DIRTYPE, {"mode": 0o555})] + [(f"many/{name}", tarfile.DIRTYPE, {"mode": 0o511}) for name in names],
                          format=tarfile.GNU_FORMAT)
    same(client.put(tree_of_many, tree=True, path=f"{many}/tree")["result"], {"bytes": 0, "entries": 30001})
    same({(os.stat(path).st_mode & 0o7777, os.stat(path).st_mtime) for path in [f"{many}/tree/many/{name}" for name in names]}, {(0o511, 1234567890)})
    same((os.stat(f"{many}/tree/many").st_mode & 0o7777, os.stat(f"{many}/tree/many").st_mtime), (0o555, 1234567890))
    found, reply = client.get(tree=True, path=f"{many}/tree/many")
    same([info.name for info in tarfile.open(fileobj=io.BytesIO(found))][1:], [f"./{name}" for name in sorted(names)])
    os.chmod(f"{many}/tree/many", 0o755)  # only root removes what is in a folder that may not be written to
    same(client.call("remove", path=many, recursive=True)["result"], {})

# hostile trees stay inside, and say so
client.call("exec", cmd=f"mkdir {folder}/inside {folder}/outside; echo kept > {folder}/outside/file; ln -s ../outside {folder}/inside/way; ln -s ../outside/file {folder}/inside/name")
for entries in [[("../outside/evil", tarfile.REGTYPE, {"content": b"x"})], [("/tmp/evil", tarfile.REGTYPE, {"content": b"x"})],
                [("way/evil", tarfile.REGTYPE, {"content": b"x"})], [("way/file", tarfile.LNKTYPE, {"linkname": "way/file"})],
                [("up", tarfile.SYMTYPE, {"linkname": ".."}), ("up/outside/evil", tarfile.REGTYPE, {"content": b"x"})],
                [("hard", tarfile.LNKTYPE, {"linkname": "../outside/file"})], [("hard", tarfile.LNKTYPE, {"linkname": "/etc/passwd"})],
                [("way", tarfile.DIRTYPE, {})], [("a/../../outside/evil", tarfile.DIRTYPE, {})], [(".", tarfile.REGTYPE, {"content": b"x"})]]:
    reply = client.put(packed(entries), tree=True, path=f"{folder}/inside")
    assert "error" in reply, (entries, reply)
same(client.put(packed([("name", tarfile.REGTYPE, {"content": b"new"})]), tree=True, path=f"{folder}/inside")["result"]["entries"], 1)
same(client.call("exec", cmd=f"cd {folder}/outside; ls -A; cat file; cat ../inside/name; ls -A ../inside | grep put")["result"]["stdout"], "file\nkept\nnew")

# what had a name stays where its successor cannot be made, and a file is never linked over itself
client.call("exec", cmd=f"mkdir {folder}/kept; cd {folder}/kept; echo mine > a; echo too > b; ln a c; mkdir full; touch full/x")
with tempfile.TemporaryDirectory() as here:
    with open(f"{here}/a", "w") as file:
        file.write("new\n")
    twice = subprocess.run(["tar", "-C", here, "--format=gnu", "-cf", "-", "a", "a"], check=True, stdout=subprocess.PIPE).stdout
same([(info.name, info.linkname) for info in tarfile.open(fileobj=io.BytesIO(twice))], [("a", ""), ("a", "a")])
for name, target, errno in [("a", "a", None), ("c", "a", None), ("a", "c", None), ("b", "missing", 2), ("b", "full", 1), ("full", "a", 21)]:
    reply = client.put(packed([(name, tarfile.LNKTYPE, {"linkname": target})]), tree=True, path=f"{folder}/kept")
    same(reply.get("error", {"data": {"errno": None}})["data"]["errno"], errno)
same(client.put(packed([("full", tarfile.SYMTYPE, {"linkname": "a"})]), tree=True, path=f"{folder}/kept")["error"]["data"]["errno"], 21)
same(client.put(packed([("b", tarfile.SYMTYPE, {"linkname": "l" * 5000})]), tree=True, path=f"{folder}/kept")["error"]["data"]["errno"], 36)
same(client.call("exec", cmd=f"cd {folder}/kept; cat a b c; ls -A . full; stat -c %h a")["result"]["stdout"], "mine\ntoo\nmine\n.:\na\nb\nc\nfull\n\nfull:\nx\n2\n")
same(client.put(twice, tree=True, path=f"{folder}/kept")["result"]["entries"], 2)
same(client.call("exec", cmd=f"cd {folder}/kept; cat a c; ls -A; stat -c %h a")["result"]["stdout"], "new\nmine\na\nb\nc\nfull\n1\n")
for name, kind in [("a", tarfile.SYMTYPE), ("b", tarfile.FIFOTYPE)]:
    same(client.put(packed([(name, kind, {"linkname": "c"})]), tree=True, path=f"{folder}/kept")["result"]["entries"], 1)
same(client.call("exec", cmd=f"cd {folder}/kept; cat a; ls -A; test -p b && echo pipe")["result"]["stdout"], "mine\na\nb\nc\nfull\npipe\n")

# the number by which the kernel leaves an owner as it is belongs to nobody
for ids in [{"uid": 2**32 - 1}, {"gid": 2**32 - 1}]:
    reply = client.put(packed([("z", tarfile.REGTYPE, {"content": b"x", **ids})]), tree=True, path=f"{folder}/kept")
    same(error_code(reply, "put"), -32602)
    assert "4294967295" in reply["error"]["message"], reply
same(client.put(packed([("z", tarfile.REGTYPE, {"uid": 2**32 - 2})]), tree=True, path=f"{folder}/kept")["result"]["entries"], 1)
same(error_code(client.put(b"x", path=f"{folder}/kept/z", owner="4294967295"), "put"), -32602)

for broken in [tree[:len(tree) // 2], b"", b"x" * 5000, b"\0" * 100]:
    same(error_code(client.put(broken, tree=True, path=f"{folder}/broken"), "put"), -32602)
same(client.put(tree, tree=True, path=f"{folder}/z")["error"]["data"]["errno"], 20)
client.call("exec", cmd=f"chmod -R u+rwx {folder}")
same(client.call("remove", path=folder, recursive=True)["result"], {})

# status; shutdown only where the agent is init
time.sleep(0.1)
status = client.call("status")["result"]
same((status["protocol"], status["pid1"], status["jobs"], status["connections"]), (3, in_guest, 0, 2 if in_guest else 1))
same([stamp["event"] for stamp in status["boot"]][-2:], ["agent_listening", "first_answer"])
assert status["boottime_us"] > status["boot"][0]["boottime_us"]
assert 0 < status["memory"]["available_bytes"] <= status["memory"]["total_bytes"], status
assert 0 < status["disk"]["available_bytes"] <= status["disk"]["total_bytes"], status
assert 0 < status["agent_bytes"] < 16 << 20, status
assert abs(status["unix_us"] / 10**6 - time.time()) < 3600, status
assert status["kernel"][0].isdigit() and status["version"], status
if in_guest:
    moved = client.call("clock_sync", unix_us=2 * 10**15)["result"]["adjusted_us"]
    assert abs(client.call("status")["result"]["unix_us"] - 2 * 10**15) < 60 * 10**6
    assert moved > 10**14, moved
    client.call("clock_sync", unix_us=int(time.time() * 10**6))
    same(client.call("reseed", data="QUJD" * 8)["result"], {})
else:
    same(error_code(client.call("shutdown"), 1), -32603)

# two connections are two worlds
other = Client()
other.send(id=7, method="exec", params={"argv": ["sleep", "60"]})
client.send(method="signal", params={"id": 7, "signal": 9})
same(other.call("status")["result"]["jobs"], 1)

print(f"{checks} checks passed")
