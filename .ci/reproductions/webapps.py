"""What clients, pages and strangers may do to a web-app: its memory, its stack, its endpoints."""

import json
import socket
import threading
import time

from local import FERRY, ask, free_port, serve, echo, until
from reproductions import expect, row
from reproductions.pods import Pods, WebSocket, hello, http, message, resident
from reproductions.stage import Held, Pair

RAW, NUMBER = "$serde_json::private::RawValue", "$serde_json::private::Number"
POD_MIB = 256


def nested_in_itself(times):
    """A key that a library may take for its own, in text within text."""
    text = '{"a":1}'
    for _ in range(times):
        text = json.dumps({RAW: text})
        if len(text) > 900_000:
            break
    return text


def deep(levels, brackets="[]"):
    opening, closing = brackets
    return '{"a":' + opening * levels + closing * levels + "}"


def alive(pods):
    expect(pods.initiator.poll() is None and pods.terminator.poll() is None, "a web-app has ended")
    expect(pods.status_of("/livez") == [200, 200], "/livez")
    status, answer = pods.trigger('{"after": true}', "?wait=15s")
    expect((status, answer.get("delivered")) == (200, True), f"a good message: {status} {answer}")


@row(
    "no key or depth of a payload ends a web-app or stops delivery: triggers, streams, the far end's frames, hooks' results"
)
def keys_and_depth(lab):
    pods, seen = Pods(lab), []
    inputs = [nested_in_itself(times) for times in (1, 3, 12)]
    inputs += [
        json.dumps({RAW: deep(100)}),
        json.dumps({NUMBER: "1e999"}),
        json.dumps({RAW: 7}),
        json.dumps({NUMBER: {}}),
    ]
    inputs += [deep(levels, shape) for levels in (98, 99, 100, 101, 3000, 100_000) for shape in ("[]",)]
    inputs += ['{"a":' * levels + "1" + "}" * levels for levels in (100, 101, 50_000)]
    for text in inputs:
        status, answer = pods.trigger(text, "?wait=15s")
        expect(status in (200, 400, 413), f"{status} {answer} to {text[:60]}")
        seen.append(status)
    stream = WebSocket(pods.near, "/stream")
    for text in inputs:
        stream.send(text)
        answer = stream.receive()
        expect(answer is not None, f"the stream ended at {text[:60]}")
        while "delivered" in answer or "payload" in answer:
            answer = stream.receive()
    far = hello(pods.far, "rogue")
    for seq, text in enumerate(inputs, 1):
        far.send(message(seq, text, "rogue"))
    time.sleep(1)
    far.socket.close()
    alive(pods)
    return f"{len(inputs)} inputs three ways, answered {sorted(set(seen))}"


@row(
    "what is accepted is delivered or dead, never a wall: depth, size with its envelope, numbers, text, either direction"
)
def never_a_wall(lab):
    pods = Pods(lab, far_hooks="def on_receive_terminator(payload):\n    return {'reply': payload}\n")
    largest = '{"a":"' + "x" * ((1 << 20) - 8) + '"}'
    odd = [
        deep(99),
        largest,
        '{"a":"' + "\\u0000" * 100_000 + '"}',
        '{"a":"' + "\\ud800" * 10 + '"}',
        '{"":0}',
        '{"a":' + "9" * 4096 + "}",
        '{"a":1e308}',
        '{"a":-0.0}',
        json.dumps({RAW: deep(99)}),
        '{"a":"' + "\U0001f600" * 200_000 + '"}',
    ]
    statuses = []
    for text in odd:
        status, answer = pods.trigger(text, "?wait=15s")
        expect(status in (200, 400, 413, 424), f"{status} {answer} to {text[:40]}")
        statuses.append(status)
    alive(pods)
    return f"answered {statuses}, and the next one arrived"


@row(
    "large messages cost a bounded memory: twelve of 1 MiB of zeros at once, 300 bodies held open, with hooks and without"
)
def memory(lab):
    hooks = "def on_trigger(payload, headers):\n    return payload\n"
    seen = []
    zeros = '{"a":[' + ",".join("0" * 1 for _ in range(500_000)) + "]}"
    for app in (None, hooks):
        with_hooks = Pods(lab, near_hooks=app) if app else Pods(lab)
        threads = [threading.Thread(target=with_hooks.trigger, args=[zeros]) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held = []
        for number in range(300):
            client = socket.create_connection(("127.0.0.1", with_hooks.near), timeout=10)
            client.sendall(
                b"POST /trigger HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b'Content-Length: 1000000\r\n\r\n{"a":"'
            )
            client.setblocking(False)
            try:
                client.send(b"x" * 900_000)
            except BlockingIOError:
                pass
            held.append(client)
        time.sleep(1)
        status, answer = with_hooks.trigger('{"small": 1}')
        expect(status == 202, f"a small one meanwhile: {status} {answer}")
        most = max(resident(with_hooks.initiator), resident(with_hooks.terminator))
        expect(most <= POD_MIB, f"{most} MiB")
        seen.append(f"{most} MiB")
        for client in held:
            client.close()
        lab.stop(with_hooks.initiator)
        lab.stop(with_hooks.terminator)
        for role in ("initiator", "terminator"):
            (lab.path / f"{role}-data").rename(lab.path / f"{role}-{len(seen)}")
    return ", ".join(seen)


@row("a page that rebinds its name to this machine can use no endpoint: web-apps, /stream, /ws, the admin endpoint")
def rebinding(lab):
    pods, pair = Pods(lab), Pair(lab, serve(echo))
    head = "GET {} HTTP/1.1\nHost: {}{}"
    refused = []
    for port, paths in (
        (pods.near, ["/output", "/stream", "/metrics", "/openapi.json", "/dead"]),
        (pods.far, ["/output", "/ws"]),
        (pair.near_admin, ["/", "/status", "/metrics", "/events", "/livez"]),
    ):
        for path in paths:
            for host in ("evil.example:{}", "evil.example", "127.0.0.1.evil.example:{}", "localhost.evil.example", ""):
                at = host.format(port)
                status = http(port, head.format(path, at, f"\nOrigin: http://{at}"))
                expect(status in (400, 403, 421), f"{path} with Host {at!r}: {status}")
                refused.append(status)
            good = http(port, head.format(path, f"localhost:{port}", "\nOrigin: http://evil.example"))
            expect(good in (400, 403), f"{path} with a foreign Origin: {good}")
            # Two names, and one in the request's own line.
            for text in (
                f"GET {path} HTTP/1.1\nHost: localhost:{port}\nHost: evil.example",
                f"GET http://evil.example{path} HTTP/1.1\nHost: localhost:{port}",
            ):
                status = http(port, text)
                expect(status in (400, 403, 421), f"{text!r}: {status}")
    body = b'{"a": 1}'
    head = f"POST /trigger HTTP/1.1\nHost: evil.example\nContent-Type: application/json\nContent-Length: {len(body)}"
    expect(http(pods.near, head, body) == 403, "POST /trigger")
    return f"{len(refused) + 1} requests refused"


@row("/ws is closed to whatever was forwarded, whatever it calls that, and to pages")
def forwarded(lab):
    pods, statuses = Pods(lab), []
    for header in (
        "X-Forwarded-For: 1.2.3.4",
        "x-forwarded-for:",
        "Forwarded: for=1.2.3.4",
        "Via: 1.1 proxy",
        "X-Real-IP: 1.2.3.4",
        "X-Forwarded-Host: x",
        "X-Forwarded-Proto: http",
        "CF-Connecting-IP: 1.2.3.4",
        "True-Client-IP: 1.2.3.4",
        "X-Envoy-External-Address: 1.2.3.4",
        "Origin: http://evil.example",
        "Origin: null",
    ):
        statuses.append(hello(pods.far, headers=[header]).status)
        expect(statuses[-1] == 403, f"{header}: {statuses[-1]}")
    return f"{len(statuses)} headers, each 403"


@row("by default web-apps listen on loopback alone, and say a word where they do not")
def loopback(lab):
    process = lab.start(FERRY, "terminator", "--data", lab.path / "data", "--listen", f"0.0.0.0:{free_port()}")
    line = until(
        "a warning", lambda: next((line for line in process.log.read_text().splitlines() if "WARN" in line), None)
    )
    expect("--token-file" in line, line)
    for role in ("initiator", "terminator"):
        expect("127.0.0.1:8000" in lab.output(FERRY, role, "--help"), f"{role}: another default")
    return "127.0.0.1:8000 by default; a warning at 0.0.0.0"


@row("nobody who says hello under a known sender's id moves its watermark, however far ahead")
def watermark(lab):
    pods = Pods(lab)
    pods.trigger('{"n": 1}', "?wait=15s")
    sender = pods.output()[0]["id"].rsplit("-", 1)[0]
    for acked in (10**15, 2**64 - 1, 2**63, 2):
        thief = hello(pods.far, sender, acked)
        thief.send(message(acked + 1 if acked < 2**64 - 1 else acked, sender=sender))
        while thief.receive() is not None:
            pass
        status, answer = pods.trigger('{"n": 2}', "?wait=15s")
        expect((status, answer.get("delivered")) == (200, True), f"after {acked}: {status} {answer}")
    expect(pods.terminator.poll() is None, "the terminator has ended")
    return f"{len(pods.output())} messages of the sender's own"


@row("a trail is within the bounds: messages with a thousand hops, or long ones, are dead and cost no memory")
def trails(lab):
    pods = Pods(lab)
    hop = {"pod": "p" * 253, "cluster": "c" * 253, "at": "t" * 200}
    seq = 0
    for trail in ([hop] * 1350, [hop] * 17, [hop | {"pod": "p" * 300}], [hop | {"more": 1}], {}, [hop | {"at": "\n"}]):
        ws = hello(pods.far, f"long{seq}")
        for number in range(1, 21):
            ws.send(message(number, sender=f"long{seq}", trail=trail))
        while (said := ws.receive()) is not None and '"seq":20' not in said:
            pass
        ws.socket.close()
        seq += 1
    expect((most := resident(pods.terminator)) < 120, f"{most} MiB")
    expect(pods.output() == [], f"{len(pods.output())} in the output")
    alive(pods)
    return f"120 messages, {most} MiB, none in the output"


@row("heads and bodies that never end hold no web-app up, nor its files")
def unfinished(lab):
    pods = Pods(lab)
    with Held() as held:
        for text in (
            b"GET /livez HTTP/1.1\r\n",
            b"",
            b"POST /trigger HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{",
        ):
            held.open(pods.near, 400, text)
            started = time.monotonic()
            expect(ask(pods.near, "/livez", timeout=3)[0] == 200, "/livez")
            expect(time.monotonic() - started < 2, "/livez is late")
            status, answer = pods.trigger('{"n": 1}')
            expect(status == 202, f"{status} {answer}")
    return "1,200 of them"
