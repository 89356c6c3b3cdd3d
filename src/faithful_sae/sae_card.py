"""The model card of exported SAEs: what they are, how good, how to open them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from faithful_sae.cards import (
    described,
    front_matter,
    hub_id,
    markdown_table,
    origin,
    provenance_lines,
)
from faithful_sae.headline import SHARED_THRESHOLD, close_to, headline
from faithful_sae.hook_names import hook_names
from faithful_sae.sae import SAE

# What the snippets were tested with; benchmarks/peers*.txt hold the same versions.
TESTED = {
    "sae-lens": "6.54.12",
    "eai-sparsify": "1.3.3",
    "dictionary-learning": "0.1.0",
    "sae-bench": "0.6.0",
}
TAGS = ["sparse-autoencoder", "faithful-sae", "mechanistic-interpretability"]
METRICS = {
    "explained_variance": "explained variance",
    "explained_variance_pooled": "the paper's, pooled",
    "mse": "L2: mean squared error per element",
    "l0": "L0",
    "dead_fraction": "share of dead latents",
    "ce_loss_increase": "CE increase, nats/token",
    "ce_loss_recovered_mean": "CE recovered, of mean ablation",
}
POSITIONS = {"kept": "as trained", "all": "every position"}


class Exported(NamedTuple):
    """One folder of a repository: its SAE, what cfg.json says of its making, its files' sha256."""

    folder: str
    sae: SAE
    metadata: dict[str, Any]
    digests: dict[str, str]


def sae_card(
    exported: Sequence[Exported],
    tables: Mapping[str, pl.DataFrame],
    *,
    facts: dict[str, Any],
    revision: str,
    corpus: dict[str, Any],
    frequency: float,
    min_activation: float,
    config: dict[str, Any],
) -> str:
    """README.md of a repository of SAEs of one model, corpus, kind and seed, one for each hook.

    tables: reconstruction, similarity and fake_features of these SAEs; facts, revision: of the
    model; corpus: the config's entry of the training text; frequency, min_activation: the cut of
    the Fake Feature Ratio.
    """
    first = exported[0].metadata
    head = front_matter(
        {
            "library_name": "saelens",
            "tags": [*TAGS, first["model"]],
            "base_model": hub_id(facts),
            "datasets": [corpus["hub"]] if "hub" in corpus else None,
            "license": "other",
        }
    )
    name = f"{first['model']}, {first['corpus']}, {first['sae']}, seed {first['seed']}"
    parts = [
        f"# Sparse autoencoder: {name}",
        f"Of the model `{first['model']}` ({origin(facts, revision)}), trained on the corpus "
        f"`{first['corpus']}` ({described(corpus)}) of the study `{first['study']}`. It works on "
        "raw activations of `transformers`: no scaling, no centring. Every context begins with "
        f"token {first['start_token']}; {_policy(first['positions'])}",
        *(_section(one, tables, frequency, min_activation) for one in exported),
        "## How to open it",
        *(_snippets(one) for one in exported[:1]),
        "## Terms and origin",
        "The terms of the model and of the text apply to what is made from them; put a licence "
        "here before you publish this. " + provenance_lines(config),
    ]
    return head + "\n" + "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _section(
    one: Exported, tables: Mapping[str, pl.DataFrame], frequency: float, min_activation: float
) -> str:
    sae, metadata = one.sae, one.metadata
    mine = {
        name: table.filter(*(pl.col(key) == metadata[key] for key in ("hook", "sae", "corpus")))
        for name, table in tables.items()
    }
    values = headline(
        {name: mine[name] for name in ("similarity", "fake_features")},
        {},
        frequency,
        min_activation,
    )
    training = metadata["training"]
    threshold = "" if sae.threshold is None else f", threshold {float(sae.threshold):.6g}"
    return "\n\n".join(
        part.rstrip("\n")
        for part in (
            f"## `{one.folder}/`: {metadata['hook']}",
            hook_table(metadata["hook"]),
            f"Architecture {training['architecture']}{threshold}, d_in {sae.d_in}, d_sae "
            f"{sae.d_sae}, k {sae.k}, seed {metadata['seed']}, "
            f"{training['training_tokens']:,} training tokens, lr {training['lr']}.",
            "Reconstruction of held-out text; CE: loss of the model that reads the reconstruction:",
            _reconstruction(mine["reconstruction"], metadata),
            _siblings(values.by_pair, mine["similarity"], metadata["seed"]),
            _fake(values.by_seed, metadata["seed"], frequency, min_activation),
            markdown_table(
                ["file", "sha256"], [(f"`{name}`", d) for name, d in one.digests.items()]
            ),
        )
    )


def hook_table(hook: str) -> str:
    """A hook in the three notations of the field."""
    names = hook_names(hook)
    # Its default centres what blocks write, so that the same name is another vector.
    unprocessed = " of a model loaded by `from_pretrained_no_processing`"
    embeddings = "" if names.hidden_states else ", where nothing scales them or adds positions"
    rows = [
        ("TransformerLens, SAELens, the paper", f"`{names.transformer_lens}`{unprocessed}"),
        ("`transformers`", f"`hidden_states[{names.hidden_states}]`"),
        ("sparsify (output of the module)", f"`{names.module}`{embeddings}"),
    ]
    return markdown_table(["in", "this place is called"], rows)


def _policy(positions: Mapping[str, Any]) -> str:
    norm = positions["max_norm"]
    sinks = f" and tokens whose norm exceeds {norm} times the median" if norm else ""
    first = f"the first {positions['skip_first']} position(s) of each"
    return f"it was trained without {first}{sinks}."


def _reconstruction(table: pl.DataFrame, metadata: Mapping[str, Any]) -> str:
    """Every metric on every corpus, without and with the positions that training left out."""
    found: dict[str, dict[tuple[str, str], float]] = {metadata["corpus"]: {}}  # its own text first
    for row in table.filter(pl.col("seed") == metadata["seed"]).iter_rows(named=True):
        found.setdefault(row["eval_corpus"], {})[row["positions"], row["metric"]] = row["value"]
    rows = [
        [text, label, *(values.get((positions, metric)) for metric in METRICS)]
        for text, values in found.items()
        for positions, label in POSITIONS.items()
    ]
    return markdown_table(["text", "positions", *METRICS.values()], rows)


def _siblings(by_pair: pl.DataFrame, similarity: pl.DataFrame, seed: int) -> str:
    """What it shares with the SAEs of other seeds."""
    own = by_pair.filter((pl.col("seed") == seed) | (pl.col("seed_b") == seed))
    if own.is_empty():
        return "The study has no sibling seed to share features with."
    pairs = own.with_columns(
        sibling=pl.when(pl.col("seed") == seed).then("seed_b").otherwise("seed")
    ).sort("sibling")
    value = {(row["sibling"], row["metric"]): row["value"] for row in pairs.iter_rows(named=True)}
    rows = [
        (sibling, value[sibling, "shared_feature_ratio"], value[sibling, "mean_matched_cosine"])
        for sibling in pairs["sibling"].unique(maintain_order=True)
    ]
    null = similarity.filter(
        pl.col("metric") == "shared_feature_ratio",
        close_to("threshold", SHARED_THRESHOLD),
        pl.col("null") == "covariance",
        pl.col("latents") == "all",
    )["value"].to_numpy()
    return (
        f"Shared Feature Ratio (SFR, cosine > {SHARED_THRESHOLD}) with its sibling seeds; "
        f"of rows drawn from the covariance of the activations: {null.mean():.4g}.\n\n"
        + markdown_table(["sibling seed", "SFR", "mean matched cosine"], rows)
    )


def _fake(by_seed: pl.DataFrame, seed: int, frequency: float, min_activation: float) -> str:
    values = dict(by_seed.filter(pl.col("seed") == seed).select("metric", "value").iter_rows())
    return (
        f"Fake Feature Ratio (FFR): {values['fake_feature_ratio']:.4g} of the latents exceed "
        f"{min_activation} on more than {100 * frequency:g} % of uniformly random tokens; "
        f"{values['fake_not_dense_ratio']:.4g} do so without being as dense on held-out text."
    )


def _snippets(one: Exported) -> str:
    """Python for each tool that opens the folder; `tests/test_export_peers.py` runs it."""
    folder = one.folder
    snippets = {
        "sae-lens": [
            f'# on the hub: SAE.from_pretrained("<user>/<name>", "{folder}")',
            "from sae_lens import SAE",
            f'sae = SAE.load_from_disk("{folder}")',
        ],
        "eai-sparsify": [
            f'# on the hub: Sae.load_from_hub("<user>/<name>", hookpoint="{folder}")',
            "from sparsify import Sae",
            f'sae = Sae.load_from_disk("{folder}")',
        ],
        "dictionary-learning": [
            "from dictionary_learning.utils import load_dictionary",
            f'sae, config = load_dictionary("{folder}", device="cpu")',
        ],
        "sae-bench": [
            "from sae_lens import SAE",
            f'selected_saes = [("{folder}", SAE.load_from_disk("{folder}"))]',
        ],
    }
    lines = [
        "Latents are `sae.encode(x)`, with `x` taken where the table above says. Tested with these "
        "versions:"
    ]
    if one.sae.threshold is not None:
        del snippets["eai-sparsify"]
        lines[0] = (
            "BatchTopK uses one threshold after training. sparsify knows none, and its TopK would "
            "be another function, so it has no form here; to SAELens this is a JumpReLU SAE. "
        ) + lines[0]
    for peer, code in snippets.items():
        lines.append("\n".join(["```python", f"# {peer} {TESTED[peer]}", *code, "```"]))
    return "\n\n".join(lines)
