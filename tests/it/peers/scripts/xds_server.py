"""A control plane that is not ours: grpcio's HTTP/2, and the messages that the gRPC authors generate from Envoy's files.

It reads states as JSON, a line each: `{"version": ..., "Cluster": [...], ...}`, serves the last one on every stream (ADS,
state of the world), and prints what it is asked.
"""

import asyncio
import json
import os
import sys

sys.path.insert(0, os.path.join(sys.prefix, "xds"))

import grpc  # noqa: E402
from envoy.config.cluster.v3 import cluster_pb2  # noqa: E402
from envoy.config.endpoint.v3 import endpoint_pb2  # noqa: E402
from envoy.config.listener.v3 import listener_pb2  # noqa: E402
from envoy.config.route.v3 import route_pb2  # noqa: E402
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: E402, F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: E402, F401
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: E402, F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: E402, F401
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse  # noqa: E402
from google.protobuf.json_format import ParseDict  # noqa: E402

KINDS = {
    "Cluster": (cluster_pb2.Cluster, "name"),
    "ClusterLoadAssignment": (endpoint_pb2.ClusterLoadAssignment, "cluster_name"),
    "Listener": (listener_pb2.Listener, "name"),
    "RouteConfiguration": (route_pb2.RouteConfiguration, "name"),
}

state = {}
changed = asyncio.Condition()


class Stream:
    """What one client has asked for, and was sent last."""

    def __init__(self):
        self.asked = {}
        self.sent = {}

    def ask(self, request):
        kind = request.type_url.rsplit(".", 1)[1]
        names = sorted(request.resource_names)
        error = request.error_detail.message
        node = request.node.id
        shown = {"kind": kind, "version": request.version_info, "names": names, "error": error, "node": node}
        print("ASKED", json.dumps(shown), flush=True)
        if self.asked.get(kind) != names:
            self.asked[kind] = names
            self.sent.pop(kind, None)

    def due(self):
        for kind, names in self.asked.items():
            version = state.get("version")
            if version is None or self.sent.get(kind) == version:
                continue
            self.sent[kind] = version
            message, key = KINDS[kind]
            resources = [ParseDict(one, message()) for one in state.get(kind, [])]
            wanted = [one for one in resources if not names or getattr(one, key) in names]
            response = DiscoveryResponse(version_info=version, nonce=f"{kind}-{version}")
            response.type_url = "type.googleapis.com/" + message.DESCRIPTOR.full_name
            for one in wanted:
                response.resources.add().Pack(one)
            yield response


async def serve(requests, context):
    stream = Stream()

    async def read():
        async for request in requests:
            stream.ask(request)
            async with changed:
                changed.notify_all()

    reading = asyncio.ensure_future(read())
    try:
        while not reading.done():
            for response in list(stream.due()):
                yield response
            async with changed:
                if not list(kind for kind in stream.asked if stream.sent.get(kind) != state.get("version")):
                    await asyncio.wait_for(changed.wait(), None)
    finally:
        reading.cancel()


async def main():
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        serve,
        request_deserializer=DiscoveryRequest.FromString,
        response_serializer=DiscoveryResponse.SerializeToString,
    )
    service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    methods = {"StreamAggregatedResources": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    print("PORT", port, flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        state.clear()
        state.update(json.loads(line))
        async with changed:
            changed.notify_all()
    await server.stop(None)


asyncio.run(main())
