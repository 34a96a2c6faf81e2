"""A pair of tunnels with an application behind it, and what sockets do with it."""

import socket
import time

from local import FERRY, Relay, ask, free_port, metric, until, wait_for
from sockets import PATIENCE

WAYS = {
    "a plain link": {},
    "a WebSocket": {"websocket": True},
    "keys of a second": {"near": "rotation: {every: 1s}"},
    "QUIC": {"quic": True},
    "PROXY headers": {"service": ", proxy_protocol: v2"},
}


class Application:
    """Listens, and lets a row be the server."""

    def __init__(self, address="127.0.0.1"):
        self.listener = socket.create_server((address, 0), backlog=1024)
        self.listener.settimeout(PATIENCE)
        self.port = self.listener.getsockname()[1]
        self.has_header = False

    def accept(self):
        server, _ = self.listener.accept()
        server.settimeout(PATIENCE)
        if self.has_header:
            head = take(server, 16)
            take(server, int.from_bytes(head[14:], "big"))
        return server


class Pair:
    """A near and a far tunnel. `near` and `far` are more of their configurations, `service` of the service's."""

    def __init__(
        self,
        lab,
        app,
        near="",
        far="",
        service="",
        websocket=False,
        relayed=False,
        quic=False,
        peer="",
        wanted="echo",
        program=FERRY,
        listen=None,
        **start,
    ):
        host, self.links = listen or ("127.0.0.1", free_port())
        self.egress = free_port()
        self.near_admin, self.far_admin = free_port(), free_port()
        self.relay = Relay(self.links) if relayed else None
        at = self.relay.port if relayed else self.links
        address = ("quic://" if quic else "ws://" if websocket else "") + f"127.0.0.1:{at}"
        peer = peer.replace("{links}", str(at)) or f'addresses: ["{address}"]'
        forward = app if isinstance(app, str) else f"127.0.0.1:{app}"
        self.far_file = lab.write(
            f"far-{self.links}.yaml",
            f"""name: far
identity: far.key
{"listen_quic" if quic else "listen_ws" if websocket else "listen"}: {host}:{self.links}
admin: 127.0.0.1:{self.far_admin}
peers: [{{name: near, keys: ["{lab.key("near")}"]}}]
ingress: [{{service: echo, forward: "{forward}", allow: [near]{service}}}]
{far}
""",
        )
        self.near_file = lab.write(
            f"near-{self.egress}.yaml",
            f"""name: near
identity: near.key
admin: 127.0.0.1:{self.near_admin}
peers: [{{name: far, keys: ["{lab.key("far")}"], {peer}}}]
egress: [{{listen: "127.0.0.1:{self.egress}", peer: far, service: {wanted}}}]
{near}
""",
        )
        self.far = lab.start(program, "tunnel", "--config", self.far_file, **start)
        wait_for(self.far_admin if quic else self.links)
        self.near = lab.start(program, "tunnel", "--config", self.near_file, **start)
        wait_for(self.egress)
        until("a reachable peer", lambda: ask(self.near_admin, "/readyz?peers=1")[0] == 200)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.egress), timeout=PATIENCE)

    def sessions(self):
        """How many are open, at both ends together."""
        return sum(metric(admin, "ferry_sessions_open") for admin in (self.near_admin, self.far_admin))

    def logs(self):
        return [process.log.read_text(errors="replace") for process in (self.near, self.far)]


class Held(list):
    """Connections that are held open until the `with` block ends, and no longer."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self:
            connection.close()

    def open(self, port, count, text=b"", timeout=10.0):
        """Opens so many more that say this and nothing else."""
        for _ in range(count):
            self.append(socket.create_connection(("127.0.0.1", port), timeout=timeout))
            self[-1].sendall(text)


def both(pair, application):
    """A connection as both applications have it."""
    client = pair.connect()
    return client, application.accept()


def take(connection, length):
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise OSError(f"end of file after {len(data)} of {length} bytes")
        data += piece
    return data


def exchange(connection, text=b"are you there?"):
    """How long an application that echoes takes to answer."""
    started = time.monotonic()
    connection.sendall(text)
    if take(connection, len(text)) != text:
        raise OSError("wrong bytes")
    return time.monotonic() - started
