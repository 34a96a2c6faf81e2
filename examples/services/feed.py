"""A WebSocket server of prices, and a client that checks each message. Needs the package `websockets`.

    python3 feed.py serve
    python3 feed.py watch ws://feed.shop-gateway-ns.svc:8765 --seconds 60
"""

import argparse
import asyncio
import time

import websockets

# Both ends give a connection up whose ping is not answered in time: 20 s by default, and a cut may last longer.
# The resume window of the tunnels is 10 minutes.
PATIENCE = 600


async def serve(options):
    async def answer(socket, *_):
        async def tick():
            for number in range(1 << 60):
                await socket.send(f"price {number}")
                await asyncio.sleep(0.02)

        ticking = asyncio.create_task(tick())
        try:
            async for message in socket:
                await socket.send(f"taken {message}")
        finally:
            ticking.cancel()

    limits = {"ping_interval": options.ping, "ping_timeout": PATIENCE}
    async with websockets.serve(answer, "0.0.0.0", options.port, **limits):
        print(f"listening on port {options.port}", flush=True)
        await asyncio.Future()


async def watch(options):
    limits = {"ping_interval": options.ping, "ping_timeout": PATIENCE}
    async with websockets.connect(options.url, **limits) as socket:
        end = time.monotonic() + options.seconds

        async def order():
            number = 0
            while time.monotonic() < end:
                await socket.send(str(number))
                number += 1
                await asyncio.sleep(0.02)
            await socket.send("last")

        ordering = asyncio.create_task(order())
        expected, longest, before = {"price": 0, "taken": 0}, 0.0, time.monotonic()
        async for message in socket:
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
            kind, number = message.split()
            if number == "last":
                break
            if int(number) != expected[kind]:
                raise SystemExit(f"{message}, and {expected[kind]} was next")
            expected[kind] += 1
        await ordering
    print(f"{expected['price']} prices and {expected['taken']} answers on one connection, all in order; "
          f"longest pause {longest:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ping", type=float, default=20, help="seconds between pings")
    commands = parser.add_subparsers(required=True)
    server = commands.add_parser("serve")
    server.add_argument("--port", type=int, default=8765)
    server.set_defaults(run=serve)
    client = commands.add_parser("watch")
    client.add_argument("url")
    client.add_argument("--seconds", type=float, default=10)
    client.set_defaults(run=watch)
    options = parser.parse_args()
    asyncio.run(options.run(options))


main()
