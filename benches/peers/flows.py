"""Raw flows to server.py: how fast, how long, how many."""
import resource, socket, subprocess, sys, time

import server


def connect(where):
    """`where`: a Unix socket's path, or (address, port)."""
    stream = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
    stream.settimeout(120)
    stream.connect(where)
    if not isinstance(where, str):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def bulk(where, direction, size):
    """Seconds for so many bytes `down` or `up`."""
    with connect(where) as stream:
        begun = time.perf_counter()
        stream.sendall((b"D" if direction == "down" else b"U") + size.to_bytes(8, "big"))
        if direction == "down":
            server.take(stream, size)
        else:
            left = size
            while left:
                left -= stream.send(server.CHUNK[: min(left, len(server.CHUNK))])
            server.take(stream, 1)
        return time.perf_counter() - begun


def echoes(where, count, pause=0.002):
    """Seconds of each of so many one-byte round trips on one flow."""
    times = []
    with connect(where) as stream:
        stream.sendall(b"E")
        for _ in range(count):
            times.append(echo(stream))
            time.sleep(pause)
    return times


def echo(stream):
    """Seconds of a one-byte round trip on a flow that was told to echo."""
    begun = time.perf_counter()
    stream.sendall(b"x")
    server.take(stream, 1)
    return time.perf_counter() - begun


def ping(stream):
    """Seconds of one request and its answer."""
    begun, answer = time.perf_counter(), b""
    stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
    while not answer.endswith(b"\r\n\r\nOK"):
        piece = stream.recv(4096)
        if not piece:
            raise EOFError(answer)
        answer += piece
    return time.perf_counter() - begun


def many(where, count):
    """Opens so many flows at once, then has each echo: (seconds to open, to echo, refusals, errors). A refused one is
    tried again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    refusals, errors, streams = 0, 0, []
    begun = time.perf_counter()
    while len(streams) + errors < count:
        try:
            # A full backlog refuses a socket that has a time limit (EAGAIN).
            stream = connect(where)
        except (BlockingIOError, ConnectionRefusedError):
            refusals += 1
            time.sleep(0.001)
            continue
        try:
            stream.sendall(b"Ex")
            streams.append(stream)
        except OSError:
            errors += 1
    for stream in streams:
        try:
            server.take(stream, 1)
        except (OSError, EOFError):
            errors += 1
    opened = time.perf_counter()
    for stream in streams:
        try:
            stream.sendall(b"y")
        except OSError:
            errors += 1
    for stream in streams:
        try:
            server.take(stream, 1)
        except (OSError, EOFError):
            errors += 1
        stream.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return opened - begun, time.perf_counter() - opened, refusals, errors


def rate(where, seconds):
    """Flows per second, one after the other: opened, one echo, closed."""
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        with connect(where) as stream:
            stream.sendall(b"Ex")
            server.take(stream, 1)
        count += 1
    return count / seconds


def endless(where, direction):
    """A process that moves bytes until it is killed."""
    return subprocess.Popen([sys.executable, __file__, where, direction])


if __name__ == "__main__":
    while True:
        bulk(sys.argv[1], sys.argv[2], 1 << 40)
