"""How connections end, and what was written before: resets, urgent bytes, killed processes, applications that are gone."""

import contextlib
import os
import signal
import socket
import threading
import time

from local import engine, until
from reproductions import expect, row
from reproductions.stage import WAYS, Application, Pair, both, take
from sockets import ANSWER, fill, read_to_end, reset, upload_with_answer


def before_reset(ends, text, times):
    """How often all that was written before a reset arrives, and the reset after it."""
    good = 0
    for _ in range(times):
        sender, receiver = ends()
        sender.sendall(text)
        reset(sender)
        good += read_to_end(receiver) == (text, "reset")
    return good


@row("what either application writes before it resets arrives before the reset, 1 byte and 60 kB, over any link")
def before_a_reset(lab):
    seen = []
    for way, how in WAYS.items():
        application = Application()
        pair = Pair(lab, application.port, **how)
        application.has_header = "service" in how
        for text in (b"!", bytes(60_000)):
            down = before_reset(lambda: both(pair, application)[::-1], text, 10)
            up = before_reset(lambda: both(pair, application), text, 10)
            seen.append(f"{down + up} of 20")
            expect(down + up == 20, f"{way}, {len(text)} bytes: {down} of 10 down, {up} of 10 up")
    return ", ".join(seen)


@row("after a half-close either way, what the other end writes before it resets arrives")
def half_close_then_reset(lab):
    application = Application()
    pair, good = Pair(lab, application.port), 0
    for turn in range(20):
        ends = both(pair, application)
        closer, other = ends if turn % 2 else ends[::-1]
        closer.sendall(b"question")
        closer.shutdown(socket.SHUT_WR)
        expect(read_to_end(other) == (b"question", "end of file"), "the first direction did not end in order")
        other.sendall(b"answer")
        reset(other)
        good += read_to_end(closer) == (b"answer", "reset")
    expect(good == 20, f"{good} of 20")
    return f"{good} of 20"


@row("a reset without a byte before it is a reset, either way")
def bare_reset(lab):
    application = Application()
    pair, hows = Pair(lab, application.port), []
    for turn in range(20):
        ends = both(pair, application)
        resetter, other = ends if turn % 2 else ends[::-1]
        reset(resetter)
        hows.append(read_to_end(other)[1])
    expect(set(hows) == {"reset"}, f"{hows}")
    return f"{hows.count('reset')} of 20"


@row("an answer that a server gives amid an upload is read, at 300 kB and 5 MB, over any link")
def answer_amid_upload(lab):
    seen = []
    for way in ("a plain link", "a WebSocket", "QUIC"):
        application = Application()
        pair = Pair(lab, application.port, **WAYS[way])
        for size, times in ((300_000, 10), (5_000_000, 5)):
            good = sum(upload_with_answer(*both(pair, application), size) == ANSWER for _ in range(times))
            expect(good == times, f"{way}, {size} bytes: {good} of {times}")
            seen.append(f"{good} of {times}")
    return ", ".join(seen)


@row("an urgent byte keeps its place: first, in the middle and last, one and two, either way")
def urgent(lab):
    application = Application()
    pair = Pair(lab, application.port)
    shapes = {
        "middle": ["ab", "!", "cd"],
        "first": ["!", "cd"],
        "last": ["ab", "!"],
        "two": ["ab", "!", "cd", "!", "ef"],
    }
    for name, parts in shapes.items():
        for up in (True, False):
            ends = both(pair, application)
            sender, receiver = ends if up else ends[::-1]
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            for part in parts:
                sender.send(part.encode(), socket.MSG_OOB if part == "!" else 0)
                time.sleep(0.05)
            sender.close()
            data, end = read_to_end(receiver, 5)
            expect(data == "".join(parts).encode(), f"{name}, {'up' if up else 'down'}: {data} and {end}")
    return "8 of 8"


@row("an application that resets while every buffer is full ends its session at both ends, whoever it is")
def reset_while_full(lab):
    application, seen = Application(), []
    pair = Pair(lab, application.port, near="liveness: 2s", far="liveness: 2s")
    for up in (True, False):
        ends = both(pair, application)
        sender, receiver = ends if up else ends[::-1]
        fill(sender)
        reset(sender)
        started = time.monotonic()
        until("the end of the session", lambda: pair.sessions() == 0, 15)
        seen.append(f"{time.monotonic() - started:.1f} s")
        receiver.close()
    return ", ".join(seen)


@row("a killed tunnel is no end of file to whoever downloads or uploads through it, with a keeper and without")
def killed(lab):
    seen = []
    for more in ("", "keeper: off"):
        for victim in ("near", "far"):
            application = Application()
            pair = Pair(lab, application.port, near=more, far=more)
            client, server = both(pair, application)
            sender, receiver = (server, client) if victim == "near" else (client, server)

            def pour(sender=sender):
                with contextlib.suppress(OSError):
                    while True:
                        sender.sendall(bytes(65536))

            threading.Thread(target=pour, daemon=True).start()
            receiver.recv(65536)
            getattr(pair, victim).send_signal(signal.SIGKILL)
            end = read_to_end(receiver, 5)[1]
            expect(end == "reset", f"{victim}, {more or 'its own keeper'}: {end}")
            seen.append(end)
    return ", ".join(seen)


@row("the process that carries a stream is killed at each end: not a byte is missing, and none comes twice")
def engine_killed(lab):
    application = Application()
    pair = Pair(lab, application.port)
    client, server = both(pair, application)
    sent, stop = 0, threading.Event()

    def pour():
        nonlocal sent
        while not stop.is_set():
            block = b"".join(number.to_bytes(8, "big") for number in range(sent // 8, sent // 8 + 2048))
            client.sendall(block)
            sent += len(block)
        client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=pour)
    thread.start()
    checked = 0
    for process in (pair.near, pair.far):
        killed = engine(process)
        expect(killed != process.pid, "the process that was started has no child")
        os.kill(killed, signal.SIGKILL)
        for _ in range(2000):
            checked = take_numbers(server, checked)
    stop.set()
    rest, end = read_to_end(server)
    thread.join()
    expect(
        end == "end of file" and checked * 8 + len(rest) == sent, f"{end}, {checked * 8 + len(rest)} of {sent} bytes"
    )
    return f"{sent >> 20} MiB, two processes killed"


def take_numbers(connection, first, count=512):
    for at, number in enumerate(zip(*[iter(take(connection, 8 * count))] * 8, strict=True)):
        expect(int.from_bytes(bytes(number), "big") == first + at, f"wrong bytes at {8 * (first + at)}")
    return first + count


@row("five connections made one right after another reach the application in that order, 20 of 20, over any link")
def order(lab):
    seen = []
    for way in ("a plain link", "a WebSocket", "QUIC"):
        application = Application()
        pair, good = Pair(lab, application.port, FERRY_LOG="info,ferry_tunnel::peer::arrivals=debug", **WAYS[way]), 0
        for _ in range(20):
            clients = [pair.connect() for _ in range(5)]
            for number, client in enumerate(clients):
                client.sendall(bytes([number]))
            came = [take(application.accept(), 1)[0] for _ in clients]
            good += came == sorted(came)
            for client in clients:
                client.close()
        # A machine that is too busy for the order is told apart by the far tunnel, which is the one to hold it.
        late = "".join(pair.logs()).count("an earlier session is not here in time")
        expect(good + late >= 20, f"{way}: {good} of 20, and {late} whose links were too far apart")
        seen.append(f"{good} of 20")
    return ", ".join(seen)
