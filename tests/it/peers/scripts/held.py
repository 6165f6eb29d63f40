"""A WebSocket and a call of gRPC that stay open, with PyPI's websockets and grpcio: `held.py PORT`.

Prints `HELD` once both are; then each line of its standard input goes over both, and is printed when both have it back.
"""

import asyncio
import sys

import grpc
import websockets.asyncio.client as ws

PATIENCE = 15


async def main(port):
    loop = asyncio.get_running_loop()
    async with (
        ws.connect(f"ws://127.0.0.1:{port}/chat", proxy=None) as socket,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = channel.stream_stream("/peers.Test/AnswerEach")()

        async def say(text):
            await socket.send(text)
            await call.write(text.encode())
            assert await asyncio.wait_for(socket.recv(), PATIENCE) == text
            assert await asyncio.wait_for(call.read(), PATIENCE) == b"<" + text.encode() + b">"

        await say("first")
        print("HELD", flush=True)
        while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            await say(line)
            print(line, flush=True)


asyncio.run(main(*sys.argv[1:]))
