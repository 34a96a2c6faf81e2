"""Tunnels amid what happens to them: unread logs, taken ports, few files, restarts, changes of their configuration."""

import contextlib
import os
import signal
import socket
import threading
import time

from local import FERRY, WAITS, ask, connections, echo, engine, free_port, metric, serve, until, wait_for
from reproductions import Broken, expect, row
from reproductions.stage import WAYS, Application, Held, Pair, both, exchange, take
from sockets import read_to_end


def short(pair, count, at_once=10, client_first=True):
    """Short connections, and how many of them failed."""
    failed = []

    def some():
        for _ in range(count // at_once):
            try:
                with pair.connect() as client:
                    exchange(client)
                    if not client_first:
                        client.shutdown(socket.SHUT_WR)
                        expect(client.recv(1) == b"", "more than was sent")
            except (OSError, Broken) as error:
                failed.append(str(error))

    threads = [threading.Thread(target=some) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


class Unread:
    """A pipe that nobody reads, full before anything is started."""

    def __enter__(self):
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, bytes(65536))
        except BlockingIOError:
            pass
        # It belongs to whoever writes, too: a role must not rely on it being so.
        os.set_blocking(self.writer, True)
        return self.writer

    def __exit__(self, *_):
        os.close(self.writer)
        os.close(self.reader)


@row("a log that nobody reads holds up neither a tunnel nor its keeper, which starts it again")
def unread_log(lab):
    with Unread() as output:
        pair = Pair(lab, serve(echo), output=output, FERRY_LOG="debug")
        failed = short(pair, 500)
        expect(not failed, f"{len(failed)} of 500 failed: {failed[:1]}")
        with pair.connect() as client:
            exchange(client)
            for process in (pair.near, pair.far):
                killed = engine(process)
                os.kill(killed, signal.SIGKILL)
                until("the next process", lambda: engine(process) not in (killed, process.pid))
                exchange(client)
        expect(ask(pair.near_admin, "/livez")[0] == 200, "/livez")
        return "500 short connections; a session that goes on after both were killed"


@row("an egress whose port is taken at a reload is shown as down, and served once the port is free")
def taken_port(lab):
    pair, port = Pair(lab, serve(echo)), free_port()
    taken = socket.create_server(("127.0.0.1", port))
    text = pair.near_file.read_text()
    second = text.replace("egress: [", f'egress: [{{listen: "127.0.0.1:{port}", peer: far, service: echo}}, ')
    pair.near_file.write_text(second)
    until("/readyz to be 503", lambda: ask(pair.near_admin, "/readyz")[0] == 503)
    expect(metric(pair.near_admin, "ferry_listeners_down ") == 1, "ferry_listeners_down")
    taken.close()
    until("/readyz to be 200", lambda: ask(pair.near_admin, "/readyz")[0] == 200)
    with socket.create_connection(("127.0.0.1", port)) as client:
        return f"503 meanwhile, then answered in {exchange(client):.3f} s"


@row("a connection that is refused is told so as soon as it is known: no listener, no such service, over any link")
def refused_at_once(lab):
    seen = {}
    for way in ("a plain link", "a WebSocket", "QUIC"):
        for service in ("echo", "other"):
            pair, times = Pair(lab, free_port(), wanted=service, **WAYS[way]), []
            for _ in range(11):
                started = time.monotonic()
                try:
                    with pair.connect() as client:
                        expect((how := read_to_end(client)) == (b"", "reset"), f"{way}, {service}: {how}")
                except ConnectionResetError:
                    # Told before this end has seen that it was connected.
                    pass
                times.append(time.monotonic() - started)
            seen[way, service] = sorted(times)[5]
    # A busy machine takes some tens of milliseconds; that nothing is waited for is a test on a virtual clock.
    expect(max(seen.values()) < 1, f"{seen}")
    return f"medians up to {1000 * max(seen.values()):.0f} ms"


def lines_of(pair, action):
    """How many lines each log grows by."""
    before = [log.count("\n") for log in pair.logs()]
    action()
    time.sleep(0.5)
    return [log.count("\n") - lines for log, lines in zip(pair.logs(), before, strict=True)]


@row("nobody decides how much is logged: 200 refused, forbidden or garbage connections of a kind are at most 20 lines")
def log_lines(lab):
    nobody, seen = free_port(), {}
    # To a dead application, and to a service that does not exist, which is answered as one that is not allowed.
    for name, service in {"dead": "echo", "unknown": "other"}.items():
        pair = Pair(lab, nobody, wanted=service)

        def refused():
            for _ in range(200):
                try:
                    with pair.connect() as client:
                        read_to_end(client)
                except ConnectionResetError:
                    pass

        seen[name] = lines_of(pair, refused)
    pair = Pair(lab, serve(echo), far=f"listen_ws: 127.0.0.1:{(websockets := free_port())}")
    for name, port, text in (
        ("garbage", pair.links, b"garbage\r\n\r\n"),
        ("http", pair.links, b"GET / HTTP/1.1\r\n\r\n"),
        ("no websocket", websockets, b"GET /ferry HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("garbage for websockets", websockets, b"\x16\x03\x01garbage\r\n\r\n"),
        ("rebound", pair.far_admin, b"GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        ("no request", pair.far_admin, b"\x00garbage\r\n\r\n"),
    ):

        def strange():
            for _ in range(200):
                with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                    client.sendall(text)
                    client.shutdown(socket.SHUT_WR)
                    read_to_end(client)

        seen[name] = lines_of(pair, strange)
    expect(all(max(lines) <= 20 for lines in seen.values()), f"lines at near and far: {seen}")
    return ", ".join(f"{name} {max(lines)}" for name, lines in seen.items())


@row("connections that open and close as they should are no line of the log at INFO, 100 of them")
def normal_lines(lab):
    pair = Pair(lab, serve(echo))
    lines = lines_of(pair, lambda: short(pair, 100))
    expect(max(lines) <= 2, f"{lines} lines")
    return f"{lines} lines"


@row("a healthy start of every role warns of nothing")
def no_warnings(lab):
    for way in WAYS.values():
        pair = Pair(lab, serve(echo), **way | {"far": f"state: {lab.path}/state-{free_port()}"})
        warned = [line for log in pair.logs() for line in log.splitlines() if "WARN" in line]
        expect(not warned, f"{warned}")
    hooks = lab.write("app.py", "def on_trigger(payload, headers):\n    return payload\n")
    far = free_port()
    for role, more in (
        ("terminator", ["--listen", f"127.0.0.1:{far}"]),
        ("initiator", ["--listen", f"127.0.0.1:{free_port()}", "--peer", f"ws://127.0.0.1:{far}/ws"]),
    ):
        process = lab.start(FERRY, role, "--data", lab.path / role, "--hooks", hooks, *more)
        wait_for(int(more[1].rsplit(":", 1)[1]))
        time.sleep(0.5)
        expect("WARN" not in (log := process.log.read_text()), log)
    return f"tunnels over {len(WAYS)} kinds of links, both web-apps with hooks"


@row(
    "a peer whose key is not listed is named at INFO by the end that would have to list it, and so is one that connects"
)
def unlisted(lab):
    pair = Pair(lab, serve(echo))
    until("a line that the peer has connected", lambda: "peer connected peer=near" in pair.logs()[1])
    lab.key("other")
    text = pair.near_file.read_text().replace("near.key", "other.key").replace(f":{pair.egress}", f":{free_port()}")
    lab.start(
        FERRY, "tunnel", "--config", lab.write("other.yaml", text.replace(f"admin: 127.0.0.1:{pair.near_admin}\n", ""))
    )
    key = lab.key("other").removeprefix("ferry:pub:")[:20]
    line = until(
        "a line with the key", lambda: next((line for line in pair.logs()[1].splitlines() if key in line), None)
    )
    return line[28:160]


@row("requests that are never finished keep no probe of the admin endpoint out, whatever they begin with")
def unfinished_requests(lab):
    pair, seen = Pair(lab, serve(echo)), []
    for text in (
        b"GET /livez HTTP/1.1\r\n",
        b"",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        with Held() as held:
            held.open(pair.near_admin, 600, text)
            started = time.monotonic()
            expect(ask(pair.near_admin, "/livez", timeout=2)[0] == 200, "/livez")
            files = len(os.listdir(f"/proc/{engine(pair.near)}/fd"))
            expect(files < 300, f"{files} files")
            seen.append(f"{time.monotonic() - started:.2f} s with {files} files")
    return ", ".join(seen)


@row("with 256 files or 64 the probe is answered while connections take all, and an open session goes on")
def few_files(lab):
    seen = []
    for files in (256, 64):
        pair = Pair(lab, serve(echo), files=files)
        with pair.connect() as first, Held() as held:
            exchange(first)
            # Until one is refused.
            with contextlib.suppress(OSError):
                held.open(pair.egress, 300, timeout=0.2)
            for admin in (pair.near_admin, pair.far_admin):
                expect(ask(admin, "/livez", timeout=3)[0] == 200, "/livez")
            first.settimeout(3)
            seen.append(f"{exchange(first):.3f} s with {files}")
    return ", ".join(seen)


@row("short sessions leave no port of the dialling end waiting, whoever closes first, over any link")
def waiting_ports(lab):
    seen = []
    for way in ("a plain link", "a WebSocket", "QUIC"):
        pair = Pair(lab, serve(echo), **WAYS[way])
        for client_first in (True, False):
            failed = short(pair, 200, client_first=client_first)
            expect(not failed, f"{len(failed)} failed: {failed[:1]}")
            time.sleep(0.3)
            waiting = sum(remote == pair.links for _, remote in connections(WAITS))
            expect(waiting <= 10, f"{way}: {waiting} ports wait")
            seen.append(str(waiting))
    return "waiting: " + ", ".join(seen)


@row("a quiet session whose link only the far end has lost is back with the next rotation, whoever speaks")
def half_lost(lab):
    application, longest = Application(), 0
    pair = Pair(lab, application.port, near="rotation: {every: 1s}", relayed=True)
    client, server = both(pair, application)
    exchange_ends(client, server)
    for turn in range(6):
        pair.relay.cut(only_far=True)
        started = time.monotonic()
        sender, receiver = (server, client) if turn % 2 else (client, server)
        sender.sendall(b"!")
        receiver.settimeout(3)
        take(receiver, 1)
        longest = max(longest, time.monotonic() - started)
    return f"at most {longest:.2f} s"


def exchange_ends(client, server):
    for one, other in ((client, server), (server, client)):
        one.sendall(b"!")
        take(other, 1)


@row("a session outlives that another replica answers behind the same address for a while")
def another_replica(lab):
    application = Application()
    pair = Pair(lab, application.port, relayed=True)
    client, server = both(pair, application)
    exchange_ends(client, server)
    other = free_port()
    text = (
        pair.far_file.read_text()
        .replace(f":{pair.links}", f":{other}")
        .replace(f":{pair.far_admin}", f":{free_port()}")
    )
    replica = lab.start(FERRY, "tunnel", "--config", lab.write("replica.yaml", text))
    wait_for(other)
    pair.relay.target = other
    pair.relay.cut()
    until(
        "a word of the other replica",
        lambda: (
            "does not have the session" in "".join(pair.logs())
            or metric(pair.near_admin, "ferry_sessions_detached") == 1
        ),
    )
    time.sleep(2)
    lab.stop(replica)
    pair.relay.target = pair.links
    pair.relay.cut()
    exchange_ends(client, server)
    return "answered for 2 s, and the session went on"


@row("a tunnel that starts beside its predecessor takes over the state, so that its own crash is told at once")
def state_taken_over(lab):
    application = Application()
    pair = Pair(lab, application.port, far=f"state: {lab.path}/state\nkeeper: off", relayed=True)
    text = pair.far_file.read_text()
    second, admin = free_port(), free_port()
    text = text.replace(f":{pair.links}", f":{second}").replace(f":{pair.far_admin}", f":{admin}")
    successor = lab.write("successor.yaml", text)
    running = lab.start(FERRY, "tunnel", "--config", successor)
    wait_for(second)
    lab.stop(pair.far)
    time.sleep(3)
    pair.relay.target = second
    pair.relay.cut()
    client, server = both(pair, application)
    # Without a byte it would be opened anew at the next process, and nobody would notice.
    exchange_ends(client, server)
    running.kill()
    running.wait()
    lab.start(FERRY, "tunnel", "--config", successor)
    started = time.monotonic()
    end = read_to_end(client, 20)[1]
    expect(end == "reset", f"{end} after {time.monotonic() - started:.1f} s")
    return f"reset after {time.monotonic() - started:.1f} s"


@row("a configuration that is half written withdraws nothing, wherever it is cut, from either file or in two steps")
def half_written(lab):
    pair = Pair(lab, serve(echo))
    with pair.connect() as client:
        exchange(client)
        for path in (pair.near_file, pair.far_file):
            text = path.read_text()
            for part in (0, len(text) // 4, len(text) // 2, text.index("peers:"), text.rindex(":", 0, len(text) - 20)):
                path.write_text(text[:part])
                # Longer than the time between two looks at the file, shorter than four of them take.
                time.sleep(0.15)
                path.write_text(text)
                time.sleep(0.6)
                exchange(client)
    return "ten cuts of 0.15 s, one session"


@row("with local ports or files gone, a session that has lost its link is back before new ones")
def nothing_left(lab):
    pair = Pair(lab, serve(echo), relayed=True, files=128)
    with pair.connect() as first:
        exchange(first)
        held, stop = [], threading.Event()

        def more():
            while not stop.is_set():
                try:
                    held.append(socket.create_connection(("127.0.0.1", pair.egress), timeout=0.2))
                except OSError:
                    time.sleep(0.01)
                if len(held) > 300:
                    held.pop(0).close()

        thread = threading.Thread(target=more)
        thread.start()
        longest = 0
        for _ in range(3):
            time.sleep(0.7)
            pair.relay.cut()
            longest = max(longest, exchange(first))
        stop.set()
        thread.join()
        for client in held:
            client.close()
        expect(longest < 3, f"back after {longest:.1f} s")
        return f"back after at most {longest:.2f} s"
