"""What another block size or number of threads changes, although nothing but rounding differs.

    python benchmarks/rounding.py          # after `make run`

Draws: the default study's model reads its own held-out text token by token, as it samples, in
blocks of another size and on another number of threads. A draw at u takes the token where the
cumulative probability passes u, so the share of u for which both take the same token is known
exactly. Training: the SAE of one seed trained on one and on two threads.
"""

import sys
from pathlib import Path

from timing import write_table

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from torch import Tensor
from torch.nn.functional import pad

from faithful_sae.arrow import read_arrow
from faithful_sae.kv_cache import preallocated_cache
from faithful_sae.models import load_model
from faithful_sae.shards import Positions, Shards
from faithful_sae.train import train_sae
from faithful_sae.trainer import SAEConfig

STUDY = Path(__file__).parents[1] / "results/demo/smollm2/faithful"
CONTEXTS, LENGTH = 64, 24
TRAINING = SAEConfig(
    architecture="topk",
    expansion=2,
    k=24,
    encoder_bias=False,
    training_tokens=100_000,
    batch_size=512,
    lr=3e-3,
    dead_after=10**9,
)


@torch.inference_mode()
def cumulative(model: torch.nn.Module, tokens: Tensor, block: int, threads: int) -> Tensor:
    """Cumulative next-token probabilities [contexts, position, vocabulary], float64."""
    torch.set_num_threads(threads)
    blocks = []
    for part in tokens.split(block):
        cache = preallocated_cache(model, LENGTH)
        steps = [
            model(input_ids=column, past_key_values=cache, use_cache=True).logits
            for column in part.split(1, dim=1)
        ]
        blocks.append(torch.cat(steps, 1).softmax(-1, dtype=torch.float64).cumsum(-1))
    return torch.cat(blocks)


def flipped(a: Tensor, b: Tensor) -> Tensor:
    """Probability that a uniform draw takes different tokens from two cumulative distributions."""
    begin = torch.maximum(pad(a, (1, 0))[..., :-1], pad(b, (1, 0))[..., :-1])
    same = (torch.minimum(a, b) - begin).clamp_(min=0).sum(-1)
    return (torch.maximum(a[..., -1], b[..., -1]) - same).clamp_(min=0)


def trained(shards: Shards, threads: int) -> Tensor:
    torch.set_num_threads(threads)
    return train_sae(shards, TRAINING, seed=0)[0].W_dec


def main() -> None:
    (folder,) = Path("resources/models").glob("smollm2@*")
    model = load_model(folder)
    rows = read_arrow(STUDY / "heldout.parquet")["tokens"].to_pylist()
    tokens = torch.tensor([row[:LENGTH] for row in rows if len(row) >= LENGTH][:CONTEXTS])
    expected = cumulative(model, tokens, block=CONTEXTS, threads=1)
    table = []
    for what, block, threads in (
        ("draws, the same again", CONTEXTS, 1),
        ("draws, half the block", CONTEXTS // 2, 1),
        ("draws, blocks of one", 1, 1),
        ("draws, two threads", CONTEXTS, 2),
    ):
        changed = flipped(expected, cumulative(model, tokens, block, threads))
        table.append({"what": what, "mean": float(changed.mean()), "largest": float(changed.max())})
    shards = Shards([STUDY / "resid_pre.20/train/shard0.parquet"], Positions(1, 5.0))
    once = trained(shards, threads=1)
    for what, threads in (("W_dec, the same again", 1), ("W_dec, two threads", 2)):
        distance = (trained(shards, threads) - once).norm(dim=1)  # of unit rows
        table.append(
            {"what": what, "mean": float(distance.mean()), "largest": float(distance.max())}
        )
    write_table("rounding", table)


if __name__ == "__main__":
    main()
