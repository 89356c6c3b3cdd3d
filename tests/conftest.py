"""Tiny models of several families, the tiny tokenizer, the finished tiny study: each made once."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from repository import copy_repository
from tiny_study import snakemake

from faithful_sae.models import load_tokenizer
from faithful_sae.prepare import randomize

if not torch.cuda.is_available():
    # Triton settles when it is first imported, whoever does so, that its kernels are interpreted.
    os.environ["TRITON_INTERPRET"] = "1"

# Machines that run tests are busy with other work too: no example is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

IN_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
ARCHITECTURE = Path(__file__).parent / "tiny" / "architecture"
VOCABULARY = 61
# Weights far larger than the usual 0.02, so that next-token distributions are far from uniform.
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
GEMMA = SIZES | {"head_dim": 8, "num_key_value_heads": 1, "sliding_window": 4}
FAMILIES = ["gpt2", "gpt_neox", "llama", "gemma2", "gemma3", "gemma3_nested"]


def family_config(family: str) -> Any:
    """A configuration of three blocks of width 16."""
    from transformers import (
        Gemma2Config,
        Gemma3Config,
        Gemma3TextConfig,
        GPT2Config,
        GPTNeoXConfig,
        LlamaConfig,
    )

    gemma3 = GEMMA | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    vision = {
        "hidden_size": 8,
        "num_hidden_layers": 3,  # as many as the language model: its blocks must not be mistaken
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "image_size": 4,
        "patch_size": 2,
    }
    makers = {
        "gpt2": lambda: GPT2Config(
            n_embd=16,
            n_layer=3,
            n_head=2,
            n_positions=64,
            vocab_size=VOCABULARY,
            initializer_range=0.3,
            bos_token_id=0,
            eos_token_id=1,
        ),
        "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
        "llama": lambda: LlamaConfig(**SIZES),
        "gemma2": lambda: Gemma2Config(**GEMMA),
        "gemma3": lambda: Gemma3TextConfig(**gemma3),
        "gemma3_nested": lambda: Gemma3Config(text_config=gemma3, vision_config=vision),
    }
    return makers[family]()


def make_model(family: str) -> Any:
    """A random model in evaluation mode, float32, on the CPU."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(family_config(family), dtype=torch.float32)
    return model.eval().requires_grad_(False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, files that take minutes begin first, so that none is left alone at the end."""
    if IN_PARALLEL:
        items.sort(key=lambda item: item.get_closest_marker("workflow") is None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def global_random_state() -> Iterator[None]:
    """No test sees another's global random state."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.fixture(scope="session", params=FAMILIES)
def family_model(request: pytest.FixtureRequest) -> Any:
    """A tiny model of each family in turn."""
    return make_model(request.param)


@pytest.fixture(scope="session")
def llama() -> Any:
    return make_model("llama")


@pytest.fixture(scope="session")
def architecture() -> Path:
    return ARCHITECTURE


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte is a token: 258 ids, start 0, end 1."""
    return load_tokenizer(ARCHITECTURE)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared model folder of the tiny architecture."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    randomize(ARCHITECTURE, folder, seed=0)
    return folder


class FixedLogits:
    """A model that predicts the same probabilities everywhere."""

    device = torch.device("cpu")

    def __init__(self, probabilities: list[float]) -> None:
        self.logits = torch.tensor(probabilities, dtype=torch.float64).log()

    def __call__(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


@pytest.fixture(scope="session")
def fixed_logits() -> type[FixedLogits]:
    return FixedLogits


@pytest.fixture(scope="session")
def random_contexts() -> list[np.ndarray]:
    """Contexts of several lengths, equal ones too, each with the start token first."""
    generator = np.random.default_rng(0)
    lengths = [5, 12, 2, 9, 12, 7, 3]
    return [np.r_[0, generator.integers(2, VOCABULARY, n - 1)].astype(np.int32) for n in lengths]


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the tiny study has been run, for `study` to copy.

    The first process that asks runs it, for all; another waits meanwhile.
    """
    folder = tmp_path_factory.getbasetemp()
    if IN_PARALLEL:
        folder = folder.parent  # which the processes share
    repository, done = folder / "study", folder / "study.done"
    with open(folder / "study.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(repository, ignore_errors=True)
            repository.mkdir()
            copy_repository(repository)
            output = snakemake(repository, "--cores", "2", "--show-failed-logs")
            assert output.endswith("exit 0"), output[-8000:]
            done.touch()
    return repository


@pytest.fixture(scope="module")
def study(finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished tiny study in a copy of the repository that a file's tests may edit and run."""
    repository = tmp_path_factory.mktemp("repository")
    shutil.copytree(finished_study, repository, symlinks=True, dirs_exist_ok=True)
    return repository


@pytest.fixture
def edit(study: Path) -> Iterator[Callable[[str, str, str], None]]:
    """Replace text in a file of the copy for the length of one test."""
    saved: dict[Path, str] = {}

    def replace(name: str, old: str, new: str) -> None:
        path = study / name
        text = path.read_text()
        assert old in text
        saved.setdefault(path, text)
        path.write_text(text.replace(old, new, 1))

    yield replace
    for path, text in saved.items():
        path.write_text(text)
