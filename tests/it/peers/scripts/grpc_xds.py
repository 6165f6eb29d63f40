"""gRPC without a proxy: two services, and a client that finds them by `xds:///web`.

It prints `PORTS A B`; for each line `N` on its standard input it makes N calls and prints how many each service has answered. The
control plane is in GRPC_XDS_BOOTSTRAP_CONFIG, as gRPC has it.
"""

import sys
from concurrent import futures

import grpc


def service(name):
    def answer(request, context):
        return name

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {"Who": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("peers.Test", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


servers = [service(name) for name in (b"one", b"two")]
print("PORTS", *(port for _, port in servers), flush=True)
channel = None
for line in sys.stdin:
    # Only now the control plane has something to say.
    channel = channel or grpc.insecure_channel("xds:///web")
    who = channel.unary_unary("/peers.Test/Who")
    answers = [who(b"", timeout=20, wait_for_ready=True) for _ in range(int(line))]
    print("ANSWERS", answers.count(b"one"), answers.count(b"two"), flush=True)
