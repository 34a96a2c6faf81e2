"""Names: the first address is dead, lookups fail, lookups hang."""

import socket
import struct
import threading
import time

from lab import Broken, expect
from rows import row
from stage import ask, echo
from tunnels import Settings

APP, LINK = "app.test", "far.test"


class Names:
    """A name server on the far host, for all hosts."""

    def __init__(self, lab):
        self.known = {APP: [lab.app.address], LINK: [lab.far.address]}
        self.mode = "answer"
        with lab.far:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((lab.far.address, 53))
        resolver = lab.write("resolv.conf", f"nameserver {lab.far.address}\n")
        # The mounts are this process's own, too.
        lab.near.run(f"mount --bind {resolver} /etc/resolv.conf")
        threading.Thread(target=self.answer, daemon=True).start()

    def answer(self):
        while True:
            query, client = self.socket.recvfrom(512)
            name, end = [], 12
            while query[end]:
                name.append(query[end + 1 : end + 1 + query[end]].decode())
                end += 1 + query[end]
            (kind,) = struct.unpack(">H", query[end + 1 : end + 3])
            question = query[12 : end + 5]
            name = ".".join(name).lower()
            records = self.known.get(name, []) if kind == 1 else []
            code = 2 if self.mode == "fail" else 0 if name in self.known else 3
            if code:
                records = []
            if self.mode != "hang":
                answers = b"".join(
                    b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(record) for record in records
                )
                counts = struct.pack(">HHHH", 1, len(records), 0, 0)
                self.socket.sendto(query[:2] + struct.pack(">H", 0x8180 | code) + counts + question + answers, client)


def start_names(lab):
    lab.names = Names(lab)


def dead_first(lab):
    """The application's name has two addresses; what goes to the first vanishes."""
    start_names(lab)
    lab.app.run("ip address add 10.77.2.3/24 dev to-far")
    lab.app.drop("ip daddr 10.77.2.3")
    lab.names.known[APP] = ["10.77.2.3", lab.app.address]


def connect_racing(stage, within):
    """A connection as an application makes one that knows of several addresses (RFC 8305); directly, if there is no tunnel."""
    if not stage.is_direct:
        return stage.connect(within)
    with stage.lab.near:
        found = socket.getaddrinfo(*stage.running.address, socket.AF_INET, socket.SOCK_STREAM)
    for attempt in found:
        try:
            return stage.lab.near.connect(attempt[4], 0.25)
        except TimeoutError:
            continue
    raise Broken("no address answers")


def answered_within(stage, seconds, times=1):
    """The longest that a new connection took to its first answer."""
    longest = 0
    for _ in range(times):
        started = time.monotonic()
        try:
            with connect_racing(stage, seconds) as client:
                ask(client, within=seconds)
        except (OSError, Broken) as error:
            raise Broken(f"{error} after {time.monotonic() - started:.1f} s") from None
        longest = max(longest, time.monotonic() - started)
    return f"{longest:.1f} s"


NAMED_APP = Settings(forward=APP)


@row("dead-first-address", "The first of the two addresses of the application's name is silent",
     "a new connection is answered within 3 s", tries=5, network=True, prepare=dead_first, settings=NAMED_APP)
def dead_first_address(stage):
    stage.serve(echo)
    return answered_within(stage, 3)


def names_away(mode):
    def attempt(stage):
        stage.serve(echo)
        answered_within(stage, 5)
        # Longer than the answer's time to live.
        time.sleep(1.5)
        stage.lab.names.mode = mode
        return answered_within(stage, 3, times=8)

    return attempt


NAMED = Settings(forward=APP, link=LINK)
for mode, title in (("fail", "Lookups fail"), ("hang", "Lookups are not answered")):
    row(f"names-{mode}", f"{title}; the addresses are those of before", "eight new connections are answered within 3 s each",
        network=True, prepare=start_names, settings=NAMED)(names_away(mode))


def cut_without_names(mode):
    def attempt(stage):
        stage.serve(echo)
        with connect_racing(stage, 5) as client:
            ask(client)
            time.sleep(1.5)
            stage.lab.names.mode = mode
            stage.cut_links()
            return f"{ask(client, within=5):.1f} s"

    return attempt


for mode, title in (("fail", "lookups fail"), ("hang", "lookups are not answered")):
    row(f"names-{mode}-cut", f"An open connection's link is cut while {title}", "it is answered within 5 s", network=True,
        prepare=start_names, settings=NAMED)(cut_without_names(mode))
