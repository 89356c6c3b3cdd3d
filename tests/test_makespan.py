"""When the last job of a plan ends: as a slow and plain simulation has it, for any jobs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faithful_sae.plan import Job, Machine, makespan


def machine(devices: int, cores: int) -> Machine:
    return Machine("made", {"device": "cuda" if devices else "cpu"}, {}, devices, cores)


def job(number: int, waits: set[int], gpu: bool) -> Job:
    return Job("r", {}, frozenset(map(str, waits)), (str(number),), gpu, "")


def simulated(
    waits: list[set[int]], gpu: list[bool], seconds: list[int], devices: int, cores: int
) -> float:
    """All jobs looked at again whenever one ends."""
    todo, running, now = set(range(len(waits))), {}, 0
    while todo or running:
        for i in sorted(todo, key=lambda i: (-seconds[i], i)):
            ready = not waits[i] & (todo | running.keys())
            taken = gpu[i] and devices and sum(gpu[j] for j in running) == devices
            if ready and not taken and len(running) < cores:
                running[i] = now + seconds[i]
                todo.remove(i)
        done = min(running, key=lambda i: (running[i], i))
        now = running.pop(done)
    return now


@st.composite
def studies(draw) -> tuple[list[set[int]], list[bool], list[int]]:
    n = draw(st.integers(1, 12))
    waits = [draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set() for i in range(n)]
    gpu = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return waits, gpu, draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))


@settings(max_examples=200)
@given(study=studies(), devices=st.integers(0, 3), cores=st.integers(1, 4))
def test_jobs_end_when_a_plain_simulation_says(study, devices, cores):
    waits, gpu, seconds = study
    jobs = [job(i, waits[i], gpu[i]) for i in range(len(waits))]
    assert makespan(jobs, seconds, machine(devices, cores)) == simulated(
        waits, gpu, seconds, devices, cores
    )


def test_a_study_of_thousands_of_jobs_is_no_more_work_than_its_jobs():
    """The seven models of the paper have so many; looking at all whenever one ends takes hours."""
    jobs = [job(i, {i - 100} if i >= 100 else set(), gpu=i % 2 == 0) for i in range(5_000)]
    assert makespan(jobs, [1.0] * len(jobs), machine(2, 4)) == 5_000 / 4


def test_jobs_that_wait_for_each_other_are_refused():
    with pytest.raises(ValueError, match="wait for each other"):
        makespan([job(0, {1}, False), job(1, {0}, False)], [1.0, 1.0], machine(0, 2))
