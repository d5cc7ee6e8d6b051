"""Devices and precision: named, checked, and decided once a machine."""

import json

import pytest
import torch

from training.device import (
    DeviceError,
    device_summary,
    on_threads,
    resolve_device,
    resolve_precision,
)

CPU = torch.device("cpu")


def test_auto_takes_a_device_that_is_there():
    device = resolve_device("auto")
    assert torch.ones(1, device=device).sum() == 1
    assert (device.type == "cuda") == torch.cuda.is_available()


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(DeviceError, match=r"'gpu'\. Known: auto, cpu, cuda, mps"):
        resolve_device("gpu")


def test_a_device_that_is_not_there_is_said_so():
    missing = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(DeviceError, match=f"'{missing}' is not available"):
        resolve_device(missing)


def test_the_precision_is_asked_once_and_remembered(tmp_path):
    state = torch.get_rng_state()
    first = resolve_precision(CPU, root=tmp_path)
    assert first in ("fp32", "bf16")
    assert torch.equal(torch.get_rng_state(), state)
    (file,) = tmp_path.rglob("precision.json")
    kept, changed = json.loads(file.read_text()), file.stat().st_mtime_ns
    assert kept["precision"] == resolve_precision(CPU, root=tmp_path)
    assert file.stat().st_mtime_ns == changed


def test_a_summary_names_the_machine():
    summary = device_summary(CPU)
    assert summary["device"] == "cpu"
    assert summary["torch"] == torch.__version__
    assert summary["threads"] == str(torch.get_num_threads())
    assert summary["device_name"]


def test_threads_are_as_many_as_asked_for_within_and_as_before_after():
    before = torch.get_num_threads()
    for n, expected in ((1, 1), (None, before), (100_000, before)):
        with on_threads(n):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == before
