"""Checks an agent against docs/protocol-jsonrpc.md, with nothing but the standard library.

usage: conformance.py HOST PORT
"""

import base64
import json
import socket
import sys

checks = 0


class Client:
    def __init__(self):
        self.socket = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
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

# ping, with and without parameters
same(client.call("ping"), {"jsonrpc": "2.0", "id": 1, "result": {"pong": True}})
same(client.send(id="a", method="ping").read(), {"jsonrpc": "2.0", "id": "a", "result": {"pong": True}})

# exec as the seed's hosts use it
same(client.call("exec", cmd="echo hello; echo oh >&2; exit 3")["result"],
     {"exit_code": 3, "stdout": "hello\n", "stderr": "oh\n"})
same(client.call("exec", cmd="kill -9 $$")["result"], {"exit_code": 137, "signal": 9, "stdout": "", "stderr": ""})

# exec_code
for lang, code in [("python", "print(6 * 7)"), ("python3", "print(42)"), ("sh", "echo 42"), ("bash", "echo $((6 * 7))")]:
    same(client.call("exec_code", lang=lang, code=code)["result"]["stdout"], "42\n")
reply = client.call("exec_code", lang="cobol", code="")
same(error_code(reply, 1), -32602)
for lang in ["python", "node", "bash", "sh"]:
    assert lang in reply["error"]["message"], reply

# errors
same(error_code(client.raw("{nonsense\n").read(), None), -32700)
same(error_code(client.raw(b"\xff\xfe\n").read(), None), -32700)
same(error_code(client.raw("[]\n").read(), None), -32600)
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
result = client.call("exec", argv=["sleep", "60"], timeout_ms=50)["result"]
same((result["timed_out"], result["signal"]), (True, 9))

# env, cwd, truncation
same(client.call("exec", cmd='echo "$X"; pwd', env={"X": "a b"}, cwd="/usr")["result"]["stdout"], "a b\n/usr\n")
stdout = client.call("exec", cmd="head -c 2000000 /dev/zero | tr '\\0' z")["result"]["stdout"]
same(stdout, "z" * 1048576 + "\n... [output truncated]")

# status; shutdown only where the agent is init
status = client.call("status")["result"]
same((status["protocol"], status["pid1"], status["jobs"], status["connections"]), (2, False, 0, 1))
same([stamp["event"] for stamp in status["boot"]], ["agent_listening", "first_answer"])
assert status["boottime_us"] > status["boot"][0]["boottime_us"]
same(error_code(client.call("shutdown"), 1), -32603)

# two connections are two worlds
other = Client()
other.send(id=7, method="exec", params={"argv": ["sleep", "60"]})
client.send(method="signal", params={"id": 7, "signal": 9})
same(other.call("status")["result"]["jobs"], 1)

print(f"{checks} checks passed")
