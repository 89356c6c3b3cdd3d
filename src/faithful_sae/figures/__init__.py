"""Figures of a study, each drawn from its tidy tables alone."""

from collections.abc import Callable, Mapping, Sequence

import polars as pl
from matplotlib.figure import Figure

from faithful_sae.figures.claims import claims
from faithful_sae.figures.comparisons import differences, dose_response
from faithful_sae.figures.data import first_tokens, norms, training_curves
from faithful_sae.figures.evaluations import reconstruction
from faithful_sae.figures.fake import fake_features
from faithful_sae.figures.firing import firing_frequencies
from faithful_sae.figures.forms import similarity_forms
from faithful_sae.figures.known import fake_calls, recovery
from faithful_sae.figures.probing import probing, sparse_probing
from faithful_sae.figures.stability import shared_features, threshold_curves
from faithful_sae.figures.style import save

__all__ = [
    "claims",
    "differences",
    "dose_response",
    "draw",
    "fake_calls",
    "fake_features",
    "firing_frequencies",
    "first_tokens",
    "norms",
    "probing",
    "reconstruction",
    "recovery",
    "save",
    "shared_features",
    "similarity_forms",
    "sparse_probing",
    "threshold_curves",
    "training_curves",
]


def draw(
    name: str,
    tables: Mapping[str, pl.DataFrame],
    corpora: Sequence[str],
    *,
    frequency: float,
    min_activation: float,
) -> Figure:
    """The figure of this name; `corpora` gives their order, the rest the study's fake-feature cut.

    Raises KeyError for a name that is no figure.
    """
    cut = {"frequency": frequency, "min_activation": min_activation}
    figures: dict[str, Callable[[], Figure]] = {
        "shared_features": lambda: shared_features(
            tables["similarity"], tables["summary"], corpora
        ),
        "threshold_curves": lambda: threshold_curves(tables["similarity"], corpora),
        "similarity_forms": lambda: similarity_forms(tables["similarity"], corpora),
        "reconstruction": lambda: reconstruction(tables["reconstruction"], corpora),
        "fake_features": lambda: fake_features(tables["fake_features"], corpora, **cut),
        "firing_frequencies": lambda: firing_frequencies(
            tables["firing_histogram"], corpora, min_activation
        ),
        "probing": lambda: probing(tables["probing"], corpora),
        "sparse_probing": lambda: sparse_probing(tables["probing"], corpora),
        "differences": lambda: differences(tables["differences"], corpora),
        "dose_response": lambda: dose_response(
            tables["summary"], tables["corpus_statistics"], tables["dose_response"], corpora
        ),
        "claims": lambda: claims(tables["claims"]),
        "first_tokens": lambda: first_tokens(tables["first_tokens"], corpora),
        "norms": lambda: norms(tables["norms"], corpora),
        "recovery": lambda: recovery(tables["summary"], tables["ground_truth"], corpora, frequency),
        "fake_calls": lambda: fake_calls(
            tables["summary"], tables["ground_truth"], corpora, frequency
        ),
        "training_curves": lambda: training_curves(tables["training"], corpora),
    }
    return figures[name]()
