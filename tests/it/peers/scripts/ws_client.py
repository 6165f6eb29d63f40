"""WebSocket through the proxy with PyPI's websockets: `ws_client.py CASE PORT [CA_FILE]`; with a CA over TLS.

Each case asserts; a case that fails ends with its traceback and exit code 1.
"""

import asyncio
import ssl
import sys

import websockets
import websockets.asyncio.client as ws

MIB = 1024 * 1024


def connect(port, ca, path="/echo", **options):
    if ca is None:
        return ws.connect(f"ws://127.0.0.1:{port}{path}", proxy=None, max_size=4 * MIB, **options)
    context = ssl.create_default_context(cafile=ca)
    return ws.connect(f"wss://localhost:{port}{path}", proxy=None, max_size=4 * MIB, ssl=context, host="127.0.0.1", **options)


async def text(*to):
    async with connect(*to) as socket:
        for message in ("", "hello", "grüße ✓", "x" * 70_000):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["in ", "three ", "frames"])
        assert await socket.recv() == "in three frames"


async def binary(*to):
    message = bytes(range(256)) * (MIB // 256)
    async with connect(*to, compression=None) as socket:
        for _ in range(3):
            await socket.send(message)
            assert await socket.recv() == message


async def ping(*to):
    async with connect(*to) as socket:
        await (await socket.ping(b"from the client"))
    async with connect(*to, path="/ping") as socket:
        assert await socket.recv() == "ponged"


async def push(*to):
    """The server speaks first, and more than the client."""
    async with connect(*to, path="/push/500") as socket:
        assert [message async for message in socket] == [f"push {n}" for n in range(500)]
        await socket.wait_closed()
        assert socket.close_code == 1000


async def close(*to):
    for code in (1000, 1001, 1011, 3000, 4999):
        async with connect(*to, path=f"/close/{code}") as socket:
            try:
                await socket.recv()
            except websockets.ConnectionClosed:
                pass
            assert (socket.close_code, socket.close_reason) == (code, "as you wish")
    async with connect(*to) as socket:
        await socket.close(4321, "enough")
        assert (socket.close_code, socket.close_reason) == (4321, "enough")


async def abort(*to):
    """A server that breaks off takes the client's connection with it."""
    async with connect(*to, path="/abort") as socket:
        await socket.send("go")
        try:
            await socket.recv()
            raise AssertionError("it went on")
        except websockets.ConnectionClosed:
            assert socket.close_code == 1006


async def many(*to):
    """50 connections, all open at once."""
    sockets = await asyncio.gather(*(connect(*to) for _ in range(50)))
    for turn in range(5):
        for n, socket in enumerate(sockets):
            await socket.send(f"{turn} {n}")
        for n, socket in enumerate(sockets):
            assert await socket.recv() == f"{turn} {n}"
    await asyncio.gather(*(socket.close() for socket in sockets))
    assert {socket.close_code for socket in sockets} == {1000}


async def subprotocol(*to):
    for offered, chosen in ((["chat.v1"], "chat.v1"), (["chat.v1", "chat.v2"], "chat.v2"), (["other"], None)):
        async with connect(*to, subprotocols=offered) as socket:
            assert socket.subprotocol == chosen, socket.subprotocol


async def headers(*to):
    async with connect(*to, path="/headers", origin="https://origin.test") as socket:
        headers = [message async for message in socket]
    assert f"x-forwarded-proto: {'http' if len(to) == 1 or to[1] is None else 'https'}" in headers, headers
    assert "origin: https://origin.test" in headers and "x-forwarded-for: 127.0.0.1" in headers, headers


async def refused(*to):
    """The handshake's refusal is the server's, body and all."""
    try:
        async with connect(*to, path="/refused"):
            raise AssertionError("agreed")
    except websockets.InvalidStatus as error:
        assert error.response.status_code == 403, error
        assert error.response.body == b"not for you\n", error.response.body


CASES = (text, binary, ping, push, close, abort, many, subprotocol, headers, refused)


async def main(case, port, ca=None):
    await asyncio.wait_for({each.__name__: each for each in CASES}[case](port, ca), 30)
    print("ok")


asyncio.run(main(*sys.argv[1:]))
