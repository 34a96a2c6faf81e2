"""The web-apps: a full disk, a log that nobody reads, a clock that jumps. Without a tunnel in between."""

import json
import time
import urllib.request

from lab import Broken, expect
from rows import row
from rows.process import fake_clock, set_clock
from tunnels import ALL, Settings, get


class Webapps:
    """An initiator, and a terminator for it that may come later, both on the near host."""

    def __init__(self, stage, settings, data):
        self.lab, self.settings, self.data = stage.lab, settings, data
        self.near, self.far = (("127.0.0.1", self.lab.near.free_port("127.0.0.1")) for _ in range(2))
        peer = f"ws://127.0.0.1:{self.far[1]}/ws"
        self.start("initiator", self.near, data / "initiator", ["--peer", peer, "--auto-trigger", "0"])

    def start_far(self):
        self.start("terminator", self.far, self.lab.dir / "terminator", [])

    def start(self, role, address, data, more):
        command = [ALL["ferry"].program(), role, "--listen", f"127.0.0.1:{address[1]}", "--data", data]
        process = self.lab.start(self.lab.near, role, [*command, *more], self.settings)
        self.lab.wait_for_port(self.lab.near, address, process)

    def trigger(self, payload):
        """The status that a trigger is answered with."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.near[1]}/trigger", json.dumps(payload).encode(),
                                         {"Content-Type": "application/json"})
        with self.lab.near:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code

    def arrived(self, count, within):
        """The numbers in the far output, once there are as many as that, or the time is up."""
        until, numbers, last = time.monotonic() + within, [], None
        while len(numbers) < count and time.monotonic() < until:
            # A page is bounded in bytes, too.
            after = f"&after={last}" if last else ""
            page = json.loads(get(self.lab, self.far, f"/output?limit=1000{after}") or '{"results": []}')["results"]
            numbers += [message["payload"]["number"] for message in page]
            last = page[-1]["id"] if page else last
            time.sleep(0 if page else 0.2)
        return numbers


@row("store-full", "The disk of a web-app's store is full, then has room again", "refused with 503; every accepted message "
     "arrives once and in order; new ones are accepted", network=True, only="ferry")
def store_full(stage):
    data = stage.lab.dir / "disk"
    data.mkdir()
    stage.lab.on_exit(stage.lab.near.run, f"umount -l {data}")
    stage.lab.near.run(f"mount -t tmpfs -o size=8m none {data}")
    apps = Webapps(stage, Settings(), data)
    accepted = 0
    while (status := apps.trigger({"number": accepted, "text": "x" * 50_000})) == 202:
        accepted += 1
        expect(accepted < 1000, "the disk does not fill up")
    expect(status == 503, f"answered {status}")
    stage.lab.near.run(f"mount -o remount,size=64m {data}")
    apps.start_far()
    numbers = apps.arrived(accepted, 20)
    expect(numbers == list(range(accepted)), f"{len(numbers)} of {accepted} arrived, or not in order")
    until = time.monotonic() + 10
    while (status := apps.trigger({"number": accepted})) != 202:
        expect(time.monotonic() < until, f"still answered {status}")
        time.sleep(0.2)


@row("webapp-log-unread", "Nobody reads the pipes that the web-apps' logs go to; 500 messages", "every one is accepted and arrives",
     only="ferry")
def webapp_log_unread(stage):
    apps = Webapps(stage, Settings(output="unread", environment=lambda _: {"FERRY_LOG": "debug"}), stage.lab.dir)
    apps.start_far()
    for number in range(500):
        try:
            status = apps.trigger({"number": number})
        except OSError as error:
            raise Broken(f"message {number}: {error}") from None
        expect(status == 202, f"answered {status}")
    numbers = apps.arrived(500, 20)
    expect(numbers == list(range(500)), f"{len(numbers)} of 500 arrived, or not in order")


@row("webapp-clock", "The wall clock of both web-apps jumps 10 h ahead, then 20 h back", "every message arrives once and in order",
     only="ferry")
def webapp_clock(stage):
    apps = Webapps(stage, Settings(environment=fake_clock), stage.lab.dir)
    apps.start_far()
    for number in range(60):
        if number in (20, 40):
            set_clock(stage.lab, "+36000" if number == 20 else "-36000")
        status = apps.trigger({"number": number})
        expect(status == 202, f"answered {status}")
    numbers = apps.arrived(60, 20)
    expect(numbers == list(range(60)), f"{len(numbers)} of 60 arrived, or not in order")
