"""Choose where models run and in which precision, without importing torch where the answer is the CPU."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # processors that multiply bfloat16 matrices faster than float32
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # on Linux, of NVIDIA, of AMD, of either under Windows


def choose_device(name: str = "auto") -> str:
    """Return a device as torch names it; "auto" is CUDA, else MPS, else the CPU.

    ValueError: torch knows no such device, or it is not on this machine.
    """
    if name == "cpu" or (name == "auto" and not _has_driver()):
        return "cpu"
    import torch

    present = torch.accelerator.current_accelerator(check_available=True)
    kind = present.type if present is not None and present.type in ("cuda", "mps") else "cpu"
    if name == "auto":
        return kind
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")  # no device to compute on either
    if device.type == "cpu" or (device.type == kind and (device.index or 0) < torch.accelerator.device_count()):
        return name
    choices = " or ".join(repr(choice) for choice in dict.fromkeys(("auto", "cpu", kind)))
    raise ValueError(f"device {name!r} is not on this machine, or torch does not know it; use {choices}")


def _has_driver() -> bool:
    """Return whether an accelerator may be there: only then is torch, which takes a second to import, queried."""
    return sys.platform != "linux" or any(Path(path).exists() for path in DRIVERS)


def describe_device() -> str:
    """Return the name of the device that "auto" stands for: that of the GPU, "mps" or "cpu"."""
    device = choose_device()
    if device != "cuda":
        return device
    import torch

    return torch.cuda.get_device_name()


@cache
def processor_has_bfloat16() -> bool:
    """Return whether this processor multiplies matrices of bfloat16 numbers, as Linux reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return False
    return any(BFLOAT16_FLAGS & set(line.split()) for line in lines if line.startswith("flags"))
