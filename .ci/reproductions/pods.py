"""Two web-apps without a tunnel between them, and clients of theirs that are as odd as need be."""

import base64
import json
import os
import socket
import struct
from pathlib import Path

from local import FERRY, ask, free_port, until, wait_for

JSON = {"Content-Type": "application/json"}


class Pods:
    """An initiator and its terminator. `hooks` is the text of an app.py for the role of that name."""

    def __init__(self, lab, near_hooks=None, far_hooks=None, far_too=True, more=()):
        self.lab, self.near, self.far = lab, free_port(), free_port()
        self.more = [str(word) for word in more]
        if far_too:
            self.terminator = self.start("terminator", self.far, far_hooks)
        peer = ["--peer", f"ws://127.0.0.1:{self.far}/ws", "--auto-trigger", "0"]
        self.initiator = self.start("initiator", self.near, near_hooks, peer)

    def start(self, role, port, hooks=None, more=()):
        command = [
            FERRY,
            role,
            "--listen",
            f"127.0.0.1:{port}",
            "--data",
            self.lab.path / f"{role}-data",
            "--pod",
            role,
        ]
        if hooks:
            command += ["--hooks", self.lab.write(f"{role}.py", hooks)]
        process = self.lab.start(*command, *more, *self.more)
        wait_for(port)
        return process

    def trigger(self, text, query="", **headers):
        """The status and the object that it is answered with."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answer = ask(self.near, "/trigger" + query, text.encode(), JSON | named, 40)
        return status, json.loads(answer or "{}")

    def output(self):
        return json.loads(ask(self.far, "/output?limit=1000")[1])["results"]

    def raw_output(self):
        """As text, since a parser would change what is looked at."""
        return ask(self.far, "/output?limit=1000")[1]

    def arrived(self, count, seconds=15):
        until(f"{count} messages in the output", lambda: len(self.output()) >= count, seconds)
        return [result["payload"] for result in self.output()]

    def status_of(self, *words):
        return [ask(port, path)[0] for port in (self.near, self.far) for path in words]


def resident(process):
    """MiB of memory that a process and its children have, at the most so far for its own."""

    def field(pid, name):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return 0
        return int(next((line.split()[1] for line in status.splitlines() if line.startswith(name)), 0)) >> 10

    pid = process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return field(pid, "VmHWM:") + sum(field(child, "VmRSS:") for child in children)


def http(port, head, body=b""):
    """The status that a request is answered with that is sent as it stands here."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return int((client.recv(65536).split() or [b"", b"0"])[1])


class WebSocket:
    """A client of `/ws` or `/stream` that sends whatever it is told to."""

    def __init__(self, port, path, headers=(), protocol=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        ]
        lines += [f"Sec-WebSocket-Protocol: {protocol}"] * bool(protocol) + list(headers)
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head and (byte := self.socket.recv(1)):
            head += byte
        self.status = int(head.split()[1])

    def send(self, text):
        data = text.encode() if isinstance(text, str) else text
        length = len(data)
        head = bytes([0x81]) + (
            bytes([0x80 | length])
            if length < 126
            else b"\xfe" + struct.pack(">H", length)
            if length < 65536
            else b"\xff" + struct.pack(">Q", length)
        )
        self.socket.sendall(head + bytes(4) + data)

    def receive(self):
        """The next text; None at the end."""
        while True:
            try:
                first, length = self.exactly(2)
                length = int.from_bytes(self.exactly({126: 2, 127: 8}[length]), "big") if length > 125 else length
                data = self.exactly(length)
            except OSError:
                return None
            if first & 15 == 8:
                return None
            if first & 15 == 1:
                return data.decode()

    def exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("end of file")
            data += piece
        return data


def hello(port, sender="somebody", acked=0, headers=()):
    """A far web-app in this process: the connection, and what the web-app at that port says first."""
    ws = WebSocket(port, "/ws", headers, protocol="ferry.app.v1")
    if ws.status == 101:
        ws.send(json.dumps({"hello": {"sender": sender, "pod": "p", "cluster": "c", "acked": acked}}))
    return ws


def message(seq, payload="{}", sender="somebody", trail=None):
    hops = json.dumps([{"pod": "p", "cluster": "c", "at": "2026-01-01T00:00:00Z"}] if trail is None else trail)
    return f'{{"message":{{"seq":{seq},"id":"{sender}-{seq}","payload":{payload},"trail":{hops}}}}}'
