"""The sizes that costs are made of: tokens, shards, weights and what a job holds in memory.

Whoever plans may have Snakemake alone, so nothing here imports torch or numpy. The constants that
repeat those of other modules are held together with them by tests/test_plan.py.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from faithful_sae.disk import row_bytes
from faithful_sae.entries import corpus_size_of
from faithful_sae.random_inputs import RANDOM_INPUTS
from faithful_sae.shapes import COMPUTED, Shape

PLAIN, TORCH, MODEL = 2.0, 4.0, 8.0  # seconds to start Python alone, with torch, with a model
FORWARD_TOKENS = {"cpu": 1024, "cuda": 65536}  # as in activations.py
TILE = {"cpu": 256, "cuda": 4096}  # as in likelihood.py
LIBRARIES = 0.45e9  # bytes of memory that torch takes before any work
EXAMPLE_TOKENS = 25  # of a task's text, a sentence; nobody knows before it was read


class Unknown(ValueError):
    """What a cost depends on and nobody knows yet; one sentence that says what to do."""


class Cost(NamedTuple):
    """start: seconds; tokens: contexts' tokens that go through a model or an SAE; flops: of dense
    products; trained: of those that may use TF32; hosted: of those that the cores compute even
    beside a GPU; traffic: bytes moved in memory besides; launches: operations started one after
    another; moved: bytes read from disk and written to it; fetched: from the network; kept: bytes
    of the outputs; scratch: of disk while the job runs; memory: bytes held at once.
    """

    start: float = TORCH
    tokens: float = 0
    flops: float = 0
    trained: float = 0
    hosted: float = 0
    traffic: float = 0
    launches: float = 0
    moved: float = 0
    fetched: float = 0
    kept: float = 0
    scratch: float = 0
    memory: float = LIBRARIES


class Study(NamedTuple):
    """config: with its defaults; shapes: of the models that are known; downloads: bytes by wheel or
    hub id/file, of those that are known; device: cpu or cuda.
    """

    config: dict[str, Any]
    shapes: Mapping[str, Shape]
    downloads: Mapping[str, int]
    device: str

    def shape(self, model: str) -> Shape:
        """Raises Unknown where no config.json says it."""
        if model not in self.shapes:
            raise Unknown(
                f"models.{model}: its shape is unknown before it is here; fetch it alone with "
                f"`snakemake --cores 1 results/{self.config['study']}/{model}/model.json`, or add "
                "it to workflow/plan/models.yaml."
            )
        return self.shapes[model]

    def d_in(self, model: str) -> int:
        known: int | None = self.config["models"][model].get("d_in")
        return self.shape(model).d_in if known is None else known

    def context_length(self, model: str) -> int:
        return int(corpus_size_of(self.config, model)["context_length"])

    def d_sae(self, model: str, sae: str) -> int:
        """Raises Unknown for an SAE that was trained elsewhere."""
        entry = self.config["saes"][sae]
        if entry["source"] == "pretrained":
            raise Unknown(f"saes.{sae}: trained elsewhere, its width is not counted on.")
        return int(entry["expansion"]) * self.d_in(model)

    def tokens(self, model: str, corpus: str, split: str) -> float:
        """Tokens of the contexts of a split, or of a task, with their start tokens."""
        config, length = self.config, self.context_length(model)
        if corpus in config["tasks"]:
            per_example = min(EXAMPLE_TOKENS, length)
            return float(config["tasks"][corpus]["examples"] * per_example)
        if corpus in RANDOM_INPUTS:
            tokens = config["evaluations"]["fake_features"]["tokens"]
        else:
            tokens = config["corpus_size"][f"{split}_tokens"]
        return float(tokens * length / (length - 1))

    def activations(self, model: str, tokens: float) -> float:
        """Bytes of this many tokens in shards."""
        return tokens * row_bytes(self.d_in(model), self.config["activations"]["dtype"])

    def weights(self, model: str) -> float:
        """Bytes of a model in memory."""
        return COMPUTED * self.shape(model).parameters

    def batch(self, shape: Shape) -> float:
        """Memory of a model's forward pass beside its weights."""
        tokens = FORWARD_TOKENS[self.device]
        return 4.0 * (tokens * (shape.mlp + 4 * shape.d_in) + 2 * TILE[self.device] * shape.vocab)

    def encode(self, model: str, sae: str, tokens: float) -> float:
        """FLOPs of an SAE on tokens, decoded too."""
        return 4.0 * tokens * self.d_in(model) * self.d_sae(model, sae)
