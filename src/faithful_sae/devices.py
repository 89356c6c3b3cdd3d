"""The accelerators of this machine, counted and shared out without importing torch."""

import fcntl
import os
import re
import sys
import time
from itertools import takewhile
from pathlib import Path

NVIDIA = Path("/proc/driver/nvidia/gpus")  # one folder per card, there as soon as the driver is
LOCKS = Path("/dev/shm")  # memory of this machine, the same folder for every session
DEVICE = re.compile(r"\d+|(GPU|MIG)-.+")  # a number or a UUID
POLL = 0.5  # seconds between two looks for a free device

_claimed: list[int] = []  # the open lock of this process: the kernel releases it when it dies


def gpus() -> list[str]:
    """CUDA devices that jobs may use: those of CUDA_VISIBLE_DEVICES, else those of the machine.

    A device named twice there takes two jobs at a time.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(number) for number in range(len(list(NVIDIA.glob("*"))))]
    names = [name.strip() for name in visible.split(",")]
    # As CUDA reads it: what follows the first that is none (-1, NoDevFiles) does not exist.
    return list(takewhile(DEVICE.fullmatch, names))


def claim_gpu() -> None:
    """Keep one device for this process until it ends, waiting for one if all are taken.

    Sets CUDA_VISIBLE_DEVICES to it, so this must come before the first use of CUDA. Devices are
    locked per user and machine, whatever folder a study runs in; of a Slurm allocation, whose
    devices have names of its own, per allocation.
    """
    devices = gpus()
    if _claimed or not devices:
        return
    owner = os.environ.get("SLURM_JOB_ID", "machine")
    folder = Path(LOCKS, f"faithful-sae-gpus-{os.getuid()}-{owner}")
    folder.mkdir(mode=0o700, exist_ok=True)
    waited = False
    while True:
        for slot, device in enumerate(devices):
            occurrence = devices[:slot].count(device)
            name = f"{device}.{occurrence}".replace("/", "_")  # old names of MIG devices
            lock = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            _claimed.append(lock)
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            sys.stderr.write(f"CUDA device {device} is this job's\n")
            return
        if not waited:
            sys.stderr.write(f"waiting for one of the CUDA devices {', '.join(devices)}\n")
            waited = True
        time.sleep(POLL)
