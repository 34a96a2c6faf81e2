"""Strangers at the port for links: what they hold back keeps nobody out."""

import os
import socket
import time

from local import echo, engine, metric, serve
from reproductions import expect, row
from reproductions.stage import Pair, exchange

HELLOS = {
    "six bytes": b"\x16\x03\x01\x00\x01\x01",
    "nothing": b"",
    "one byte": b"\x16",
    "a long length": b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc",
    "half a request": b"GET /ferry HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n",
}


def flood(port, text, count, source):
    held = []
    for number in range(count):
        stranger = socket.socket()
        stranger.bind((source(number), 0))
        stranger.settimeout(5)
        try:
            stranger.connect(("127.0.0.1", port))
            stranger.sendall(text)
            held.append(stranger)
        except OSError:
            stranger.close()
    return held


def from_everywhere(number):
    return f"127.{1 + number % 250}.{number // 250}.9"


def kept_out(pair, what, seen):
    """A live session's link is cut and a new one is opened while strangers hold on."""
    with pair.connect() as live:
        exchange(live)
        for source in (from_everywhere, lambda _: "127.0.0.1"):
            held = flood(pair.links, HELLOS[what], 600, source)
            pair.relay.cut()
            back = exchange(live)
            started = time.monotonic()
            with pair.connect() as client:
                exchange(client)
            new = time.monotonic() - started
            files = len(os.listdir(f"/proc/{engine(pair.far)}/fd"))
            expect(back < 2 and new < 1, f"{what}: back after {back:.1f} s, a new session {new:.1f} s")
            seen.append(max(back, new))
            expect(metric(pair.far_admin, "ferry_links_unauthenticated ") <= 1024, "more than 1,024 in the lobby")
            expect(files < 1600, f"{files} files")
            for stranger in held:
                stranger.close()


@row(
    "strangers who hold back their hello delay no resume and no new session, whatever they send first, from one address or many"
)
def held_back(lab):
    seen = []
    pair = Pair(lab, serve(echo), relayed=True)
    for what in ("six bytes", "nothing", "one byte", "a long length"):
        kept_out(pair, what, seen)
    pair = Pair(lab, serve(echo), relayed=True, websocket=True)
    for what in ("half a request", "nothing", "six bytes"):
        kept_out(pair, what, seen)
    return f"at most {max(seen):.2f} s beside 600 of them, seven ways"


@row("strangers hold no more files than their part, with few files too")
def few_files(lab):
    pair = Pair(lab, serve(echo), relayed=True, files=256)
    with pair.connect() as live:
        exchange(live)
        held = flood(pair.links, HELLOS["six bytes"], 400, from_everywhere)
        pair.relay.cut()
        back = exchange(live)
        expect(back < 2, f"back after {back:.1f} s")
        count = metric(pair.far_admin, "ferry_links_unauthenticated ")
        for stranger in held:
            stranger.close()
    expect("Too many open files" not in "".join(pair.logs()), "out of files")
    return f"back after {back:.2f} s with {count:.0f} strangers of 400 inside"
