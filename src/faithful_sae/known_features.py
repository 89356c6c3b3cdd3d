"""Activations made from a known sparse dictionary: a model whose features nobody has to guess.

The only direct test of a measure of SAEs is data whose features are known, as in the synthetic
parts of Song et al. 2025 (arXiv 2505.20254) and Korznikov et al. 2026 (arXiv 2602.14111). What is
drawn here is written as the shards of a language model are, so that everything after runs alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from faithful_sae.contexts import shard_of
from faithful_sae.files import written_whole
from faithful_sae.shard_format import shard_schema, shard_writer, write_block
from faithful_sae.shards import blocks_of

AMPLITUDE_SPREAD = 0.5  # standard deviation of log amplitudes; the median amplitude is 1
NO_FEATURE = -1  # the token of start positions
EXTERNAL_MASS = 0.5  # share of the external distribution that lies on external features

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class KnownFeatures:
    """One entry of `models` with `source: known_features`; its schema holds defaults and units.

        x = sum_{j = 1..active} a_j f_{i_j} + noise

    f: unit vectors in random directions; a_j: log-normal with median 1, so positive; noise: normal.
    A feature that is drawn twice adds its amplitudes. i_1 is drawn from a distribution p over the
    features, i_{j+1} with probability `correlation` from the part of p that lies in the group of
    i_j, else from p. So every i_j has exactly the distribution p, and features of a group fire
    together.

    Features are numbered by rank: the model's own from 0, most frequent first, then external ones,
    which the model itself never uses. Groups are `group` features of neighbouring rank.
    """

    d_in: int
    features: int
    external_features: int
    active: int
    zipf: float
    group: int
    correlation: float
    noise: float
    seed: int

    @cached_property
    def dictionary(self) -> NDArray[np.float32]:
        """The unit vectors f, [features + external_features, d_in]."""
        generator = _generator(self.seed, "dictionary")
        rows = generator.standard_normal((self.features + self.external_features, self.d_in))
        unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(
            np.float32
        )
        return unit

    def probabilities(self, shift: float | None) -> Vector:
        """The distribution p of one draw, [features + external_features].

        p = (1 - shift) p_own + shift p_external. p_own: Zipf over the model's features,
        p_own(rank) ~ rank^-zipf, as words are in language. p_external: Zipf over the same features
        in another, random order (half of the mass), and over the external ones (the other half).
        None: every feature equally likely, external ones too.
        """
        every = self.features + self.external_features
        if shift is None:
            return np.full(every, 1 / every)
        own, external = np.zeros(every), np.zeros(every)
        own[: self.features] = self._zipf(self.features)
        reordered = _generator(self.seed, "external ranking").permutation(self.features)
        external[reordered] = (1 - EXTERNAL_MASS) * self._zipf(self.features)
        external[self.features :] = EXTERNAL_MASS * self._zipf(self.external_features)
        p: Vector = (1 - shift) * own + shift * external
        return p

    def draws(self, generator: np.random.Generator, shift: float | None, n: int) -> Indices:
        """The features i_j of n tokens, [n, active]; independent of one another for shift None."""
        bounds = np.cumsum(self.probabilities(shift))
        bounds = np.concatenate([[0.0], bounds / bounds[-1]])  # of the interval of each feature
        edges = np.array(
            [
                *range(0, self.features, self.group),
                *range(self.features, len(bounds) - 1, self.group),
                len(bounds) - 1,
            ]
        )
        uniform = generator.random((n, self.active))
        stays = generator.random((n, self.active)) < (0 if shift is None else self.correlation)
        drawn = np.empty((n, self.active), np.int64)
        for j in range(self.active):
            low, high = np.zeros(n), np.ones(n)
            if j:
                group = np.searchsorted(edges, drawn[:, j - 1], side="right") - 1
                low = np.where(stays[:, j], bounds[edges[group]], low)
                high = np.where(stays[:, j], bounds[edges[group + 1]], high)
            # Rounding may reach the upper end, which is the next feature's.
            where = np.minimum(low + uniform[:, j] * (high - low), np.nextafter(high, 0))
            drawn[:, j] = np.searchsorted(bounds, where, side="right") - 1
        return drawn

    def tokens(
        self, generator: np.random.Generator, shift: float | None, n: int
    ) -> tuple[NDArray[np.float32], Indices]:
        """Activations of n tokens [n, d_in]; the feature of each one's largest amplitude [n]."""
        drawn = self.draws(generator, shift, n)
        amplitudes = np.exp(AMPLITUDE_SPREAD * generator.standard_normal(drawn.shape))
        x = self.noise * generator.standard_normal((n, self.d_in))
        for j in range(self.active):
            x += amplitudes[:, [j]] * self.dictionary[drawn[:, j]]
        return x.astype(np.float32), drawn[np.arange(n), amplitudes.argmax(1)]

    def _zipf(self, n: int) -> Vector:
        weights = np.arange(1, n + 1, dtype=np.float64) ** -self.zipf
        p: Vector = weights / weights.sum()
        return p


def _generator(seed: int, *what: str | int) -> np.random.Generator:
    """A generator of its own for everything that is drawn."""
    return np.random.default_rng([seed, *"/".join(map(str, what)).encode()])


def draw_activations(
    path: Path,
    model: KnownFeatures,
    shift: float | None,
    stream: str,
    *,
    tokens: int,
    context_length: int,
    dtype: str,
    shard: int,
    shards: int,
    metadata: dict[str, str],
) -> None:
    """Write one shard of a corpus: documents of one context each, token = the strongest feature.

    Every context begins with a start position, whose activation is zero and whose token is -1; as
    in text, it does not count into `tokens`. A block draws from a generator of its own, of the
    model's seed, `stream` (a name for corpus and split) and its number, so that the content does
    not depend on the number of shards, and streams are independent.

    Raises OverflowError when a value does not fit `dtype`.
    """
    full, rest = divmod(tokens, context_length - 1)
    lengths = np.array([context_length] * full + [rest + 1] * (rest > 0))
    blocks = blocks_of(lengths)
    own = {"dtype": dtype, "d_in": str(model.d_in), "start_token": str(NO_FEATURE)}
    schema = shard_schema(model.d_in, dtype, metadata | own)
    with written_whole(path) as temporary, shard_writer(temporary, schema) as writer:
        for number in shard_of(len(blocks), shard, shards):
            block = blocks[number]
            mine = lengths[block.start : block.stop]
            position = np.concatenate([np.arange(length) for length in mine])
            generator = _generator(model.seed, stream, number)
            x, token = model.tokens(generator, shift, len(position))
            x[position == 0], token[position == 0] = 0, NO_FEATURE
            write_block(
                writer,
                torch.from_numpy(x),
                document=np.repeat(np.arange(block.start, block.stop), mine),
                position=position,
                token=token,
            )
