"""A service of Envoy's ext_authz: grpcio's HTTP/2, and the messages that the gRPC authors generate from Envoy's files.

It prints what it is asked, as JSON in one line, and answers as the request's field `x-say` tells it.
"""

import asyncio
import json
import os
import sys

sys.path.insert(0, os.path.join(sys.prefix, "xds"))

import grpc  # noqa: E402
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse  # noqa: E402
from google.protobuf.json_format import MessageToDict, ParseDict  # noqa: E402


def field(key, value, **more):
    return {"header": {"key": key, "value": value}, **more}


SAY = {
    "allow": {"status": {}},
    "change": {
        "status": {},
        "ok_response": {
            "headers": [
                field("x-user", "alice"),
                field("x-a", "2", append=True),
                field("x-b", "2", append=False),
                field("x-c", "2", append_action="ADD_IF_ABSENT"),
                field("x-d", "2", append=True),
            ],
            "headers_to_remove": ["x-secret", "host", ":path"],
            "response_headers_to_add": [
                field("x-one", "1"),
                field("x-one", "2"),
                field("content-type", "text/never", append_action="ADD_IF_ABSENT"),
                field("x-two", "1", append_action="OVERWRITE_IF_EXISTS"),
                field("content-type", "text/new", append_action="OVERWRITE_IF_EXISTS_OR_ADD"),
            ],
            "query_parameters_to_set": [{"key": "tier", "value": "gold"}],
            "query_parameters_to_remove": ["token"],
        },
    },
    "deny": {"status": {"code": 7}},
    "login": {
        "status": {"code": 16},
        "denied_response": {
            "status": {"code": "Found"},
            "headers": [
                field("location", "/login"),
                field("set-cookie", "a=1", append=True),
                field("set-cookie", "b=2", append=True),
            ],
            "body": "this way",
        },
    },
    "broken": {"status": {"code": 7}, "error_response": {"status": {"code": "BadGateway"}}},
}


async def check(request, context):
    asked = MessageToDict(request, preserving_proto_field_name=True)
    print("ASKED", json.dumps(asked), flush=True)
    say = request.attributes.request.http.headers.get("x-say", "allow")
    return ParseDict(SAY[say], CheckResponse())


async def main():
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=CheckRequest.FromString,
        response_serializer=CheckResponse.SerializeToString,
    )
    service = "envoy.service.auth.v3.Authorization"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Check": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("PORT", port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        pass
    await server.stop(None)


asyncio.run(main())
