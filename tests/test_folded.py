"""A network with its batch norms folded in answers, and learns, as its layers do."""

import pytest
import torch

from models import backbones, brain_cnn
from models.folded import fold_block
from models.patch_features import build
from training.loop import seeded

pytestmark = pytest.mark.skipif(
    not backbones.is_installed(backbones.LITE), reason="efficientnet_lite0 is not installed"
)


@pytest.fixture(scope="module")
def backbone():
    return backbones.build_backbone(backbones.LITE)


@pytest.fixture(scope="module")
def slices():
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def layer_by_layer(backbone, x):
    """The features as the package's own layers have them."""
    lite = backbone.network
    x = lite.stem(backbone.as_photograph(x))
    depths = []
    for number, block in enumerate(lite.blocks):
        x = block(x)
        if number in (lite.SHALLOW, lite.DEEP):
            depths.append(torch.nn.functional.adaptive_avg_pool2d(x, backbones.GRID))
    return torch.cat(depths, dim=1)


@torch.no_grad()
def test_folded_features_are_those_of_the_layers(backbone, slices):
    expected = layer_by_layer(backbone, slices)
    off = (backbone(slices) - expected).abs().max() / expected.abs().max()
    assert off < 1e-5


@torch.no_grad()
def test_weights_that_are_loaded_later_count(slices):
    backbone = backbones.build_backbone(backbones.LITE)
    before = backbone(slices)
    changed = {name: value * 1.1 for name, value in backbone.state_dict().items() if value.ndim}
    backbone.load_state_dict(backbone.state_dict() | changed)
    assert not torch.allclose(backbone(slices), before, rtol=1e-2)
    torch.testing.assert_close(
        backbone(slices), layer_by_layer(backbone, slices), rtol=1e-4, atol=1e-3
    )


@torch.no_grad()
def test_another_precision_is_that_of_the_features(slices):
    backbone = backbones.build_backbone(backbones.LITE)
    backbone(slices)
    assert backbone.double()(slices.double()).dtype == torch.float64


def test_folding_adds_no_weights_to_those_that_are_kept(backbone, slices):
    before = set(backbone.state_dict())
    backbone(slices)
    assert set(backbone.state_dict()) == before


def test_a_memory_that_is_learned_anew_or_loaded_is_the_one_compared_with():
    detector, groups = build(image_size=64), torch.arange(4)
    first, second = torch.rand(2, 4, 152, 8, 8, generator=torch.Generator().manual_seed(0))
    size = torch.Size((16, 16))
    detector.learn(first, groups)
    kept = {name: value.clone() for name, value in detector.state_dict().items()}
    to_first = detector.compare(second, size)
    detector.learn(second, groups)
    assert detector.compare(second, size).max() < 0.1 * to_first.max()
    detector.load_state_dict(kept)
    torch.testing.assert_close(detector.compare(second, size), to_first)


@pytest.fixture
def trained():
    with seeded(0, torch.device("cpu")):
        return brain_cnn.build(**brain_cnn.PRETRAINED).network.train()


def gradients(network, maps):
    network.zero_grad()
    maps.float().square().mean().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_blocks_that_are_trained_learn_as_their_layers_do(trained, slices):
    maps, expected = trained.convolutions(slices), slices
    found = gradients(trained, maps)
    for layer in trained.convolutions:
        expected = layer(expected)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)
    by_layer = gradients(trained, expected)
    assert found.keys() == by_layer.keys()
    assert any(name.endswith("_bn0.weight") for name in found)  # the norms learn too
    for name, gradient in by_layer.items():
        assert (found[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-9


def test_depthwise_convolutions_that_are_trained_stay_in_full_precision(trained, slices):
    _, (_, *shallow), deep = trained.convolutions
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [
            fold_block(block).convolutions[-2](torch.zeros(1, channels, 8, 8)).dtype
            for block, channels in ((shallow[-1], 240), (deep[1], 480))
        ]
    assert outputs == [torch.bfloat16, torch.float32]
