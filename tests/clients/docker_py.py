"""A small suite through docker-py. Usage: docker_py.py IMAGE, with DOCKER_HOST set."""

import concurrent.futures
import hashlib
import io
import os
import sys
import tarfile

import docker

IMAGE = sys.argv[1]
client = docker.from_env(timeout=60)

assert client.ping()
assert client.version()["ApiVersion"]
assert client.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"

# Logs that follow end with the container.
container = client.containers.run(IMAGE, ["sh", "-c", "for i in $(seq 500); do echo $i; done"], detach=True)
lines = b"".join(container.logs(stream=True, follow=True)).split()
assert lines == [str(i).encode() for i in range(1, 501)], lines[-3:]
assert container.wait()["StatusCode"] == 0
container.remove()

container = client.containers.run(IMAGE, ["sleep", "600"], detach=True)
try:
    # exec: output, exit code, both streams apart.
    code, (out, err) = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
    assert (code, out, err) == (3, b"out\n", b"err\n"), (code, out, err)

    # A hijacked connection whose standard input is ended by a half-close.
    run = client.api.exec_create(container.id, ["wc", "-c"], stdin=True)
    sock = client.api.exec_start(run["Id"], socket=True)
    raw = getattr(sock, "_sock", sock)
    raw.sendall(b"x" * 1_000_000)
    raw.shutdown(1)
    answer = b""
    while piece := raw.recv(4096):
        answer += piece
    assert answer.strip().endswith(b"1000000"), answer

    # Archives both ways.
    data = os.urandom(2_000_000)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("data")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    assert container.put_archive("/tmp", tar.getvalue())
    stream, _ = container.get_archive("/tmp/data")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        back = archive.extractfile("data").read()
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
finally:
    container.remove(force=True)

# Many at once.
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    assert all(pool.map(lambda _: docker.from_env().ping(), range(60)))

print("all is well")
