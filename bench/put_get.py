"""Puts a file into an agent and gets it back, as any client may: by docs/protocol-jsonrpc.md, with raw bytes.

usage: put_get.py MIB AGENT…     AGENT… is a command that serves the agent and prints ADDRESS:PORT, as `firebrick-guest --agent --tcp
                                 127.0.0.1:0` does; prints lines as bench/agent: channel, way, bytes, seconds, MiB a second
"""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time

PIECE = 1 << 20


class Client:
    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.answers = self.socket.makefile("rb", buffering=PIECE)

    def send(self, message):
        self.socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def put(self, path, pieces):
        self.send({"id": 1, "method": "put", "params": {"path": path}})
        piece = bytes(PIECE)
        for _ in range(pieces):
            self.send({"method": "stdin", "params": {"id": 1, "raw": PIECE}})
            self.socket.sendall(piece)
        self.send({"method": "stdin", "params": {"id": 1, "eof": True}})
        return json.loads(self.answers.readline())["result"]["bytes"]

    def get(self, path):
        self.send({"id": 2, "method": "get", "params": {"path": path, "raw": True}})
        came = 0
        while "result" not in (message := json.loads(self.answers.readline())):
            left = message["params"]["raw"]
            came += left
            while left:
                left -= len(self.answers.read(min(left, PIECE)))
        return came


def main():
    pieces, command = int(sys.argv[1]), sys.argv[2:]
    agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        host, port = re.search(r"([\d.]+):(\d+)", agent.stdout.readline()).groups()
        client = Client((host, int(port)))
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            for way, do in (("put", lambda path: client.put(path, pieces)), ("get", client.get)):
                start = time.perf_counter()
                moved = do(f"{folder}/file")
                seconds = time.perf_counter() - start
                assert moved == pieces * PIECE, (way, moved)
                print(f"process,{way},{moved},{seconds:.2f},{pieces / seconds:.1f}", flush=True)
    finally:
        agent.kill()


main()
