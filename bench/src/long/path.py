"""A path between two network namespaces on which every packet takes its time.

    path.py PID ONE_WAY_MS LOSS_PERCENT MTU CONGESTION

Each direction loses that part of its packets, at random, and both ends have that congestion control by default. This
process's namespace gets 10.99.0.1 and that of PID 10.99.0.2. Linux has netem for this, where it is compiled in.
"""

import collections
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# As many as one read of the descriptor may take before the other direction has its turn.
BATCH = 64


def device(name):
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def ip(*arguments, within=()):
    subprocess.run([*within, "ip", *arguments], check=True)


def forward(ends, delay, loss):
    lines = {ends[0]: (ends[1], collections.deque()), ends[1]: (ends[0], collections.deque())}
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    while True:
        first = min((line[0][0] for _, line in lines.values() if line), default=None)
        now = time.monotonic()
        wait = None if first is None else max(0, (first - now) * 1000)
        # poll() counts in milliseconds; what is due sooner is waited for by looking again.
        ready = poll.poll(None if wait is None else int(wait))
        now = time.monotonic()
        for end, _ in ready:
            line = lines[end][1]
            try:
                for _ in range(BATCH):
                    packet = os.read(end, 65536)
                    if random.random() >= loss:
                        line.append((now + delay, packet))
            except BlockingIOError:
                pass
        for other, line in lines.values():
            while line and line[0][0] <= now:
                os.write(other, line.popleft()[1])


def main():
    far, delay, loss = sys.argv[1], float(sys.argv[2]) / 1000, float(sys.argv[3]) / 100
    mtu, congestion = sys.argv[4:]
    ends = [device("near0"), device("far0")]
    ip("link", "set", "far0", "netns", far)
    for name, address, within in [("near0", "10.99.0.1/24", ()), ("far0", "10.99.0.2/24", ("nsenter", "-t", far, "-n"))]:
        ip("address", "add", address, "dev", name, within=within)
        ip("link", "set", name, "mtu", mtu, "txqueuelen", "20000", "up", within=within)
        ip("link", "set", "lo", "up", within=within)
        # In a namespace the setting takes no algorithm that the host keeps for the privileged; a route takes each.
        route = ["10.99.0.0/24", "dev", name, "src", address.partition("/")[0], "congctl", congestion]
        ip("route", "replace", *route, within=within)
    print("ready", flush=True)
    forward(ends, delay, loss)


main()
