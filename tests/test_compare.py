"""What a comparison says: which studies are meant, what may be claimed, how searches are drawn."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from compared import Made, add_study, answers, keep_on_disk, settings_of
from optuna.trial import TrialState

from studies.compare.comparison import assemble, file_stem
from studies.compare.comparison_page import write_page
from studies.compare.comparison_report import as_markdown, as_metrics, as_rows, claims
from studies.compare.contestants import read_contestants
from studies.compare.differences import Pair, agree, find_pairs, verdict
from studies.compare.disagreements import differing, worth_a_look
from studies.compare.names import choose, common_marks, shortened
from studies.compare.same_images import difference, find_test_sets, refuse_different
from studies.compare.searches import (
    distribution,
    parallel_coordinates,
    parameters,
    progress,
    shown_parameters,
)
from studies.figures import NOT_USED, NotPlottable
from studies.storage import open_storage
from studies.study import StudyError
from studies.worker import WORKER, this_worker
from training.floors import evaluate_scored
from training.paired import Difference

FILES = [f"{kind}/{i}.png" for kind in ("no", "yes") for i in range(20)]
TRUTH = np.array([-1.0] * 20 + [1.0] * 20)


def known(*names):
    """Specifications as far as names are chosen by them."""
    return {name: {"study": name.partition(" (")[0]} for name in names}


def test_a_word_is_a_slug_a_plain_name_or_a_pattern():
    there = known("giaem (phantom)", "dbscan (phantom)", "giaem (phantom, seed 1)")
    assert choose(["giaem-phantom", "dbscan"], there) == ["giaem (phantom)", "dbscan (phantom)"]
    both = ["giaem (phantom)", "giaem (phantom, seed 1)"]
    assert choose(["giaem*"], there) == both
    assert choose(["giaem-phantom", "giaem*"], there) == both


def test_the_study_without_brackets_is_meant_by_its_name_though_others_share_it():
    there = known("giaem", "giaem (phantom)", "dbscan")
    assert choose(["giaem", "dbscan"], there) == ["giaem", "dbscan"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "STUDIES must name two studies"),
        (["giaem"], "2 studies of 'giaem': name one of giaem-a, giaem-b, or all with 'giaem*'"),
        (["dbscan", "dbscan"], "names one study, dbscan-a"),
        (["dbscn", "giaem-a"], "no study 'dbscn'. The studies here are: dbscan-a, giaem-a"),
        (["gan", "giaem-a"], "'gan' was not run here: `make study STUDY=gan`"),
        (["x*"], "No study matches 'x*'"),
    ],
)
def test_a_word_that_means_nothing_or_too_much_is_refused_with_the_names_there_are(words, said):
    with pytest.raises(StudyError) as refused:
        choose(words, known("giaem (a)", "giaem (b)", "dbscan (a)"))
    assert said in str(refused.value)


def test_nothing_to_compare_says_what_makes_a_study():
    with pytest.raises(StudyError, match="make study"):
        choose(["giaem"], {})


def test_names_are_short_where_they_stay_apart():
    assert shortened(["a (x)", "a (x, seed 1)"]) == {"a (x)": "a", "a (x, seed 1)": "a (seed 1)"}
    assert shortened(["a (x)", "b"]) == {"a (x)": "a (x)", "b": "b"}
    assert common_marks(["a (x, y)", "b (y, x)", "c (x)"]) == ["x"]
    # a label may hold what the names are taken apart by
    assert shortened(["a (x, x)", "a (x)"]) == {"a (x, x)": "a (x, x)", "a (x)": "a (x)"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """An empty storage: to make its tables takes longer than a test."""
    root = tmp_path_factory.mktemp("empty")
    open_storage(settings_of(root).storage_url)
    return root / "optuna.db"


@pytest.fixture
def settings(tables, tmp_path):
    shutil.copy(tables, tmp_path)
    return settings_of(tmp_path)


def read(settings, *made):
    """These studies put into a storage, and read as a comparison does, without MLflow."""
    for one in made:
        add_study(one, settings)
    return read_contestants([one.name for one in made], settings, tracking=None)


def answered(settings, *pairs):
    """Studies whose trial 1, the best feasible one, has answered; read without MLflow."""
    for made, scores in pairs:
        keep_on_disk(made, 1, answers(FILES, scores), settings)
    return read(settings, *(made for made, _ in pairs))


def noisy(seed, spread):
    return TRUTH + np.random.default_rng(seed).normal(0, spread, 40)


def test_a_contestant_is_what_the_storage_and_the_kept_answers_say(settings):
    (one,) = answered(settings, (Made(), TRUTH))
    assert one.best.number == 1 and one.answered.trial == 1
    assert one.outcomes() == {"feasible": 2, "infeasible": 1}
    assert (one.seconds, one.looks, one.note()) == (6, 1, "")
    assert one.answered.scored.metrics["auroc"] == 1


def test_answers_are_sorted_by_file_so_that_rows_are_the_same_images(settings):
    shuffled = answers(FILES, TRUTH).sample(frac=1, random_state=0)
    keep_on_disk(Made(), 1, shuffled, settings)
    (one,) = read(settings, Made())
    assert one.answered.files == tuple(sorted(FILES))
    assert one.answered.scored.labels.tolist() == [0] * 20 + [1] * 20


def test_a_study_without_a_feasible_trial_says_so_and_has_no_answers(settings):
    (one,) = read(settings, Made(trials=((0.9, 0.2, 1),)))
    assert one.answered is None and "No trial keeps the constraints" in one.note()


def test_a_study_whose_answers_are_gone_says_how_they_come_back(settings):
    (one,) = read(settings, Made())
    assert "neither in MLflow nor on this disk" in one.note() and "make study" in one.note()


def test_a_trial_that_runs_is_told_of_and_one_of_a_dead_process_is_not(settings):
    dead = this_worker() | {"started": 0.0}
    search = add_study(Made(), settings)
    for worker in (this_worker(), dead):
        search.ask().set_user_attr(WORKER, worker)
    (one,) = read_contestants([Made().name], settings, tracking=None)
    assert one.running == 1 and one.note().startswith("A trial runs at this moment")


def test_other_data_other_files_and_other_preparation_are_told_apart(settings):
    base, seeded = Made(), Made(marks="seed 1", data={"seed": 1})
    other = Made(marks="br35h", data={"name": "br35h", "digest": "e" * 32})
    paper = Made(marks="paper", data={"preprocess": "paper", "digest": "f" * 32})
    changed = Made(marks="new", data={"digest": "0" * 32})
    read_ = read(settings, base, seeded, other, paper, changed)
    assert "seed 0; seed 1" in difference(read_[0], read_[1])
    assert difference(read_[0], read_[2]) == "one is of slices, the other of br35h"
    assert "PREPROCESS=head and paper" in difference(read_[0], read_[3])
    assert "has changed between them" in difference(read_[0], read_[4])
    assert difference(read_[0], read_[0]) is None


def test_different_test_files_are_refused_with_the_cure_and_make_sets_of_their_own(settings):
    keep_on_disk(Made(), 1, answers(FILES, TRUTH), settings)
    later = Made(marks="seed 1", data={"seed": 1})
    keep_on_disk(later, 1, answers(FILES[1:], TRUTH[1:]), settings)
    contestants = read(settings, Made(), later)
    with pytest.raises(StudyError, match=r"only 39 of 40 and 39 .*seed 0; seed 1.*ANYWAY=1"):
        refuse_different(contestants)
    assert [len(tests.files) for tests in find_test_sets(contestants)] == [40, 39]
    page = write_page(assemble(contestants, settings))
    assert "Not paired: <strong>giaem</strong> with <strong>giaem (seed 1)</strong>" in page


def scored(name, scores):
    labels = (TRUTH > 0).astype(int)
    return evaluate_scored(name, labels, np.arange(40) // 2, scores, (scores >= 0) * 1)


def pair_with(f2, auroc):
    """A pair of which the differences are known."""
    one, other = scored("a", TRUTH), scored("b", -TRUTH)
    return Pair(one, other, {"f2": f2, "auroc": auroc}, agree(one, other))


ABOVE, BELOW = Difference(0.2, 0.1, 0.3), Difference(-0.2, -0.3, -0.1)
OPEN = Difference(0.01, -0.1, 0.1)


@pytest.mark.parametrize(
    ("f2", "auroc", "broken", "said"),
    [
        (
            ABOVE,
            ABOVE,
            {},
            "**A** is clearly better than **B** in F2, by 0.200 (0.100 to 0.300) and in AUROC, by",
        ),
        (
            BELOW,
            OPEN,
            {},
            "**B** is clearly better than **A** in F2, by 0.200 (0.100 to 0.300); no",
        ),
        (
            OPEN,
            OPEN,
            {},
            "No difference shown between **A** and **B** in F2: +0.010 (-0.100 to +0.100), AUROC: ",
        ),
        (ABOVE, BELOW, {}, "Each is clearly ahead in one respect: **A** in F2"),
        (ABOVE, OPEN, {"a": "it cheats"}, "but cannot be called better: it cheats; no difference"),
        (ABOVE, OPEN, {"b": "it cheats"}, "**A** is clearly better than **B**"),
        (ABOVE, OPEN, {"a": "x", "b": "y"}, "**A** is clearly better than **B**"),
        (OPEN, ABOVE, {"a": "it cheats"}, "**A** is clearly better than **B** in AUROC"),
    ],
)
def test_a_pair_is_called_what_its_intervals_show(f2, auroc, broken, said):
    assert said in verdict(pair_with(f2, auroc), {"a": "A", "b": "B"}, broken)


def test_agreement_counts_who_is_right_where():
    always, truth = scored("a", np.ones(40)), scored("b", TRUTH)
    assert agree(always, truth) == (20, 0, 20, 0)
    assert agree(always, scored("c", -np.ones(40))) == (0, 20, 20, 0)


def test_the_differences_of_a_pair_are_those_of_its_metrics(settings):
    contestants = answered(settings, (Made(), noisy(0, 0.3)), (Made("dbscan"), noisy(1, 3)))
    ((tests),) = find_test_sets(contestants)
    (pair,) = find_pairs(tests)
    one, other = (contestant.answered.scored.metrics["auroc"] for contestant in contestants)
    assert pair.differences["auroc"].value == pytest.approx(one - other)
    assert pair.differences["auroc"].is_better


def test_images_are_in_dispute_where_answers_differ_the_surest_first(settings):
    sure, unsure = TRUTH.copy(), TRUTH.copy()
    sure[[5, 30]] *= -9  # wrong, and surest of all
    unsure[10] *= -0.01  # wrong, and least sure
    contestants = answered(settings, (Made(), sure), (Made("dbscan"), unsure))
    (tests,) = find_test_sets(contestants)
    table = differing(tests)
    named = [FILES[i] for i in (5, 30, 10)]
    assert set(table["file"][:2]) == set(named[:2]) and table["file"][2] == named[2]
    assert table["giaem"].tolist()[2] == 0 and table["dbscan"].tolist()[2] == 1


def test_an_image_that_splits_the_winners_evenly_stands_before_a_lone_dissent(settings):
    first, second = TRUTH.copy(), TRUTH.copy()
    first[[5, 30]] *= -9
    second[30] *= -0.01
    four = [(Made(marks=f"label {i}"), scores) for i, scores in enumerate((first, second))]
    four += [(Made("dbscan"), TRUTH), (Made("map_score"), TRUTH)]
    (tests,) = find_test_sets(answered(settings, *four))
    assert differing(tests)["file"].tolist() == [FILES[30], FILES[5]]


def test_one_image_of_a_group_is_shown_and_both_classes_get_room():
    table = pd.DataFrame(
        {"file": list("abcdefg"), "label": [1, 1, 1, 1, 1, 0, 0], "group": [0, 0, 1, 2, 3, 4, 5]}
    )
    assert worth_a_look(table, n=4)["file"].tolist() == ["a", "c", "f", "g"]
    assert worth_a_look(table[table.label == 1], n=3)["file"].tolist() == ["a", "c", "d"]
    assert worth_a_look(table, n=100)["file"].tolist() == ["a", "c", "d", "e", "f", "g"]


def test_progress_counts_all_trials_and_only_feasible_ones_win(settings):
    (one,) = read(
        settings, Made(trials=((0.9, 0.1, 3), (0.2, 0.9, 2), (0.1, 0.9, 1), (0.6, 0.5, 4)))
    )
    table = progress(one)
    assert table["trials"].tolist() == [1, 2, 3, 4]
    assert table["seconds"].tolist() == [3, 5, 6, 10]
    assert np.isnan(table["best"][0]) and table["best"].tolist()[1:] == [0.2, 0.2, 0.6]


def test_progress_of_a_distance_goes_down(settings):
    made = Made(metric="kid", direction="minimize", trials=((0.5, 1, 1), (0.7, 1, 1), (0.2, 1, 1)))
    assert progress(*read(settings, made))["best"].tolist() == [0.5, 0.5, 0.2]


def test_shared_parameters_stand_first_and_are_searched_over_the_widest_range(settings):
    contestants = read(settings, Made(), Made("dbscan"), Made("map_score"))
    names = [searched.name for searched in parameters(contestants)]
    assert names == ["tumor_index", "anomaly_threshold", "eps", "statistic"]
    assert [searched.studies for searched in parameters(contestants)][:2] == [[0, 1], [0]]
    eps = parameters(contestants)[2].distribution
    assert eps.log and (eps.low, eps.high) == (1e-3, 0.1)


def test_trials_of_a_study_that_lacks_a_parameter_pass_below_its_axis(settings):
    contestants = read(settings, Made(), Made("dbscan"))
    lines = parallel_coordinates(contestants, ["giaem", "dbscan"]).data[0]
    axes = {axis.label: axis for axis in lines.dimensions}
    assert list(axes)[:3] == ["study", "ended", "f2"]
    eps, study = np.array(axes["eps"]["values"]), np.array(lines.line.color)
    assert len(eps) == 6 and axes["eps"].ticktext[0] == NOT_USED
    assert (eps[study == 0] == axes["eps"].tickvals[0]).all()
    assert (eps[study == 1] > axes["eps"].tickvals[0]).all()
    assert NOT_USED not in (axes["tumor_index"].ticktext or ())


def test_names_and_numbers_under_one_name_have_an_axis_each(settings):
    contestants = read(settings, Made(), Made("image_kmeans"))
    lines = parallel_coordinates(contestants, ["giaem", "image_kmeans"]).data[0]
    numbers, names = (axis for axis in lines.dimensions if axis.label == "tumor_index")
    assert list(names.ticktext) == [NOT_USED, "few", "many"]
    for axis, lacking in ((numbers, 1), (names, 0)):
        below = np.array(axis["values"]) == axis.tickvals[0]
        assert (below == (np.array(lines.line.color) == lacking)).all()


def test_infeasible_pruned_and_failed_trials_are_drawn_but_not_lit(settings):
    made = Made(states=(TrialState.FAIL,))
    contestants = read(settings, made, Made("dbscan"))
    lines = parallel_coordinates(contestants, ["giaem", "dbscan"]).data[0]
    ended = next(axis for axis in lines.dimensions if axis.label == "ended")
    assert list(ended.ticktext) == ["failed", "infeasible", "feasible"]
    low, high = ended.constraintrange
    assert sum(low <= value <= high for value in ended["values"]) == 4
    assert len(ended["values"]) == 7


def test_studies_of_different_objectives_have_an_axis_and_curves_each(settings):
    other = Made("dbscan", metric="map_auroc")
    contestants = read(settings, Made(), other)
    lines = parallel_coordinates(contestants, ["a", "b"]).data[0]
    labels = [axis.label for axis in lines.dimensions]
    assert labels[:4] == ["study", "ended", "f2", "map_auroc"]
    page = write_page(assemble(contestants, settings))
    assert "Best f2 so far, over trials" in page and "Best map_auroc so far, over trials" in page
    assert "different objectives" in page


def test_what_no_feasible_trial_has_is_a_sentence(settings):
    contestants = read(settings, Made(trials=((0.9, 0, 1),)), Made("dbscan", trials=()))
    with pytest.raises(NotPlottable, match="No trial of these studies keeps"):
        distribution({one.name: (one, "red") for one in contestants})
    page = write_page(assemble(contestants, settings))
    assert "No trial of these studies keeps the constraints." in page


def test_parameters_of_studies_that_tried_nothing_have_no_axis(settings):
    contestants = read(settings, Made(), Made("dbscan", trials=()))
    assert [each.name for each in shown_parameters(contestants)] == [
        "tumor_index",
        "anomaly_threshold",
    ]


@pytest.fixture
def three(settings):
    """Two studies that answer alike, and one that flags everyone."""
    return answered(
        settings,
        (Made(), noisy(0, 0.4)),
        (Made("dbscan"), noisy(1, 0.4)),
        (Made("map_score"), np.ones(40)),
    )


def test_a_winner_that_flags_everyone_is_not_called_better(three, settings):
    words = as_markdown(assemble(three, settings))
    assert "**map_score**: its specificity on test, 0.000, is below the 0.5" in words
    assert "**map_score** is clearly better" not in words


def test_the_rows_hold_winners_and_differences_with_bounds(three, settings):
    comparison = assemble(three, settings)
    rows = as_rows(comparison).set_index(["is", "of", "minus", "metric"])
    one, other = (three[i].answered.scored for i in (0, 2))
    assert rows.loc[("winner", "giaem", "", "f2"), "value"] == one.metrics["f2"]
    difference_ = rows.loc[("difference", "giaem", "map_score", "f2")]
    assert difference_.value == pytest.approx(one.metrics["f2"] - other.metrics["f2"])
    assert difference_.low <= difference_.value <= difference_.high
    metrics = as_metrics(comparison)
    assert metrics["f2/giaem"] == one.metrics["f2"]
    assert metrics["f2_low/giaem - map_score"] == difference_.low


def test_many_pairs_are_summed_up_a_study_and_told_in_full_below(settings):
    pairs = [(Made(marks=f"label {i}"), noisy(i, 0.4)) for i in range(4)]
    contestants = answered(settings, *pairs, (Made("map_score"), -TRUTH))
    comparison = assemble(contestants, settings)
    said = claims(comparison)
    assert len(said) == 5
    assert said[-1].startswith("**map_score** (which misses a constraint) in F2: clearly behind")
    page = write_page(comparison)
    assert page.count("No difference shown between") + page.count("clearly better than") == 10


def test_the_files_of_a_comparison_are_named_alike_in_any_order_and_never_too_long(settings):
    contestants = read(settings, Made(), Made("dbscan"), Made(marks="x" * 200))
    comparison = assemble(contestants, settings)
    turned = replace(comparison, contestants=contestants[::-1])
    assert file_stem(comparison) == file_stem(turned) and len(file_stem(comparison)) <= 120
    two = assemble(contestants[:2], settings)
    assert file_stem(two) == "compare-dbscan-giaem"


def test_names_are_text_on_the_page(settings):
    made = Made(marks="<b>bold</b>")
    page = write_page(assemble(read(settings, made, Made("dbscan")), settings))
    assert "<b>bold" not in page.replace("\\u003cb\\u003ebold", "")
    assert "&lt;b&gt;bold" in page


def test_images_that_are_not_at_hand_are_named(three, settings):
    page = write_page(assemble(three, settings))
    assert "The images (slices, digest dddd" in page and "make study" in page
    assert "no/1.png" in page
