"""The gRPC service that the proxy stands in front of, with PyPI's grpcio and no generated code.

`grpc_server.py [STREAMS]`, where STREAMS is how many calls it takes at once on one connection.
Prints `PORT <n>` once it listens; ends when its standard input does, so that it never outlives the test.
"""

import asyncio
import collections
import os
import sys

import grpc

CAP = 4 * 1024 * 1024 + 64 * 1024
PATIENCE = 20

# What became of the calls that hang, by the key that the caller chose.
fates = collections.defaultdict(asyncio.Event)
attempts = collections.Counter()
crowds = collections.defaultdict(list)


async def echo(request, context):
    return request


async def length(requests, context):
    total, count = 0, 0
    async for message in requests:
        total, count = total + len(message), count + 1
    return b"%d bytes in %d messages" % (total, count)


async def count_up(request, context):
    count, size = map(int, request.split())
    for n in range(count):
        yield str(n).encode().ljust(size, b".")


async def answer_each(requests, context):
    async for message in requests:
        yield b"<" + message + b">"


async def describe(request, context):
    """The metadata as it arrived, and metadata of our own before and after."""
    await context.send_initial_metadata((("x-first", "head"), ("x-first-bin", b"\x00\x01\xff")))
    context.set_trailing_metadata((("x-last", "tail"), ("x-last-bin", b"\xff\x00")))
    lines = []
    for key, value in context.invocation_metadata():
        lines.append(f"{key}={value.hex() if isinstance(value, bytes) else value}")
    return "\n".join(lines).encode()


async def fail(request, context):
    context.set_trailing_metadata((("x-last", "tail"), ("grpc-status-details-bin", b"\x08\x09")))
    code, _, text = request.decode().partition(" ")
    await context.abort(getattr(grpc.StatusCode, code), text)


async def fail_midway(request, context):
    yield b"one"
    yield b"two"
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough: 100% of \"it\" é")


async def flaky(request, context):
    """Fails the first call of a key with its head sent already, so that the status stands in trailers."""
    attempts[request] += 1
    if attempts[request] == 1:
        await context.send_initial_metadata((("x-first", "head"),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    before = dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts", "none")
    return f"{attempts[request]} calls, {before} before".encode()


async def hang(request, context):
    """Never answers; notes that the call was taken from under it."""
    fates[request + b" began"].set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        fates[request + b" cancelled"].set()
        raise


async def hang_stream(request, context):
    yield b"first"
    await hang(request, context)


async def fate(request, context):
    """Answers when a call has come to what the caller asks about."""
    try:
        await asyncio.wait_for(fates[request].wait(), PATIENCE)
    except asyncio.TimeoutError:
        await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.decode()}: not within {PATIENCE} s")
    return b"seen"


async def gather(request, context):
    """Answers nobody before as many as asked for are here at once."""
    _, wanted = request.split()
    crowd = crowds[request]
    mine = asyncio.Event()
    crowd.append(mine)
    if len(crowd) == int(wanted):
        for waiting in crowd:
            waiting.set()
    await asyncio.wait_for(mine.wait(), PATIENCE)
    return b"all here"


async def die(request, context):
    """Ends the process without a farewell."""
    os._exit(1)


HANDLERS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Length": grpc.stream_unary_rpc_method_handler(length),
    "CountUp": grpc.unary_stream_rpc_method_handler(count_up),
    "AnswerEach": grpc.stream_stream_rpc_method_handler(answer_each),
    "Describe": grpc.unary_unary_rpc_method_handler(describe),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailMidway": grpc.unary_stream_rpc_method_handler(fail_midway),
    "Flaky": grpc.unary_unary_rpc_method_handler(flaky),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "HangStream": grpc.unary_stream_rpc_method_handler(hang_stream),
    "Fate": grpc.unary_unary_rpc_method_handler(fate),
    "Gather": grpc.unary_unary_rpc_method_handler(gather),
    "Die": grpc.unary_unary_rpc_method_handler(die),
}


async def main(streams=None):
    options = [("grpc.max_receive_message_length", CAP), ("grpc.max_send_message_length", CAP)]
    if streams is not None:
        options.append(("grpc.max_concurrent_streams", int(streams)))
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("peers.Test", HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("PORT", port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


asyncio.run(main(*sys.argv[1:]))
