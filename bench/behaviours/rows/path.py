"""What the path does: hosts that vanish, links that only one end has lost, packets that are too large."""

import contextlib
import time

from lab import Broken, expect
from rows import row
from sockets import read_to_end
from stage import ask, echo, pattern
from tunnels import Settings


def lose_app_host(stage):
    stage.lab.app.drop('iifname "to-far"')
    stage.lab.far.drop('iifname "to-app"')


def told_of_lost_host(client, within):
    started = time.monotonic()
    _, end = read_to_end(client, within)
    expect(end != "silence", f"not told within {within} s")
    return f"{time.monotonic() - started:.0f} s, {end}"


@row("host-lost", "The application's host is lost while it has not acknowledged bytes", "the client is told within 150 s",
     network=True, waits=True)
def host_lost(stage):
    client, server = stage.pair()
    client.sendall(b"!")
    server.recv(1)
    lose_app_host(stage)
    client.sendall(b"!")
    return told_of_lost_host(client, 150)


@row("host-lost-quiet", "The application's host is lost while nothing is under way", "the client is told within 150 s",
     network=True, waits=True)
def host_lost_quiet(stage):
    client, server = stage.pair()
    client.sendall(b"!")
    server.recv(1)
    lose_app_host(stage)
    return told_of_lost_host(client, 150)


@row("cut", "The link is cut under an open connection, 5 times", "it is answered within 3 s each time", network=True)
def cut(stage):
    stage.serve(echo)
    client = stage.connect()
    ask(client)
    longest = 0
    for _ in range(5):
        stage.cut_links()
        longest = max(longest, ask(client, within=3))
    return f"{longest:.1f} s"


@row("half-lost", "Only the far end has lost the link of a quiet connection; the server speaks",
     "the client reads it within 3 s", tries=3, network=True)
def half_lost(stage):
    client, server = stage.pair()
    client.sendall(b"!")
    server.recv(1)
    # So long that neither end has anything left to acknowledge.
    time.sleep(2)
    stage.lose_links_at_far()
    started = time.monotonic()
    with contextlib.suppress(OSError):
        server.sendall(b"!")
    client.settimeout(3)
    try:
        expect(client.recv(1) == b"!", "end of file")
    except TimeoutError:
        raise Broken("silent for 3 s") from None
    return f"{time.monotonic() - started:.1f} s"


@row("half-lost-rotating", "The same under keys that rotate each second, 20 times", "the client reads it within 3 s each time",
     network=True, only="ferry", settings=Settings(rotate_every="1s"))
def half_lost_rotating(stage):
    client, server = stage.pair()
    client.sendall(b"!")
    server.recv(1)
    longest = 0
    for _ in range(20):
        stage.lose_links_at_far()
        started = time.monotonic()
        server.sendall(b"!")
        client.settimeout(3)
        try:
            expect(client.recv(1) == b"!", "end of file")
        except TimeoutError:
            raise Broken("silent for 3 s") from None
        longest = max(longest, time.monotonic() - started)
    return f"{longest:.1f} s"


def small_packets(lab):
    """Nothing above 1,300 bytes passes between near and far, and nobody is told."""
    for host, device in ((lab.near, "to-far"), (lab.far, "to-near"), (lab.far, "to-app"), (lab.app, "to-far")):
        # Packets as they would be on a wire, not as segments that the kernel has joined.
        host.run(f"ip link set {device} gso_max_segs 1")
        host.run("echo 1 > /proc/sys/net/ipv4/tcp_mtu_probing")
    lab.far.drop('iifname "to-near" meta length > 1300')
    lab.near.drop('iifname "to-far" meta length > 1300')


@row("small-packets", "Packets above 1,300 bytes vanish on the path, without ICMP; `tcp_mtu_probing=1`",
     "a client that tries again carries 100 kB both ways within 60 s", network=True, prepare=small_packets)
def mtu(stage):
    stage.serve(echo)
    started = time.monotonic()
    why = "nothing"
    while (left := 60 - (time.monotonic() - started)) > 0:
        try:
            with stage.connect(left) as client:
                ask(client, pattern(100_000), within=left)
                return f"{time.monotonic() - started:.1f} s"
        except (OSError, Broken) as error:
            why = str(error)
            time.sleep(0.5)
    raise Broken(f"not within 60 s: {why}")
