"""Checks an agent against docs/protocol-jobs.md, with nothing but the standard library.

usage: jobs.py HOST PORT [LANGUAGE ...]     the languages that the guest has; without any, those that this machine has
"""

import json
import os
import re
import shutil
import socket
import struct
import sys
import time

checks = 0


def dial():
    return socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=120)


def receive(connection):
    data = b""
    while piece := connection.recv(65536):
        data += piece
    length, = struct.unpack(">I", data[:4])
    assert len(data) == 4 + length, f"{len(data)} bytes for a frame of {length}, and then the end"
    return json.loads(data[4:])


def exchange(payload, pieces=1):
    """One exchange: a frame there, a frame back, the end."""
    with dial() as connection:
        wire = struct.pack(">I", len(payload)) + payload
        step = -(-len(wire) // pieces)
        for at in range(0, len(wire), step):
            connection.sendall(wire[at:at + step])
            if pieces > 1:
                time.sleep(0.01)
        return receive(connection)


def run(pieces=1, **job):
    return exchange(json.dumps(job).encode(), pieces)


def same(found, expected):
    global checks
    checks += 1
    assert found == expected, f"\nfound    {found}\nexpected {expected}"


def check(condition, what):
    global checks
    checks += 1
    assert condition, what


PROGRAMS = {
    "python": "import sys; print('hello', sys.stdin.read(), end='')",
    "nodejs": "process.stdout.write('hello ' + require('fs').readFileSync(0, 'utf8'))",
    "go": 'package main\nimport ("fmt"; "io"; "os")\nfunc main() { b, _ := io.ReadAll(os.Stdin); fmt.Print("hello ", string(b)) }',
    "rust": 'use std::io::Read; fn main() { let mut s = String::new(); std::io::stdin().read_to_string(&mut s).unwrap(); print!("hello {}", s); }',
    "bash": 'read -r name; printf "hello %s" "$name"',
    "sh": 'read -r name; printf "hello %s" "$name"',
    "java": 'public class Main { public static void main(String[] a) throws Exception { System.out.print("hello " + new String(System.in.readAllBytes())); } }',
    "ruby": "print 'hello ', STDIN.read",
    "php": "<?php echo 'hello ', stream_get_contents(STDIN);",
    "perl": "print 'hello ', <STDIN>;",
    "lua": "io.write('hello ', io.read('a'))",
    "dotnet": 'System.Console.Write("hello " + System.Console.In.ReadToEnd());',
    "c": '#include <stdio.h>\nint main(void) { char s[9]; scanf("%8s", s); printf("hello %s", s); }',
    "cpp": '#include <iostream>\nint main() { std::string s; std::cin >> s; std::cout << "hello " << s; }',
}
NEEDS = {"python": "python3", "nodejs": "node", "rust": "rustc", "java": "javac", "c": "gcc", "cpp": "g++"}
languages = sys.argv[3:] or [name for name in PROGRAMS if shutil.which(NEEDS.get(name, name), path=os.defpath + ":/usr/local/bin:/usr/local/go/bin")]

# every language that is there
for lang in languages:
    result = run(trace_id=f"t-{lang}", lang=lang, code=PROGRAMS[lang], stdin="you", timeout=100)
    took = result.pop("executionTime")
    check(isinstance(took, int) and took >= 0, took)
    same(result, {"trace_id": f"t-{lang}", "status": "success", "stdout": "hello you", "stderr": None, "exception": None})

# other names of the same languages
for alias, lang in [("node", "nodejs"), ("javascript", "nodejs"), ("python3", "python"), ("base", "bash"), ("csharp", "dotnet")]:
    if lang in languages:
        same(run(lang=alias, code=PROGRAMS[lang], stdin="you", timeout=60)["stdout"], "hello you")

# a language whose programs the guest lacks
for lang in ["php", "ruby", "dotnet"]:
    if lang not in languages and not sys.argv[3:] or lang not in languages and lang != "php":
        result = run(lang=lang, code="x")
        same((result["status"], result["exit_code"]), ("failed", 127))
        check("cannot start" in result["error"] and result["stderr"] == result["error"] == result["exception"], result)
        break

# what is left out, what is null, what is there always
result = run(lang="sh", code="echo out; echo err >&2; exit 3")
took = result.pop("executionTime")
same(result, {"status": "success", "stdout": "out\n", "stderr": "err\n", "exception": None, "exit_code": 3})
same(run(lang="sh", code="kill -9 $$")["exit_code"], 137)
same(sorted(run(lang="sh", code="true")), ["exception", "executionTime", "status", "stderr", "stdout"])
same(run(trace_id="", lang="sh", code="true", meta={"a": "b"}, unknown=[1], files=None, stdin=None)["status"], "success")

# refusals
same(run(trace_id="t", lang="brainfuck", code="+"),
     {"trace_id": "t", "status": "failed", "stdout": "", "stderr": None, "exception": None, "executionTime": 0,
      "exit_code": 127, "error": "E006: unsupported language brainfuck"})
same(run(lang="", code="x")["error"], "E006: unsupported language ")
same(run(lang="sh", code="")["error"], "either 'code' or 'files' must be provided")
same(run(lang="sh", code="true", timeout=-1)["status"], "failed")
result = run(trace_id="t", lang="sh", code="true", stdin="x" * 1_000_001)
same((result["status"], result["exit_code"], result["error"]), ("failed", 1, "E005: stdin too long"))
same(run(lang="sh", code="wc -c", stdin="x" * 1_000_000)["stdout"].strip(), "1000000")
for broken in [b"", b"{", b"[]", b"nonsense", b'{"lang":5}', b'{"lang":"sh","code":"true","timeout":"x"}', b"\xff"]:
    result = exchange(broken)
    same((result["status"], result["exit_code"]), ("failed", 1))
    check(result["error"].startswith("invalid job format: "), result)
    same((result["stderr"], result["exception"]), (result["error"], result["error"]))
with dial() as connection:
    connection.sendall(struct.pack(">I", 4 * 1024 * 1024 + 1))
    check("at most 4194304" in receive(connection)["error"], "a frame that is too long")
with dial() as connection:
    connection.sendall(b"\0\0\0\x20{")
    connection.shutdown(socket.SHUT_WR)
    check(receive(connection)["error"].startswith("failed to read message data"), "a frame cut short")

# time
start = time.monotonic()
result = run(trace_id="t", lang="sh", code="echo early; echo oh >&2; sleep 60; echo late", timeout=1)
check(1 <= time.monotonic() - start < 30, "one second")
check(result.pop("executionTime") >= 1000, "it took its time")
same(result, {"trace_id": "t", "status": "success", "stdout": "early\n", "stderr": "oh\n\nExecution timed out",
              "exception": "Timeout", "exit_code": 124, "error": "E001: operation timed out"})
start = time.monotonic()
same(run(lang="sh", code="sleep 60", timeout=0)["error"], "E001: operation timed out")
check(9.5 <= time.monotonic() - start < 40, "ten seconds are the default")

# files: the first is the main one, in a private folder that is gone afterwards
result = run(lang="sh", files=[{"name": "main.sh", "content": ". ./lib/greet.sh; greet; pwd; ls; stat -c %a ."},
                               {"name": "lib/greet.sh", "content": "greet() { echo from lib; }"}])
lines = result["stdout"].splitlines()
same((lines[0], lines[2:]), ("from lib", ["lib", "main.sh", "700"]))
check(re.fullmatch(r"/tmp/job-[0-9a-f-]+", lines[1]), lines)
folder = lines[1]
if sys.argv[3:]:
    same(run(lang="sh", code=f"ls -d {folder} 2>/dev/null")["stdout"], "")
else:
    check(not os.path.exists(folder), folder)
same(run(lang="sh", files=[{"name": "a.sh", "content": "echo 1"}, {"name": "a.sh", "content": "echo 2"}])["stdout"], "2\n")
for name in ["/tmp/evil", "../evil", "a/../../evil", "", ".", "a//b", "a/", "x" * 300]:
    result = run(trace_id="t", lang="sh", files=[{"name": "main.sh", "content": "true"}, {"name": name, "content": "x"}])
    same((result["status"], result["trace_id"], result["exit_code"]), ("failed", "t", 1))
    check(result["error"].startswith("write files: "), result)
same(run(lang="sh", files=[{"name": f"{n:04}/x.sh", "content": "ls | wc -l"} for n in range(1000)])["stdout"].strip(), "1000")
for files in [[{"name": f"{n}.sh", "content": ""} for n in range(100000)], [{"name": "d/" * 1480 + "x", "content": ""}] * 700]:
    start = time.monotonic()
    result = run(trace_id="t", lang="sh", files=files)
    same((result["status"], result["trace_id"], result["exit_code"]), ("failed", "t", 1))
    check(result["error"].startswith("write files: ") and len(result["error"]) < 2000, result)
    check(time.monotonic() - start < 3, "too many or too deep files hold up nobody")
if "python" in languages:
    same(run(lang="python", files=[{"name": "main.py", "content": "import utils; utils.hi()"},
                                   {"name": "utils.py", "content": "def hi(): print('hi')"}])["stdout"], "hi\n")
if "java" in languages:
    same(run(lang="java", timeout=60,
             files=[{"name": "App.java", "content": "class App { public static void main(String[] a) { Other.hi(); } }"},
                    {"name": "Other.java", "content": "class Other { static void hi() { System.out.println(7); } }"}])["stdout"], "7\n")
    same(run(lang="java", timeout=60,
             files=[{"name": "src/App.java", "content": "class App { public static void main(String[] a) { Other.hi(); } }"},
                    {"name": "src/Other.java", "content": "class Other { static void hi() { System.out.println(8); } }"}])["stdout"], "8\n")
if "c" in languages:
    same(run(lang="c", timeout=60, files=[{"name": "a.c", "content": "int f(void); int main(void) { return f(); }"},
                                          {"name": "b.c", "content": "int f(void) { return 9; }"}])["exit_code"], 9)

# code that does not compile
for lang in ["rust", "java", "c"]:
    if lang in languages:
        result = run(lang=lang, code="this is no program", timeout=60)
        same((result["status"], result["exception"], "error" in result), ("success", "Compilation failed", False))
        check(result["exit_code"] != 0 and "error" in result["stderr"], result)

# a batch: one run for each input, one answer with all results
results = run(trace_id="t", lang="sh", code='read -r x; echo "got $x"; [ "$x" != b ]', stdin=["a", "b", ""])
same([(r["trace_id"], r["status"], r["stdout"], r.get("stdin"), r.get("exit_code")) for r in results],
     [("t", "success", "got a\n", "a", None), ("t", "success", "got b\n", "b", 1), ("t", "success", "got \n", None, None)])
results = run(lang="sh", code='read -r x; sleep $x', stdin=["0", "60", "0"], timeout=1)
same([r.get("error") for r in results], [None, "E001: operation timed out", None])
same(run(lang="sh", code="cat", stdin=[1, True])[0]["stdout"], "1")
same(run(lang="sh", code="echo one", stdin=[])["stdout"], "one\n")
same(run(lang="sh", code="x", stdin={})["status"], "failed")
if "c" in languages:
    results = run(lang="c", code="nonsense", stdin=["a", "b"], timeout=60)
    same([(r["exception"], r["stdin"]) for r in results], [("Compilation failed", "a"), ("Compilation failed", "b")])

# bytes: frames in pieces, output that is no text, long output
same(run(pieces=9, lang="sh", code="echo pieces")["stdout"], "pieces\n")
same(run(lang="sh", code="printf 'a\\377b'")["stdout"], "a\ufffdb")
same(run(lang="sh", code="cat", stdin="ü\0 \u2028")["stdout"], "ü\0 \u2028")
same(run(lang="sh", code="head -c 2000000 /dev/zero | tr '\\0' z")["stdout"], "z" * 1048576 + "\n... [output truncated]")
results = run(lang="sh", code="head -c 1000000 /dev/zero | tr '\\0' z", stdin=["x"] * 6)
same(sum(len(r["stdout"].rstrip("z")) > 0 for r in results), 2)

# what stays behind is killed, also if it prints; many at once
start = time.monotonic()
result = run(lang="sh", timeout=30, code="(while :; do echo x; sleep 0.2; done) & echo $!")
check(time.monotonic() - start < 10, "a second is left to what is left behind")
result, leftover = result["stdout"], next(word for word in result["stdout"].split() if word != "x")
same(run(lang="sh", code=f"sleep 0.2; kill -0 {leftover} 2>/dev/null && echo alive")["stdout"], "")
result = run(lang="sh", code="sleep 300 >/dev/null 2>&1 & echo $!")
same(run(lang="sh", code=f"sleep 0.2; kill -0 {result['stdout'].strip()} 2>/dev/null && echo alive")["stdout"], "")
slow = dial()
payload = json.dumps({"lang": "sh", "code": "sleep 1; echo slow"}).encode()
slow.sendall(struct.pack(">I", len(payload)) + payload)
start = time.monotonic()
same(run(lang="sh", code="echo quick")["stdout"], "quick\n")
check(time.monotonic() - start < 1, "a slow job holds up nobody")
same(receive(slow)["stdout"], "slow\n")

print(f"{checks} checks passed in {', '.join(languages)}")
