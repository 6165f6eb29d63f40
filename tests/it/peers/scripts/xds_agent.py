"""An agent between a control plane and a node, as meshes have them: it passes on what both say (ADS, the state of the world),
and has the secrets itself. `xds_agent.py PORT` asks the control plane at that port; secrets are a line of JSON, a list.
"""

import asyncio
import json
import os
import sys

sys.path.insert(0, os.path.join(sys.prefix, "xds"))

import grpc  # noqa: E402
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret  # noqa: E402
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse  # noqa: E402
from google.protobuf.json_format import ParseDict  # noqa: E402

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "StreamAggregatedResources"
KIND = f"type.googleapis.com/{Secret.DESCRIPTOR.full_name}"


def answer(names, secrets):
    response = DiscoveryResponse(version_info="1", nonce=",".join(names), type_url=KIND)
    for secret in secrets:
        if secret.name in names:
            response.resources.add().Pack(secret)
    return response


async def main(port, secrets):
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    method = channel.stream_stream(
        f"/{SERVICE}/{METHOD}",
        request_serializer=DiscoveryRequest.SerializeToString,
        response_deserializer=DiscoveryResponse.FromString,
    )

    async def serve(requests, _):
        call = method()
        answers = asyncio.Queue()

        async def ask():
            async for request in requests:
                if request.type_url != KIND:
                    await call.write(request)
                elif request.error_detail.message:
                    print("REFUSED", request.error_detail.message, flush=True)
                elif request.response_nonce != ",".join(request.resource_names):
                    answers.put_nowait(answer(request.resource_names, secrets))

        async def hear():
            async for response in call:
                answers.put_nowait(response)

        both = [asyncio.create_task(ask()), asyncio.create_task(hear())]
        try:
            while True:
                yield await answers.get()
        finally:
            for one in both:
                one.cancel()
            call.cancel()

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        serve,
        request_deserializer=DiscoveryRequest.FromString,
        response_serializer=DiscoveryResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    print("PORT", server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


asyncio.run(main(sys.argv[1], [ParseDict(one, Secret()) for one in json.loads(sys.stdin.readline())]))
