"""What a row acts on: a running tunnel with an application that listens behind it, and sockets' usual moves."""

import contextlib
import select
import struct
import threading
import time

from lab import Broken, expect
from sockets import PATIENCE


class Stage:
    def __init__(self, lab, running, listener):
        self.lab, self.running, self.listener = lab, running, listener
        self.is_served = False

    @property
    def is_direct(self):
        return self.running.near is None

    def connect(self, timeout=PATIENCE):
        return self.lab.near.connect(self.running.address, timeout)

    def accept(self, timeout=PATIENCE):
        self.listener.settimeout(timeout)
        try:
            server, _ = self.listener.accept()
        except TimeoutError:
            raise Broken(f"the application saw no connection within {timeout} s") from None
        server.settimeout(PATIENCE)
        return server

    def pair(self):
        """A connection as both applications have it."""
        client = self.connect()
        return client, self.accept()

    def forget_connections(self):
        """Those that a tunnel has made anew for an earlier try."""
        with contextlib.suppress(OSError):
            self.listener.settimeout(0 if not self.is_served else None)
            while not self.is_served:
                self.listener.accept()[0].close()

    def serve(self, handler):
        """Has each connection handled in a thread of its own, until the row is over. Once is enough."""

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    server, _ = self.listener.accept()
                    threading.Thread(target=handle, args=[server], daemon=True).start()

        def handle(server):
            with contextlib.suppress(OSError), server:
                server.settimeout(None)
                handler(server)

        if self.is_served:
            return
        self.is_served = True
        self.listener.settimeout(None)
        threading.Thread(target=accept, daemon=True).start()

    @property
    def link_port(self):
        return self.running.link_port or self.running.address[1]

    def cut_links(self):
        """The near host's kernel ends everything that is between the two ends, and tells the far one."""
        self.lab.near.run(f"ss -K '( dport = :{self.link_port} )'")

    def lose_links_at_far(self):
        """The far kernel forgets them while nothing passes, so that the near one is not told."""
        near, far = self.lab.near, self.lab.far
        far.drop('iifname "to-near"')
        near.drop('iifname "to-far"')
        (self.lab.app if self.is_direct else far).run(f"ss -K '( sport = :{self.link_port} )'")
        time.sleep(2)
        far.undrop()
        near.undrop()


def echo(server):
    while data := server.recv(65536):
        server.sendall(data)


def ask(client, text=b"are you there?", within=PATIENCE):
    """Sends to an application that echoes; how long the answer took."""
    started = time.monotonic()
    client.sendall(text)
    client.settimeout(within)
    answer = b""
    try:
        while len(answer) < len(text):
            data = client.recv(65536)
            expect(data, "end of file")
            answer += data
    except TimeoutError:
        raise Broken(f"no answer within {within} s") from None
    except ConnectionResetError:
        raise Broken(f"reset after {time.monotonic() - started:.1f} s") from None
    expect(answer == text, "wrong bytes")
    return time.monotonic() - started


def until_error(sock, within):
    """Waits, without reading, until the kernel reports the connection's error; how long that took."""
    started = time.monotonic()
    poll = select.poll()
    poll.register(sock, 0)
    while (left := within - (time.monotonic() - started)) > 0:
        for _, event in poll.poll(left * 1000):
            if event & (select.POLLERR | select.POLLHUP):
                return time.monotonic() - started
    raise Broken(f"not told within {within} s")


def pattern(length):
    """Bytes that tell where they belong."""
    return b"".join(struct.pack(">I", number) for number in range(length // 4 + 1))[:length]
