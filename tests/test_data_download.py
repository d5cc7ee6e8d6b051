"""The download, against a real server on this machine: resumed, checked, complete or not there."""

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.data import DataError
from training.data.br35h import NoNetworkError, download
from training.data.outlines import OUTLINES_FILE

TOP = "Brain-Tumor-Detection-Dataset-main"


def archive(n_yes=3, n_no=3, extra=()):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as members:
        for name, n in (("yes", n_yes), ("no", n_no)):
            for number in range(n):
                members.writestr(
                    f"{TOP}/{name}/{name[0]}{number}.jpg", bytes(10_000 * (number + 1))
                )
        members.writestr(f"{TOP}/{OUTLINES_FILE.as_posix()}", "{}")
        members.writestr(f"{TOP}/Br35H-Mask-RCNN/TRAIN/y0.jpg", b"a repeated image")
        for name, text in extra:
            members.writestr(name, text)
    return content.getvalue()


class Server(ThreadingHTTPServer):
    """Serves one content; may cut the next answer short, or know no ranges."""

    content = b""
    cut_at = None
    knows_ranges = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.ranges = []
        self.url = f"http://127.0.0.1:{self.server_port}/archive.zip"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.server.content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if not self.server.knows_ranges:
            start = 0
        rest = self.server.content[start:]
        if start and not rest:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.cut_at])
        self.server.cut_at = None

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        server.content = archive()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_archive_is_unpacked_without_its_top_folder_and_repeated_images(server, tmp_path):
    folder = tmp_path / "data" / "br35h"
    download(folder, url=server.url, n_a_class=3)
    files = {path for path in names_in(folder) if "." in path}
    images = {f"{name}/{name[0]}{number}.jpg" for name in ("yes", "no") for number in range(3)}
    assert files == images | {OUTLINES_FILE.as_posix()}
    assert (folder / "no" / "n2.jpg").read_bytes() == bytes(30_000)
    assert names_in(folder.parent)[0] == "br35h" and len(list(folder.parent.iterdir())) == 1


def test_a_cut_connection_is_said_and_gone_on_with(server, tmp_path):
    server.cut_at = 40_000
    with pytest.raises(DataError, match="broke off after 32,768 bytes; run again"):
        download(tmp_path / "br35h", url=server.url, n_a_class=3)
    assert names_in(tmp_path) == ["br35h.zip.part"]
    download(tmp_path / "br35h", url=server.url, n_a_class=3)
    assert server.ranges == [None, "bytes=32768-"]
    assert len(list((tmp_path / "br35h" / "yes").iterdir())) == 3


def test_a_server_without_ranges_is_asked_for_all_of_it_again(server, tmp_path):
    server.knows_ranges = False
    for _ in range(2):
        server.cut_at = 40_000
        with pytest.raises(DataError, match="broke off after 32,768 bytes"):
            download(tmp_path / "br35h", url=server.url, n_a_class=3)
    download(tmp_path / "br35h", url=server.url, n_a_class=3)
    assert len(list((tmp_path / "br35h" / "yes").iterdir())) == 3


def test_a_complete_download_that_was_not_unpacked_is_used(server, tmp_path):
    (tmp_path / "br35h.zip.part").write_bytes(server.content)
    download(tmp_path / "br35h", url=server.url, n_a_class=3)
    assert names_in(tmp_path)[0] == "br35h"


@pytest.mark.parametrize(
    "name", ["../evil.jpg", f"{TOP}/yes/../../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:/e"]
)
def test_a_member_that_leaves_the_folder_is_refused(server, tmp_path, name):
    server.content = archive(extra=[(name, "evil")])
    with pytest.raises(DataError, match="would leave the folder"):
        download(tmp_path / "inner" / "br35h", url=server.url, n_a_class=3)
    assert names_in(tmp_path) == ["inner"]


def test_a_wrong_count_is_refused_and_nothing_is_left(server, tmp_path):
    server.content = archive(n_no=2)
    with pytest.raises(DataError, match=r"2 files in no/ instead of 3.*removed; run again"):
        download(tmp_path / "br35h", url=server.url, n_a_class=3)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("content", [b"<html>log in to this network</html>", archive()[:-30]])
def test_what_is_no_archive_is_refused_and_removed(server, tmp_path, content):
    server.content = content
    with pytest.raises(DataError, match="cannot be used"):
        download(tmp_path / "br35h", url=server.url, n_a_class=3)
    assert names_in(tmp_path) == []


def test_a_damaged_member_is_refused(server, tmp_path):
    damaged = bytearray(server.content)
    damaged[200] ^= 255  # inside the first image
    server.content = bytes(damaged)
    with pytest.raises(DataError, match="CRC"):
        download(tmp_path / "br35h", url=server.url, n_a_class=3)
    assert names_in(tmp_path) == []


def test_a_refusal_is_no_network(server, tmp_path):
    with pytest.raises(NoNetworkError, match="404"):
        server.content = None
        download(tmp_path / "br35h", url=server.url)


def test_no_answer_is_no_network_and_leaves_nothing(tmp_path):
    with Server() as closed:
        url = closed.url
    with pytest.raises(NoNetworkError, match="did not answer"):
        download(tmp_path / "br35h", url=url)
    assert names_in(tmp_path) == []
