"""From two searches to a champion, as a user types it: study, compare, promote, roll back."""

import pytest

from mlflow_server import local_uri
from mlflow_server.registry import find_version
from studies.__main__ import main
from studies.settings import CHAMPION
from training.data import phantom

pytestmark = pytest.mark.slow

GOOD, POOR = "map_score-slices-patch_features-detector", "giaem-slices-patch_features-detector"
# so few groups of tumours show little: the gate's default needs 35 even if all are found
FEW = ["--recall-floor", "0.5"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A small phantom in a folder of the user's."""
    folder = tmp_path_factory.mktemp("data") / "slices"
    phantom.write(folder, n_images=240, n_groups=120)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("var")


@pytest.fixture(scope="module")
def command(root):
    """Runs `python -m studies …` in this process, below one folder for the whole module."""

    def call(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VAR_DIR", str(root))
            for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME"):
                patch.delenv(name, raising=False)
            return main(list(arguments))

    return call


@pytest.fixture(scope="module")
def studies(command, images):
    """Two studies over one detector's maps; the first has the better head for them."""
    over = ["--detector", "patch_features", "--data", str(images), "--trials"]
    assert command("run", "map_score", *over, "6") == 0
    assert command("run", "giaem", *over, "2") == 0


def champion(root):
    return find_version(local_uri(root), CHAMPION)


def test_two_studies_become_a_champion_and_its_history(studies, command, root, capsys):
    assert command("promote", GOOD, *FEW) == 0
    first = champion(root)
    assert first.tags["promoted_from"] == f"models:/{GOOD}/1"

    capsys.readouterr()
    assert command("promote", POOR, *FEW) == 1
    assert "its F2 is better than the champion's" in capsys.readouterr().out
    assert champion(root) == first

    assert command("promote", POOR, *FEW, "--force", "to see what it does") == 0
    assert champion(root).tags["promoted_from"] == f"models:/{POOR}/1"
    assert command("rollback", "--why", "it was worse") == 0
    assert champion(root).number == first.number

    capsys.readouterr()
    assert command("history") == 0
    told = capsys.readouterr().out
    for line in (
        f"models:/{GOOD}/1 was promoted to champion",
        f"models:/{POOR}/1 was refused as champion",
        f"models:/{POOR}/1 was forced to champion",
        "champion was rolled back to models:/tumor-detector/1",
        "why: to see what it does",
    ):
        assert line in told
