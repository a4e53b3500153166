"""The far end of raw flows: echoes, sends or takes bytes as its first bytes say.

usage: server.py SOCKET ADDRESS PORT (a Unix socket and a TCP port; both serve alike)

`G…` is dtunnel's ping and gets an Engine's answer; `E` echoes; `D` and 8 bytes (big-endian) sends so
many bytes; `U` and 8 bytes takes so many, then sends one.
"""
import os, signal, socket, sys, threading

CHUNK = memoryview(bytes(1 << 20))
PONG = b"HTTP/1.1 200 OK\r\nServer: Docker/0.0.0 (bench)\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK"


def serve(stream):
    with stream:
        order = stream.recv(1)
        if order == b"G":
            stream.recv(4096)
            stream.sendall(PONG)
        elif order == b"E":
            while byte := stream.recv(64):
                stream.sendall(byte)
        elif order in (b"D", b"U"):
            left = int.from_bytes(stream.recv(8, socket.MSG_WAITALL), "big")
            # A process of its own: threads of one Python wait for one another.
            if os.fork():
                return
            if order == b"D":
                while left:
                    left -= stream.send(CHUNK[: min(left, len(CHUNK))])
            else:
                take(stream, left)
                stream.sendall(b"!")
            os._exit(0)


def take(stream, left):
    """Reads so many bytes."""
    buffer = bytearray(1 << 20)
    while left:
        size = stream.recv_into(buffer)
        if not size:
            raise EOFError(f"{left} bytes are missing")
        left -= size


def guarded(stream):
    server = os.getpid()
    try:
        serve(stream)
    except (OSError, EOFError):
        pass  # The client is gone: it says so itself, if that was no wish of its.
    finally:
        if os.getpid() != server:
            os._exit(0)


def accept(listener):
    while True:
        stream, _ = listener.accept()
        if stream.family != socket.AF_UNIX:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=guarded, args=(stream,), daemon=True).start()


if __name__ == "__main__":
    path, address, port = sys.argv[1:]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    unix, tcp = socket.socket(socket.AF_UNIX), socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    threading.stack_size(256 << 10)
    unix.bind(path)
    tcp.bind((address, int(port)))
    for listener in unix, tcp:
        listener.listen(4096)
    threading.Thread(target=accept, args=(tcp,), daemon=True).start()
    accept(unix)
