"""Asks a client of xDS what it has (CSDS): grpcio, and the messages that the gRPC authors generate from Envoy's files.

`PORT [bare]`: prints what is answered, once by either method, as a line of JSON each; `bare` without what resources say.
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(sys.prefix, "xds"))

import grpc  # noqa: E402
from envoy.config.cluster.v3 import cluster_pb2  # noqa: E402, F401
from envoy.config.endpoint.v3 import endpoint_pb2  # noqa: E402, F401
from envoy.config.listener.v3 import listener_pb2  # noqa: E402, F401
from envoy.config.route.v3 import route_pb2  # noqa: E402, F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: E402, F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: E402, F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: E402, F401
from envoy.service.status.v3.csds_pb2 import ClientStatusRequest, ClientStatusResponse  # noqa: E402

SERVICE = "/envoy.service.status.v3.ClientStatusDiscoveryService/"

channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}")
codec = (ClientStatusRequest.SerializeToString, ClientStatusResponse.FromString)
request = ClientStatusRequest(exclude_resource_contents=len(sys.argv) > 2)
fetched = channel.unary_unary(SERVICE + "FetchClientStatus", *codec)(request, timeout=10)
streamed = next(channel.stream_stream(SERVICE + "StreamClientStatus", *codec)(iter([request]), timeout=10))
for answer in (fetched, streamed):
    config = answer.config[0]
    resources = [
        {
            "type": one.type_url.rsplit(".", 1)[1],
            "name": one.name,
            "version": one.version_info,
            "status": one.client_status,
            "error": one.error_state.details,
            "bytes": len(one.xds_config.value),
        }
        for one in config.generic_xds_configs
    ]
    print(json.dumps({"node": config.node.id, "resources": resources}), flush=True)
