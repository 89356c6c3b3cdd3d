"""Figures on corpora, activations and training carry the numbers of their tables."""

import pytest
from drawn_figures import draw_figure, line_over

from faithful_sae.corpus_statistics import FIRST_TOKENS as TABLE_TOKENS
from faithful_sae.figures.data import FIRST_TOKENS


def test_first_tokens_are_the_likeliest_under_either_with_blanks_and_glyphs_escaped():
    upper = draw_figure("first_tokens").axes[0]
    labels = [label.get_text() for label in upper.get_yticklabels()]
    assert labels[:4] == ["'The'", "'\\n'", "'$x$'", "'\\u65e5…'"]
    assert len(labels) == 10
    widths = [bar.get_width() for bar in upper.patches]
    assert widths[:10] == pytest.approx([0.3 / (i + 1) for i in range(10)])
    assert widths[10:] == pytest.approx([0.0] + [0.2 / (i + 1) for i in range(1, 10)])


def test_norms_and_training_draw_the_numbers_of_their_tables():
    median, p95, largest = draw_figure("norms").axes
    assert line_over(median, range(6)) == pytest.approx([10.0] * 6)
    assert line_over(largest, range(6)) == pytest.approx([9e3 / (p + 1) for p in range(6)])
    fvu, dead = draw_figure("training_curves").axes
    assert line_over(fvu, [100, 200, 300]) == pytest.approx([0.21, 0.11, 0.2 / 3 + 0.01])
    band = dead.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.0, 0.2))


def test_the_curve_of_first_tokens_ends_where_the_table_is_complete() -> None:
    assert FIRST_TOKENS == TABLE_TOKENS
