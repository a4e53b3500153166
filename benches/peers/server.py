"""The far end of raw flows: echoes, sends or takes bytes as its first bytes say.

usage: server.py SOCKET ADDRESS PORT (a Unix socket and a TCP port; both serve alike)

`G…` is dtunnel's ping and gets an Engine's answer; `E` echoes; `D` and 8 bytes (big-endian) sends so
many bytes; `U` and 8 bytes takes so many, then sends one.
"""
import os, select, signal, socket, sys

CHUNK = memoryview(bytes(1 << 20))
PONG = b"HTTP/1.1 200 OK\r\nServer: Docker/0.0.0 (bench)\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK"


def serve(stream):
    """One event: an order, or a byte to echo. False where the flow is over, here."""
    order = stream.recv(1, socket.MSG_PEEK)
    if order == b"G":
        stream.recv(4096)
        stream.sendall(PONG)
    elif order in (b"D", b"U"):
        # A process of its own, which waits where this one may not.
        if not os.fork():
            move(stream)
    elif order:
        # An echo; the first `E` is its order.
        if data := stream.recv(64).removeprefix(b"E"):
            stream.sendall(data)
        return True
    return False


def move(stream):
    """Ends this process."""
    try:
        stream.setblocking(True)
        order = stream.recv(9, socket.MSG_WAITALL)
        left = int.from_bytes(order[1:], "big")
        if order[:1] == b"D":
            while left:
                left -= stream.send(CHUNK[: min(left, len(CHUNK))])
        else:
            take(stream, left)
            stream.sendall(b"!")
    except (OSError, EOFError):
        pass  # The client is gone: it says so itself, if that was no wish of its.
    finally:
        os._exit(0)


def take(stream, left):
    """Reads so many bytes."""
    buffer = bytearray(1 << 20)
    while left:
        size = stream.recv_into(buffer)
        if not size:
            raise EOFError(f"{left} bytes are missing")
        left -= size


def main(path, address, port):
    # A thread a flow would keep the listeners from their turn with 10 000 of them.
    flows, every = {}, select.epoll()
    unix, tcp = socket.socket(socket.AF_UNIX), socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    unix.bind(path)
    tcp.bind((address, int(port)))
    for listener in unix, tcp:
        listener.setblocking(False)
        listener.listen(4096)
        every.register(listener, select.EPOLLIN)
    while True:
        ready = {number for number, _ in every.poll(maxevents=64)}
        # Each time, for a full backlog refuses the next ones.
        for listener in unix, tcp:
            for stream in accepted(listener):
                flows[stream.fileno()] = stream
                every.register(stream, select.EPOLLIN)
        for number in ready - {unix.fileno(), tcp.fileno()}:
            try:
                goes_on = serve(flows[number])
            except OSError:
                goes_on = False  # The client is gone: it says so itself, if that was no wish of its.
            if not goes_on:
                # A process that moves its bytes may have it open still.
                every.unregister(number)
                flows.pop(number).close()


def accepted(listener):
    while True:
        try:
            stream, _ = listener.accept()
        except BlockingIOError:
            return
        stream.setblocking(False)
        if stream.family != socket.AF_UNIX:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield stream


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    main(*sys.argv[1:])
