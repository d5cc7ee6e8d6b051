"""A chosen configuration fitted anew on a control's data, and its answers on that test split.

Owns how a study's surroundings are moved onto a control; what a control is, is training.controls'.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from models.error_mapper import ErrorMapper, Flip
from studies.session import Session
from studies.space import Params
from studies.study import Lab, News
from training import controls
from training.cache import code_digest, make_key
from training.controls import permuted_labels, silhouettes
from training.data import Dataset, split, store
from training.features import FeatureStore
from training.floors import Scored, evaluate_scored


@dataclass(frozen=True)
class SameImages(FeatureStore):
    """The features of a data set that differs from another in its labels alone: that one's."""

    original: FeatureStore = field(kw_only=True)

    def of(
        self, mapper: ErrorMapper, extraction: str, indices: np.ndarray, flip: Flip
    ) -> torch.Tensor:
        return self.original.of(mapper, extraction, indices, flip)


def answer_permuted(session: Session, params: Params) -> Scored:
    """Under labels that say nothing; the permutation is the seed's."""
    original = session.lab.store
    dataset = permuted_labels(original.dataset, session.lab.seed)
    features = SameImages(dataset, original.cache, original.device, original.say, original=original)
    return _answer("permuted_labels", session, features, params)


def answer_silhouettes(session: Session, params: Params) -> Scored:
    """On the heads' outlines, which are made once for all splits."""
    dataset, cache = session.lab.dataset, session.lab.cache
    key = make_key(silhouettes=dataset.digest, code=code_digest(controls))
    folder = cache.get_or_make(key, lambda folder: store.save(silhouettes(dataset), folder))
    features = FeatureStore(store.read(folder), cache, session.lab.device, session.lab.store.say)
    return _answer("silhouettes", session, features, params)


CONTROLS: dict[str, Callable[[Session, Params], Scored]] = {
    "permuted_labels": answer_permuted,
    "silhouettes": answer_silhouettes,
}


def _answer(name: str, session: Session, features: FeatureStore, params: Params) -> Scored:
    lab = _moved(session, features)
    candidate = session.study.fit(params, lab, News())
    return evaluate_scored(name, *candidate.answers(lab, "test"))


def _moved(session: Session, features: FeatureStore) -> Lab:
    """The study's surroundings on a control's data, split anew: labels decide on splits."""
    dataset: Dataset = features.dataset
    lab = session.lab
    return Lab(
        store=features,
        splits=split(
            dataset.labels,
            dataset.groups,
            protocol=session.settings.split,
            scheme=session.study.scheme,
            seed=lab.seed,
        ),
        precision=lab.precision,
        seed=lab.seed,
        detector=lab.detector,
    )
