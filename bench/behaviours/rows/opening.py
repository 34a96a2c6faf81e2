"""How connections begin: who speaks first, refusals, order, many of them, few ports."""

import contextlib
import socket
import threading
import time

from lab import Broken, expect
from rows import row
from sockets import read_to_end
from stage import ask, echo


@row("server-first", "The server speaks first", "the client, which sends nothing, reads it within 3 s", tries=10)
def server_first(stage):
    client, server = stage.pair()
    server.sendall(b"220 welcome\r\n")
    client.settimeout(3)
    with contextlib.suppress(TimeoutError):
        if client.recv(100) == b"220 welcome\r\n":
            return
    raise Broken("no greeting")


def until_told(stage, within):
    """How long it takes until a client knows that there is no application."""
    started = time.monotonic()
    try:
        client = stage.connect(within)
    except OSError as error:
        expect(not isinstance(error, TimeoutError) or error.errno, f"not told within {within} s")
        return f"{time.monotonic() - started:.1f} s"
    _, end = read_to_end(client, within)
    expect(end != "silence", f"not told within {within} s")
    return f"{time.monotonic() - started:.1f} s, {end}"


@row("refused", "Nobody listens", "the client's connection fails or ends within 2 s", tries=10)
def refused(stage):
    stage.listener.close()
    return until_told(stage, 2)


@row("silent", "The application's address is silent", "the client's connection fails or ends within 15 s", tries=2, network=True)
def silent(stage):
    stage.lab.app.drop('iifname "to-far"')
    return until_told(stage, 15)


@row("order", "Five connections one right after another", "the application accepts them in that order", tries=20)
def order(stage):
    clients = [stage.connect() for _ in range(5)]
    for number, client in enumerate(clients):
        client.sendall(bytes([number]))
    seen = [stage.accept().recv(1)[0] for _ in clients]
    for client in clients:
        client.close()
    expect(seen == sorted(seen), f"order {seen}")


def many(stage, count, at_once, failures):
    """Short connections, the server closing first."""
    numbers = iter(range(count))
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                if next(numbers, None) is None:
                    return
            try:
                with stage.connect() as client:
                    client.sendall(b"x" * 100)
                    data, end = read_to_end(client)
                    if (len(data), end) != (100, "end of file"):
                        failures.append(f"{end} after {len(data)} bytes")
            except OSError as error:
                failures.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - started


def answer_once(server):
    data = b""
    while len(data) < 100 and (piece := server.recv(100)):
        data += piece
    server.sendall(data)


def short_connections(stage, count, at_once=20):
    failures = []
    stage.serve(answer_once)
    took = many(stage, count, at_once, failures)
    expect(not failures, f"{len(failures)} of {count} failed: {failures[:1]}")
    return f"{took:.1f} s"


@row("many", "2,000 short connections, 20 at a time", "every one is answered and ends")
def many_short(stage):
    return short_connections(stage, 2000)


def narrow(lab):
    lab.near.run("echo 40000 40999 > /proc/sys/net/ipv4/ip_local_port_range")


@row("few-ports", "4,000 short connections with 1,000 local ports", "every one is answered and ends, within 60 s",
     network=True, prepare=narrow)
def few_ports(stage):
    started = time.monotonic()
    note = short_connections(stage, 4000)
    expect(time.monotonic() - started < 60, f"it took {note}")
    return note


@row("few-ports-cut", "A long session's link is cut amid these", "it is answered within 5 s", network=True, prepare=narrow)
def few_ports_cut(stage):
    first = threading.Event()

    def either(server):
        if not first.is_set():
            first.set()
            echo(server)
        else:
            answer_once(server)

    stage.serve(either)
    long = stage.connect()
    ask(long)
    load = threading.Thread(target=many, args=[stage, 3000, 20, []])
    load.start()
    try:
        time.sleep(3)
        stage.cut_links()
        took = ask(long, within=30)
        expect(took < 5, f"answered after {took:.1f} s")
        return f"{took:.1f} s"
    finally:
        with contextlib.suppress(OSError):
            long.shutdown(socket.SHUT_RDWR)
        load.join()
