"""Calls through the proxy with PyPI's grpcio: `grpc_client.py CASE PORT [CA_FILE]`; with a CA over TLS.

Each case asserts; a case that fails ends with its traceback and exit code 1.
"""

import asyncio
import sys
import time
import uuid

import grpc

CAP = 4 * 1024 * 1024 + 64 * 1024
PATIENCE = 25
MIB = 1024 * 1024


def connect(port, ca):
    options = [("grpc.max_receive_message_length", CAP), ("grpc.max_send_message_length", CAP)]
    # Channels of one process would share a connection otherwise.
    options.append(("grpc.use_local_subchannel_pool", 1))
    if ca is None:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
    with open(ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options.append(("grpc.ssl_target_name_override", "localhost"))
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


def method(channel, kind, name):
    return getattr(channel, kind)(f"/peers.Test/{name}")


async def unary(channel):
    call = method(channel, "unary_unary", "Echo")
    for message in (b"", b"hello", b"\x00" * 1000):
        assert await call(message, timeout=PATIENCE) == message


async def client_stream(channel):
    call = method(channel, "stream_unary", "Length")(timeout=PATIENCE)
    for n in range(100):
        await call.write(b"x" * n)
    await call.done_writing()
    assert await call == b"4950 bytes in 100 messages"


async def server_stream(channel):
    call = method(channel, "unary_stream", "CountUp")(b"100 20", timeout=PATIENCE)
    messages = [message async for message in call]
    assert messages == [str(n).encode().ljust(20, b".") for n in range(100)]


async def interleaved(channel):
    """The next message goes out only when the last one was answered: any buffer on the way would stop it."""
    call = method(channel, "stream_stream", "AnswerEach")(timeout=PATIENCE)
    for n in range(200):
        message = b"message %d" % n
        await call.write(message)
        assert await call.read() == b"<" + message + b">"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def large(channel):
    echo = method(channel, "unary_unary", "Echo")
    for size in (MIB, 4 * MIB):
        message = bytes(range(256)) * (size // 256)
        assert await echo(message, timeout=PATIENCE) == message
    each = method(channel, "stream_stream", "AnswerEach")(timeout=PATIENCE)
    for _ in range(3):
        await each.write(message)
        assert await each.read() == b"<" + message + b">"
    await each.done_writing()
    assert await each.read() is grpc.aio.EOF


async def metadata(channel):
    sent = (("x-text", "a, b"), ("x-twice", "1"), ("x-twice", "2"), ("x-binary-bin", b"\x00\x7f\xff"))
    call = method(channel, "unary_unary", "Describe")(b"", metadata=sent, timeout=PATIENCE)
    lines = (await call).decode().split("\n")
    for line in ("x-text=a, b", "x-twice=1", "x-twice=2", "x-binary-bin=007fff"):
        assert line in lines, (line, lines)
    first, last = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
    assert first["x-first"] == "head" and first["x-first-bin"] == b"\x00\x01\xff", first
    assert last["x-last"] == "tail" and last["x-last-bin"] == b"\xff\x00", last


async def expect_error(call, code, *texts):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        assert error.code() == code, error
        for text in texts:
            assert text in error.details(), error
        return error
    raise AssertionError(f"no error, expected {code}")


async def status(channel):
    fail = method(channel, "unary_unary", "Fail")
    for code in ("INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"):
        text = f"{code}: 100% of it, é, ünd so"
        call = fail(f"{code} {text}".encode(), timeout=PATIENCE)
        error = await expect_error(call, getattr(grpc.StatusCode, code), text)
        last = dict(error.trailing_metadata())
        assert last["x-last"] == "tail" and last["grpc-status-details-bin"] == b"\x08\x09", last
    call = method(channel, "unary_stream", "FailMidway")(b"", timeout=PATIENCE)
    assert await call.read() == b"one" and await call.read() == b"two"
    await expect_error(call.read(), grpc.StatusCode.RESOURCE_EXHAUSTED, 'enough: 100% of "it" é')
    unknown = method(channel, "unary_unary", "NoSuchMethod")(b"", timeout=PATIENCE)
    await expect_error(unknown, grpc.StatusCode.UNIMPLEMENTED)


async def seen(channel, what):
    assert await method(channel, "unary_unary", "Fate")(what, timeout=PATIENCE) == b"seen"


async def deadline(channel):
    """The client's deadline ends the call at both ends."""
    for kind, name in (("unary_unary", "Hang"), ("unary_stream", "HangStream")):
        key = uuid.uuid4().hex.encode()
        call = method(channel, kind, name)(key, timeout=1)
        if kind == "unary_stream":
            assert await call.read() == b"first"
            call = call.read()
        await expect_error(call, grpc.StatusCode.DEADLINE_EXCEEDED)
        await seen(channel, key + b" cancelled")


async def cancel(channel):
    """The server is told, and not by the connection's end."""
    for kind, name in (("unary_unary", "Hang"), ("unary_stream", "HangStream")):
        key = uuid.uuid4().hex.encode()
        call = method(channel, kind, name)(key, timeout=PATIENCE)
        if kind == "unary_stream":
            assert await call.read() == b"first"
        waiting = asyncio.ensure_future(call.code())
        await seen(channel, key + b" began")
        call.cancel()
        await seen(channel, key + b" cancelled")
        assert await waiting == grpc.StatusCode.CANCELLED
    assert await method(channel, "unary_unary", "Echo")(b"still here", timeout=PATIENCE) == b"still here"


async def concurrent(channel):
    """200 calls on one channel, each answered when all of them are there."""
    gather = method(channel, "unary_unary", "Gather")
    key = uuid.uuid4().hex.encode() + b" 200"
    answers = await asyncio.gather(*(gather(key, timeout=PATIENCE) for _ in range(200)))
    assert answers == [b"all here"] * 200


async def chatty(channel):
    """10,000 messages of 50 bytes each way, on one stream."""
    call = method(channel, "stream_stream", "AnswerEach")(timeout=2 * PATIENCE)
    messages = [str(n).encode().ljust(50, b".") for n in range(10_000)]

    async def talk():
        for message in messages:
            await call.write(message)
        await call.done_writing()

    talking = asyncio.ensure_future(talk())
    answers = [answer async for answer in call]
    await talking
    assert answers == [b"<" + message + b">" for message in messages], len(answers)
    assert await call.code() == grpc.StatusCode.OK


async def gone(channel):
    """Nothing listens behind the proxy."""
    for _ in range(3):
        call = method(channel, "unary_unary", "Echo")(b"", timeout=PATIENCE)
        await expect_error(call, grpc.StatusCode.UNAVAILABLE, "outrigger", "refused")


async def dies(channel):
    """The server's process ends while calls are open: they end too, and so does the next one."""
    call = method(channel, "unary_stream", "HangStream")(uuid.uuid4().hex.encode(), timeout=PATIENCE)
    assert await call.read() == b"first"
    await expect_error(method(channel, "unary_unary", "Die")(b"", timeout=PATIENCE), grpc.StatusCode.UNAVAILABLE, "outrigger")
    try:
        await call.read()
        raise AssertionError("the stream went on")
    except grpc.aio.AioRpcError as error:
        assert error.code() not in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED), error
    # The system takes the process apart piece by piece: for a moment a connection can still be made.
    by = time.monotonic() + PATIENCE
    while True:
        try:
            await method(channel, "unary_unary", "Echo")(b"", timeout=PATIENCE)
            raise AssertionError("a server that is dead answered")
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE and "outrigger" in error.details(), error
            if "refused" in error.details() or time.monotonic() > by:
                break
    await gone(channel)


async def no_route(channel):
    call = method(channel, "unary_unary", "Echo")(b"", timeout=PATIENCE)
    await expect_error(call, grpc.StatusCode.UNIMPLEMENTED, "outrigger", "route")
    stream = method(channel, "stream_stream", "AnswerEach")(timeout=PATIENCE)
    await expect_error(stream.read(), grpc.StatusCode.UNIMPLEMENTED, "outrigger", "route")


async def route_timeout(channel):
    """The route's timeout is told apart from an endpoint that is gone, and reaches the server.

    The server is told what time is left, and may be the first to say that it is over.
    """
    key = uuid.uuid4().hex.encode()
    call = method(channel, "unary_unary", "Hang")(key, timeout=PATIENCE)
    error = await expect_error(call, grpc.StatusCode.DEADLINE_EXCEEDED)
    ours = "outrigger" in error.details() and "timeout" in error.details()
    assert ours or error.details() == "Deadline Exceeded", error
    await seen(channel, key + b" cancelled")


async def retried(channel):
    """The proxy tries again what failed in trailers, and says so to the server; the client sees one call."""
    answer = await method(channel, "unary_unary", "Flaky")(uuid.uuid4().hex.encode(), timeout=PATIENCE)
    assert answer == b"2 calls, 1 before", answer


CASES = (unary, client_stream, server_stream, interleaved, large, metadata, status, deadline, cancel)
CASES += (concurrent, chatty, gone, dies, no_route, route_timeout, retried)


async def main(case, port, ca=None):
    async with connect(port, ca) as channel:
        await {each.__name__: each for each in CASES}[case](channel)
    print("ok")


asyncio.run(main(*sys.argv[1:]))
