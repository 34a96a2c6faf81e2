"""Names whose first address is dead, and names that cannot be looked up any more."""

import os
import socket
import subprocess
import threading
import time

from local import FERRY, echo, free_port, serve
from reproductions import Unavailable, expect, row
from reproductions.stage import Pair, exchange

SILENT, GOOD = "127.0.66.1", "127.0.66.2"
UNSHARE = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])


def with_hosts(lab, name, text):
    """A program in the place of `ferry` that finds names in a file of its own, which may change."""
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0:
        raise Unavailable("no namespaces here")
    hosts = lab.write(f"hosts-{name}", text)
    nobody = lab.write("resolv.conf", "nameserver 127.0.66.53\noptions timeout:1 attempts:1\n")
    script = lab.write(
        f"ferry-{name}",
        f"""#!/bin/sh
exec {" ".join(UNSHARE)} sh -c 'mount --bind {hosts} /etc/hosts && mount --bind {nobody} /etc/resolv.conf && exec {FERRY} "$@"' sh "$@"
""",
    )
    script.chmod(0o755)
    return hosts, str(script)


def silent(port):
    """An address at which nobody is refused or answered: the queue of its listener is full."""
    listener = socket.socket()
    listener.bind((SILENT, port))
    listener.listen(0)
    queued = []
    while True:
        client = socket.socket()
        client.settimeout(0.3)
        queued.append(client)
        try:
            client.connect((SILENT, port))
        except TimeoutError:
            return listener, queued


def two_addresses(port=None):
    """A port at which the first address of `two.test` is silent, and the second echoes."""
    port = port or free_port(GOOD)
    held = silent(port)
    return port, held


@row("a name whose first address is silent is connected to at the next: an application, a peer, a proxy, a WebSocket")
def dead_first(lab):
    _, ferry = with_hosts(lab, "two", f"{SILENT} two.test\n{GOOD} two.test\n127.0.0.1 localhost\n")
    seen = []

    def look(what, pair):
        started = time.monotonic()
        with pair.connect() as client:
            exchange(client)
        took = time.monotonic() - started
        expect(took < 3, f"{what}: {took:.1f} s")
        seen.append(f"{what} {took:.1f} s")

    port, held = two_addresses()
    serve(echo, GOOD, port)
    look("application", Pair(lab, f"two.test:{port}", program=ferry))
    for what, peer, serving in (
        ("peer", 'addresses: ["two.test:{}"]', {}),
        ("WebSocket", 'addresses: ["ws://two.test:{}"]', {"websocket": True}),
    ):
        links, more = two_addresses()
        held += more
        look(what, Pair(lab, serve(echo), program=ferry, peer=peer.format(links), listen=(GOOD, links), **serving))
    proxy, more = two_addresses()
    held += more
    serve(connect_proxy, GOOD, proxy)
    look("proxy", Pair(lab, serve(echo), program=ferry, peer=through("two.test", proxy)))
    return ", ".join(seen)


def through(name, port):
    return f'addresses: ["127.0.0.1:{{links}}"], proxy: "http://{name}:{port}"'


def connect_proxy(client):
    """An HTTP proxy that knows CONNECT alone."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(4096)
    host, port = head.split()[1].decode().rsplit(":", 1)
    far = socket.create_connection((host, int(port)))
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    def carry(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    threading.Thread(target=carry, args=(far, client), daemon=True).start()
    carry(client, far)


@row("while lookups fail, a session that is cut is back and new ones connect at the last good addresses, by every role")
def names_away(lab):
    known = "127.0.0.1 peer.test app.test proxy.test localhost\n"
    hosts, ferry = with_hosts(lab, "known", known)
    seen = []
    for what in ("name", "WebSocket", "proxy"):
        hosts.write_text(known)
        proxy = free_port()
        serve(connect_proxy, "127.0.0.1", proxy)
        peer = {
            "name": 'addresses: ["peer.test:{links}"]',
            "WebSocket": 'addresses: ["ws://peer.test:{links}"]',
            "proxy": through("proxy.test", proxy),
        }[what]
        pair = Pair(
            lab, f"app.test:{serve(echo)}", program=ferry, peer=peer, relayed=True, websocket=what == "WebSocket"
        )
        with pair.connect() as client:
            exchange(client)
            hosts.write_text("127.0.0.1 localhost\n")
            # Longer than an answer is believed without asking again.
            time.sleep(1.2)
            pair.relay.cut()
            took = exchange(client)
        started = time.monotonic()
        with pair.connect() as client:
            exchange(client)
        new = time.monotonic() - started
        expect(max(took, new) < 5, f"{what}: {took:.1f} s, a new one {new:.1f} s")
        seen.append(f"{what} {took:.2f} and {new:.2f} s")
    return ", ".join(seen)
