"""How a connection ends: bytes in front of a reset, half-close, resets while nobody reads, urgent data."""

import contextlib
import socket
import threading
import time

from lab import expect
from rows import row
from sockets import ANSWER, fill, read_to_end, reset, upload_with_answer
from stage import pattern, until_error


@row("byte-before-reset", "The byte that the server sends before it resets", "the client reads it", tries=20)
def byte_before_reset(stage):
    client, server = stage.pair()
    # A connection that is reset while a proxy still looks whether it was made counts as one that was not.
    time.sleep(0.05)
    server.sendall(b"!")
    reset(server)
    data, end = read_to_end(client, 10)
    expect(data == b"!", f"{end} without the byte")


@row("byte-before-reset-up", "The byte that the client sends before it resets", "the server reads it", tries=20)
def byte_before_reset_up(stage):
    client, server = stage.pair()
    client.sendall(b"!")
    reset(client)
    data, end = read_to_end(server, 10)
    expect(data == b"!", f"{end} without the byte")


@row("late-reader", "The last 48 KiB that the server sends before it resets, to a client that reads 1 s later",
     "the client reads all of it and then a reset, not an end of file", tries=5)
def late_reader(stage):
    client, server = stage.pair()
    sent = pattern(48 << 10)
    server.sendall(sent)
    # What TCP has delivered is the client's; what it has not sent a reset drops.
    time.sleep(0.5)
    reset(server)
    time.sleep(0.5)
    data, end = read_to_end(client, 10)
    expect(data == sent, f"{end} after {len(data)} bytes")
    expect(end == "reset", f"{end} in the place of a reset")


@row("reset-is-reset", "A reset between two bytes, either way", "the other application sees a reset, not an end of file", tries=10)
def reset_is_reset(stage):
    for up in (True, False):
        client, server = stage.pair()
        sender, receiver = (client, server) if up else (server, client)
        sender.sendall(b"!")
        expect(receiver.recv(1) == b"!", "the byte is missing")
        reset(sender)
        _, end = read_to_end(receiver, 10)
        expect(end == "reset", f"{end} {'at the server' if up else 'at the client'}")


def upload(stage, size):
    seen = upload_with_answer(*stage.pair(), size)
    expect(seen == ANSWER, f"{len(seen)} of {len(ANSWER)} bytes of the answer")


@row("answer-300k", "A server answers 413 and closes while 300 kB are uploaded", "the client reads the whole answer", tries=20)
def answer_300k(stage):
    upload(stage, 300_000)


@row("answer-5m", "The same with 5 MB", "the client reads the whole answer", tries=20)
def answer_5m(stage):
    upload(stage, 5_000_000)


def half_close(asker, answerer):
    question, answer = pattern(100_000), pattern(1_000_000)
    asker.sendall(question)
    asker.shutdown(socket.SHUT_WR)
    data, end = read_to_end(answerer)
    expect((data, end) == (question, "end of file"), f"{end} after {len(data)} bytes of the first direction")
    # Longer than a tunnel would wait that takes the first end for the last.
    time.sleep(2)
    reply = threading.Thread(target=send_and_close, args=[answerer, answer])
    reply.start()
    data, end = read_to_end(asker)
    reply.join()
    expect((data, end) == (answer, "end of file"), f"{end} after {len(data)} bytes of the second direction")


def send_and_close(sock, data):
    with contextlib.suppress(OSError), sock:
        sock.sendall(data)


@row("half-close-up", "The client closes its direction, the server answers 2 s later", "all bytes both ways, ends as ends", tries=3)
def half_close_up(stage):
    half_close(*stage.pair())


@row("half-close-down", "The server closes its direction, the client goes on 2 s later", "all bytes both ways, ends as ends",
     tries=3)
def half_close_down(stage):
    half_close(*reversed(stage.pair()))


@row("urgent", "An urgent byte (`MSG_OOB`) between others, either way, read in line", "every byte in its place", tries=5)
def urgent(stage):
    for up in (True, False):
        client, server = stage.pair()
        sender, receiver = (client, server) if up else (server, client)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        sender.sendall(b"ab")
        sender.send(b"!", socket.MSG_OOB)
        time.sleep(0.2)
        sender.sendall(b"cd")
        sender.close()
        data, end = read_to_end(receiver, 5)
        expect(data == b"ab!cd", f"{data.decode(errors='replace')} {'at the server' if up else 'at the client'}")


def reset_while_full(sender, receiver):
    sent = fill(sender)
    expect(sent > 0, "nothing was taken")
    reset(sender)
    return f"{until_error(receiver, 60):.1f} s"


@row("reset-while-full-up", "The client resets while the server reads nothing and every buffer is full",
     "the server is told within 60 s, without reading", tries=2)
def reset_while_full_up(stage):
    client, server = stage.pair()
    return reset_while_full(client, server)


@row("reset-while-full-down", "The server resets while the client reads nothing and every buffer is full",
     "the client is told within 60 s, without reading", tries=2)
def reset_while_full_down(stage):
    client, server = stage.pair()
    return reset_while_full(server, client)
