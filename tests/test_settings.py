from pathlib import Path
from types import SimpleNamespace

import pytest

from studies.settings import Settings, check_settings, full_name, slug
from studies.study import StudyError, find_study

BR35H, PHANTOM = SimpleNamespace(name="br35h"), SimpleNamespace(name="phantom")


def settings(**changes):
    return Settings(root=Path("var"), storage_url="", tracking_uri="", **changes)


def test_a_study_with_every_default_has_its_own_name():
    assert full_name(find_study("giaem"), BR35H, settings()) == "giaem"


@pytest.mark.parametrize(
    ("dataset", "changes", "name"),
    [
        (PHANTOM, {}, "giaem (phantom)"),
        (BR35H, {"split": "paper"}, "giaem (paper split)"),
        (BR35H, {"seed": 3, "label": "mine"}, "giaem (seed 3, mine)"),
        (PHANTOM, {"detector": "search"}, "giaem (phantom, searched detector)"),
        (BR35H, {"preprocess": "paper"}, "giaem (paper preprocessing)"),
    ],
)
def test_whatever_is_not_the_default_sets_a_study_apart(dataset, changes, name):
    assert full_name(find_study("giaem"), dataset, settings(**changes)) == name


def test_a_slug_is_a_name_for_folders_and_models():
    assert slug("global_kmeans (phantom, seed 3)") == "global_kmeans-phantom-seed-3"


def test_a_detectors_own_study_takes_no_detector():
    with pytest.raises(StudyError, match="Leave DETECTOR out"):
        check_settings(find_study("brain_cvae"), settings(detector="search"))
