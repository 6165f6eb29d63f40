"""One call with PyPI's grpcio and mutual TLS: `grpc_mtls.py PORT CA [CERTIFICATE KEY]`; prints OK or the status.

Without a certificate the call must fail.
"""

import sys

import grpc


def read(path):
    with open(path, "rb") as file:
        return file.read()


port, ca, *own = sys.argv[1:]
certificate, key = (read(own[0]), read(own[1])) if own else (None, None)
credentials = grpc.ssl_channel_credentials(read(ca), key, certificate)
options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_retries", 0)]
with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
    try:
        assert channel.unary_unary("/peers.Test/Echo")(b"hello", timeout=10) == b"hello"
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name)
