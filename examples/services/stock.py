"""A gRPC server with all four kinds of calls, and a client that checks each answer. Needs the package `grpcio`.

    python3 stock.py serve
    python3 stock.py check stock.shop-gateway-ns.svc:50051 --seconds 60

Messages are JSON, so that nothing has to be generated; on the wire it is what a .proto would make of them.
"""

import argparse
import concurrent.futures
import itertools
import json
import time

import grpc

SERVICE = "shop.Stock"
# A client may ask whether the connection lives, and gives it up without an answer: 20 s by default, and a cut may last
# longer. The resume window of the tunnels is 10 minutes.
CLIENT_OPTIONS = [("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 600_000)]
SERVER_OPTIONS = [("grpc.http2.min_ping_interval_without_data_ms", 5_000), ("grpc.so_reuseport", 0)]


def encode(value):
    return json.dumps(value).encode()


def serve(options):
    def count(request, context):
        return {"item": request["item"], "connection": context.peer()}

    def watch(request, _):
        for number in range(request["from"], request["to"]):
            time.sleep(0.005)
            yield {"item": number}

    def report(requests, _):
        return {"sum": sum(request["item"] for request in requests)}

    def trade(requests, _):
        for request in requests:
            yield {"traded": request["item"]}

    coders = {"request_deserializer": json.loads, "response_serializer": encode}
    methods = {
        "Count": grpc.unary_unary_rpc_method_handler(count, **coders),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, **coders),
        "Report": grpc.stream_unary_rpc_method_handler(report, **coders),
        "Trade": grpc.stream_stream_rpc_method_handler(trade, **coders),
    }
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"0.0.0.0:{options.port}")
    server.start()
    print(f"listening on port {options.port}", flush=True)
    server.wait_for_termination()


def expect(is_right, what):
    if not is_right:
        raise SystemExit(f"wrong: {what}")


def check(options):
    """All kinds of calls at once over one connection, until the time is up."""
    coders = {"request_serializer": encode, "response_deserializer": json.loads}
    channel = grpc.insecure_channel(options.address, options=CLIENT_OPTIONS)
    call = {
        "Count": channel.unary_unary(f"/{SERVICE}/Count", **coders),
        "Watch": channel.unary_stream(f"/{SERVICE}/Watch", **coders),
        "Report": channel.stream_unary(f"/{SERVICE}/Report", **coders),
        "Trade": channel.stream_stream(f"/{SERVICE}/Trade", **coders),
    }
    grpc.channel_ready_future(channel).result(30)
    end, connections = time.monotonic() + options.seconds, set()

    def until_the_end(items):
        for item in items:
            if time.monotonic() > end:
                return
            time.sleep(0.005)
            yield {"item": item}

    def unary():
        for done in itertools.count():
            if time.monotonic() > end:
                return done
            answer = call["Count"]({"item": done})
            expect(answer["item"] == done, answer)
            connections.add(answer["connection"])

    def watching():
        done = 0
        while time.monotonic() < end:
            for answer in call["Watch"]({"from": done, "to": done + 100}):
                expect(answer["item"] == done, f"{answer}, and {done} was next")
                done += 1
        return done

    def reporting():
        sent = []

        def numbers():
            for request in until_the_end(itertools.count()):
                sent.append(request["item"])
                yield request

        expect(call["Report"](numbers())["sum"] == sum(sent), "the sum of what was reported")
        return len(sent)

    def trading():
        done = 0
        for answer in call["Trade"](until_the_end(itertools.count())):
            expect(answer["traded"] == done, f"{answer}, and {done} was next")
            done += 1
        return done

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(kind) for kind in (unary, watching, reporting, trading)]
        done = [call.result() for call in calls]
    expect(len(connections) == 1, f"{len(connections)} connections")
    print(f"{done[0]} calls, and streams of {done[1]} down, {done[2]} up, {done[3]} both ways, all on one connection")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    server = commands.add_parser("serve")
    server.add_argument("--port", type=int, default=50051)
    server.set_defaults(run=serve)
    client = commands.add_parser("check")
    client.add_argument("address")
    client.add_argument("--seconds", type=float, default=10)
    client.set_defaults(run=check)
    options = parser.parse_args()
    options.run(options)


main()
