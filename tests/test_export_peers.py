"""Exports in the tools they are for: SAELens, sparsify, dictionary_learning, SAEBench, datasets.

`make peers` installs the real ones beside this environment; tests/open_exports.py runs there what
the cards tell users to run. Skipped only where the package index cannot be reached.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from exports import ABOUT, FACTS, K, save_sae, tables
from repository import ROOT
from safetensors.torch import load_file, save_file
from test_export_corpus import LENGTH, export

from faithful_sae.export_sae import export_sae
from faithful_sae.models import load_model
from faithful_sae.sae import SAE
from faithful_sae.sae_card import TESTED

# Activations far from the SAE's own scale, so that an SAE read without its biases is far off.
X = 5 * torch.randn(200, 6, generator=torch.Generator().manual_seed(3))
KINDS = {"topk": None, "batch-topk": 4.0}
CASES = [(kind, tool) for kind in KINDS for tool in TESTED]
CASES.remove(("batch-topk", "eai-sparsify"))  # it has no threshold


@pytest.fixture(scope="module")
def peers(tmp_path_factory) -> Path:
    """The Python of the environment that holds the tools."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = run("make", "--silent", ".venv-peers/.installed", cwd=ROOT, env=environment)
    if made.returncode:
        anything = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
        if run(*anything, "packaging==25.0", cwd=tmp_path_factory.mktemp("pip")).returncode:
            pytest.skip("the package index cannot be reached")
        pytest.fail(f"make peers: {made.stdout[-4000:]}{made.stderr[-4000:]}")
    return ROOT / ".venv-peers/bin/python"


def run(*command: str | Path, **how: Any) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=False, **how)


@pytest.fixture(scope="module")
def opened(peers, tmp_path_factory, tiny_folder, tokenizer) -> Path:
    """A folder of exports, each with what the tools computed beside its card."""
    folder = tmp_path_factory.mktemp("exports")
    for kind, threshold in KINDS.items():
        save_sae(folder / "saved" / kind, threshold=threshold)
        export_sae([folder / "saved" / kind], folder / kind, tables(), **ABOUT)
    export(folder, load_model(tiny_folder), tokenizer, shards=2)
    save_file({"x": X}, folder / "x.safetensors")
    environment = os.environ | {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
    done = run(peers, "-W", "ignore", ROOT / "tests/open_exports.py", folder, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_saelens_opens_the_folder_of_training_itself(opened, kind):
    theirs = load_file(opened / "saved" / kind / "sae-lens.safetensors")
    assert torch.allclose(theirs["x_hat"], SAE.load(opened / "saved" / kind)(X), atol=1e-5)


@pytest.mark.parametrize(("kind", "tool"), CASES)
def test_a_tool_computes_what_we_compute(opened, kind, tool):
    sae = SAE.load(opened / "saved" / kind)
    theirs = load_file(opened / kind / f"{tool}.safetensors")
    latents = sae.encode(X)
    assert torch.allclose(theirs["latents"], latents, rtol=1e-5, atol=1e-5)
    assert torch.allclose(theirs["x_hat"], sae(X), rtol=1e-5, atol=1e-5)
    l0 = (theirs["latents"] > 0).sum(1)
    assert torch.equal(l0, (latents > 0).sum(1))
    if kind == "topk":
        assert (l0 == K).all()
    else:  # a threshold: the number varies, which a per-token TopK in its place would not
        assert l0.unique().numel() > 3


def test_sparsify_finds_every_hook_of_a_repository(opened):
    assert json.loads((opened / "topk/eai-sparsify.json").read_text()) == ["layers.7"]


def test_saebench_knows_the_model_and_the_place(opened):
    facts = json.loads((opened / "topk/sae-bench.json").read_text())
    hook = {"hook_layer": 8, "hook_name": "blocks.8.hook_resid_pre"}
    assert facts == hook | {"model_name": FACTS["entry"]["hub"]}


def test_datasets_opens_both_kinds(opened):
    found = json.loads((opened / "faithful/rows.json").read_text())
    for split, rows in found["rows"].items():
        files = sorted((opened / "faithful/data/documents").glob(f"{split}-*.parquet"))
        written = [row for file in files for row in pq.read_table(file).to_pylist()]
        assert rows == len(written) and found["first"][split] == written[0]
    assert set(found["rows"]) == {"train", "heldout"} and found["lengths"] == [LENGTH]
