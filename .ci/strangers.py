"""Strangers flood a tunnel's link port while a session lives behind it: nobody may notice.

Each stranger sends the first six bytes of a ClientHello and holds on. Meanwhile the link of a live session is cut three
times. Every resume has to be done within 2 s, every new session within 1 s, and no limit of open files may be reached.

    strangers.py FERRY [SECONDS] [CONNECTIONS_A_SECOND]
"""

import asyncio
import os
import random
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

from local import free_port

SIX_BYTES = b"\x16\x03\x01\x00\x01\x01"
RESUME_LIMIT, SESSION_LIMIT = 2.0, 1.0
FILES = 4096


def flood(port, rate):
    """Connects from anywhere in 127.0.0.0/8 until it is ended; the tunnel closes what it does not want."""
    poll, held = select.epoll(), {}
    begun, made = time.monotonic(), 0
    while True:
        while made < (time.monotonic() - begun) * rate and len(held) < 10_000:
            made += 1
            stranger = socket.socket()
            stranger.setblocking(False)
            stranger.bind((f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}", 0))
            stranger.connect_ex(("127.0.0.1", port))
            held[stranger.fileno()] = stranger
            poll.register(stranger.fileno(), select.EPOLLOUT | select.EPOLLIN)
        for number, event in poll.poll(0.005):
            stranger = held[number]
            try:
                if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                    raise ConnectionError
                stranger.send(SIX_BYTES)
                poll.modify(number, select.EPOLLIN)
            except OSError:
                poll.unregister(number)
                held.pop(number).close()


class Relay:
    """Between the tunnels: what it carries can be cut."""

    def __init__(self, target):
        self.target, self.open = target, set()

    async def serve(self):
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def carry(self, *near):
        try:
            far = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            near[1].transport.abort()
            return
        ends = {near[1], far[1]}
        self.open |= ends
        await asyncio.gather(self.pump(near[0], far[1]), self.pump(far[0], near[1]))
        self.open -= ends

    async def pump(self, reader, writer):
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
        except (OSError, RuntimeError, asyncio.CancelledError):
            writer.transport.abort()

    def cut(self):
        for end in list(self.open):
            sock = end.get_extra_info("socket")
            if sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


async def echo(reader, writer):
    try:
        while piece := await reader.read(4096):
            writer.write(piece)
    except (OSError, asyncio.CancelledError):
        pass
    writer.close()


async def exchange(stream, limit):
    """Seconds that a few bytes take to come back."""
    begun = time.monotonic()
    stream[1].write(b"hello")
    await asyncio.wait_for(stream[0].readexactly(5), limit)
    return time.monotonic() - begun


async def open_session(port, limit):
    begun = time.monotonic()
    stream = await asyncio.open_connection("127.0.0.1", port)
    await exchange(stream, limit)
    return time.monotonic() - begun, stream


def start(ferry, path, log, files):
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    return subprocess.Popen([ferry, "tunnel", "--config", path], stdout=log, stderr=log, preexec_fn=limit)


async def measure(ferry, seconds, rate, directory):
    names = {"near": "a/near", "far": "b/far"}
    keys = {}
    for end in names:
        made = subprocess.run([ferry, "keygen", "--out", f"{directory}/{end}.key"], capture_output=True, check=True)
        keys[end] = made.stdout.decode().strip()
    app = await asyncio.start_server(echo, "127.0.0.1", 0)
    forward = app.sockets[0].getsockname()[1]
    links, egress, admin = free_port(), free_port(), free_port()
    relay = Relay(links)
    relayed = await relay.serve()
    far = f"""name: b/far
identity: far.key
listen: 127.0.0.1:{links}
admin: 127.0.0.1:{admin}
peers: [{{name: a/near, keys: ["{keys['near']}"]}}]
ingress: [{{service: echo, forward: "127.0.0.1:{forward}", allow: [a/near]}}]
"""
    near = f"""name: a/near
identity: near.key
peers: [{{name: b/far, keys: ["{keys['far']}"], addresses: ["127.0.0.1:{relayed}"]}}]
egress: [{{listen: "127.0.0.1:{egress}", peer: b/far, service: echo}}]
"""
    running = []
    try:
        for end, text in [("far", far), ("near", near)]:
            with open(f"{directory}/{end}.yaml", "w") as file:
                file.write(text)
            with open(f"{directory}/{end}.log", "w") as log:
                running.append(start(ferry, f"{directory}/{end}.yaml", log, FILES))
        for _ in range(100):
            try:
                _, live = await open_session(egress, 5)
                break
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)
        flooding = os.fork()
        if flooding == 0:
            # What it holds of the parent's connections could not be cut.
            os.closerange(3, 65536)
            flood(links, rate)
        try:
            return await watch(relay, live, egress, admin, seconds)
        finally:
            os.kill(flooding, signal.SIGKILL)
            os.waitpid(flooding, 0)
    finally:
        for process in running:
            process.kill()
            process.wait()


async def watch(relay, live, egress, admin, seconds):
    resumes, sessions, held = [], [], []
    begun, cuts = time.monotonic(), 0
    while (now := time.monotonic() - begun) < seconds:
        if cuts < 3 and now > seconds * (cuts + 1) / 4:
            cuts += 1
            relay.cut()
            resumes.append(await timed(exchange(live, 30)))
        spent = await timed(open_session(egress, 30))
        sessions.append(spent[0] if isinstance(spent, tuple) else spent)
        if isinstance(spent, tuple):
            spent[1][1].close()
        text = await asyncio.to_thread(scrape, admin)
        held.append(text)
        await asyncio.sleep(0.2)
    return resumes, sessions, held


async def timed(waiting):
    try:
        return await waiting
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
        return float("inf")


def scrape(admin):
    """How many have not authenticated; -1 where the admin endpoint does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=2) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("ferry_links_unauthenticated "):
                    return int(line.split()[1])
            return 0
    except OSError:
        return -1


def main():
    ferry = os.path.abspath(sys.argv[1])
    seconds, rate = (int(value) for value in (sys.argv[2:] + ["60", "800"][len(sys.argv) - 2 :]))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        resumes, sessions, held = asyncio.run(measure(ferry, seconds, rate, directory))
        logs = {end: open(f"{directory}/{end}.log").read() for end in ["near", "far"]}
    files = sum(log.count("Too many open files") for log in logs.values())
    print(f"{rate} strangers a second for {seconds} s; {FILES} files")
    print("resumes, s:", ", ".join(f"{took:.2f}" for took in resumes))
    print(f"{len(sessions)} new sessions, s: median {sorted(sessions)[len(sessions) // 2]:.3f}, most {max(sessions):.3f}")
    print(f"unauthenticated at once: most {max(held)}; admin endpoint silent {held.count(-1)} times")
    print(f"lines of log: far {logs['far'].count(chr(10))}, near {logs['near'].count(chr(10))}; out of files: {files}")
    good = max(resumes) <= RESUME_LIMIT and max(sessions) <= SESSION_LIMIT and files == 0 and held.count(-1) == 0
    if not good:
        print(logs["far"][-1500:], logs["near"][-1500:], sep="\n")
        sys.exit("strangers cost somebody something")


main()
