"""A node that is not ours: `xds_node.py PORT ID` asks for all clusters, incrementally, and takes what comes.

It prints what it is told, a line each; after the line `refuse` on its standard input it refuses, after `accept` it takes again.
"""

import asyncio
import os
import sys

sys.path.insert(0, os.path.join(sys.prefix, "xds"))

import grpc  # noqa: E402
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse  # noqa: E402

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

refuses = False


async def listen(reader):
    global refuses
    while line := await reader.readline():
        refuses = line.strip() == b"refuse"
        print("REFUSES" if refuses else "ACCEPTS", flush=True)
    os._exit(0)


async def main(port, node):
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    listening = asyncio.create_task(listen(reader))
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    method = channel.stream_stream(
        METHOD,
        request_serializer=DeltaDiscoveryRequest.SerializeToString,
        response_deserializer=DeltaDiscoveryResponse.FromString,
    )
    call = method()
    await call.write(DeltaDiscoveryRequest(node={"id": node}, type_url=CLUSTER))
    async for answer in call:
        names = sorted([one.name for one in answer.resources] + [f"-{name}" for name in answer.removed_resources])
        print("TOLD", ",".join(names), flush=True)
        ack = DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=answer.nonce)
        if refuses:
            ack.error_detail.message = "I would rather not"
        await call.write(ack)
    listening.cancel()


asyncio.run(main(*sys.argv[1:]))
