"""What may be claimed of a study repeated over splits, and what not: rules, put into words.

It reads means and intervals and computes none. Every sentence follows from numbers by a rule that
its function states.
"""

from dataclasses import dataclass

from studies.summary import DISCLAIMER
from training.over_splits import Repeated

ENOUGH_SPLITS = 5
CHANCE = 0.5


@dataclass(frozen=True)
class Grounds:
    """What the claims are about."""

    method: Repeated
    rivals: list[Repeated]  # floors and confounds
    controls: list[Repeated]
    data: str
    protocol: str
    n_groups: tuple[int, int]  # of near-copies: healthy, tumour
    looks: list[int]  # a split


def write_claims(grounds: Grounds) -> list[str]:
    """The sentences, each Markdown of its own: what holds first, then what does not."""
    sentences = [
        say_level(grounds),
        *say_rivals(grounds),
        *[say_control(control, grounds.method) for control in grounds.controls],
        *say_limits(grounds),
    ]
    return [*sentences, f"*{DISCLAIMER}*"]


def say_level(grounds: Grounds) -> str:
    """It tells tumours from health if the whole interval of the mean AUROC is above chance."""
    method = grounds.method
    low, high = method.interval("auroc")
    values = method.values("auroc")
    text = (
        f"AUROC {method.mean('auroc'):.3f} (95 % interval {low:.3f} to {high:.3f}) as the mean of "
        f"{len(values)} splits, from {values.min():.3f} to {values.max():.3f}; two-class F1 "
        f"{method.mean('macro_f1'):.3f}, specificity {method.mean('specificity_at_95_recall'):.3f} "
        "at 95 % recall"
    )
    if low > CHANCE:
        return f"**It ranks tumours above healthy slices**: {text}."
    return f"**It is not shown to tell anything**: {text}; 0.5 is chance."


def say_rivals(grounds: Grounds) -> list[str]:
    """A rival is beaten if the AUROC is higher in every split and the paired lead is above 0."""
    beaten = [rival for rival in grounds.rivals if _is_beaten(grounds.method, rival)]
    others = [rival for rival in grounds.rivals if rival not in beaten]
    sentences = []
    if beaten:
        nearest = max(beaten, key=lambda rival: rival.mean("auroc"))
        low, high = grounds.method.lead(nearest, "auroc")
        names = "every floor and confound"
        if others:
            names = ", ".join(f"`{rival.name}`" for rival in beaten)
        sentences.append(
            f"**It beats {names} in every split** (AUROC), the nearest of them, "
            f"`{nearest.name}`, by {low:.3f} to {high:.3f}."
        )
    return sentences + [_not_beaten(grounds.method, rival) for rival in others]


def say_control(control: Repeated, method: Repeated) -> str:
    """A control is at chance if 0.5 lies inside the interval of its mean AUROC."""
    low, high = control.interval("auroc")
    text = (
        f"with {CONTROL_WORDS.get(control.name, control.name)} the AUROC is "
        f"{control.mean('auroc'):.3f} ({low:.3f} to {high:.3f})"
    )
    if low <= CHANCE <= high:
        return f"**The control `{control.name}` is at chance**: {text}, and 0.5 lies inside."
    if high < CHANCE:
        return (
            f"**The control `{control.name}` is not at chance** but below it: {text}. What it "
            "ranks the wrong way round, the detector may see too."
        )
    if method.lead(control, "auroc")[0] > 0:
        rest = "The detector is above it, but part of its AUROC may come from there."
    else:
        rest = "The detector is not above it: its AUROC may come from there alone."
    return f"**The control `{control.name}` is not at chance**: {text}. {rest}"


def say_limits(grounds: Grounds) -> list[str]:
    """What these numbers cannot show, whatever they are."""
    n = len(grounds.method.answers)
    sentences = []
    if n < ENOUGH_SPLITS:
        sentences.append(
            f"**{n} {'split is' if n == 1 else 'splits are'} few**: at least {ENOUGH_SPLITS} show "
            "what another training set changes. Ask for more with SPLITS."
        )
    if grounds.protocol == "paper":
        sentences.append(
            "**The paper's split leaks**: copies of test images are trained and tuned on, so "
            "nothing here says anything of new patients."
        )
    if grounds.data == "phantom":
        sentences.append("**The images are drawn by a program**: nothing here is about patients.")
    if max(grounds.looks) > 1:
        sentences.append(
            f"**Test splits were looked at up to {max(grounds.looks)} times**, as searches went "
            "on after they had been scored."
        )
    healthy, tumor = grounds.n_groups
    source = "One public data set" if grounds.data == "br35h" else "One data set"
    sentences.append(
        f"**Not to be claimed**: how it does elsewhere. {source} (`{grounds.data}`) with "
        f"{healthy} groups of healthy near-copies and {tumor} with a tumour is all it was tried "
        "on; groups are found by likeness, and whether two of them are one patient is not known. "
        "The splits share images, so their spread is no standard error."
    )
    return sentences


CONTROL_WORDS = {
    "permuted_labels": "labels permuted over whole groups",
    "silhouettes": "the outlines of the heads alone",
}


def _is_beaten(method: Repeated, rival: Repeated) -> bool:
    return _n_higher(method, rival) == len(method.answers) and method.lead(rival, "auroc")[0] > 0


def _n_higher(method: Repeated, rival: Repeated) -> int:
    return int((method.values("auroc") > rival.values("auroc")).sum())


def _not_beaten(method: Repeated, rival: Repeated) -> str:
    low, high = method.lead(rival, "auroc")
    return (
        f"**It is not shown to beat `{rival.name}`**: its AUROC is higher in "
        f"{_n_higher(method, rival)} of {len(method.answers)} splits, by {low:.3f} to {high:.3f}."
    )
