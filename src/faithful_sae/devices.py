"""The accelerators of this machine, counted without importing torch."""

import os
from pathlib import Path

NVIDIA = Path("/proc/driver/nvidia/gpus")  # one folder per card, there as soon as the driver is


def gpu_count() -> int:
    """CUDA devices that jobs may use: those of CUDA_VISIBLE_DEVICES, else those of the machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(NVIDIA.glob("*")))
