"""The page of features: latents of a study's SAEs to look at, one HTML file without a network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

TEMPLATE = Path(__file__).with_suffix(".html").read_text("utf-8")
KINDS = ["fake", "unmatched", "matched", "unpaired", "silent"]  # in order of the page


def features_page(tables: Mapping[str, pl.DataFrame], notes: Mapping[str, Any]) -> str:
    """The TEMPLATE with the facts of every SAE in it.

    tables: `latents`, `contexts` and `logits` of `feature_facts`, of all SAEs, with coordinates.
    notes: what the page says of itself: study, sibling, frequency, min_activation, limits.

    Token text stands in one JSON element, whose every < is escaped, so that no text can end it; the
    script makes text nodes of it and nothing else. The page's own policy lets a browser run that
    script alone, by its digest, and fetch nothing.
    """
    data = page_data(tables, notes)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    filled = {
        "study": html.escape(str(notes["study"])),
        "policy": html.escape(_policy()),
        "data": text.replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda hole: filled[hole[1]], TEMPLATE)


def page_data(tables: Mapping[str, pl.DataFrame], notes: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows, as JSON will hold it: listed latents by SAE, in order of kind."""
    latents = tables["latents"]
    (about,) = latents.select("model", "hook", "sae", "seed").unique().to_dicts()
    sibling = None if notes["sibling"] == about["seed"] else notes["sibling"]
    saes = [
        _sae(corpus, part, tables)
        for (corpus,), part in latents.group_by("corpus", maintain_order=True)
    ]
    return {**notes, **about, "sibling": sibling, "saes": saes}


def _sae(corpus: Any, latents: pl.DataFrame, tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    contexts, logits = (
        tables[name].filter(pl.col("corpus") == corpus).sort("latent", "rank")
        for name in ("contexts", "logits")
    )
    windows: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in contexts.iter_rows(named=True):
        window = {
            "peak": row["peak"],
            "tokens": row["tokens"],
            "activations": [None if a is None else _short(a) for a in row["activations"]],
        }
        windows.setdefault((row["latent"], row["input"]), []).append(window)
    effects: dict[tuple[int, str], list[list[Any]]] = {}
    for row in logits.iter_rows(named=True):
        effect = [row["text"], _short(row["value"])]
        effects.setdefault((row["latent"], row["effect"]), []).append(effect)
    inputs = [name for name in latents.columns if name == "heldout" or name.endswith("-tokens")]
    order = pl.col("kind").replace_strict(KINDS, range(len(KINDS)))
    shown = latents.filter("listed").sort(order, "uniform-tokens", descending=[False, True])
    counts = dict(latents["kind"].value_counts().rows())
    return {
        "corpus": corpus,
        "d_sae": len(latents),
        "counts": {kind: counts[kind] for kind in KINDS if kind in counts},
        "latents": [
            {
                "latent": row["latent"],
                "kind": row["kind"],
                "fires": {name: _short(row[name]) for name in inputs},
                "partner": row["partner"],
                "cosine": None if row["cosine"] is None else _short(row["cosine"]),
                "promoted": effects[row["latent"], "promoted"],
                "suppressed": effects[row["latent"], "suppressed"],
                "contexts": {
                    name: windows.get((row["latent"], name), []) for name in ("heldout", "random")
                },
            }
            for row in shown.iter_rows(named=True)
        ],
    }


def _short(value: float) -> float:
    """Three significant digits, as many as are shown: a third of the page's size."""
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() else short


def _policy() -> str:
    """A Content-Security-Policy that allows the template's style and script, by their digests."""

    def digests(element: str) -> str:
        bodies = re.findall(rf"<{element}>(.*?)</{element}>", TEMPLATE, flags=re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"
            for body in bodies
        )

    return f"default-src 'none'; style-src {digests('style')}; script-src {digests('script')}"
