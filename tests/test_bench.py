"""`make bench`: equal results before any time, both sides by turns, what is missed is said."""

import csv
import json
import time

import numpy as np
import pytest

from studies.bench import plain_heads
from studies.bench.end_to_end import Outcome, Searches, StudyEffort, disagreement, study_ratios
from studies.bench.growth import growth
from studies.bench.heads import HeadEffort, head_ratios, same_clusters
from studies.bench.maps import MapSet
from studies.bench.page import Bench, amount, as_markdown, write, write_between_marks
from studies.bench.ratio import Ratio, by_turns, measure
from studies.bench.record import Limit, grown, room
from studies.study import StudyError

TINY = HeadEffort(rounds=1, giaem_thresholds=2, images=3, dbscan_images=4)


def ratio(times=12.0, at_least=10.0, fault=""):
    return Ratio("heads", "a head", "a loop", 1.2, 1.2 / times, "s", times, at_least, 0.4, fault)


@pytest.fixture(scope="module")
def maps():
    """Twelve maps of 32 x 32, rough, half of them with a bright corner."""
    random = np.random.default_rng(0)
    values = 0.5 * random.random((12, 32, 32))
    values[::2, :12, :12] += 0.4
    return MapSet("rough", values.astype(np.float32), np.tile([1, 0], 6))


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_both_sides_are_run_by_turns_and_the_median_of_their_ratios_is_taken():
    order = []

    def work(side, seconds):
        order.append(side)
        busy(seconds.pop())

    timing = by_turns(
        lambda peer=[0.04, 0.06, 0.02]: work("peer", peer),
        lambda ours=[0.02, 0.01, 0.01]: work("ours", ours),
        rounds=3,
    )
    assert order == ["peer", "ours"] * 3
    assert timing.peer == pytest.approx(0.04, rel=0.3)
    assert timing.ratio == pytest.approx(2, rel=0.3)  # of 2, 6 and 2


def test_a_peer_that_did_a_part_of_the_work_is_scaled():
    found = measure(
        "heads",
        "",
        "",
        lambda: busy(0.02),
        lambda: busy(0.02),
        rounds=1,
        at_least=None,
        of_peer=0.1,
    )
    assert found.peer == pytest.approx(0.2, rel=0.3)
    assert found.ratio == pytest.approx(10, rel=0.3)


def test_a_ratio_is_kept_from_what_is_stated_on_and_only_where_results_are_alike():
    assert ratio(10.0).kept and not ratio(9.99).kept
    assert ratio(0.1, at_least=None).kept
    assert not ratio(100.0, fault="the labels differ").kept
    assert ratio(9.0).sentence() == "a head: 9.0 times, stated are at least 10."
    assert ratio(fault="the labels differ").sentence() == "a head: the labels differ."


def test_every_head_is_held_to_scikit_learn_on_each_kind_of_maps(maps):
    smooth = MapSet("smooth", maps.values / 2, maps.labels)
    found = list(head_ratios([maps, smooth], TINY))
    assert [one.fault for one in found] == [""] * len(found)
    named = " ".join(one.what for one in found)
    for words in ("GIAEM", "Global KMeans", "per-image KMeans", "DBSCAN at eps 0.05", "smooth"):
        assert words in named
    assert all(one.peer > 0 and one.ours > 0 for one in found)


def test_clusters_at_another_setting_are_not_the_same(maps):
    fitted = plain_heads.dbscan(maps.values, 0.1, 8)
    assert same_clusters(maps.values, fitted, 0.1, 8)
    assert not same_clusters(maps.values, fitted, 0.1, 9)
    assert not same_clusters(maps.values, fitted, 0.08, 8)


def test_searches_with_other_best_values_are_a_fault(maps):
    peer = Outcome(30.0, 20.0, starts=[0.0, 2.0, 4.0], end=6.0, best_value=0.75)
    ours = Outcome(3.0, 4.0, starts=[0.0, 1.0, 1.1], end=1.2, best_value=0.75 + 1e-12)
    effort = StudyEffort(n_trials=3, rounds=1, stated_whole=None)
    trial, trials, whole, processor = study_ratios([Searches(peer, ours)], maps, effort)
    assert trial.ratio == pytest.approx(20) and trial.kept  # without the first trial
    assert trials.ratio == pytest.approx(5) and trials.at_least is None
    assert whole.ratio == 10 and processor.ratio == 5
    other = ours._replace(best_value=0.7501)
    assert "0.7501 and not 0.75" in disagreement(Searches(peer, other))
    assert not study_ratios([Searches(peer, other)], maps, effort)[0].kept


def test_room_is_that_of_files_once_without_what_the_cache_holds(tmp_path):
    folder, cache = tmp_path / "one", tmp_path / "cache"
    folder.mkdir()
    cache.mkdir()
    (cache / "weights").write_bytes(bytes(1000))
    (folder / "cache").symlink_to(cache)
    (folder / "weights").hardlink_to(cache / "weights")
    (folder / "database").write_bytes(bytes(70))
    (folder / "again").hardlink_to(folder / "database")
    assert room(folder) == 70


def test_the_last_trials_are_held_against_the_hundredth():
    starts = [float(second) for second in range(500)] + [500 + 2.0 * k for k in range(500)]
    assert grown(Outcome(0.0, 0.0, starts, starts[-1] + 2, 0.5)) == 2


def test_costs_are_measured_at_three_sizes(maps):
    outcome = Outcome(9.0, 9.0, [float(second) for second in range(30)], 30.0, 0.5)
    found = list(growth(maps, outcome))
    assert {one.of for one in found} == {"images", "pixels", "trials before"}
    assert all(len(one.sizes) == len(one.seconds) == 3 for one in found)
    assert found[-1].seconds == (1.0, 1.0, 1.0)


def test_the_page_shows_each_ratio_and_what_is_missed(tmp_path):
    bench = Bench("two cores", [ratio(), ratio(8.0)], [Limit("room", 61.0, "MB", 60)], [])
    text = write(bench, tmp_path).read_text()
    assert "two cores; load 0.4 to 0.4." in text
    assert "| a head; against a loop | 1.2 s | 100.0 ms | 12.0 | ≥ 10 |" in text
    assert "8.0, **missed**" in text
    assert "| room | 61 MB, **missed** | ≤ 60 MB |" in text
    assert [one.sentence() for one in bench.missed][1] == "room: 61 MB, stated are at most 60."
    with (tmp_path / "bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kept"] for row in rows] == ["True", "False"]
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert [one["ratio"] for one in kept["ratios"]] == [12.0, 8.0]


def test_amounts_have_a_unit_that_suits_them():
    assert amount(0.0123, "s") == "12.3 ms"
    assert amount(1.5, "s") == "1.5 s"
    assert amount(0.0002, "s") == "0.20 ms"
    assert amount(123.4, "images/s") == "123 images/s"


def test_the_tables_replace_what_is_between_the_marks_of_a_file(tmp_path):
    file = tmp_path / "README.md"
    file.write_text(
        "above\n<!-- make bench: from here -->\nold\n<!-- make bench: to here -->\nbelow\n"
    )
    bench = Bench("two cores", [ratio()], [], [])
    for _ in range(2):
        write_between_marks(bench, file)
    text = file.read_text()
    assert text.startswith("above\n<!-- make bench: from here -->\n")
    assert text.endswith("<!-- make bench: to here -->\nbelow\n")
    assert as_markdown(bench) in text and "old" not in text


def test_a_file_without_the_marks_is_refused(tmp_path):
    (tmp_path / "a.md").write_text("nothing")
    with pytest.raises(StudyError, match=r"a\.md has no place for the tables"):
        write_between_marks(Bench("", [], [], []), tmp_path / "a.md")
