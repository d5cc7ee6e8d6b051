"""A Ray cluster of this machine that lives apart from any driver."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STARTS_WITHIN, STOPS_WITHIN = 120, 30  # seconds


@contextmanager
def ray_cluster(folder: Path, n_cpus: int = 2) -> Iterator[dict[str, str]]:
    """The environment that names it, with its token: as on a cluster, who has none is refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    named = {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    options = f"--head --port={port} --num-cpus={n_cpus} --include-dashboard=false"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options.split()]
    command += ["--disable-usage-stats", "--block"]
    said = folder / "ray.log"
    with said.open("w") as log:
        process = subprocess.Popen(
            command, env=os.environ | named, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while "Ray runtime started" not in said.read_text():
            assert process.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        yield named
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
