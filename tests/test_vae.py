"""VAE: its loss, its prior, and that it learns to make what it has seen."""

import numpy as np
import pytest
import torch
from torch import nn

from models.vae import LOSSES, PRIORS, CodePrior, build, flip, laplacian_distance

SMALL = {"image_size": 32, "base_channels": 8, "latent_dim": 8, "lr": 3e-3, "kl_weight": 0.001}


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slices(n: int = 4) -> torch.Tensor:
    """Bright squares of n sizes on black: float (n, 1, 128, 128)."""
    x = torch.zeros(n, 1, 128, 128)
    for i in range(n):
        x[i, :, 30 - 4 * i : 90 + 4 * i, 30 - 4 * i : 90 + 4 * i] = 0.5 + 0.1 * i
    return x


def gray(**hyperparameters) -> nn.Module:
    """A VAE whose every image is 0.5."""
    module = build(**SMALL | hyperparameters)
    nn.init.zeros_(module.decoder[-1].weight)
    nn.init.zeros_(module.decoder[-1].bias)
    return module.eval()


def two_clusters(n: int = 400) -> torch.Tensor:
    """Codes (n, 2) of two long narrow clusters, of a quarter and three quarters of them."""
    rng = torch.Generator().manual_seed(0)
    codes = torch.randn(n, 2, generator=rng) * torch.tensor([2.0, 0.1])
    codes[: n // 4, 1] += 30
    return codes


def test_the_paper_s_network_is_the_default():
    network = build()
    convolutions = [layer for layer in network.encoder if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256, 512, 512, 1024]
    upwards = [layer for layer in network.decoder if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in upwards] == [512, 512, 256, 128, 64, 1]
    assert network.to_mu.in_features == 1024 * 2 * 2
    assert network.latent_dim == network.to_mu.out_features == 512
    (group,) = network.optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.5, 0.999), 1e-5)


def test_the_paper_s_loss_is_summed_cross_entropy_and_the_divergence():
    module, x = gray(loss="bce", kl_weight=2.0), torch.zeros(3, 1, 32, 32)
    for layer in (module.to_mu, module.to_logvar):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.constant_(module.to_mu.bias, 3.0)
    losses = module.eval_step(x)
    assert losses["reconstruction"].item() == pytest.approx(32 * 32 * np.log(2))
    assert losses["kl"].item() == pytest.approx(8 * 3.0**2 / 2)
    assert losses["loss"].item() == pytest.approx(32 * 32 * np.log(2) + 2 * 36)


def test_the_divergence_s_weight_rises_over_the_warm_up():
    module = build(**SMALL, kl_warmup=4)
    warmth = []
    for epoch in range(1, 7):
        module.begin_epoch(epoch, 6)
        warmth.append(module.warmth)
    assert warmth == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_without_a_warm_up_the_divergence_counts_from_the_start():
    module = build(**SMALL)
    module.begin_epoch(1, 10)
    assert module.warmth == 1.0


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("prior", PRIORS)
def test_images_are_made_at_full_size(image_size, prior):
    module = build(**SMALL | {"image_size": image_size, "prior": prior}).eval()
    x = module.generate(module.sample_latent(2, noise()))
    assert x.shape == (2, 1, 128, 128)
    assert 0 <= x.min() <= x.max() <= 1
    assert module.reconstruct(slices(2)).shape == (2, 1, 128, 128)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_teaches_to_reconstruct(loss):
    torch.manual_seed(0)
    module, x = build(**SMALL | {"loss": loss, "lr": 1e-2}), slices()
    for _ in range(60):
        module.train_step(x)
    module.eval()
    assert (module.reconstruct(x) - x).abs().mean() < 0.08
    assert (gray().reconstruct(x) - x).abs().mean() > 0.2


def test_codes_of_equal_images_are_equal_and_reconstruction_draws_no_random_numbers():
    module, x = build(**SMALL).eval(), slices()
    state = torch.get_rng_state()
    assert torch.equal(module.encode(x), module.encode(x))
    assert torch.equal(module.eval_step(x)["loss"], module.eval_step(x)["loss"])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_pyramid_s_distance_of_a_flat_difference_is_its_area():
    assert laplacian_distance(torch.full((2, 1, 32, 32), 0.25)).item() == pytest.approx(
        8 * 2 * 4 * 4 * 0.25
    )


def test_the_pyramid_s_distance_sees_a_pattern_that_coarser_levels_lose():
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)[None, None]
    assert laplacian_distance(checks).item() == pytest.approx(32 * 32)


def test_flips_turn_whole_images_over_their_axes():
    torch.manual_seed(0)
    x = torch.arange(4.0).reshape(1, 1, 2, 2).repeat(200, 1, 1, 1)
    seen = {tuple(image.flatten().tolist()) for image in flip(x)}
    assert seen == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}


def test_a_normal_prior_draws_standard_normal_codes():
    codes = CodePrior("normal", 3).sample(20000, noise())
    assert codes.mean(dim=0).abs().max() < 0.05
    assert (codes.T.cov() - torch.eye(3)).abs().max() < 0.05


def test_a_prior_that_is_not_fitted_yet_is_standard_normal():
    codes = CodePrior("mixture", 3).sample(20000, noise())
    assert (codes.T.cov() - torch.eye(3)).abs().max() < 0.05


def test_a_gaussian_prior_draws_with_the_codes_mean_and_covariance():
    prior, codes = CodePrior("gaussian", 2), two_clusters()
    prior.fit(codes)
    drawn = prior.sample(50000, noise())
    assert (drawn.mean(dim=0) - codes.mean(dim=0)).abs().max() < 0.2
    assert ((drawn.T.cov() - codes.T.cov()).abs() < 3).all()


def test_a_mixture_prior_draws_from_the_clusters_and_not_from_between():
    prior = CodePrior("mixture", 2)
    prior.fit(two_clusters())
    height = prior.sample(4000, noise())[:, 1]
    assert (height > 29).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert ((height > 2) & (height < 28)).sum() == 0


def test_a_mixture_of_fewer_codes_than_components_is_fitted():
    prior, codes = CodePrior("mixture", 2), 10 * two_clusters(4)
    prior.fit(codes)
    drawn = prior.sample(100, noise())
    assert torch.cdist(drawn, codes).min(dim=1).values.max() < 15
    assert prior.weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
def test_what_is_drawn_after_learning_lies_where_the_codes_are(prior):
    torch.manual_seed(0)
    module, x = build(**SMALL | {"prior": prior}).eval(), slices(16)
    module.to_mu.bias.data += 50
    module.learn_prior(x.split(8))
    assert (module.sample_latent(64, noise()).mean() - 50).abs() < 5


def test_a_fitted_prior_is_kept_with_the_weights():
    fitted, fresh = (build(**SMALL | {"prior": "mixture"}).eval() for _ in range(2))
    fitted.learn_prior([slices(16)])
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fitted.sample_latent(5, noise()), fresh.sample_latent(5, noise()))


def test_equal_noise_draws_equal_codes():
    module = build(**SMALL | {"prior": "mixture"}).eval()
    module.learn_prior([slices(16)])
    assert torch.equal(module.sample_latent(9, noise(1)), module.sample_latent(9, noise(1)))
    assert not torch.equal(module.sample_latent(9, noise(1)), module.sample_latent(9, noise(2)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", 0),
        ("base_channels", 0),
        ("lr", 0.0),
        ("kl_weight", -0.1),
        ("kl_warmup", -1),
        ("loss", "l2"),
        ("prior", "uniform"),
        ("augmentation", "light"),
        ("image_size", 96),
    ],
)
def test_a_hyperparameter_out_of_its_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        build(**{name: value})
