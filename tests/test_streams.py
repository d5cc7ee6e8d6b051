"""Streams: parts worked on at once, a thread of torch each, and in order."""

import threading

import pytest
import torch

from models.patch_features import build
from models.streams import in_streams
from training.device import on_threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_as_many_parts_at_once_as_torch_has_threads_each_on_one(two_threads):
    both = threading.Barrier(2)

    def work(part: int) -> tuple[int, int]:
        both.wait(timeout=30)  # breaks where nobody else works meanwhile
        return part, torch.get_num_threads()

    assert in_streams(work, range(4)) == [(part, 1) for part in range(4)]
    assert torch.get_num_threads() == 2


def test_a_single_part_is_worked_on_by_all_threads(two_threads):
    assert in_streams(lambda _: torch.get_num_threads(), [0]) == [2]
    assert in_streams(lambda part: part, []) == []


@pytest.mark.parametrize("wanted", [True, False])
def test_gradients_are_taken_as_by_the_caller(wanted, two_threads):
    with torch.set_grad_enabled(wanted):
        assert in_streams(lambda _: torch.is_grad_enabled(), range(2)) == [wanted] * 2


def test_an_error_is_the_callers_and_threads_are_as_before(two_threads):
    def work(part):
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 0"):
        in_streams(work, range(2))
    assert torch.get_num_threads() == 2


def test_features_do_not_depend_on_the_number_of_threads(two_threads):
    network = build().backbone
    images = torch.rand(20, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    shared = network(images)
    with on_threads(1):
        assert torch.equal(network(images), shared)
