"""Messages: numbers as they were written, retries, and clients whose web-app restarts."""

import gzip
import json
import subprocess
import time

from local import FERRY, ask, until
from reproductions import expect, row
from reproductions.pods import JSON, Pods, WebSocket

NUMBERS = (
    '{"id":18446744073709551616,"long":0.12345678901234567890123,"small":1e-300,"one":1.0,"exp":1E5,"minus":-0,'
    '"big":123456789012345678901234567890.5}'
)
SAME = "def on_trigger(payload, headers):\n    return payload\n"
READS = "def on_trigger(payload, headers):\n    payload['n'] = payload['id'] + 1\n    return payload\n"


@row("numbers arrive as they were written, by /trigger and /stream, with hooks and without; a repeated key is refused")
def numbers(lab):
    for hooks in (None, SAME, READS):
        pods = Pods(
            lab, near_hooks=hooks, far_hooks=hooks and "def on_receive_terminator(payload):\n    return payload\n"
        )
        expect(pods.trigger(NUMBERS, "?wait=20s")[0] == 200, "refused")
        stream = WebSocket(pods.near, "/stream")
        stream.send(NUMBERS)
        until("both", lambda: len(pods.output()) == 2)
        text = pods.raw_output()
        for part in NUMBERS[1:-1].split(","):
            # Python writes the same value in its own way where a float can hold it.
            part = {'"exp":1E5': '"exp":100000.0', '"minus":-0': '"minus":0'}.get(part, part) if hooks else part
            expect(text.count(part) == 2, f"{part} is not there twice, with {hooks!r}: {text}")
        if hooks == READS:
            expect('"n":18446744073709551617' in text, text)
        for twice in ('{"a":1,"a":2}', '{"b":[{"a":1,"\\u0061":2}]}'):
            status, answer = pods.trigger(twice)
            expect(status == 400 and "a" in answer["error"], f"{status} {answer}")
        for process in (pods.initiator, pods.terminator):
            lab.stop(process, 0)
        for role in ("initiator", "terminator"):
            (lab.path / f"{role}-data").rename(lab.path / f"{role}-{time.monotonic()}")
    return "seven numbers, six ways"


@row(
    "a retry under an Idempotency-Key is told at once what became of its message: delivered, dead or replied, also after a restart"
)
def retries(lab):
    far = "def on_receive_terminator(payload):\n    if payload.get('dead'): raise ValueError('no')\n    return payload.get('reply')\n"
    pods, slowest = Pods(lab, far_hooks=far), 0
    kinds = {"plain": ('{"n": 1}', 200), "dead": ('{"dead": true}', 424), "reply": ('{"reply": {"yes": 1}}', 200)}
    for turn in range(2):
        for name, (text, expected) in kinds.items():
            status, answer = pods.trigger(text, "?wait=20s", Idempotency_Key=name)
            expect(status == expected, f"{name}: {status} {answer}")
            started = time.monotonic()
            for query, wanted in (("?wait=20s", expected), ("", expected)):
                status, answer = pods.trigger(text, query, Idempotency_Key=name)
                expect(
                    status in (wanted, 202) if not query else status == wanted,
                    f"{name}{query} again: {status} {answer}",
                )
            slowest = max(slowest, time.monotonic() - started)
            expect(pods.trigger('{"other": 1}', Idempotency_Key=name)[0] == 422, f"{name}: another body is taken")
        lab.stop(pods.initiator, 15)
        pods.initiator = pods.start(
            "initiator", pods.near, more=["--peer", f"ws://127.0.0.1:{pods.far}/ws", "--auto-trigger", "0"]
        )
    expect(slowest < 2, f"a retry took {slowest:.1f} s")
    return f"at most {slowest:.2f} s for two retries"


@row("a trigger that waits is not answered 200 for a message that is dead")
def dead_is_no_success(lab):
    pods = Pods(lab, far_hooks="def on_receive_terminator(payload):\n    raise ValueError('no')\n")
    status, answer = pods.trigger("{}", "?wait=20s")
    expect((status, answer["delivered"]) == (424, False), f"{status} {answer}")
    return f"{status}, {answer['error'][:60]}"


@row("ferry send and output --follow go on when their web-app is killed: each line once and in order")
def restarts(lab):
    # A fast machine has more in the output than it keeps by default before the first of them is printed.
    pods, count = Pods(lab, more=["--output-max", 30_000]), 20_000
    lines = lab.write("lines", "\ufeff" + "".join(json.dumps({"n": number}) + "\n" for number in range(count)))
    with open(lab.path / "followed", "wb") as followed:
        follower = subprocess.Popen(
            [FERRY, "output", f"http://127.0.0.1:{pods.far}", "--follow"], stdout=followed, stderr=subprocess.DEVNULL
        )
    with open(lines) as text:
        sender = subprocess.Popen(
            [FERRY, "send", f"http://127.0.0.1:{pods.near}"],
            stdin=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    peer = ["--peer", f"ws://127.0.0.1:{pods.far}/ws", "--auto-trigger", "0"]
    for _ in range(2):
        time.sleep(0.4)
        for name, port, more in (("initiator", pods.near, peer), ("terminator", pods.far, [])):
            getattr(pods, name).kill()
            getattr(pods, name).wait()
            setattr(pods, name, pods.start(name, port, more=more))
    said = sender.communicate(timeout=60)[0].decode()
    expect(sender.returncode == 0, f"exit {sender.returncode}: {said[-400:]}")
    read = lambda: (lab.path / "followed").read_text().splitlines()  # noqa: E731
    until("all lines", lambda: len(read()) >= count, 30)
    numbers = [json.loads(line)["payload"]["n"] for line in read()]
    follower.terminate()
    follower.wait()
    expect(numbers == list(range(count)), f"{len(numbers)} lines, {len(set(numbers))} of them different")
    summary = said.strip().splitlines()[-1]
    return f"{count} lines over two kills of each; {summary}"


@row("output goes on behind --after, and says so of an id that is no longer there")
def after(lab):
    pods = Pods(lab)
    for number in range(3):
        pods.trigger(json.dumps({"n": number}), "?wait=20s")
    first = pods.output()[0]["id"]
    said = lab.output(FERRY, "output", f"http://127.0.0.1:{pods.far}", "--after", first)
    expect([json.loads(line)["payload"]["n"] for line in said.splitlines()] == [1, 2], said)
    status, answer = ask(pods.far, "/output?after=nobody-7")
    expect(status == 410, f"{status} {answer}")
    return "two of three; 410"


@row("an answer of the API is JSON with what is wrong, whatever is sent: methods, paths, types, encodings, queries")
def answers(lab):
    pods, seen = Pods(lab), []
    for path, body, headers in (
        ("/trigger", b"\xff\xfe{}", JSON),
        ("/trigger", b"", JSON),
        ("/trigger", b"[]", JSON),
        ("/trigger", b"{}", {}),
        ("/trigger", b'{"a":"\xc3\x28"}', JSON),
        ("/trigger", b"\xef\xbb\xbf{}", JSON),
        ("/trigger?wait=1y", b"{}", JSON),
        ("/trigger?wait=-1s", b"{}", JSON),
        ("/trigger", b"{}", JSON | {"Idempotency-Key": "x" * 256}),
        ("/trigger", gzip.compress(b"{}"), JSON | {"Content-Encoding": "gzip"}),
        ("/trigger", b"{}x", JSON),
        ("/trigger", b"x" * 1_100_000, JSON),
        ("/output?limit=0", None, {}),
        ("/output?limit=9999999", None, {}),
        ("/dead?after=%00", None, {}),
        ("/dead/..%2f../retry", b"", {}),
    ):
        status, text = ask(pods.near, path, body, headers)
        expect(
            400 <= status < 500 and "error" in json.loads(text), f"{path} {body and body[:20]}: {status} {text[:200]}"
        )
        seen.append(status)
    return f"{seen}"
