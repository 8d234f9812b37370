"""Which device and precision are chosen."""

from __future__ import annotations

import pytest
import torch

from routing import devices


def pretend(monkeypatch, kind: str | None, count: int = 1) -> None:
    """Let torch see an accelerator of a kind, or none."""
    monkeypatch.setattr(devices, "_has_driver", lambda: True)
    accelerator = kind and torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: accelerator)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count if kind else 0)


@pytest.mark.parametrize(("kind", "chosen"), [("cuda", "cuda"), ("mps", "mps"), ("xpu", "cpu"), (None, "cpu")])
def test_auto_is_the_accelerator_where_there_is_one(kind, chosen, monkeypatch):
    pretend(monkeypatch, kind)
    assert devices.choose_device() == devices.choose_device("auto") == chosen
    assert devices.choose_device("cpu") == "cpu"


def test_without_a_driver_torch_is_not_queried(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", None)
    monkeypatch.setattr(devices, "_has_driver", lambda: False)
    assert devices.choose_device() == "cpu"


@pytest.mark.parametrize("name", ["cuda:2", "mps", "meta", "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name, monkeypatch):
    pretend(monkeypatch, "cuda", count=2)
    assert devices.choose_device("cuda:1") == "cuda:1"
    with pytest.raises(ValueError, match=f"'{name}'.*'auto' or 'cpu' or 'cuda'"):
        devices.choose_device(name)


def test_the_manifest_s_device_is_the_one_chosen(monkeypatch):
    pretend(monkeypatch, "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert devices.describe_device() == "NVIDIA H100"
    pretend(monkeypatch, "mps")
    assert devices.describe_device() == "mps"


@pytest.mark.parametrize(("flags", "known"), [("avx512_bf16", True), ("amx_bf16", True), ("avx2", False), ("", False)])
def test_bfloat16_is_read_from_the_processor_s_flags(flags, known, monkeypatch):
    monkeypatch.setattr(devices.Path, "read_text", lambda path, encoding: f"processor : 0\nflags\t: fpu {flags}\n")
    assert devices.processor_has_bfloat16.__wrapped__() == known
