"""A plan: reading a dry run, costs by hand, the order of jobs, what the page says."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from faithful_sae import activations, costs, likelihood, similarity, study_sizes
from faithful_sae.config import load_config
from faithful_sae.costs import cost
from faithful_sae.plan import (
    Job,
    Machine,
    gated_models,
    makespan,
    plan,
    read_dry_run,
    sizes_of_outputs,
)
from faithful_sae.plan_text import plan_text
from faithful_sae.shapes import Shape
from faithful_sae.study_sizes import Cost, Study, Unknown

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
HARDWARE = yaml.safe_load((ROOT / "workflow/plan/hardware.yaml").read_text())
CPU = {"device": "cpu", "start": 0, "tflops": 1, "tf32": 1, "utilisation": 0.5, "gbs": 10}
CPU |= {"memory_gb": None}
GPU = {"device": "cuda", "start": 5, "tflops": 10, "tf32": 100, "utilisation": 0.5, "gbs": 1000}
GPU |= {"memory_gb": 1}
SHAPE = Shape(
    d_in=8, blocks=4, block=1_000, head=400, embedding=0, kv=4, mlp=32, vocab=50, stored=2
)
AT = {"study": "mine", "model": "base", "corpus": "own", "hook": "resid_pre.3", "sae": "small"}


def study(**changes) -> Study:
    config = {
        "study": "mine",
        "models": {"base": {"source": "hub", "hub": "a/b", "revision": "0" * 40}},
        "corpora": {"own": {"source": "faithful", "block": 10}, "code": {"source": "stdlib"}},
        "corpus_size": {"train_tokens": 900, "heldout_tokens": 90, "context_length": 10},
        "saes": {"small": {"k": 2, "expansion": 4, "training_tokens": 1_000, "batch_size": 50}},
        "seeds": [0, 1],
        "activations": {"dtype": "float32"},
    }
    config["models"]["base"]["hooks"] = ["resid_pre.3"]
    filled = load_config(config | changes, SCHEMA, ROOT)
    return Study(filled, {"base": SHAPE}, {"a/c/x.parquet": 10**9}, "cpu")


def machine(rates: dict = CPU, devices: int = 1, cores: int = 2) -> Machine:
    return Machine("made", rates, CPU, devices, cores)


def job(rule: str, inputs: str = "", outputs: str = "", gpu: bool = False, **at: str) -> Job:
    made = tuple(outputs.split())
    return Job(rule, AT | at, frozenset(inputs.split()), made, gpu, "not there yet")


DRY_RUN = """
Building DAG of jobs...
[Mon Nov 23 07:36:42 2026]
rule train_sae:
    input: a/train/shard0.parquet, a/train/shard1.parquet
    output: a/seed0/sae.safetensors, a/seed0/cfg.json
    log: a.log
    jobid: 12
    reason: Params have changed since last execution: Before: 4 Now: 5; Input files updated by another job: a/train/shard0.parquet
    wildcards: study=mine, model=base, corpus=own, hook=resid_pre.3, sae=small, seed=0
    resources: tmpdir=/tmp, gpu=1, checkpoint_minutes=10

[Mon Nov 23 07:36:42 2026]
localrule describe_model:
    output: results/model.json
    jobid: 1
    reason: Missing output files: results/model.json
    wildcards: study=mine, model=base
    resources: tmpdir=/tmp, gpu=0
Job stats:
job      count
"""  # noqa: E501


def test_a_dry_run_is_read_job_by_job():
    train, describe = read_dry_run(DRY_RUN)
    assert train == Job(
        "train_sae",
        AT | {"seed": "0"},
        frozenset({"a/train/shard0.parquet", "a/train/shard1.parquet"}),
        ("a/seed0/sae.safetensors", "a/seed0/cfg.json"),
        True,
        "settings or code changed",
    )
    assert (describe.rule, describe.gpu, describe.reason) == (
        "describe_model", False, "not there yet",
    )  # fmt: skip


def test_constants_repeated_so_that_no_torch_is_imported_are_those_of_the_code():
    assert study_sizes.FORWARD_TOKENS == activations.FORWARD_TOKENS
    assert study_sizes.TILE == likelihood.TILE
    assert costs.NULL_PAIRS == similarity.NULL_PAIRS


def test_the_cost_of_training_by_hand():
    found = cost("train_sae", AT, study())
    # d_in 8, d_sae 32: an encoder product of 2 x 8 x 32 and 8 x k x d_in, for 1,000 tokens
    assert found.trained == 1_000 * (2 * 8 * 32 + 8 * 2 * 8)
    assert found.kept == 4 * 2 * 8 * 32  # W_enc and W_dec in float32
    assert (found.tokens, found.launches) == (1_000, 20 * 120)  # 20 batches


def test_the_cost_of_activations_by_hand():
    # 900 tokens are 100 contexts, so 1,000 with their start tokens; 4 bytes for each of 8, and 20
    found = cost("extract_activations", AT | {"split": "train"}, study())
    assert (found.tokens, found.kept) == (1_000, 1_000 * (8 * 4 + 20))
    assert found.flops == 1_000 * SHAPE.forward(3, 10)
    shared = cost("extract_activations", AT | {"split": "train"}, study(shards=4))
    assert shared.kept == found.kept / 4 and shared.flops == found.flops / 4
    heldout = cost("extract_activations", AT | {"split": "heldout"}, study(shards=4))
    assert heldout.tokens == 100


def test_the_seconds_of_a_job_by_hand():
    cost = Cost(start=1, flops=2e12, trained=5e12, traffic=20e9, launches=40_000, moved=3e9)
    on_host = machine(GPU).seconds(cost._replace(hosted=1e12), gpu=True)
    assert on_host - machine(GPU).seconds(cost, gpu=True) == pytest.approx(2)  # 1 TFLOP at 1 x .5
    # 2 / .5 + 5 / .5 TFLOP, 20 GB at 10 GB/s, 40,000 times 25 us, 3 GB at 1 GB/s
    assert machine().seconds(cost, gpu=True) == pytest.approx(1 + 4 + 10 + 2 + 1 + 3)
    # woken in 5 s; 2 / 5, 5 / 50, 20 GB at 1000 GB/s
    assert machine(GPU).seconds(cost, gpu=True) == pytest.approx(1 + 5 + 0.4 + 0.1 + 0.02 + 1 + 3)
    assert machine(GPU).seconds(cost, gpu=False) == machine().seconds(cost, gpu=False)
    assert machine().seconds(cost._replace(fetched=40e6), False) == pytest.approx(21 + 2)


def test_jobs_run_side_by_side_as_far_as_inputs_cores_and_devices_allow():
    jobs = [
        job("a", outputs="x"), job("b", outputs="y"), job("c", inputs="x y", outputs="z"),
        job("d"), job("e", gpu=True), job("f", gpu=True),
    ]  # fmt: skip
    seconds = [3, 4, 2, 1, 6, 5]
    assert makespan(jobs[:3], seconds[:3], machine(cores=2)) == 4 + 2
    assert makespan(jobs[:3], seconds[:3], machine(cores=1)) == 3 + 4 + 2
    assert makespan(jobs, seconds, machine(GPU, devices=1, cores=9)) == 6 + 5
    assert makespan(jobs, seconds, machine(GPU, devices=2, cores=9)) == 6
    assert makespan(jobs[4:], seconds[4:], machine(GPU, devices=2, cores=1)) == 6 + 5
    assert makespan(jobs, seconds, machine(cores=1)) == sum(seconds)
    independent = [job("a"), job("b"), job("c")]
    assert makespan(independent, [1, 1, 2], machine(cores=2)) == 2  # the longest is begun first


@settings(max_examples=50, deadline=None)
@given(seconds=st.lists(st.integers(1, 99), min_size=1, max_size=12), cores=st.integers(1, 4))
def test_no_schedule_beats_its_longest_job_or_its_cores(seconds, cores):
    jobs = [job(f"r{i}") for i in range(len(seconds))]
    found = makespan(jobs, seconds, machine(cores=cores))
    assert max(max(seconds), sum(seconds) / cores) <= found <= sum(seconds)
    # Graham's bound of any list schedule
    assert found <= sum(seconds) / cores + (1 - 1 / cores) * max(seconds)


def training(seeds: int, gpu: bool = True) -> list[Job]:
    return [job("train_sae", outputs=f"seed{seed}", gpu=gpu) for seed in range(seeds)]


def test_rows_add_up_and_say_what_is_made_anew():
    jobs = [*training(3), job("describe_model", outputs="model.json")]
    found = plan(jobs, {"seed1": 500, "model.json": 7}, study(), machine(GPU))
    train, describe = found.rows
    one = cost("train_sae", AT, study())
    assert (train.jobs, train.again, describe.again) == (3, 1, 1)
    assert train.flops == 3 * one.trained and train.kept == 3 * one.kept
    assert train.gpu_seconds == train.seconds > 0 == describe.gpu_seconds
    # What is replaced is no new space; one job at a time holds a checkpoint.
    assert found.peak == found.kept - 507 + one.scratch
    assert plan(jobs, {}, study(), machine(cores=2)).rows[0].scratch == 2 * one.scratch
    text = plan_text(found, machine(GPU), free=10**12)
    assert "Again   2 jobs whose results are there; retrains 1 SAE" in text.splitlines()
    other = plan(jobs[-1:], {"model.json": 7}, study(), machine(GPU))
    assert plan_text(other, machine(GPU), free=10**12).endswith("there; retrains no SAE")
    assert "1 x made, 2 CPU cores" in text and "WARNING" not in text and "UNKNOWN" not in text


def test_a_row_names_the_cause_and_not_what_follows_from_it():
    reasons = ["follows from others", "settings or code changed", "other"]
    jobs = [one._replace(reason=why) for one, why in zip(training(3), reasons, strict=True)]
    assert [plan(jobs[:n], {}, study(), machine()).rows[0].why for n in (1, 3)] == reasons[:2]


def test_gated_models_are_those_that_are_to_be_fetched_and_need_a_licence():
    models = {name: {"hub": f"a/{name}"} for name in ("free", "gated", "here")}
    known = {"a/gated": {"gated": True}, "a/here": {"gated": True}, "a/free": {}}
    jobs = [job("fetch_model", model=name) for name in ("gated", "free")]
    assert gated_models([*jobs, job("train_sae", model="here")], models, known) == ["a/gated"]


def test_a_disk_or_a_device_that_is_too_small_is_a_warning_with_the_remedy():
    found = plan(training(2), {}, study(), machine(GPU))
    text = plan_text(found, machine(GPU | {"memory_gb": 0.1}), free=100)
    assert re.search(r"WARNING The disk is too small: .* Lower corpus_size.train_tokens", text)
    assert re.search(r"WARNING train_sae holds 450 MB at once, more than the 0.1 GB", text)
    assert plan_text(plan([], {}, study(), machine()), machine(), 1).startswith("Nothing to be")


def test_what_nobody_knows_is_said_once_and_costs_a_start():
    jobs = [job("polish"), job("polish"), job("reconstruction", model="other")]
    other = {**study().config["models"], "other": study().config["models"]["base"]}
    found = plan(jobs, {}, study(models=other), machine())
    assert len(found.unknown) == 2 and sum(row.seconds for row in found.rows) == 3 * Cost().start
    text = plan_text(found, machine(), 10**12)
    assert "UNKNOWN polish: not in the cost model" in text
    assert "UNKNOWN models.other: its shape is unknown before it is here; fetch it alone" in text


def test_no_more_tokens_are_counted_than_are_held_out():
    few = cost("corpus_statistics", AT, study())
    assert few.tokens == study().tokens("base", "own", "heldout") < 1_000
    asked = {"corpus_statistics": {"tokens": 20}}
    assert cost("corpus_statistics", AT, study(evaluations=asked)).tokens == 20


def test_an_sae_trained_elsewhere_has_no_known_cost_and_stops_no_plan():
    audit = study()
    audit.config["saes"] = {"theirs": {"source": "pretrained", "hook": "resid_pre.3"}}
    with pytest.raises(Unknown, match="saes.theirs: trained elsewhere"):
        cost("fake_features", AT | {"corpus": "pretrained", "sae": "theirs"}, audit)
    assert cost("probing_baselines", AT, audit).flops >= 0


def test_downloads_are_counted_where_their_size_is_known():
    hub = {"source": "hub", "hub": "a/c", "revision": "0" * 40}
    corpora = {"own": hub | {"files": ["x.parquet"]}, "code": hub | {"files": ["y.parquet"]}}
    made = study(corpora=corpora)
    known = cost("fetch_dataset", AT, made)
    assert known.kept == known.fetched == 10**9
    with pytest.raises(Unknown, match="a/c/y.parquet: its size is unknown"):
        cost("fetch_dataset", AT | {"corpus": "code"}, made)


def test_outputs_that_exist_are_measured_files_and_folders(tmp_path):
    (tmp_path / "folder/deep").mkdir(parents=True)
    for name, size in (("folder/a", 3), ("folder/deep/b", 4), ("file", 5)):
        (tmp_path / name).write_bytes(b"x" * size)
    names = [str(tmp_path / name) for name in ("folder", "file", "absent")]
    assert sizes_of_outputs([job("r", outputs=" ".join(names))]) == {names[0]: 7, names[1]: 5}


def test_every_machine_states_the_same_quantities():
    for name, rates in HARDWARE.items():
        assert rates.keys() == CPU.keys() and rates["device"] in ("cpu", "cuda"), name
        assert 0 < rates["utilisation"] <= 1 and rates["tf32"] >= rates["tflops"] > 0, name
