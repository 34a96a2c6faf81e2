"""Hooks that print, recurse, crash and hang: what that costs the messages and the log."""

import json
import time

from local import FERRY, until
from reproductions import expect, row
from reproductions.pods import Pods, resident

PRINTS = r"""
import os, subprocess, sys
def noise(payload):
    how = payload.get("how")
    if how == "byte": os.write(1, b"\xff\n")
    if how == "error": os.write(2, b"\xff\xfe\n")
    if how == "endless": os.write(1, b"x" * 30_000_000)
    if how == "child": subprocess.Popen(["sh", "-c", "printf '\\377\\n'; sleep 1; echo late"])
    if how == "closed": os.close(1)
    if how == "nul": os.write(1, b"\0" * 100_000 + b"\n")
    if how == "input": sys.stdin.read(0)
    print("printed", how, flush=how != "closed")
def on_trigger(payload, headers):
    noise(payload)
    return payload
def on_receive_terminator(payload):
    noise(payload)
"""


@row("whatever a hook or its children print, its messages arrive and its memory stays: at both ends")
def prints(lab):
    pods = Pods(lab, near_hooks=PRINTS, far_hooks=PRINTS)
    kinds = ["byte", "error", "endless", "child", "nul", "input"]
    for number, how in enumerate(kinds * 2):
        status, answer = pods.trigger(json.dumps({"how": how, "n": number}), "?wait=20s")
        expect((status, answer.get("delivered")) == (200, True), f"{how}: {status} {answer}")
    time.sleep(1.2)
    status, answer = pods.trigger('{"how": "after"}', "?wait=20s")
    expect((status, answer.get("delivered")) == (200, True), f"after all: {status} {answer}")
    most = max(resident(pods.initiator), resident(pods.terminator))
    expect(most < 200, f"{most} MiB")
    return f"{2 * len(kinds) + 1} messages, at most {most} MiB"


FAILS = r"""
import os, sys
class Loud(Exception):
    def __str__(self): raise RuntimeError("no text")
def fail(how):
    if how == "deep": return fail(how)
    if how == "memory": raise MemoryError
    if how == "exit": sys.exit(3)
    if how == "bytes": raise ValueError("\udcff\n\x1b[31m")
    if how == "loud": raise Loud
    if how == "group": raise BaseException("odd")
    if how == "long": raise ValueError("x" * 5_000_000)
    if how == "set": return {"a": {1, 2}}
    if how == "nested":
        value = {}
        for _ in range(5000): value = {"a": value}
        return value
    if how == "nan": return {"a": float("nan")}
    if how == "self":
        value = {}; value["a"] = value
        return value
    if how == "crash": os._exit(9)
def on_trigger(payload, headers):
    result = fail(payload.get("how"))
    return payload if result is None else result
"""


@row("a call that fails in any way costs itself alone, and the next is answered at once: 12 ways, twice each")
def fails(lab):
    pods, slowest = Pods(lab, near_hooks=FAILS), 0
    kinds = ["deep", "memory", "exit", "bytes", "loud", "group", "long", "set", "nested", "nan", "self", "crash"]
    for how in kinds * 2:
        status, answer = pods.trigger(json.dumps({"how": how}))
        expect(400 <= status <= 500 and len(json.dumps(answer)) < 20_000, f"{how}: {status} {str(answer)[:200]}")
        started = time.monotonic()
        status, answer = pods.trigger('{"good": true}')
        slowest = max(slowest, time.monotonic() - started)
        expect(status == 202, f"after {how}: {status} {answer}")
    expect(slowest < 3, f"the slowest good one took {slowest:.1f} s")
    log = pods.initiator.log.read_text()
    expect("\x1b[31m" not in log and max(map(len, log.splitlines())) < 20_000, "a raw or endless line in the log")
    expect("runner.py" not in log, "a traceback with the runner's own frames")
    return f"the slowest good call took {slowest:.2f} s"


@row(
    "deep triggers do not keep hooks away from everybody: a payload of the greatest depth, and one beyond it, 20 times"
)
def deep_triggers(lab):
    pods, slowest = Pods(lab, near_hooks="def on_trigger(payload, headers):\n    return payload\n"), 0
    for levels in (98, 99, 100, 900, 3000) * 4:
        pods.trigger('{"a":' + "[" * levels + "]" * levels + "}")
        started = time.monotonic()
        expect(pods.trigger("{}")[0] == 202, "a good one is refused")
        slowest = max(slowest, time.monotonic() - started)
    expect(slowest < 1, f"the slowest good one took {slowest:.1f} s")
    return f"the slowest good one took {slowest:.2f} s"


@row(
    "an exception in any hook leaves one WARN and a traceback from the user's code on, and what hooks print has a mark"
)
def marks(lab):
    hook = "def {}(payload{}):\n    print('hello')\n    return {{}}['missing']\n"
    pods = Pods(lab, near_hooks=hook.format("on_trigger", ", headers"), far_hooks=None)
    expect(pods.trigger("{}")[0] == 500, "answered well")
    # What a hook prints comes another way than its traceback, and may be later.
    told = lambda text: "KeyError" in text and "hello" in text and text  # noqa: E731
    log = until("the traceback and what was printed", lambda: told(pods.initiator.log.read_text()))
    expect(sum("WARN" in line for line in log.splitlines()) == 1, f"not one WARN: {log}")
    expect("runner.py" not in log, f"the runner's own frames: {log}")
    expect(any(" hook: " in line and "hello" in line for line in log.splitlines()), f"no mark: {log}")
    return "on_trigger"


@row("a far hook's error is one short line wherever it is shown: both logs, the answer, ferry send")
def far_error(lab):
    text = "def on_receive_terminator(payload):\n    raise ValueError('a\\nFORGED line\\x1b[2J' + 'x' * 100_000)\n"
    pods = Pods(lab, far_hooks=text)
    status, answer = pods.trigger("{}", "?wait=20s")
    expect(status == 424 and len(answer["error"]) <= 2100, f"{status}, {len(str(answer))} characters")
    said = lab.output(FERRY, "send", f"http://127.0.0.1:{pods.near}", "--message", "{}", allowed=(1,))
    for where, shown in (
        ("send", said),
        ("near", pods.initiator.log.read_text()),
        ("far", pods.terminator.log.read_text()),
    ):
        expect("\x1b[2J" not in shown, f"{where}: a terminal's sequence")
        expect(not any(line.startswith("FORGED") for line in shown.splitlines()), f"{where}: a forged line")
        expect(max(map(len, shown.splitlines())) < 5000, f"{where}: a line of {max(map(len, shown.splitlines()))}")
    return f"424, an error of {len(answer['error'])} characters"
