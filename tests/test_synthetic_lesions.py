"""Synthetic lesions: where they are painted, what repeats, and that outlining them is learned."""

import pytest
import torch

from models.synthetic_lesions import build, distort, paint_lesions

SIDE = 64


def heads(n: int = 8, gray: float = 0.4) -> torch.Tensor:
    """Discs of one gray value on black, float (n, 1, 64, 64)."""
    position = torch.arange(SIDE) + 0.5 - SIDE / 2
    disc = (position[:, None].hypot(position) < 26).float()
    return gray * disc.expand(n, 1, SIDE, SIDE).clone()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def painted(n: int = 64, rate: float = 1.0, max_radius: float = 0.2):
    x = heads(n)
    return x, *paint_lesions(x, rate=rate, max_radius=max_radius, generator=generator())


def test_lesions_lie_inside_the_head():
    x, _, lesions = painted()
    assert lesions.max() > 0.9
    assert lesions[..., :2, :].max() == 0  # farther from the head than its closing reaches
    assert (lesions * (x == 0)).sum() < 0.05 * lesions.sum()


def test_an_image_without_a_lesion_keeps_its_pixels_up_to_grain():
    x, y, lesions = painted(rate=1e-9)
    assert lesions.max() == 0
    assert 0 < (y - x).abs().max() < 0.04 * 6


def test_lesions_too_faint_to_be_seen_are_not_outlined():
    without = painted()[2].amax(dim=(1, 2, 3)) == 0
    assert 0 < without.sum() < 40


def test_a_rate_below_one_leaves_that_share_of_images_healthy():
    shares = [
        (painted(400, rate)[2].amax(dim=(1, 2, 3)) > 0).float().mean().item() for rate in (0.2, 1)
    ]
    assert shares[0] == pytest.approx(0.2 * shares[1], abs=0.06)


def test_where_a_lesion_is_outlined_the_image_has_changed():
    x, y, lesions = painted()
    inside = lesions > 0.5
    change = ((y - x).abs() * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3)).clamp_min(1)
    assert change[inside.any(dim=-1).any(dim=-1).flatten()].min() > 0.03


def test_max_radius_bounds_the_size_of_lesions():
    small, large = (painted(200, max_radius=r)[2].sum(dim=(1, 2, 3)).max() for r in (0.05, 0.4))
    assert small < 3.14 * (0.05 * SIDE * 1.8) ** 2 < large


def test_painting_repeats_with_its_generator_and_draws_nothing_else():
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(painted(), painted(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_image_without_a_head_can_be_painted():
    y, lesions = paint_lesions(torch.zeros(4, 1, SIDE, SIDE), rate=1.0, max_radius=0.2)
    assert y.isfinite().all()
    assert lesions.max() == 0


def test_distorted_slices_stay_in_range_and_keep_the_head_in_the_image():
    y = distort(heads(32), generator())
    assert y.min() >= 0
    assert y.max() <= 1
    area = (y > 0.1).float().mean(dim=(1, 2, 3)) / (heads(32) > 0.1).float().mean(dim=(1, 2, 3))
    assert area.min() > 0.6
    assert area.max() < 1.6


def test_distortion_turns_over_left_and_right_and_up_and_down():
    x = heads(40)
    x[..., :32, :32] *= 2  # the upper left quarter is bright
    y = distort(x, generator())
    quarters = torch.nn.functional.avg_pool2d(y, 32).flatten(1).argmax(1)
    assert set(quarters.tolist()) == {0, 1, 2, 3}


def test_eval_steps_repeat_and_draw_no_random_numbers():
    module, x = build(width=4).eval(), heads()
    state = torch.get_rng_state()
    first, second = module.eval_step(x), module.eval_step(x)
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


def test_error_maps_are_probabilities_of_the_size_of_the_image_and_repeat():
    module = build(width=4).eval()
    x = torch.nn.functional.interpolate(heads(3), size=128)
    errors = module.error_map(x)
    assert errors.shape == x.shape
    assert errors.min() >= 0
    assert errors.max() <= 1
    assert torch.equal(errors, module.error_map(x))


@pytest.mark.parametrize("image_size", [32, 64, 96, 128])
def test_features_have_eight_positions_a_side_at_any_image_size(image_size):
    module = build(width=4, image_size=image_size).eval()
    assert module.features(heads(2)).shape == (2, 40, 8, 8)


def test_the_loss_falls_while_it_learns():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, x = build(width=4, image_size=32, lr=1e-2), heads()
        losses = [module.train_step(x)["loss"].item() for _ in range(60)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_what_answers_is_the_running_average_of_the_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, x = build(width=4, image_size=32), heads(8)
        module.train_step(x)
        first = module.network.to_logit.weight.clone()
        module.train_step(x)
    second = module.network.to_logit.weight
    expected = 0.98 * first + 0.02 * second
    assert not torch.equal(first, second)
    assert torch.allclose(module.average.module.to_logit.weight, expected, atol=1e-7)
    module.eval()
    before = module.error_map(x)
    torch.nn.init.zeros_(module.network.to_logit.weight)
    assert torch.equal(module.error_map(x), before)


def test_the_learning_rate_halves_every_half_life():
    module = build(width=4, image_size=32, lr=0.01, lr_half_life=2)
    with torch.random.fork_rng():
        for _ in range(4):
            module.train_step(heads(2))
    assert module.optimizer.param_groups[0]["lr"] == pytest.approx(0.0025)


@pytest.mark.slow
def test_a_lesion_it_has_never_seen_stands_out():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build(width=8, lr=1e-2)
        for _ in range(160):
            module.train_step(heads())
    x = heads(1)
    x[..., 20:30, 20:30] = 0.9
    errors = module.eval().error_map(x)[0, 0]
    lesion = errors[22:28, 22:28].mean()
    assert lesion > 5 * errors[36:48, 36:48].mean()
    assert lesion > 5 * module.error_map(heads(1))[..., 22:28, 22:28].mean()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0),
        ("width", 0),
        ("image_size", 48),
        ("image_size", 160),
        ("lesion_rate", 0.0),
        ("lesion_rate", 1.5),
        ("max_radius", 0.6),
        ("max_radius", 0.01),
        ("lr_half_life", 0),
    ],
)
def test_a_hyperparameter_out_of_its_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        build(**{name: value})
