"""Open exports as their cards say and write what other tools compute; runs beside these tools.

    .venv-peers/bin/python tests/open_exports.py FOLDER

Every FOLDER/*/README.md is a card; its Python is run. FOLDER/saved/* are SAEs as training saves
them, which SAELens opens too. FOLDER/x.safetensors holds activations `x` [n, d_in]. Written beside
each card or SAE: {tool}.safetensors with `latents` and `x_hat`; of a data set rows.json.
tests/test_export_peers.py compares them.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def dense(sae: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of tools whose latents are [n, d_sae]."""
    latents = sae.encode(x)
    return latents, sae.decode(latents)


def sparse(sae: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of sparsify, which keeps values and indices."""
    many = type(sae).load_many(".", local=True)  # it opens every folder of a repository
    Path("eai-sparsify.json").write_text(json.dumps(sorted(many)))
    values, indices, _ = sae.encode(x)
    latents = torch.zeros(len(x), sae.num_latents).scatter_(1, indices, values)
    return latents, sae.decode(values, indices)


def benched(selected_saes: list[tuple[str, Any]], x: Tensor) -> tuple[Tensor, Tensor]:
    """Of SAEBench, which asks where and of which model an SAE is before it uses one."""
    from sae_bench.sae_bench_utils.general_utils import load_and_format_sae

    ((name, given),) = selected_saes
    _, sae, _ = load_and_format_sae(name, given, "cpu")
    facts = {"hook_layer": sae.cfg.hook_layer, "hook_name": sae.cfg.hook_name}
    Path("sae-bench.json").write_text(json.dumps(facts | {"model_name": sae.cfg.model_name}))
    return dense(sae, x)


def rows(documents: Any, tokenized: Any) -> None:
    first = {split: documents[split][0] for split in documents}
    (Path.cwd() / "rows.json").write_text(
        json.dumps(
            {
                "rows": {split: len(documents[split]) for split in documents},
                "first": first,
                "lengths": sorted({len(ids) for ids in tokenized["input_ids"]}),
            }
        )
    )


FORWARD = {
    "sae-lens": dense,
    "eai-sparsify": sparse,
    "dictionary-learning": dense,
    "sae-bench": benched,
}


@torch.no_grad()
def main(folder: Path) -> None:
    x = load_file(folder / "x.safetensors")["x"]
    for card in sorted(folder.glob("*/README.md")):
        for code in re.findall(r"```python\n(.*?)```", card.read_text(), flags=re.S):
            names: dict[str, Any] = {}
            if "load_dataset" in code:
                os.chdir(card.parents[1])  # `datasets` needs the folder's name
                exec(code, names)
                os.chdir(card.parent)
                rows(names["documents"], names["tokenized"])
                continue
            os.chdir(card.parent)
            exec(code, names)
            tool = re.match(r"# (\S+) ", code).group(1)
            write(tool, names["selected_saes" if tool == "sae-bench" else "sae"], x)
    for saved in folder.glob("saved/*"):
        from sae_lens import SAE

        os.chdir(saved)
        write("sae-lens", SAE.load_from_disk(saved), x)


def write(tool: str, sae: Any, x: Tensor) -> None:
    latents, x_hat = FORWARD[tool](sae, x)
    save_file({"latents": latents.contiguous(), "x_hat": x_hat}, f"{tool}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
