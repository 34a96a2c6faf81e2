"""What happens to the tunnel's own processes: their log, their files, their clock; stopped, killed."""

import contextlib
import signal
import subprocess
import threading
import time

from lab import Broken, Unavailable, expect
from rows import row
from rows.opening import short_connections
from sockets import read_to_end
from stage import ask, echo
from tunnels import Settings, get


@row("log-unread", "Nobody reads the pipe that the log goes to; 1,000 short connections", "every one is answered and ends",
     processes=True, settings=Settings(output="unread"))
def log_unread(stage):
    return short_connections(stage, 1000)


@row("log-full", "The disk that the log goes to is full; 1,000 short connections", "every one is answered and ends",
     processes=True, settings=Settings(output="full"))
def log_full(stage):
    return short_connections(stage, 1000)


def exhaust(stage):
    """Opens more connections than the tunnel has files for."""
    held = []
    for _ in range(300):
        with contextlib.suppress(OSError):
            held.append(stage.connect(0.2))
    return held


@row("files", "A limit of 256 files, used up by 300 connections that stay", "a connection from before is answered within 2 s; "
     "when they have gone, new ones within 5 s", processes=True, settings=Settings(files=256))
def files(stage):
    stage.serve(echo)
    first = stage.connect()
    ask(first)
    held = exhaust(stage)
    took = ask(first, within=2)
    for client in held:
        client.close()
    answered_again(stage, 5)
    return f"{took:.1f} s"


def answered_again(stage, within):
    started, why = time.monotonic(), "nothing"
    while time.monotonic() - started < within:
        try:
            with stage.connect(1) as client:
                return ask(client, within=1)
        except (OSError, Broken) as error:
            why = str(error)
            time.sleep(0.1)
    raise Broken(f"no new connection within {within} s: {why}")


@row("files-livez", "The same", "`/livez` answers 200 within 2 s", processes=True, only="ferry", settings=Settings(files=256))
def files_livez(stage):
    stage.serve(echo)
    held = exhaust(stage)
    answer = get(stage.lab, stage.running.admin, "/livez")
    for client in held:
        client.close()
    expect(answer is not None, "no answer")


@row("suspended", "Each end is stopped for 20 s (SIGSTOP) amid a stream", "every byte arrives, and new ones within 3 s after",
     processes=True)
def suspended(stage):
    stage.serve(echo)
    client = stage.connect()
    ask(client)
    longest = 0
    for end in (stage.running.near, stage.running.far):
        end.signal(signal.SIGSTOP)
        timer = threading.Timer(20, end.signal, [signal.SIGCONT])
        timer.start()
        took = ask(client, b"x" * 3_000_000, within=60)
        timer.join()
        expect(took > 19, f"answered after {took:.1f} s: what was stopped is not what carries the stream")
        longest = max(longest, took - 20, ask(client, within=3))
        expect(longest < 3, f"{longest:.1f} s")
    return f"{longest:.1f} s"


def killed(end, up):
    def attempt(stage):
        client, server = stage.pair()
        sender, receiver = (client, server) if up else (server, client)

        def pour():
            with contextlib.suppress(OSError):
                while True:
                    sender.sendall(bytes(65536))

        threading.Thread(target=pour, daemon=True).start()
        receiver.recv(65536)
        getattr(stage.running, end).signal(signal.SIGKILL)
        _, how = read_to_end(receiver, 5)
        expect(how != "end of file", "a clean end of file")
        return how

    return attempt


for end in ("near", "far"):
    for up in (False, True):
        way = "an upload" if up else "a download"
        row(f"killed-{end}-{'up' if up else 'down'}", f"The {end} tunnel is killed (SIGKILL) amid {way}",
            "what arrives does not look whole: no end of file within 5 s", processes=True)(killed(end, up))

LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def clock_environment(lab):
    return {
        "LD_PRELOAD": LIBRARY,
        "FAKETIME_TIMESTAMP_FILE": str(lab.dir / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(lab, offset):
    """Sets the wall clock of what was started with the environment above; nobody else's."""
    lab.write("clock.new", f"{offset}\n").rename(lab.dir / "clock")


def fake_clock(lab):
    set_clock(lab, "+0")
    environment = clock_environment(lab)
    try:
        set_clock(lab, "+36000")
        date = subprocess.run(["date", "+%s"], env=environment, capture_output=True, text=True, check=True)
        ahead = int(date.stdout) - time.time()
    except (OSError, ValueError, subprocess.CalledProcessError):
        ahead = 0
    if not 35_000 < ahead < 37_000:
        raise Unavailable("faketime is not installed (Debian: faketime)")
    set_clock(lab, "+0")
    return environment


@row("clock", "The wall clock of both ends jumps 10 h ahead, then 20 h back", "an open connection is answered within 1 s "
     "throughout, a new one each time", only="ferry", settings=Settings(environment=fake_clock, rotate_every="1s"))
def clock(stage):
    stage.serve(echo)
    client = stage.connect()
    longest = 0
    for offset in ("+36000", "-36000"):
        set_clock(stage.lab, offset)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            longest = max(longest, ask(client, within=2))
            time.sleep(0.05)
        with stage.connect() as another:
            ask(another, within=2)
    expect(longest < 1, f"{longest:.1f} s")
    return f"{longest:.1f} s"
