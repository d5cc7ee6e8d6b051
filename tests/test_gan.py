"""GAN: who learns what in a step, what its options change, and that it learns what it sees."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.gan import augment, build

SMALL = {"image_size": 32, "base_channels": 8, "latent_dim": 8}


def slices(n: int = 16) -> torch.Tensor:
    """Bright squares of several sizes on black: float (n, 1, 128, 128)."""
    x = torch.zeros(n, 1, 128, 128)
    for i in range(n):
        x[i, :, 50 - 2 * i : 70 + 2 * i, 50 - 2 * i : 70 + 2 * i] = 0.9
    return x


def likeness(module: nn.Module, x: torch.Tensor) -> float:
    """Cosine between the mean of what is made and the mean of what is seen."""
    module.eval()
    made = module.generate(module.sample_latent(32, torch.Generator().manual_seed(0)))
    module.train()
    return F.cosine_similarity(made.mean(0).flatten(), x.mean(0).flatten(), dim=0).item()


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().clone() for value in module.parameters()])


def of_logits(real: float, fake: float, **hyperparameters) -> nn.Module:
    """A GAN whose discriminator says `real` of bright images and `fake` of dark ones."""
    module = build(**SMALL | hyperparameters)

    class Bright(nn.Module):
        def forward(self, x):
            is_bright = (x.mean(dim=(1, 2, 3)) > 0.5).float()[:, None]
            return is_bright * real + (1 - is_bright) * fake

    module.discriminator = Bright()
    return module


def test_the_paper_s_networks_are_the_default():
    module = build()
    made = [layer for layer in module.generator if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in made] == [128, 64, 32, 1]
    assert (module.generator[0].in_features, module.generator[0].out_features) == (100, 128 * 8 * 8)
    judged = [layer for layer in module.discriminator if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in judged] == [64, 128, 256, 512]
    assert {layer.kernel_size for layer in judged} == {(4, 4)}
    for optimizer in (module.generator_optimizer, module.discriminator_optimizer):
        assert optimizer.param_groups[0]["lr"] == 2e-4
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("weight_average", [0.0, 0.9])
def test_images_are_made_at_full_size_in_the_range_of_the_data(image_size, weight_average):
    module = build(**SMALL | {"image_size": image_size, "weight_average": weight_average}).eval()
    x = module.generate(100 * module.sample_latent(4, torch.Generator().manual_seed(0)))
    assert x.shape == (4, 1, 128, 128)
    assert 0 <= x.min() < 0.5 < x.max() <= 1  # a tanh on images in [0, 1] would go below


def test_a_step_moves_both_networks():
    module = build(**SMALL)
    before = [weights(network) for network in (module.generator, module.discriminator)]
    module.train_step(slices())
    after = [weights(network) for network in (module.generator, module.discriminator)]
    assert all((new != old).any() for new, old in zip(after, before, strict=True))


def test_each_optimizer_has_one_network_alone():
    module = build(**SMALL, spectral_norm=True)
    for optimizer, network in (
        (module.generator_optimizer, module.generator),
        (module.discriminator_optimizer, module.discriminator),
    ):
        held = {id(value) for group in optimizer.param_groups for value in group["params"]}
        assert held == {id(value) for value in network.parameters()}


def test_the_discriminator_takes_as_many_steps_as_asked_for():
    module = build(**SMALL, n_discriminator_steps=3)
    module.train_step(slices())
    assert all(s["step"] == 3 for s in module.discriminator_optimizer.state.values())
    assert all(s["step"] == 1 for s in module.generator_optimizer.state.values())


def test_the_losses_are_those_of_the_non_saturating_game():
    module = of_logits(real=2.0, fake=-1.0)
    losses = module.judged(torch.ones(3, 1, 32, 32), torch.zeros(3, 1, 32, 32))
    by_hand = np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))
    assert losses["loss_discriminator"].item() == pytest.approx(by_hand)
    assert losses["accuracy_discriminator"].item() == 1.0


def test_smoothed_labels_ask_less_of_real_images_and_nothing_else_of_made_ones():
    module = of_logits(real=2.0, fake=-1.0, label_smoothing=0.1)
    losses = module.judged(torch.ones(3, 1, 32, 32), torch.zeros(3, 1, 32, 32))
    real = 0.9 * np.log1p(np.exp(-2.0)) + 0.1 * np.log1p(np.exp(2.0))
    assert losses["loss_discriminator"].item() == pytest.approx(real + np.log1p(np.exp(-1.0)))


def test_the_share_of_held_out_images_that_seem_real_is_told():
    module = of_logits(real=2.0, fake=-1.0)
    x = torch.cat([torch.ones(3, 1, 32, 32), torch.zeros(1, 1, 32, 32)])
    measured = module.eval_step(x)
    assert measured["real_share"].item() == 0.75
    mean = (3 * np.log1p(np.exp(-2.0)) + np.log1p(np.exp(1.0))) / 4
    assert measured["loss_real"].item() == pytest.approx(mean)


def test_spectral_normalisation_bounds_every_layer_of_the_discriminator():
    torch.manual_seed(0)
    module = build(**SMALL, spectral_norm=True)
    for layer in module.discriminator:
        if hasattr(layer, "weight"):
            with torch.no_grad():
                layer.parametrizations.weight.original.mul_(50)
                for _ in range(50):  # each look at the weight in training refines the estimate
                    layer.weight  # noqa: B018
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2) < 1.1


def test_the_average_of_the_weights_lags_behind_and_makes_the_images():
    module = build(**SMALL, weight_average=0.9)
    first = copy.deepcopy(module.generator.state_dict())
    module.train_step(slices())
    after_one = weights(module.average)
    assert torch.equal(after_one, weights(module.generator))  # the average begins with one step
    module.train_step(slices())
    expected = 0.9 * after_one + 0.1 * weights(module.generator)
    assert torch.allclose(weights(module.average), expected, atol=1e-6)
    module.eval()
    z = module.sample_latent(2, torch.Generator().manual_seed(0))
    made = module.generate(z)
    module.generator.load_state_dict(first)
    assert torch.equal(module.generate(z), made)


def test_the_light_augmentation_shifts_and_brightens_whole_images():
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 32, 32)
    x[:, :, 12:20, 12:20] = 0.5
    seen = augment(x)
    assert seen.shape == x.shape
    bright = seen - seen[:, :, :1, :1]
    rows = (bright.amax(dim=(1, 3)) > 0.4).float().argmax(dim=1)
    columns = (bright.amax(dim=(1, 2)) > 0.4).float().argmax(dim=1)
    assert rows.min() == columns.min() == 8 and rows.max() == columns.max() == 16
    assert ((bright > 0.4).sum(dim=(1, 2, 3)) == 64).all()
    change = seen.amax(dim=(1, 2, 3)) - 0.5
    assert -0.1 <= change.min() < -0.08 and 0.08 < change.max() <= 0.1


def test_the_light_augmentation_lets_the_generator_learn_through_it():
    x = torch.rand(4, 1, 32, 32, requires_grad=True)
    augment(x).sum().backward()
    assert (x.grad[:, :, 8:24, 8:24] == 1).all()


def test_made_images_come_to_resemble_what_is_seen():
    torch.manual_seed(0)
    module, x = build(**SMALL, lr_generator=2e-3, lr_discriminator=2e-3), slices()
    before = likeness(module, x)
    small = F.avg_pool2d(x, 4)  # as the network sees them, so that steps are short
    for _ in range(60):
        module.train_step(small)
    assert before < 0.7 < 0.8 < likeness(module, x)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", 0),
        ("base_channels", 3),
        ("lr_generator", 0.0),
        ("lr_discriminator", 0.0),
        ("beta1", 1.0),
        ("label_smoothing", 0.5),
        ("n_discriminator_steps", 0),
        ("weight_average", 1.0),
        ("augmentation", "flips"),
        ("image_size", 96),
    ],
)
def test_a_hyperparameter_out_of_its_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        build(**{name: value})


@pytest.mark.parametrize("n", [1, 2])
def test_the_generator_learns_from_the_images_that_were_judged_last(n):
    module, made = build(**SMALL, n_discriminator_steps=n), []
    module.generator.register_forward_hook(lambda *seen: made.append(seen[-1]))
    module.train_step(slices())
    assert len(made) == n


def test_in_half_precision_every_step_sees_the_weights_as_they_are():
    def trained(**cached) -> torch.Tensor:
        torch.manual_seed(0)
        module = build(**SMALL, n_discriminator_steps=2)
        with torch.autocast("cpu", torch.bfloat16, **cached):
            module.train_step(slices(4))
        return weights(module.discriminator)

    assert torch.equal(trained(), trained(cache_enabled=False))
