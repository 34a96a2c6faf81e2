"""Processes on this machine's loopback, for the suites: ports, tunnels, web-apps, and what is between and behind them."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FERRY = os.environ.get("FERRY_BIN") or os.environ.get("FERRY") or str(ROOT / "target/release/ferry")
FERRY = str(Path(FERRY).resolve())
LISTENS, WAITS = "0A", "06"
_held = []


def free_port(address="127.0.0.1"):
    """A port that nothing else is given: a server may bind it, and the next one again."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((address, 0))
    _held.append(held)
    return held.getsockname()[1]


def connections(state):
    """The local and the remote port of each TCP socket in this state of the kernel's table."""
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        if (path := Path("/proc/net", table)).exists()
        for line in path.read_text().splitlines()[1:]
    ]
    return [tuple(int(end.rsplit(":", 1)[1], 16) for end in row[1:3]) for row in rows if row[3] == state]


def until(what, condition, seconds=15.0, pause=0.02):
    """What the condition gives once it holds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
    return found


def wait_for(port):
    """Until somebody listens there. No connection is made, which a tunnel would carry."""
    until(f"a listener at port {port}", lambda: any(local == port for local, _ in connections(LISTENS)))


def serve(handler, address="127.0.0.1", port=0):
    """Has each connection handled in a thread of its own; where that is."""
    server = socket.create_server((address, port), backlog=1024)

    def handle(connection):
        try:
            handler(connection)
        except OSError:
            pass

    def accept():
        while True:
            threading.Thread(target=handle, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()[1]


def echo(connection):
    with connection:
        while chunk := connection.recv(65536):
            connection.sendall(chunk)


def ask(port, path, body=None, headers=(), timeout=10.0):
    """The status and the text that an HTTP endpoint answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metric(admin, name):
    """The sum of all series whose line begins so."""
    lines = ask(admin, "/metrics")[1].splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def engine(process):
    """The process that is the tunnel, where the one that was started is its keeper."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else process.pid


def install_packages(*packages):
    """Of Debian, without a server that one of them would start by itself."""
    if subprocess.run(["dpkg", "-s", *packages], capture_output=True, check=False).returncode == 0:
        return
    policy = Path("/usr/sbin/policy-rc.d")
    is_ours = not policy.exists()
    if is_ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", *packages], check=True)
    finally:
        if is_ours:
            policy.unlink()


def install(program, at):
    """Puts a program where it is started from, as package managers do: it is there, whole, at any moment."""
    new = Path(f"{at}.new")
    shutil.copy(program, new)
    new.rename(at)


class Relay:
    """Between the tunnels: it cuts every link when told, at both sides or at the far one alone."""

    def __init__(self, target):
        self.target, self.pairs, self.lock, self.is_refusing = target, [], threading.Lock(), False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            try:
                if self.is_refusing:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            with self.lock:
                self.pairs.append((near, far))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one, other):
        try:
            while data := one.recv(1 << 18):
                other.sendall(data)
        except OSError:
            pass
        # What is not in the list was cut: where only the far end was told, the near one stays open and silent.
        with self.lock:
            is_known = any(one in pair for pair in self.pairs)
            self.pairs = [pair for pair in self.pairs if one not in pair]
        for each in (one, other) if is_known else ():
            self.end(each)

    @staticmethod
    def end(connection):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def cut(self, only_far=False):
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for near, far in pairs:
            self.end(far)
            if not only_far:
                self.end(near)


class Datagrams:
    """Between the tunnels, for UDP: as long as it drops, nothing comes through and nobody is told."""

    def __init__(self, target):
        self.target, self.drops, self.dropped, self.ways = ("127.0.0.1", target), False, 0, {}
        self.near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.near.bind(("127.0.0.1", 0))
        self.port = self.near.getsockname()[1]
        threading.Thread(target=self.carry, args=(self.near, None), daemon=True).start()

    def carry(self, own, source):
        """What arrives at one socket: for the far tunnel, or from it for the near one at `source`."""
        while True:
            try:
                packet, sender = own.recvfrom(65536)
                if self.drops:
                    self.dropped += 1
                elif source:
                    self.near.sendto(packet, source)
                else:
                    self.way(sender).send(packet)
            except ConnectionRefusedError:
                pass  # of a packet before

    def way(self, source):
        if source not in self.ways:
            self.ways[source] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.ways[source].connect(self.target)
            threading.Thread(target=self.carry, args=(self.ways[source], source), daemon=True).start()
        return self.ways[source]


class Lab:
    """Processes and files, for as long as the `with` block lasts."""

    def __init__(self, patience=5):
        """A process has `patience` seconds to end in good order."""
        self.patience = patience

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path, self.processes = Path(self.directory.name), []
        self.path.chmod(0o755)
        return self

    def __exit__(self, failed, *_):
        for process in self.processes:
            self.stop(process, self.patience)
            if failed and process.log:
                print(f"--- {process.log.name}\n{process.log.read_text(errors='replace')[-1500:]}")
        self.directory.cleanup()

    def start(self, *command, output=None, files=None, **environment):
        """A process; what it writes goes to its log, unless `output` says where."""

        def limit():
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        number, log = len(self.processes), None
        if output is None:
            log = self.path / f"{number}-{Path(command[0]).name}.log"
            output = open(log, "wb")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self.path,
            env={**os.environ, **environment},
            preexec_fn=limit,
        )
        process.log = log
        self.processes.append(process)
        return process

    def output(self, *command, allowed=(0,), stdin=None, **environment):
        """What a command prints, to both its outputs."""
        done = subprocess.run(
            [str(word) for word in command],
            stdin=stdin or subprocess.DEVNULL,
            text=True,
            timeout=60,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.path,
            env={**os.environ, **environment},
            check=False,
        )
        if allowed and done.returncode not in allowed:
            raise ChildProcessError(f"{command[1:3]} ends with {done.returncode}: {done.stdout[-400:]}")
        return done.stdout

    @staticmethod
    def stop(process, patience=5):
        if process.poll() is None:
            try:
                if patience:
                    process.terminate()
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def write(self, name, text):
        (self.path / name).write_text(text)
        return self.path / name

    def key(self, name):
        out = self.path / f"{name}.key"
        if not out.exists():
            subprocess.run([FERRY, "keygen", "--out", out], check=True, stdout=subprocess.DEVNULL)
        text = subprocess.run([FERRY, "pubkey", out], check=True, stdout=subprocess.PIPE, text=True).stdout
        return re.search(r"ferry:pub:\S+", text)[0]

    def far(self, app, name="b", websocket=True, more="", also=""):
        """A far tunnel: its port, whether for WebSockets or not. `more` is added to its service, `also` to itself."""
        port, kind = free_port(), "listen_ws" if websocket else "listen"
        self.key(name)
        self.start(
            FERRY,
            "tunnel",
            "--config",
            self.write(
                f"{name}.yaml",
                f"""
name: {name}
identity: {name}.key
{kind}: 127.0.0.1:{port}
peers: [{{name: a, keys: ["{self.key("a")}"]}}]
ingress: [{{service: echo, forward: "127.0.0.1:{app}", allow: [a]{more}}}]
{also}
""",
            ),
        )
        wait_for(port)
        return port

    def near(self, peer, name="b", more=""):
        """A near tunnel that dials the far one as `peer` says: where its applications connect to, and its metrics. `more` is
        added to what it is set to."""
        port, admin = free_port(), free_port()
        self.key("a")
        self.start(
            FERRY,
            "tunnel",
            "--config",
            self.write(
                f"near-{len(self.processes)}.yaml",
                f"""
name: a
identity: a.key
admin: 127.0.0.1:{admin}
peers: [{{name: {name}, keys: ["{self.key(name)}"], {peer}}}]
egress: [{{listen: 127.0.0.1:{port}, peer: {name}, service: echo}}]
{more}
""",
            ),
        )
        wait_for(port)
        return port, admin
