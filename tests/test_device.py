"""Devices and precision: named, checked, and decided once a machine."""

import json
import os

import pytest
import torch
from threadpoolctl import threadpool_limits

from training.device import (
    DeviceError,
    device_summary,
    on_threads,
    own_cores,
    resolve_device,
    resolve_precision,
    use_own_cores,
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


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),  # half a processor is one thread
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "99900000 100000\n"}, None),
        ({}, None),
    ],
)
def test_a_process_has_the_cores_it_may_run_on_as_far_as_its_quota_goes(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert own_cores(tmp_path) == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("said", "expected"), [(None, 1), ("3", 3)])
def test_a_command_calculates_on_its_own_cores_unless_told_otherwise(monkeypatch, said, expected):
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    with threadpool_limits():  # puts NumPy's own back
        torch.set_num_threads(3)
        os.sched_setaffinity(0, {min(cores)})
        try:
            use_own_cores()
            assert torch.get_num_threads() == expected
        finally:
            os.sched_setaffinity(0, cores)
            torch.set_num_threads(threads)
