"""`make serve`: MLflow's scoring server for a registered model, asked as a user would."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import psutil
import pytest
import requests
import torch
from PIL import Image
from registered import some_slices, tiny_detector, write_registered

from mlflow_server.pyfunc_model import as_images
from mlflow_server.registry import makes
from mlflow_server.scoring_app import sentence
from models.heads import MapScore
from studies.__main__ import main
from training.data.preprocess import to_gray
from training.detector import DetectorSpec
from training.error_maps import map_images
from training.predictor import Predictor, framed

NOTE = "A research tool, not a medical device."


def as_base64(image: np.ndarray, suffix: str = ".png") -> str:
    return base64.b64encode(cv2.imencode(suffix, image)[1].tobytes()).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`python -m studies serve` as a process, up to its line that it is ready."""

    def __init__(self, root, model: str):
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        # MLflow keeps the address that was used last in this process' own environment
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        command = [sys.executable, "-m", "studies", "serve", "--model", model]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            env=environment | {"VAR_DIR": str(root), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if NOTE in line:
                return
        raise AssertionError(f"ended without being ready: {self.said}")

    def ask(self, inputs) -> requests.Response:
        return requests.post(f"{self.base}/invocations", json={"inputs": inputs}, timeout=300)

    def stop(self, wish=signal.SIGINT) -> int:
        self.process.send_signal(wish)
        return self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("serve") / "var"
    write_registered(root, tiny_detector(), "tiny")
    return root


@pytest.fixture
def at_root(root, monkeypatch):
    """What is asked in this process is asked there."""
    monkeypatch.setenv("VAR_DIR", str(root))
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server(root):
    """A server over a detector, and what it was asked for."""
    server = Server(root, "models:/tiny@candidate")
    yield server
    server.stop()


@pytest.mark.slow
def test_files_over_http_are_answered_as_predict_answers_them(server, tmp_path, capsys, at_root):
    for i, image in enumerate(some_slices(5)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    check_alike(server, sorted(tmp_path.glob("*.png")), capsys)


@pytest.mark.slow
@pytest.mark.br35h
def test_real_files_over_http_are_answered_as_predict_answers_them(
    server, br35h_dir, capsys, at_root
):
    files = [
        sorted((br35h_dir / name).glob("*.jpg"))[i] for name in ("no", "yes") for i in range(6)
    ]
    check_alike(server, files, capsys)


@pytest.mark.slow
def test_the_example_in_a_models_files_is_answered(server, root):
    example = next(root.rglob("serving_input_example.json")).read_text()
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{server.base}/invocations", example, headers=headers, timeout=300)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["predictions"]) == 2


def check_alike(server, files, capsys):
    """To the last digit: a score does not depend on the way that an image comes."""
    answer = server.ask([base64.b64encode(file.read_bytes()).decode() for file in files])
    assert answer.status_code == 200 and answer.json()["note"] == NOTE
    capsys.readouterr()
    names = map(str, files)
    assert main(["predict", *names, "--model", "models:/tiny@candidate", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["predictions"]
    said = answer.json()["predictions"]
    assert [list(each) for each in said] == [["label", "score"]] * len(files)
    assert said == [{name: each[name] for name in ("label", "score")} for each in expected]


@pytest.mark.slow
def test_pixels_and_files_may_stand_in_one_call_whatever_their_sizes(server):
    images = some_slices(6)
    assert len({image.shape for image in images}) > 1
    mixed = [as_base64(image) if i % 2 else image.tolist() for i, image in enumerate(images)]
    said = server.ask(mixed).json()["predictions"]
    expected = tiny_detector().predict(images)
    assert [each["label"] for each in said] == expected.label.tolist()
    np.testing.assert_allclose([each["score"] for each in said], expected.score, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (["no base64!"], "Image 1: the text is not the base64 of an image file"),
        (["aGVsbG8="], "Image 1: the base64 text is of no image file (PNG, JPEG)"),
        ([np.zeros((9, 9), int).tolist()], "Image 1: the image holds one grey value (0)"),
        (np.eye(9, dtype=int).tolist(), "pass a single image as [image]"),
        ("text", "The images must be a list"),
    ],
)
def test_what_is_no_image_is_one_sentence_and_no_trace(server, inputs, words):
    answer = server.ask(inputs)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "note"} and words in answer.json()["error"]


@pytest.mark.slow
def test_a_request_that_is_not_json_is_one_sentence(server):
    url = f"{server.base}/invocations"
    plain = requests.post(url, data=b"pixels", timeout=30)
    assert plain.status_code == 415 and "application/json" in plain.json()["error"]
    broken = requests.post(
        url, data=b'{"inputs": [', headers={"Content-Type": "application/json"}, timeout=30
    )
    assert broken.status_code == 400 and "valid JSON" in broken.json()["error"]


@pytest.mark.slow
def test_callers_at_the_same_time_are_all_answered(server):
    images = [as_base64(image) for image in some_slices(4)]
    alone = server.ask(images).json()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(server.ask, [images] * 16))
    assert all(answer.json() == alone for answer in answers)


@pytest.mark.slow
def test_it_says_how_it_is_asked(server):
    said = "".join(server.said)
    assert f"{server.base}/invocations" in said and "base64 < slice.png" in said
    about = requests.get(server.base, timeout=30).json()
    assert about["model"] == "models:/tiny@candidate" and about["note"] == NOTE


@pytest.mark.slow
def test_a_server_that_is_stopped_leaves_no_process_a_free_port_and_no_copy(
    root, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = Server(root, "models:/tiny@candidate")
    assert list(tmp_path.glob("served-*/*/MLmodel"))
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert server.stop() == 0
    assert children and not [child for child in children if child.is_running()]
    assert not list(tmp_path.glob("served-*"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", server.port))


def test_a_port_in_use_is_said_with_the_next_one_to_try(at_root, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["serve", "--model", "models:/tiny@candidate", "--port", str(port)]) == 2
    assert f"Port {port} is in use" in capsys.readouterr().err


def test_an_unknown_model_is_said_with_the_cure(at_root, capsys):
    assert main(["serve", "--port", str(free_port())]) == 2
    said = capsys.readouterr().err
    assert "tumor-detector" in said and "make promote STUDY=" in said


def test_a_generator_is_refused(root, at_root, capsys):
    model = write_registered(root, tiny_detector(), "maker", flavour=makes(), loader="grey:load")
    assert main(["serve", "--model", model, "--port", str(free_port())]) == 2
    assert f"{model} does not tell tumours in images" in capsys.readouterr().err


def test_a_path_is_no_model(at_root, capsys):
    assert main(["serve", "--model", "/tmp/model"]) == 2
    assert "MODEL must be models:/" in capsys.readouterr().err


def test_a_files_base64_is_the_image_in_it():
    image = some_slices(1)[0]
    for text in (as_base64(image), f"data:image/png;base64,{as_base64(image)}"):
        (decoded,) = as_images([text])
        assert isinstance(decoded, Image.Image) and np.array_equal(to_gray(decoded), image)


def test_a_damaged_file_is_said_with_its_number():
    image = some_slices(1)[0]
    with pytest.raises(ValueError, match=r"Image 2: the base64 text holds no image .*truncated"):
        as_images([as_base64(image), as_base64(image)[:2000]])


@pytest.mark.parametrize("pixels", [[[0.5, 1], [1, 1]], [[256, 0], [0, 0]], [[-1, 0], [0, 0]]])
def test_pixels_are_whole_numbers_that_fit_a_byte(pixels):
    with pytest.raises(ValueError, match="Image 1: pixels must be whole numbers from 0 to 255"):
        as_images([pixels])
    (kept,) = as_images([[[0, 255], [1, 2]]])
    assert kept.dtype == np.uint8 and kept.tolist() == [[0, 255], [1, 2]]


def test_arrays_are_passed_on_as_they_are():
    images = some_slices(2)
    assert all(a is b for a, b in zip(as_images(images), images, strict=True))


def test_of_what_mlflow_says_the_models_own_sentence_is_kept():
    trace = "Traceback (most recent call last):\n  File x\nValueError: Image 1: it is small\n"
    body = json.dumps({"message": "Encountered an unexpected error", "stack_trace": trace})
    assert sentence(body.encode()) == "Image 1: it is small"
    long = json.dumps({"message": f"Failed to predict data '{'x' * 9999}'. \nError: it is odd"})
    assert sentence(long.encode()) == "it is odd"
    assert len(sentence(b"x" * 9999)) < 400


def patch_features() -> Predictor:
    """The slowest that users would promote; it remembers noise, which takes as long."""
    spec, cpu = DetectorSpec("patch_features"), torch.device("cpu")
    mapper = spec.build().eval()
    features = torch.randn(260, 152, 8, 8, generator=torch.Generator().manual_seed(0))
    mapper.network.learn(features, torch.arange(130).repeat(2))
    maps = map_images(mapper, framed(some_slices(8), "head"), device=cpu)
    return Predictor("head", spec, mapper, MapScore("p99", 0.5).fit(maps), cpu)


SINGLE, BATCH = 0.1, 15 / 1125  # seconds an image: alone, and in a batch of 1125
CROWDED = 6  # times as long, where other programs share the processor


@pytest.mark.slow
def test_an_image_takes_less_than_a_tenth_of_a_second_and_in_a_batch_less(tmp_path):
    server = Server(tmp_path, write_registered(tmp_path, patch_features(), "patches"))
    try:
        images = [as_base64(image) for image in some_slices(64)]
        server.ask(images[:1])
        single = min(_seconds(server, images[:1]) for _ in range(5))
        batch = _seconds(server, images)
    finally:
        server.stop()
    assert single < CROWDED * SINGLE
    assert batch / 64 < CROWDED * BATCH


def _seconds(server, inputs) -> float:
    began = time.perf_counter()
    assert server.ask(inputs).status_code == 200
    return time.perf_counter() - began
