"""A control plane that is not ours: grpcio's HTTP/2, and the messages that the gRPC authors generate from Envoy's files.

It reads states as JSON, a line each: `{"version": ..., "Cluster": [...], ...}`, serves the last one on every stream (ADS;
`PORT sotw` for the state of the world, `PORT delta` for what has changed), and prints what it is asked. It can be told to lie:
`"Garbage": {"Cluster": [BASE64, ...]}` are more resources of a kind, `"Pad": BYTES` is the length of each nonce, `"Nonce": TEXT` the
same one for all answers. `"Quiet": true` has it print nothing, for tests that read none of it. `"Ttl": {"Listener": {NAME: MILLISECONDS}}` is how long resources live. `"Aliases": {NAME: [NAME, ...]}` are the names that hosts
on demand (`VirtualHost`, delta alone) are asked for by; of one that is not there it says so, as Envoy's servers do: by a
resource without content.
"""

import asyncio
import base64
import hashlib
import json
import os
import sys

sys.path.insert(0, os.path.join(sys.prefix, "xds"))

import grpc  # noqa: E402
from envoy.config.cluster.v3 import cluster_pb2  # noqa: E402
from envoy.config.endpoint.v3 import endpoint_pb2  # noqa: E402
from envoy.config.listener.v3 import listener_pb2  # noqa: E402
from envoy.config.route.v3 import route_components_pb2, route_pb2  # noqa: E402
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2  # noqa: E402, F401
from envoy.extensions.filters.http.lua.v3 import lua_pb2  # noqa: E402, F401
from envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2  # noqa: E402, F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: E402, F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: E402, F401
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: E402, F401
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2  # noqa: E402, F401
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2  # noqa: E402, F401
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2  # noqa: E402, F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: E402, F401
from envoy.service.discovery.v3.discovery_pb2 import (  # noqa: E402
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
)
from google.protobuf.any_pb2 import Any  # noqa: E402
from google.protobuf.json_format import MessageToDict, ParseDict  # noqa: E402

KINDS = {
    "Cluster": (cluster_pb2.Cluster, "name"),
    "ClusterLoadAssignment": (endpoint_pb2.ClusterLoadAssignment, "cluster_name"),
    "Listener": (listener_pb2.Listener, "name"),
    "Secret": (secret_pb2.Secret, "name"),
    "RouteConfiguration": (route_pb2.RouteConfiguration, "name"),
    "VirtualHost": (route_components_pb2.VirtualHost, "name"),
}

state = {}
# One for each stream: it is set when there may be something to say.
streams = set()


def say(*words, **how):
    if not state.get("Quiet"):
        print(*words, **how, flush=True)


def shown(request, names, version):
    kind = request.type_url.rsplit(".", 1)[1]
    error = request.error_detail.message
    fields = {"kind": kind, "version": version, "names": names, "error": error, "node": request.node.id}
    fields["metadata"] = MessageToDict(request.node.metadata)
    say("ASKED", json.dumps(fields))
    return kind


def there(kind):
    message, key = KINDS[kind]
    resources = [ParseDict(one, message()) for one in state.get(kind, [])]
    return {getattr(one, key): one for one in resources}


def url(kind):
    return "type.googleapis.com/" + KINDS[kind][0].DESCRIPTOR.full_name


def lives(kind, name, resource):
    ttl = state.get("Ttl", {}).get(kind, {}).get(name)
    if ttl is not None:
        resource.ttl.FromMilliseconds(ttl)
    return ttl is not None


def garbage(kind):
    return [Any(type_url=url(kind), value=base64.b64decode(text)) for text in state.get("Garbage", {}).get(kind, [])]


def nonce(kind):
    if "Nonce" in state:
        return state["Nonce"]
    return f"{kind}-{state['version']}".ljust(state.get("Pad", 0), ".")


class Sotw:
    """What one client has asked for, and was sent last: all of it each time."""

    def __init__(self):
        self.asked = {}
        self.sent = {}

    def ask(self, request):
        names = sorted(request.resource_names)
        kind = shown(request, names, request.version_info)
        if self.asked.get(kind) != names:
            self.asked[kind] = names
            self.sent.pop(kind, None)

    def due(self):
        version = state.get("version")
        for kind, names in self.asked.items():
            if version is None or self.sent.get(kind) == version:
                continue
            self.sent[kind] = version
            response = DiscoveryResponse(version_info=version, nonce=nonce(kind), type_url=url(kind))
            for name, one in there(kind).items():
                if not names or name in names:
                    wrapped = Resource(name=name, version=version)
                    wrapped.resource.Pack(one)
                    response.resources.add().Pack(wrapped if lives(kind, name, wrapped) else one)
            response.resources.extend(garbage(kind))
            yield response


class Delta:
    """What one client has asked for, and the versions it has: only what has changed, each time."""

    def __init__(self):
        self.asked = {}
        self.sent = {}
        self.fresh = set()
        self.lied = {}
        self.denied = set()

    def ask(self, request):
        more, less = request.resource_names_subscribe, request.resource_names_unsubscribe
        kind = shown(request, sorted(more), dict(request.initial_resource_versions))
        if kind not in self.asked:
            self.asked[kind] = set()
            self.sent[kind] = dict(request.initial_resource_versions)
            self.fresh.add(kind)
        self.asked[kind] = (self.asked[kind] | set(more)) - set(less)
        for name in less:
            self.sent[kind].pop(name, None)

    def due(self):
        if state.get("version") is None:
            return
        for kind, names in self.asked.items():
            every = kind in ("Cluster", "Listener")
            aliases = state.get("Aliases", {}) if kind == "VirtualHost" else {}
            called = {name: {name, *aliases.get(name, ())} for name in there(kind)}
            wanted = {name: one for name, one in there(kind).items() if every or called[name] & names}
            response = DeltaDiscoveryResponse(nonce=nonce(kind), type_url=url(kind))
            lies = garbage(kind) if self.lied.get(kind) != state["version"] else []
            self.lied[kind] = state["version"]
            for index, one in enumerate(lies):
                response.resources.add(name=f"lie-{index}", version="1").resource.CopyFrom(one)
            sent = self.sent[kind]
            for name, one in wanted.items():
                version = hashlib.sha256(one.SerializeToString(deterministic=True)).hexdigest()
                if sent.get(name) != version:
                    resource = response.resources.add(name=name, version=version)
                    resource.resource.Pack(one)
                    resource.aliases.extend(aliases.get(name, ()))
                    lives(kind, name, resource)
                    sent[name] = version
            if kind == "VirtualHost":
                known = set().union(*called.values()) if called else set()
                for name in sorted(names - known - self.denied):
                    response.resources.add(name=name, aliases=[name])
                    self.denied.add(name)
            gone = set(sent) - set(wanted)
            response.removed_resources.extend(sorted(gone))
            for name in gone:
                del sent[name]
            # Even if there is none of a kind, who asks for all of it is told so.
            if response.resources or gone or kind in self.fresh or state.get("Pad"):
                changes = [one.name for one in response.resources], sorted(gone)
                say("SENT", kind, *map(",".join, changes), sep="|")
                yield response
            self.fresh.discard(kind)


WAYS = {
    "sotw": ("StreamAggregatedResources", Sotw, DiscoveryRequest, DiscoveryResponse),
    "delta": ("DeltaAggregatedResources", Delta, DeltaDiscoveryRequest, DeltaDiscoveryResponse),
}


async def serve(requests, _):
    stream = WAYS[sys.argv[2]][1]()
    asked = asyncio.Event()

    async def read():
        async for request in requests:
            stream.ask(request)
            asked.set()

    streams.add(asked)
    reading = asyncio.ensure_future(read())
    reading.add_done_callback(lambda _: asked.set())
    try:
        while not reading.done():
            asked.clear()
            for response in list(stream.due()):
                yield response
            await asked.wait()
    finally:
        streams.discard(asked)
        reading.cancel()


async def main():
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    method, _, request, response = WAYS[sys.argv[2]]
    handler = grpc.stream_stream_rpc_method_handler(
        serve,
        request_deserializer=request.FromString,
        response_serializer=response.SerializeToString,
    )
    service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    print("PORT", port, flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        state.clear()
        state.update(json.loads(line))
        for stream in streams:
            stream.set()
    await server.stop(None)


asyncio.run(main())
