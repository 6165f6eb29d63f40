"""A gRPC server with a health service (grpc.health.v1), its two messages written by hand: no generated code.

Prints `PORT <n>` once it listens. Each line of its standard input sets a service's status, as `shop SERVING`; a service
that was never named is NOT_FOUND. Prints `SET` when it is done. Ends when its standard input does.
"""

import asyncio
import sys

import grpc

STATUSES = {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}
services = {}


async def check(request, context):
    # Field 1, a string: short enough here for a length of one byte.
    service = request[2:].decode() if request else ""
    if request and (request[0] != 0x0A or request[1] != len(service)):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, repr(request))
    if service not in services:
        await context.abort(grpc.StatusCode.NOT_FOUND, service)
    status = STATUSES[services[service]]
    return bytes([0x08, status]) if status else b""


async def main():
    server = grpc.aio.server()
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("PORT", port, flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        service, _, status = line.strip().rpartition(" ")
        services[service] = status
        print("SET", flush=True)
    await server.stop(None)


asyncio.run(main())
