"""The contexts a page shows are those in which a latent is strongest, with its own activations."""

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_shards import write_shards

from faithful_sae.sae import SAE
from faithful_sae.shards import EVERY_POSITION, Positions, Shards
from faithful_sae.strongest_contexts import strongest_contexts


def identity(d: int) -> SAE:
    """Latent i is coordinate i of the activation, where it is positive."""
    return SAE(torch.eye(d), torch.zeros(d), torch.eye(d), torch.zeros(d), d)


def shards(
    folder: Path, x: torch.Tensor, lengths: list[int], positions=EVERY_POSITION, **more
) -> Shards:
    return Shards(write_shards(folder, x, lengths, **more), positions)


def test_each_context_counts_once_around_its_peak_and_silent_latents_have_none(tmp_path):
    x = torch.zeros(12, 2)  # contexts: tokens 0-3, 4-6, 7-11
    x[[1, 2, 5, 9], 0] = torch.tensor([3.0, 5.0, 4.0, 9.0])
    found = strongest_contexts(
        identity(2), shards(tmp_path, x, [4, 3, 5]), np.array([0, 1]), contexts=2, window=3
    )
    assert found.rows() == [
        (0, 0, 1, [8, 9, 10], [0.0, 9.0, 0.0]),
        (0, 1, 1, [1, 2, 3], [3.0, 5.0, 0.0]),  # token 1 is of the same context
    ]


@pytest.mark.parametrize(
    ("peak", "tokens"), [(0, [0, 1, 2, 3]), (3, [1, 2, 3, 4]), (9, [6, 7, 8, 9])]
)
def test_a_window_is_full_wherever_in_its_context_the_peak_is(tmp_path, peak, tokens):
    x = torch.zeros(14, 1)
    x[peak] = 1
    found = strongest_contexts(
        identity(1), shards(tmp_path, x, [10, 4]), np.array([0]), contexts=1, window=4
    )
    assert found["tokens"].to_list() == [tokens]
    assert tokens[found["peak"].item()] == peak


def test_what_the_positions_policy_leaves_out_has_no_activation_and_is_no_peak(tmp_path):
    x = torch.tensor([[9.0], [1.0], [2.0]])
    kept = shards(tmp_path, x, [3], Positions(skip_first=1, max_norm=None))
    found = strongest_contexts(identity(1), kept, np.array([0]), contexts=1, window=3)
    assert found.row(0) == (0, 0, 2, [0, 1, 2], [None, 1.0, 2.0])


def test_cuts_of_equal_tokens_are_shown_once(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "faithful_sae.strongest_contexts.read_column", lambda *_: np.array([7, 8, 7, 8, 7, 9])
    )
    x = torch.tensor([[0.0], [5.0], [0.0], [4.0], [0.0], [3.0]])
    found = strongest_contexts(
        identity(1), shards(tmp_path, x, [2, 2, 2]), np.array([0]), contexts=3, window=2
    )
    assert found["tokens"].to_list() == [[7, 8], [7, 9]]
    assert found["rank"].to_list() == [0, 1]


def test_it_agrees_with_a_slow_reference_over_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("faithful_sae.strongest_contexts.TOKENS_PER_BATCH", 4)
    generator = torch.Generator().manual_seed(0)
    lengths = [5, 9, 2, 7, 11, 3, 8]
    x = torch.randn(sum(lengths), 6, generator=generator)
    sae = SAE.untrained(d_in=6, d_sae=10, k=3, seed=1)
    held = shards(tmp_path, x, lengths, Positions(1, None), n_shards=2)
    chosen, contexts, window = np.array([8, 2, 5]), 4, 5
    found = strongest_contexts(sae, held, chosen, contexts, window)
    latents = sae.encode(x)
    ends = np.cumsum(lengths)
    for latent in chosen.tolist():
        peaks = []
        for end, length in zip(ends, lengths, strict=True):
            own = latents[end - length + 1 : end, latent]  # without its first token
            if own.max() > 0:
                peaks.append((own.max().item(), end - length + 1 + own.argmax().item()))
        mine = found.filter(latent=latent)
        tokens = [row[peak] for row, peak in zip(mine["tokens"], mine["peak"], strict=True)]
        assert tokens == [row for _, row in sorted(peaks, reverse=True)[:contexts]]
        for ids, activations in zip(mine["tokens"], mine["activations"], strict=True):
            assert len(ids) <= window
            shown = [(i, a) for i, a in zip(ids, activations, strict=True) if a is not None]
            assert all(a == pytest.approx(latents[i, latent].item()) for i, a in shown)


def test_no_latent_asked_for_gives_no_row(tmp_path):
    held = shards(tmp_path, torch.ones(3, 2), [3])
    assert strongest_contexts(identity(2), held, np.array([], np.int64), 2, 2).is_empty()
