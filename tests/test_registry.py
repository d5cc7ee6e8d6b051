"""A model's whole way: from a folder to a run, to a version, to answers in another process."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_server import Tracking, TrackingError, local_artifacts, local_uri
from mlflow_server.registry import digest_files, load_model, log_model, makes, register, tells

# A predictor in the shape of ours: brighter on average than the number in its folder is a tumour.
BRIGHTNESS = """
from pathlib import Path
import numpy as np
import pandas as pd

class Brightness:
    def __init__(self, limit):
        self.limit = limit

    def predict(self, images):
        score = np.array([image.mean() - self.limit for image in images])
        return pd.DataFrame({"label": (score >= 0).astype(np.int64), "score": score})

def load(folder):
    return Brightness(float((Path(folder) / "limit.txt").read_text()))
"""

# A generator in the shape of ours: slices of one grey value, brighter with a tumour.
GREY = """
import numpy as np

class Grey:
    def generate(self, labels, seeds):
        values = 2 * seeds + 100 * labels
        return np.stack([np.full((128, 128), value, np.uint8) for value in values])

def load(folder):
    return Grey()
"""

DARK, BRIGHT = np.full((4, 6), 10, np.uint8), np.full((5, 3), 200, np.uint8)

IN_A_FRESH_PROCESS = """
import sys, mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/brightness@candidate")
batch = np.stack([np.full((4, 6), 10, np.uint8), np.full((4, 6), 200, np.uint8)])
answer = model.predict(batch)
assert list(answer.columns) == ["label", "score"], answer
assert answer.label.tolist() == [0, 1], answer
assert answer.score.tolist() == [-90.0, 100.0], answer
ragged = [np.full((4, 6), 10, np.uint8), np.full((5, 3), 200, np.uint8)]
assert model.predict(ragged).label.tolist() == [0, 1]
colour = np.stack([batch] * 3, axis=-1)
assert model.predict(colour).label.tolist() == [0, 1]
over_http = [image.tolist() for image in ragged]
assert model.predict(over_http).label.tolist() == [0, 1]
import brightness
assert "code" in brightness.__file__, brightness.__file__
print("answered")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def uri(root):
    return local_uri(root)


@pytest.fixture(scope="module")
def tracking(root, uri):
    return Tracking(uri, local_artifacts(root))


@pytest.fixture(scope="module")
def client(uri, tracking):
    return MlflowClient(uri, registry_uri=uri)


@pytest.fixture
def run_id(tracking, request):
    experiment = tracking.experiments.open(request.node.name, note="", tags={})
    return tracking.open_study(experiment, "giaem", params={"limit": 100}, tags={}, datasets=[])


@pytest.fixture(scope="module")
def brightness(root):
    """The packages to ship, and the folder that the entry point loads."""
    (root / "brightness").mkdir()
    (root / "brightness" / "__init__.py").write_text(BRIGHTNESS)
    (root / "weights").mkdir()
    (root / "weights" / "limit.txt").write_text("100")
    return root


def log(uri, run_id, brightness, **changed):
    return log_model(
        uri,
        run_id,
        brightness / "weights",
        **{
            "name": "brightness",
            "loader": "brightness:load",
            "code_paths": [brightness / "brightness"],
            "flavour": tells(),
            "pip_requirements": ["numpy", "pandas"],
            "metadata": {"data": "phantom"},
            **changed,
        },
    )


def test_a_registered_model_answers_in_another_process_without_pickle(
    uri, run_id, brightness, tmp_path
):
    model_uri = log(uri, run_id, brightness)
    register(uri, model_uri, "brightness", tags={"study": "giaem"}, description="mean grey value")
    ran = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, uri],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "answered"
    files = MlflowClient(uri).get_logged_model(model_uri.removeprefix("models:/"))
    folder = Path(files.artifact_location.removeprefix("file://"))
    assert not [file for file in folder.rglob("*") if file.suffix in (".pkl", ".pickle")]


def test_a_logged_model_says_what_it_takes_and_gives(uri, run_id, brightness, monkeypatch):
    monkeypatch.syspath_prepend(str(brightness))
    info = load_model(uri, log(uri, run_id, brightness)).metadata
    assert [(t.type, t.shape) for t in info.signature.inputs] == [(np.uint8, (-1, -1, -1))]
    assert info.signature.outputs.input_names() == ["label", "score"]
    assert info.saved_input_example_info is not None
    assert info.metadata["data"] == "phantom"


def test_logging_a_model_leaves_the_run_and_the_active_run_alone(uri, client, run_id, brightness):
    before = client.get_run(run_id)
    model_uri = log(uri, run_id, brightness)
    after = client.get_run(run_id)
    assert mlflow.active_run() is None
    assert (after.info.status, after.data.params) == ("RUNNING", before.data.params)
    assert [f"models:/{m.model_id}" for m in after.outputs.model_outputs] == [model_uri]


def test_a_run_s_model_is_logged_once(uri, run_id, brightness):
    assert log(uri, run_id, brightness) == log(uri, run_id, brightness)


def test_a_model_that_could_not_be_written_is_not_taken_for_one(uri, client, run_id, brightness):
    with pytest.raises(TrackingError, match="Logging the model brightness"):
        log(uri, run_id, brightness, code_paths=[brightness / "gone"])
    model_uri = log(uri, run_id, brightness)
    assert client.get_logged_model(model_uri.removeprefix("models:/")).status == "READY"


def test_a_model_keeps_its_version_and_takes_the_alias_back(
    uri, client, tracking, run_id, brightness
):
    described = {"tags": {"study": "giaem", "trial": "3"}, "description": "the winner"}
    first = log(uri, run_id, brightness)
    version = register(uri, first, "twice", **described)
    assert register(uri, first, "twice", **described) == version
    other_run = tracking.open_study(
        client.get_run(run_id).info.experiment_id, "dbscan", params={}, tags={}, datasets=[]
    )
    second = register(uri, log(uri, other_run, brightness), "twice", **described)
    assert int(second) == int(version) + 1
    assert client.get_model_version_by_alias("twice", "candidate").version == second
    register(uri, first, "twice", **described)
    candidate = client.get_model_version_by_alias("twice", "candidate")
    assert candidate.version == version
    assert candidate.run_id == run_id
    assert candidate.tags.items() >= described["tags"].items()
    assert candidate.description == "the winner"


def files_of(uri, model_uri):
    """Where the files of a logged model lie."""
    model = MlflowClient(uri).get_logged_model(model_uri.removeprefix("models:/"))
    return Path(model.artifact_location.removeprefix("file://"))


def test_a_version_holds_the_digest_of_its_files(uri, client, run_id, brightness):
    model_uri = log(uri, run_id, brightness)
    version = register(uri, model_uri, "digested", tags={}, description="")
    assert client.get_model_version("digested", version).tags["sha256"] == digest_files(
        files_of(uri, model_uri)
    )


def test_a_version_without_a_digest_is_not_loaded_until_it_is_registered_again(
    uri, client, run_id, brightness, monkeypatch
):
    monkeypatch.syspath_prepend(str(brightness))
    model_uri = log(uri, run_id, brightness)
    version = register(uri, model_uri, "old", tags={}, description="")
    client.delete_model_version_tag("old", version, "sha256")
    client.delete_logged_model_tag(model_uri.removeprefix("models:/"), "sha256")
    with pytest.raises(TrackingError, match="models:/old@candidate has no digest of its files"):
        load_model(uri, "models:/old@candidate")
    register(uri, model_uri, "old", tags={}, description="")
    assert load_model(uri, "models:/old@candidate").predict([BRIGHT]).label.tolist() == [1]


@pytest.mark.parametrize("address", ["models:/tampered@candidate", "the logged model"])
def test_a_model_whose_files_were_changed_is_refused(uri, run_id, brightness, monkeypatch, address):
    monkeypatch.syspath_prepend(str(brightness))
    model_uri = log(uri, run_id, brightness)
    register(uri, model_uri, "tampered", tags={}, description="")
    address = address if "@" in address else model_uri
    (limit,) = files_of(uri, model_uri).rglob("limit.txt")
    before = limit.read_text()
    limit.write_text("250")
    with pytest.raises(TrackingError, match="are not those that were logged"):
        load_model(uri, address)
    limit.write_text(before)
    assert load_model(uri, address).predict([BRIGHT]).label.tolist() == [1]


def test_a_file_that_was_slipped_into_a_model_is_refused(uri, run_id, brightness):
    model_uri = log(uri, run_id, brightness)
    (files_of(uri, model_uri) / "code" / "numpy.py").write_text("raise SystemExit('taken over')")
    with pytest.raises(TrackingError, match="are not those that were logged"):
        load_model(uri, model_uri)


def test_what_loading_unpacks_is_gone_with_the_model(uri, run_id, brightness, monkeypatch):
    monkeypatch.syspath_prepend(str(brightness))
    before = set(Path(gettempdir()).glob("model-*"))
    model = load_model(uri, log(uri, run_id, brightness))
    assert len(set(Path(gettempdir()).glob("model-*")) - before) == 1
    del model
    gc.collect()
    assert set(Path(gettempdir()).glob("model-*")) <= before


def test_loading_refuses_pickle_and_leaves_the_setting_as_it_was(
    uri, client, run_id, tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", raising=False)
    pickled = tmp_path / "pickled"
    mlflow.pyfunc.save_model(pickled, python_model=Pickled(), pip_requirements=["numpy"])
    assert (pickled / "python_model.pkl").exists()
    experiment = client.get_run(run_id).info.experiment_id
    made = client.create_logged_model(experiment, name="pickled", source_run_id=run_id)
    client.log_model_artifacts(made.model_id, str(pickled))
    client.set_logged_model_tags(made.model_id, {"sha256": digest_files(pickled)})
    client.finalize_logged_model(made.model_id, "READY")
    with pytest.raises(TrackingError, match="pickle"):
        load_model(uri, f"models:/{made.model_id}")
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" not in os.environ


def test_a_model_loaded_here_answers(uri, run_id, brightness, monkeypatch):
    monkeypatch.syspath_prepend(str(brightness))
    model = load_model(uri, log(uri, run_id, brightness))
    assert model.predict([DARK, BRIGHT]).label.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"pass a single image as \[image\]"):
        model.predict(DARK)


class Pickled(mlflow.pyfunc.PythonModel):
    """Saved as an object, not as code: what must not be loaded."""

    def predict(self, context, model_input: np.ndarray, params=None):
        return model_input


def test_a_registered_generator_makes_a_slice_a_row(uri, run_id, brightness):
    (brightness / "grey").mkdir()
    (brightness / "grey" / "__init__.py").write_text(GREY)
    changed = {"name": "grey", "loader": "grey:load", "code_paths": [brightness / "grey"]}
    model_uri = log(uri, run_id, brightness, flavour=makes(), **changed)
    asked = pd.DataFrame({"label": [0, 1], "seed": [3, 4]})
    made = load_model(uri, model_uri).predict(asked)
    assert made.shape == (2, 128, 128) and made.dtype == np.uint8
    assert made[:, 0, 0].tolist() == [6, 108]
