"""What the next run of a study will do and cost, from Snakemake's own list of its jobs.

    seconds of a job = start + FLOPs / rate + bytes / bandwidth + launches + disk + network

Adding up what a machine could partly do at once errs on the dear side; rates are of whole jobs.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

from faithful_sae.costs import cost
from faithful_sae.files import files_below
from faithful_sae.schema_errors import nearest
from faithful_sae.study_sizes import Cost, Study, Unknown

LAUNCH = 25e-6  # seconds to start one operation from Python, whatever computes it
DISK = 1e9  # bytes/s, digests included
NETWORK = 20e6  # bytes/s of a download
REASONS = {  # how Snakemake begins a reason -> what to call it; the first that fits counts
    "Params have changed": "settings or code changed",
    "Set of input files has changed": "inputs added or removed",
    "Software environment": "environment changed",
    "Updated input files": "an input is newer",
    "Forced execution": "forced",
    "Incomplete output files": "left unfinished",
    "Missing output files": "not there yet",
    "Input files updated by another job": "follows from others",
}


class Job(NamedTuple):
    """One job of a dry run.

    inputs, outputs: paths; gpu: whether it takes one; reason: why it runs, one of REASONS.
    """

    rule: str
    wildcards: dict[str, str]
    inputs: frozenset[str]
    outputs: tuple[str, ...]
    gpu: bool
    reason: str


class Machine(NamedTuple):
    """One entry of workflow/plan/hardware.yaml, `devices` GPUs of it, and `cores` beside them.

    A machine without GPUs computes everything on its cores.
    """

    name: str
    rates: Mapping[str, Any]
    host: Mapping[str, Any]
    devices: int
    cores: int

    @property
    def has_gpus(self) -> bool:
        return bool(self.rates["device"] == "cuda")

    def seconds(self, cost: Cost, gpu: bool) -> float:
        """Of a job, alone on one device if it is for one, else on one core."""
        rates = self.rates if gpu and self.has_gpus else self.host
        speed = 1e12 * rates["utilisation"]
        return float(
            cost.start
            + (rates["start"] if gpu else 0)
            + cost.flops / (speed * rates["tflops"])
            + cost.trained / (speed * rates["tf32"])
            + cost.hosted / (1e12 * self.host["utilisation"] * self.host["tflops"])
            + cost.traffic / (1e9 * rates["gbs"])
            + cost.launches * LAUNCH
            + cost.moved / DISK
            + cost.fetched / NETWORK
        )


def machine_of(
    hardware: Mapping[str, Mapping[str, Any]], name: str, devices: int, cores: int
) -> Machine:
    """The machine of that name in workflow/plan/hardware.yaml; ValueError if none is."""
    if name not in hardware:
        raise ValueError(f"plan:hardware={name} is unknown{nearest(name, [*hardware])}")
    return Machine(name, hardware[name], hardware["cpu"], devices, cores)


class Row(NamedTuple):
    """One rule's jobs. again: those whose outputs exist and are made anew; seconds: of all jobs one
    after the other; memory: of the largest job; scratch: of as many as run at once.
    """

    rule: str
    jobs: int
    again: int
    tokens: float
    flops: float
    seconds: float
    gpu_seconds: float
    memory: float
    kept: float
    scratch: float
    why: str


class Plan(NamedTuple):
    """wall: seconds until the last job ends; kept: bytes of all outputs; peak: bytes that the disk
    must have free; unknown: what could not be costed, one sentence each.
    """

    rows: list[Row]
    wall: float
    kept: float
    peak: float
    unknown: list[str]


def read_dry_run(text: str) -> list[Job]:
    """The jobs that `snakemake --dry-run` lists on standard output, in its order."""
    jobs = []
    for rule, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", text, flags=re.M):
        fields = dict(re.findall(r"^    ([a-z]+): (.*)$", body, flags=re.M))
        jobs.append(
            Job(
                rule,
                dict(pair.split("=", 1) for pair in _listed(fields, "wildcards")),
                frozenset(_listed(fields, "input")),
                tuple(_listed(fields, "output")),
                any(re.fullmatch("gpu=[1-9][0-9]*", r) for r in _listed(fields, "resources")),
                _reason(fields.get("reason", "")),
            )
        )
    return jobs


def _listed(fields: Mapping[str, str], key: str) -> list[str]:
    return fields[key].split(", ") if key in fields else []


def _reason(said: str) -> str:
    return next((name for begin, name in REASONS.items() if begin in said), "other")


def sizes_of_outputs(jobs: Sequence[Job]) -> dict[str, int]:
    """Bytes of those outputs, files or folders, that exist."""
    outputs = {path: Path(path) for job in jobs for path in job.outputs}
    return {
        name: sum(file.stat().st_size for file in (files_below(path) if path.is_dir() else [path]))
        for name, path in outputs.items()
        if path.exists()
    }


def gated_models(
    jobs: Sequence[Job], models: Mapping[str, Any], known: Mapping[str, Any]
) -> list[str]:
    """Hub ids of the models to be fetched of which `known` says that they are gated."""
    fetched = [job.wildcards["model"] for job in jobs if job.rule == "fetch_model"]
    hubs = [models[name]["hub"] for name in fetched]
    return sorted(hub for hub in hubs if known.get(hub, {}).get("gated"))


def plan(jobs: Sequence[Job], there: Mapping[str, int], study: Study, machine: Machine) -> Plan:
    """Cost jobs and add them up by rule.

    there: bytes of the outputs that exist already.
    """
    costs, unknown = [], dict[str, None]()  # an ordered set
    for job in jobs:
        try:
            costs.append(cost(job.rule, job.wildcards, study))
        except Unknown as error:
            costs.append(Cost())
            unknown[str(error)] = None
    seconds = [machine.seconds(c, job.gpu) for job, c in zip(jobs, costs, strict=True)]
    at_once = machine.devices if machine.has_gpus else machine.cores
    rows = []
    for rule in dict.fromkeys(job.rule for job in jobs):
        mine = [i for i, job in enumerate(jobs) if job.rule == rule]
        rows.append(
            Row(
                rule,
                len(mine),
                sum(any(path in there for path in jobs[i].outputs) for i in mine),
                sum(costs[i].tokens for i in mine),
                sum(costs[i].flops + costs[i].trained + costs[i].hosted for i in mine),
                sum(seconds[i] for i in mine),
                sum(seconds[i] for i in mine if jobs[i].gpu and machine.has_gpus),
                max(costs[i].memory for i in mine),
                sum(costs[i].kept for i in mine),
                min(len(mine), at_once) * max(costs[i].scratch for i in mine),
                _main_reason([jobs[i].reason for i in mine]),
            )
        )
    kept = sum(row.kept for row in rows)
    replaced = sum(there.get(path, 0) for job in jobs for path in job.outputs)
    peak = kept - replaced + max((row.scratch for row in rows), default=0)
    return Plan(rows, makespan(jobs, seconds, machine), kept, peak, list(unknown))


def _main_reason(reasons: Sequence[str]) -> str:
    """The first of REASONS that any of these is."""
    return next((name for name in REASONS.values() if name in reasons), "other")


def makespan(jobs: Sequence[Job], seconds: Sequence[float], machine: Machine) -> float:
    """Seconds until all are done: as many jobs at a time as there are cores, of those that take a
    GPU no more than there are devices, each as soon as what it reads is made, longest first.
    """
    maker = {path: i for i, job in enumerate(jobs) for path in job.outputs}
    waits = [
        {maker[path] for path in job.inputs if path in maker} - {i} for i, job in enumerate(jobs)
    ]
    followers: list[list[int]] = [[] for _ in jobs]
    for i, makers in enumerate(waits):
        for made in makers:
            followers[made].append(i)
    on_gpu = [job.gpu and machine.has_gpus for job in jobs]
    # Heaps, because a study can have thousands of jobs: the longest ready one, the first to end.
    ready: dict[bool, list[tuple[float, int]]] = {True: [], False: []}  # by whether it takes a GPU
    running: list[tuple[float, int]] = []
    now, devices, begun = 0.0, machine.devices, 0

    def get_ready(numbers: Iterable[int]) -> None:
        for i in numbers:
            if not waits[i]:
                heappush(ready[on_gpu[i]], (-seconds[i], i))

    get_ready(range(len(jobs)))
    while True:
        while len(running) < machine.cores:
            queues = [ready[gpu] for gpu in (True, False) if ready[gpu] and (devices or not gpu)]
            if not queues:
                break
            _, i = heappop(min(queues))
            devices -= on_gpu[i]
            begun += 1
            heappush(running, (now + seconds[i], i))
        if not running:
            break
        now, done = heappop(running)
        devices += on_gpu[done]
        for i in followers[done]:
            waits[i].remove(done)
        get_ready(followers[done])
    if begun < len(jobs):
        raise ValueError("the jobs of the dry run wait for each other.")
    return now
