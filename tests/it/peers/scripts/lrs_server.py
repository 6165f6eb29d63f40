"""Who hears load reports (LRS) and is not ours: grpcio, and the messages that the gRPC authors generate from Envoy's files.

Prints `PORT <n>` once it listens, `NODE <id> <features>` when somebody begins to report, and `REPORT <JSON>` for each report.
It wants one every second, of all clusters. Ends when its standard input does.
"""

import asyncio
import json
import os
import sys

sys.path.insert(0, os.path.join(sys.prefix, "xds"))

import grpc  # noqa: E402
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse  # noqa: E402
from google.protobuf.json_format import MessageToDict  # noqa: E402


async def stream(requests, context):
    begun = False
    async for request in requests:
        if begun:
            print("REPORT", json.dumps(MessageToDict(request, preserving_proto_field_name=True)), flush=True)
            continue
        begun = True
        print("NODE", request.node.id, ",".join(request.node.client_features), flush=True)
        answer = LoadStatsResponse(send_all_clusters=True)
        answer.load_reporting_interval.FromSeconds(1)
        yield answer


async def main():
    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(
        stream, LoadStatsRequest.FromString, LoadStatsResponse.SerializeToString
    )
    service = "envoy.service.load_stats.v3.LoadReportingService"
    handlers = grpc.method_handlers_generic_handler(service, {"StreamLoadStats": method})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("PORT", port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        pass
    await server.stop(None)


asyncio.run(main())
