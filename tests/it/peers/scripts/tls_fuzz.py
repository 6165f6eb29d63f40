"""Handshakes that go wrong in every way that tlslite-ng can be made to do them: `tls_fuzz.py PORT SEED COUNT`.

Each case is a handshake in which one message that the client sends is changed: bytes flipped, cut, doubled, lengths that
lie, records of another kind. What is asked of the server: it ends the connection or goes on, in bounded time, and it
still serves the next good client. Prints `DONE cases ended served`, or what went wrong.
"""

import random
import socket
import sys

from tlslite.api import HandshakeSettings, TLSConnection

PATIENCE = 20


class Tampering:
    """A socket that changes the n-th thing sent."""

    def __init__(self, sock, rng, which):
        self.sock, self.rng, self.left = sock, rng, which

    def change(self, data):
        data = bytearray(data)
        way = self.rng.randrange(8)
        if way == 0:
            for _ in range(self.rng.randrange(1, 8)):
                data[self.rng.randrange(len(data))] ^= self.rng.randrange(1, 256)
        elif way == 1:
            del data[self.rng.randrange(len(data)):]
        elif way == 2:
            data += data
        elif way == 3 and len(data) > 5:
            data[3:5] = self.rng.randrange(65536).to_bytes(2, "big")
        elif way == 4:
            data[0] = self.rng.randrange(256)
        elif way == 5 and len(data) > 9:
            data[6:9] = self.rng.randrange(1 << 24).to_bytes(3, "big")
        elif way == 6:
            at = self.rng.randrange(len(data))
            data[at:at] = bytes(self.rng.randrange(256) for _ in range(self.rng.randrange(1, 64)))
        else:
            data = bytearray(self.rng.randrange(256) for _ in range(len(data)))
        return bytes(data)

    def sendall(self, data):
        if self.left == 0 and data:
            data = self.change(data)
        self.left -= 1
        return self.sock.sendall(data)

    def send(self, data):
        self.sendall(data)
        return len(data)

    def __getattr__(self, name):
        return getattr(self.sock, name)


def settings(rng):
    chosen = HandshakeSettings()
    chosen.minVersion, chosen.maxVersion = rng.choice([((3, 3), (3, 3)), ((3, 4), (3, 4)), ((3, 3), (3, 4))])
    return chosen


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def is_served(port, chosen):
    with connect(port) as sock:
        tls = TLSConnection(sock)
        tls.handshakeClientCert(settings=chosen, serverName="localhost")
        tls.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return bytes(tls.read(max=1, min=1)) == b"H"


def ends(port, rng):
    """Whether the server does something about it before our patience ends."""
    with connect(port) as sock:
        try:
            tls = TLSConnection(Tampering(sock, rng, rng.choice([0, 0, 0, 1, 1, 2, 3])))
            tls.handshakeClientCert(settings=settings(rng), serverName="localhost")
            tls.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            while tls.read(max=4096, min=1):
                pass
        except socket.timeout:
            return False
        except Exception:
            # Whatever tlslite makes of the answer: there was one, or an end.
            pass
    return True


def main():
    port, seed, count = map(int, sys.argv[1:])
    rng = random.Random(seed)
    ended = served = 0
    for case in range(count):
        if not ends(port, rng):
            print(f"case {case} of seed {seed}: the server does nothing")
            sys.exit(1)
        ended += 1
        if case % 25 == 0:
            if not is_served(port, settings(rng)):
                print(f"after case {case} of seed {seed} nobody is served")
                sys.exit(1)
            served += 1
    print(f"DONE {count} {ended} {served}")


main()
