"""A WebSocket server, with PyPI's websockets: echoes, unless the path asks for something else.

Prints `PORT <n>` once it listens; ends when its standard input does.
"""

import asyncio
import http
import sys

import websockets
import websockets.asyncio.server as ws


async def serve(connection):
    path, _, argument = connection.request.path.strip("/").partition("/")
    if path == "close":
        await connection.close(int(argument), "as you wish")
    elif path == "push":
        for n in range(int(argument)):
            await connection.send(f"push {n}")
    elif path == "headers":
        for name, value in connection.request.headers.raw_items():
            await connection.send(f"{name.lower()}: {value}")
    elif path == "ping":
        await (await connection.ping(b"from the server"))
        await connection.send("ponged")
    elif path == "abort":
        await connection.recv()
        connection.transport.abort()
    else:
        try:
            async for message in connection:
                await connection.send(message)
        except websockets.ConnectionClosed:
            pass  # by the client, with a code of its choice


def refuse(connection, request):
    if request.path == "/refused":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not for you\n")


def select(connection, offered):
    return next((each for each in ("chat.v2", "chat.v1") if each in offered), None)


async def main():
    options = {"select_subprotocol": select, "process_request": refuse, "max_size": 4 * 1024 * 1024}
    async with ws.serve(serve, "127.0.0.1", 0, **options) as server:
        print("PORT", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
