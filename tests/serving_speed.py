"""How long a served model takes: `python tests/serving_speed.py <images> <port> [<n>]`.

`make serve` runs on the port; the folder's first n images (1125) are asked of it, one alone (the
median of 20) and all at once, as files and as 128 x 128 pixels. No test: what it measures depends
on the machine and on what else runs there. The processor's time is that of the server.
"""

import base64
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import requests
from PIL import Image

HEADERS = {"Content-Type": "application/json"}


def main(folder: Path, port: int, n: int) -> None:
    """Print a line for each way of asking."""
    base = f"http://127.0.0.1:{port}"
    server = next(
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp")
        if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
    )
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))
    pictures = [Image.open(file).convert("L") for file in files[:n]]
    ways = {
        "PNG as base64": [as_png(picture) for picture in pictures],
        "128 x 128 pixels": [np.asarray(each.resize((128, 128))).tolist() for each in pictures],
    }
    print(requests.get(base, timeout=30).json()["model"], f"load {psutil.getloadavg()[0]:.1f}")
    for name, images in ways.items():
        one, all_ = (json.dumps({"inputs": part}).encode() for part in (images[:1], images))
        ask(base, one)
        alone = [timed(server, base, one) for _ in range(20)]
        single, batch = np.median(alone, axis=0), timed(server, base, all_)
        print(
            f"{name}: one in {single[0] * 1e3:.0f} ms ({single[1] * 1e3:.0f} of the processor), "
            f"{len(images)} in {batch[0]:.1f} s ({batch[1]:.1f})"
        )


def as_png(picture: Image.Image) -> str:
    """The bytes of a PNG file as base64."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def ask(base: str, body: bytes) -> None:
    """One call that must be answered."""
    requests.post(f"{base}/invocations", body, headers=HEADERS, timeout=600).raise_for_status()


def timed(server: psutil.Process, base: str, body: bytes) -> tuple[float, float]:
    """Seconds of the clock and of the server's processor."""
    used, began = sum(server.cpu_times()[:2]), time.perf_counter()
    ask(base, body)
    return time.perf_counter() - began, sum(server.cpu_times()[:2]) - used


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1125)
