"""Usual moves of sockets, for the rows here and in .ci/reproductions: resets, reading to the end, writing until full."""

import contextlib
import select
import socket
import struct
import time

PATIENCE = 20
ANSWER = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large"


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_to_end(sock, timeout=PATIENCE):
    """All that comes, and how it ends: "end of file", "reset", "time-out", or "silence" when the time is up."""
    until, data = time.monotonic() + timeout, []
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            piece = sock.recv(1 << 20)
        except TimeoutError as error:
            # The kernel's own ETIMEDOUT is the end of the connection; the wait's has no number.
            return b"".join(data), "time-out" if error.errno else "silence"
        except OSError:
            return b"".join(data), "reset"
        if not piece:
            return b"".join(data), "end of file"
        data.append(piece)
    return b"".join(data), "silence"


def fill(sock, quiet=1.0):
    """Writes until nobody has taken anything for a while; how much was taken."""
    sock.setblocking(False)
    poll, sent = select.poll(), 0
    poll.register(sock, select.POLLOUT)
    while poll.poll(quiet * 1000):
        with contextlib.suppress(BlockingIOError):
            sent += sock.send(bytes(65536))
    sock.setblocking(True)
    return sent


def upload_with_answer(client, server, size, within=15):
    """A server that answers from the header alone and closes, as one that wants no such upload does; what the client,
    which is writing, reads of its ANSWER."""
    client.setblocking(False)
    # Not select(), which knows no more than 1,024 files.
    poll = select.poll()
    poll.register(server, select.POLLIN)
    left = memoryview(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    seen, until, asked = b"", time.monotonic() + within, server.fileno()
    while time.monotonic() < until:
        poll.register(client, select.POLLIN | (select.POLLOUT if left else 0))
        ready = dict(poll.poll(1000))
        if asked in ready:
            poll.unregister(asked)
            server.recv(4096)
            server.sendall(ANSWER)
            server.close()
            # Another connection may have its number next.
            asked = None
        if ready.get(client.fileno(), 0) & ~select.POLLOUT:
            try:
                piece = client.recv(65536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
        elif client.fileno() in ready:
            try:
                left = left[client.send(left[:65536]) :]
            except OSError:
                left = memoryview(b"")
    return seen
