"""A training that a signal stops goes on from its last epoch, to the same weights."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from models import brain_cnn, brain_cvae, synthetic_lesions
from training import loop
from training.resumption import Resumption

CPU = torch.device("cpu")
BUILDS = {
    "brain_cvae": (partial(brain_cvae.build, latent_dim=4), False),
    "synthetic_lesions": (synthetic_lesions.build, False),
    "brain_cnn": (partial(brain_cnn.build, variant="small", image_size=32), True),
    "brain_cnn on a plateau": (
        partial(brain_cnn.build, variant="small", image_size=32, lr_schedule="plateau"),
        True,
    ),
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 255, (8, 128, 128), dtype=np.uint8)


def train(build, images, labelled, *, resumption=None, stop_after=None):
    """Three epochs, or a Ctrl-C in the one after `stop_after`."""
    torch.manual_seed(0)
    module, heard = build(), []
    labels = np.arange(8) % 2 if labelled else None

    def on_epoch(epoch, metrics):
        heard.append(epoch)
        if stop_after and epoch == stop_after + 1:
            raise KeyboardInterrupt

    told = {"train_labels": labels, "val_labels": labels} if labelled else {}
    training = loop.fit(
        module,
        images,
        images[:4] if not labelled else images,
        n_epochs=3,
        batch_size=4,
        patience=3,
        seed=1,
        device=CPU,
        precision="fp32",
        on_epoch=on_epoch,
        resumption=resumption,
        **told,
    )
    return module, training, heard


def losses(training):
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in training.history]


@pytest.mark.parametrize("name", BUILDS)
def test_a_training_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    name, images, tmp_path
):
    build, labelled = BUILDS[name]
    whole, expected, _ = train(build, images, labelled)
    resumption = Resumption(tmp_path / "key.interrupted")
    with pytest.raises(KeyboardInterrupt):
        train(build, images, labelled, resumption=resumption, stop_after=1)
    again, training, heard = train(build, images, labelled, resumption=resumption)
    assert heard == [1, 2, 3]
    assert losses(training) == losses(expected)
    assert training.best_epoch == expected.best_epoch
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_what_was_kept_and_cannot_be_read_is_left_aside(images, tmp_path):
    build, _ = BUILDS["brain_cvae"]
    resumption = Resumption(tmp_path / "key.interrupted")
    with pytest.raises(KeyboardInterrupt):
        train(build, images, False, resumption=resumption, stop_after=1)
    assert len(json.loads((resumption.folder / "rest.json").read_text())["history"]) == 1
    file = resumption.folder / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    _, training, heard = train(build, images, False, resumption=resumption)
    assert len(training.history) == 3 and heard == [1, 2, 3]
