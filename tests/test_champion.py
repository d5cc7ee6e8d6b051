"""From two searches to a champion, as a user types it: study, compare, promote, roll back."""

import os
import re
import socket
import subprocess
import sys
from itertools import takewhile
from shutil import which

import pytest

from mlflow_server import local_uri
from mlflow_server.registry import find_version
from studies.__main__ import main
from studies.settings import CHAMPION
from training.data import phantom

pytestmark = pytest.mark.slow

GOOD, POOR = "map_score-slices-patch_features-detector", "giaem-slices-patch_features-detector"
ELSEWHERE = ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME")
# so few groups of tumours show little: the gate's default needs 35 even if all are found
FEW = ["--recall-floor", "0.5"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
            for name in ELSEWHERE:
                patch.delenv(name, raising=False)
            return main(list(arguments))

    return call


@pytest.fixture(scope="module")
def studies(command, images):
    """Two studies over one detector's maps; the first has the better head for them."""
    over = ["--detector", "patch_features", "--data", str(images), "--trials"]
    assert command("run", "map_score", *over, "6") == 0
    assert command("run", "giaem", *over, "2") == 0


@pytest.fixture(scope="module")
def browse(studies, root, tmp_path_factory):
    """Opens a page of `make ui` in a browser, and returns its text once it shows what it must."""
    browser = which("chromium") or which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium to open the pages with")
    surroundings = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    port, profile = free_port(), tmp_path_factory.mktemp("profile")
    server = subprocess.Popen(
        [sys.executable, "-m", "studies", "ui", "--port", str(port)],
        env=surroundings | {"VAR_DIR": str(root), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    links = list(takewhile(lambda line: "giaem" not in line, server.stdout))
    assert any("compared" in line for line in links), f"it has ended: {links}"

    def open_page(page, until):
        url = page if page.startswith("http") else f"http://127.0.0.1:{port}/#{page}"
        headless = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=3000,1400"]
        patience = ["--virtual-time-budget=20000", "--timeout=20000", "--dump-dom"]
        for _ in range(4):
            ran = subprocess.run(
                [browser, *headless, *patience, f"--user-data-dir={profile}", url],
                capture_output=True,
                text=True,
                timeout=120,
            )
            if until in ran.stdout:
                return ran.stdout
        raise AssertionError(f"{url} does not show {until!r}")

    yield open_page, "".join(links)
    server.terminate()
    server.wait(timeout=60)


def champion(root):
    return find_version(local_uri(root), CHAMPION)


def test_two_studies_become_a_champion_and_its_history(studies, command, root, capsys):
    assert command("compare", f"{GOOD} {POOR}") == 0
    (page,) = (root / "reports").glob("compare-*.html")
    assert "Winners on test" in page.read_text(encoding="utf-8")

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


def test_the_best_trial_its_pictures_and_the_report_are_three_clicks_away(browse):
    open_page, _ = browse
    home = open_page("/experiments", "map_score (slices, patch_features detector)")
    (experiment,) = set(re.findall(r'#(/experiments/\d+)[^"]*"[^>]*>map_score', home))
    runs = open_page(f"{experiment}/runs?workflowType=machine_learning", "best trial")
    links = {
        name: url.replace("&amp;", "&").partition("#")[2]
        for url, name in re.findall(r'<a [^>]*href="([^"]+)"[^>]*>([^<]+)</a>', runs)
    }
    best = next(url for name, url in links.items() if name.startswith("best trial"))
    assert "threshold" in open_page(best, "Parameters")
    assert "validation_samples.jpg" in open_page(links["its pictures"], "validation_samples.jpg")
    assert "<iframe" in open_page(links["report"], 'class="mlflow-html-iframe"')


def test_the_runs_table_shows_trials_by_number_with_the_columns_that_matter(browse):
    open_page, printed = browse
    url = re.search(r"trials, best first (\S+)", printed).group(1)
    table = open_page(url, " map_score (slices")
    assert re.search(r"00\d map_score", table)
    for column in ("f2", "recall", "specificity", "auroc", "threshold"):
        assert f">{column}<" in table


def test_parallel_coordinates_open_on_the_best_trials(browse):
    open_page, printed = browse
    url = re.search(r"compared +(\S+)", printed).group(1)
    plot = open_page(url, "Parallel Coordinates Plot")
    assert "threshold" in plot and "statistic" in plot


def test_the_champion_s_page_shows_the_evidence(browse):
    open_page, _ = browse
    page = open_page("/models/tumor-detector/versions/1", "was promoted to champion")
    assert "recall is shown to be at least 0.5" in page
    assert "A research tool, not a medical device." in page
