"""A rate limit service (envoy.service.ratelimit.v3) of PyPI's grpcio, its messages written by hand: no generated code.

Prints `PORT <n>` once it listens, and `ASKED <hex>` for each question, its bytes as they came. Grants two questions that
are alike, or as many as its argument says, then says OVER_LIMIT. Ends when its standard input does.
"""

import asyncio
import collections
import sys

import grpc

counts = collections.Counter()
granted = int(sys.argv[1]) if len(sys.argv) > 1 else 2


async def should_rate_limit(request, context):
    print("ASKED", request.hex(), flush=True)
    counts[request] += 1
    # overall_code (field 1): OK is 1, OVER_LIMIT is 2; response_headers_to_add (field 3): a key and a value.
    header = b"\x0a\x06x-seen\x12\x01" + str(counts[request]).encode()
    return bytes([0x08, 1 if counts[request] <= granted else 2, 0x1A, len(header)]) + header


async def main():
    server = grpc.aio.server()
    handlers = {"ShouldRateLimit": grpc.unary_unary_rpc_method_handler(should_rate_limit)}
    service = "envoy.service.ratelimit.v3.RateLimitService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("PORT", port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        pass
    await server.stop(None)


asyncio.run(main())
