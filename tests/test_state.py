"""A job that is killed goes on from its state, to the same bits; foreign state is not used."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_shards import write_shards

from faithful_sae import shards
from faithful_sae import state as state_module
from faithful_sae.contexts import Sample
from faithful_sae.corpus import read_samples, write_samples
from faithful_sae.shards import Positions, Shards
from faithful_sae.state import CHECKPOINT, State
from faithful_sae.train import train_sae
from faithful_sae.trainer import SAEConfig

POSITIONS = Positions(skip_first=1, max_norm=None)
CONFIG = SAEConfig(
    architecture="topk",
    expansion=8,
    k=1,  # so few of so many that some die, and the auxiliary loss takes part
    encoder_bias=True,
    training_tokens=64 * 60,
    batch_size=64,
    lr=1e-2,
    dead_after=200,
)


class Killed(BaseException):
    """Stands for SIGKILL inside one process: nothing between here and the test sees it."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    x = torch.randn(640, 8, generator=torch.Generator().manual_seed(1)) + torch.arange(8.0)
    return write_shards(tmp_path_factory.mktemp("shards"), x, [20] * 32, block_tokens=80)


def killed_after(saves: int, monkeypatch) -> None:
    """Let a process die right after its n-th checkpoint."""
    save = State.save
    left = [saves]

    def save_and_die(self, tensors, facts):
        save(self, tensors, facts)
        left[0] -= 1
        if not left[0]:
            raise Killed

    monkeypatch.setattr(State, "save", save_and_die)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA adds up in no fixed order")
@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
@pytest.mark.parametrize("saves", [5, 17, 59])
def test_training_killed_at_any_step_ends_with_the_same_bits(
    paths, tmp_path, monkeypatch, architecture, saves
):
    config = SAEConfig(**vars(CONFIG) | {"architecture": architecture})
    expected, table = train_sae(Shards(paths, POSITIONS), config, seed=3)
    for step in (saves, saves + 1):  # dead latents, and so their counters, matter on both sides
        assert table.filter(table["step"] == step)["auxiliary_loss"].item() > 0
    with monkeypatch.context() as patch:
        killed_after(saves, patch)
        state = State(tmp_path / "state", vars(config), paths, minutes=0)  # after every step
        with pytest.raises(Killed):
            train_sae(Shards(paths, POSITIONS), config, 3, state)
    state = State(tmp_path / "state", vars(config), paths)
    steps, step = [], state_module.State.load
    monkeypatch.setattr(State, "load", lambda self: steps.append(step(self)) or steps[-1])
    found, found_table = train_sae(Shards(paths, POSITIONS), config, 3, state)
    assert steps[0][1]["done"] == saves
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
        a, b = getattr(found, name), getattr(expected, name)
        assert a is b is None or torch.equal(a, b), name
    assert found_table.equals(table)


def test_a_signal_saves_at_once_ends_the_process_and_loses_nothing(paths, tmp_path):
    """A real process under a real signal; the state is not due for ten minutes.

    It stands still in its fifth step until the signal was sent, however busy the machine is.
    """
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from faithful_sae.shards import Positions, Shards
from faithful_sae.state import State
from faithful_sae.train import train_sae
from faithful_sae.trainer import SAEConfig, Trainer
step = Trainer.step
steps = 0
def stopping_step(self, x):
    global steps
    steps += 1
    if steps == 5:
        print("fifth", flush=True)
        sys.stdin.readline()
    return step(self, x)
Trainer.step = stopping_step
config = SAEConfig(**{vars(CONFIG)!r})
paths = [Path(p) for p in {[str(p) for p in paths]!r}]
shards = Shards(paths, Positions(skip_first=1, max_norm=None))
train_sae(shards, config, 3, State(Path({str(tmp_path / "state")!r}), vars(config), paths))
"""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert process.stdout.readline() == "fifth\n"
        process.send_signal(number)
        _, said = process.communicate("\n", timeout=600)
        assert process.returncode == 1
        assert f"stopped by {number.name}" in said and "goes on from there" in said
    assert State(tmp_path / "state", vars(CONFIG), paths).load()[1]["done"] == 15
    found, _ = train_sae(
        Shards(paths, POSITIONS), CONFIG, 3, State(tmp_path / "state", vars(CONFIG), paths)
    )
    expected, _ = train_sae(Shards(paths, POSITIONS), CONFIG, 3)
    assert torch.equal(found.W_dec, expected.W_dec)


def test_nothing_is_saved_before_it_is_due(paths, tmp_path):
    train_sae(Shards(paths, POSITIONS), CONFIG, 3, State(tmp_path / "state", {}, paths))
    assert not (tmp_path / "state" / CHECKPOINT).exists()


@pytest.mark.parametrize("change", ["settings", "input"])
def test_the_state_of_another_job_is_ignored_with_the_reason(tmp_path, capfd, change):
    (tmp_path / "input").write_text("a")
    State(tmp_path / "state", {"k": 1}, [tmp_path / "input"]).save({}, {"done": 7})
    if change == "input":
        (tmp_path / "input").write_text("b")
    now = State(tmp_path / "state", {"k": 1 + (change == "settings")}, [tmp_path / "input"])
    assert now.load() is None
    said = capfd.readouterr().err
    assert "ignored: it is of another job" in said
    assert ("settings changed" if change == "settings" else "input changed") in said
    assert not (tmp_path / "state" / CHECKPOINT).exists()


def test_the_same_input_with_another_time_is_the_same_job(tmp_path):
    (tmp_path / "input").write_text("a")
    State(tmp_path / "state", {}, [tmp_path / "input"]).save({}, {"done": 7})
    os.utime(tmp_path / "input", (1, 1))
    assert State(tmp_path / "state", {}, [tmp_path / "input"]).load()[1] == {"done": 7}


@settings(max_examples=60)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_damaged_checkpoint_is_never_used(tmp_path_factory, where, bit):
    folder = tmp_path_factory.mktemp("state") / "state"
    tensors = {"x": torch.arange(5.0), "n": torch.tensor(3)}
    State(folder, {}, []).save(tensors, {"done": 7, "rows": [0.1]})
    content = bytearray((folder / CHECKPOINT).read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    (folder / CHECKPOINT).write_bytes(content)
    loaded = State(folder, {}, []).load()
    if loaded is not None:  # padding of the header may differ, what is read may not
        assert loaded[1] == {"done": 7, "rows": [0.1]}
        assert all(torch.equal(loaded[0][name], tensors[name]) for name in tensors)


@settings(max_examples=30)
@given(deaths=st.lists(st.integers(0, 5), max_size=4), blocks=st.integers(1, 6))
def test_sampling_killed_in_any_blocks_writes_the_same_bytes(tmp_path_factory, deaths, blocks):
    folder = tmp_path_factory.mktemp("samples")
    drawn = []

    def sample(documents, die_at=None):
        for number in documents:
            if number // 4 == die_at:
                raise Killed
            drawn.append(number)
            yield Sample(number, [number, number + 1], ended=number % 3 == 0)

    documents = range(0, 4 * blocks)
    write_samples(sample, documents, 4, folder / "whole", State(folder / "a", {}, []))
    drawn.clear()
    for death in deaths:
        try:
            write_samples(
                lambda d, death=death: sample(d, death),
                documents,
                4,
                folder / "resumed",
                State(folder / "b", {}, []),
            )
        except Killed:
            pass
    write_samples(sample, documents, 4, folder / "resumed", State(folder / "b", {}, []))
    assert (folder / "resumed").read_bytes() == (folder / "whole").read_bytes()
    assert drawn == list(documents)  # no document twice


@pytest.mark.parametrize("die_at", [0, 3, 7])
def test_extraction_killed_in_any_block_writes_the_same_bytes(tmp_path, monkeypatch, die_at):
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    whole = write_shards(tmp_path / "whole", x, [10] * 12)
    computed, write = [], shards.write_block

    def write_block(writer, activations, **columns):
        computed.append(int(columns["token"][0]))
        if len(computed) - 1 == die_at:
            raise Killed
        write(writer, activations, **columns)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_block", write_block)
        with pytest.raises(Killed):
            write_shards(tmp_path / "resumed", x, [10] * 12)
        resumed = write_shards(tmp_path / "resumed", x, [10] * 12)
    assert resumed[0].read_bytes() == whole[0].read_bytes()
    assert len(computed) == 9 and len(set(computed)) == 8  # blocks, one of them begun twice


def test_a_stop_signal_is_restored_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with State(tmp_path / "state", {}, []).stoppable():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_checkpoints_are_due_by_time_alone(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    state = State(tmp_path / "state", {}, [], minutes=5)
    assert not state.due()
    clock[0] = 299.0
    assert not state.due()
    clock[0] = 300.0
    assert state.due()
    state.save({}, {})
    assert not state.due()


def test_a_job_beside_its_own_orphan_stops_at_once_and_harms_nothing(tmp_path):
    """Snakemake alone was killed: its job goes on, and the next Snakemake starts it again."""
    folder = tmp_path / "state"
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from faithful_sae.state import State
state = State(Path({str(folder)!r}), {{"a": 1}}, [])
state.begin()
state.piece(0).write_bytes(b"0")
print("begun", flush=True)
sys.stdin.readline()
print(len(state.whole(1)))
"""
    pipe = subprocess.PIPE
    orphan = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True)
    assert orphan.stdout.readline() == "begun\n"
    with pytest.raises(RuntimeError, match=rf"in use by process {orphan.pid} on .*run again"):
        State(folder, {"a": 2}, []).begin()
    with pytest.raises(RuntimeError, match="in use"):
        State(folder, {"a": 1}, []).load()
    said, _ = orphan.communicate(input="\n", timeout=600)
    assert (said, orphan.returncode) == ("1\n", 0)
    state = State(folder, {"a": 1}, [])
    state.begin()  # its lock went with it
    assert len(state.pieces()) == 1


@pytest.mark.parametrize("removed", ["one piece", "the folder"])
def test_documents_are_never_left_out_in_silence(tmp_path, removed):
    state = State(tmp_path / "state", {}, [])

    def sample(documents):
        for number in documents:
            if number == 10:
                shutil.rmtree(state.folder) if removed == "the folder" else (
                    state.piece(1).unlink()
                )
            yield Sample(number, [number], False)

    with pytest.raises((RuntimeError, OSError)):
        write_samples(sample, range(16), 4, tmp_path / "shard.parquet", state)
    assert not (tmp_path / "shard.parquet").exists()
    state = State(tmp_path / "state", {}, [])  # and the same command mends it

    def plain(documents):
        return (Sample(number, [number], False) for number in documents)

    write_samples(plain, range(16), 4, tmp_path / "shard.parquet", state)
    assert len(list(read_samples([tmp_path / "shard.parquet"]))) == 16


SOFTWARE = ["torch", "transformers", "numpy"]


@pytest.mark.parametrize("changed", [*SOFTWARE, "threads", "device"])
def test_state_of_other_software_threads_or_kind_of_device_is_ignored(
    tmp_path, monkeypatch, capsys, changed
):
    state = State(tmp_path / "state", {}, [])
    state.begin()
    state.piece(0).write_bytes(b"0")
    if changed in SOFTWARE:
        version = state_module.version
        newer = {changed: "0"}
        monkeypatch.setattr(state_module, "version", lambda name: newer.get(name, version(name)))
    elif changed == "threads":
        monkeypatch.setattr(state_module, "get_num_threads", lambda: 64)
    else:
        monkeypatch.setattr(state_module, "gpus", lambda: ["0"])
    other = State(tmp_path / "state", {}, [])
    other.begin()
    assert other.pieces() == []
    assert "is ignored: it is of another job" in capsys.readouterr().err


def test_inputs_are_read_once_however_many_checkpoints_are_saved(tmp_path, monkeypatch):
    (tmp_path / "input").write_bytes(b"1")
    read = []
    digest = state_module._digest
    monkeypatch.setattr(state_module, "_digest", lambda path: read.append(path) or digest(path))
    state = State(tmp_path / "state", {}, [tmp_path / "input"])
    for number in range(3):
        state.save({"x": torch.zeros(1)}, {"done": number})
    assert len(read) == 1
