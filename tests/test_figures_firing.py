"""Figures on firing latents carry the numbers of their tables."""

import pytest
from drawn_figures import draw_figure, line_over
from figure_tables import CORPORA, CUT, GRID, fake_features

from faithful_sae import figures
from faithful_sae.statistics import seed_interval


def test_fake_feature_marks_stand_at_the_ratios_of_every_input_with_their_intervals():
    left, middle, right = draw_figure("fake_features").axes
    half = seed_interval({0: 0.0, 1: 0.01, 2: 0.02}).high - 0.01
    found = []
    for container in left.containers:
        line, _, (bar,) = container.lines
        ((low, y), (high, _)) = bar.get_segments()[0]
        hollow = line.get_markerfacecolor() == "white"
        found.append((int(y + 0.5), line.get_xdata()[0], low, high, line.get_marker(), hollow))
    expected = [
        mark
        for y, paper in enumerate([0.01, 0.16])
        for mark in [
            (y, paper, paper - half, paper + half, "o", False),
            *((y, v, v, v, m, h) for v, m, h in [(0.02, "o", True), (0.12, "^", False)]),
            *((y, v, v, v, m, h) for v, m, h in [(0.14, "s", False), (0.3, "D", True)]),
        ]
    ]
    assert len(found) == len(expected)
    for mark, wanted in zip(found, expected, strict=True):
        assert mark[1:4] == pytest.approx(wanted[1:4])
        assert (mark[0], *mark[4:]) == (wanted[0], *wanted[4:])
    assert [label.get_text() for label in left.get_yticklabels()] == CORPORA
    assert line_over(middle, GRID) == pytest.approx([0.10, 0.01])
    assert line_over(right, [0, 1, 2]) == pytest.approx([0.32, 0.01, 0.005])
    assert line_over(right, [3.5, 4.5]) == pytest.approx([0.22, 0.12])
    names = [label.get_text() for label in right.get_xticklabels()]
    assert names == ["0", "1", "2", "50%", "90%"]


def test_the_ceiling_is_a_line_where_it_fits_and_words_where_it_does_not():
    near = figures.fake_features(fake_features(ceiling=0.35), CORPORA, **CUT).axes[0]
    (line,) = [line for line in near.get_lines() if line.get_linestyle() == "--"]
    assert line.get_xdata() == pytest.approx([0.35, 0.35])
    assert near.get_title("right") == ""
    far = figures.fake_features(fake_features(ceiling=0.9), CORPORA, **CUT).axes[0]
    assert far.get_title("right") == "ceiling 0.90, beyond this axis"
    assert far.get_xlim()[1] < 0.9


def test_a_cut_that_was_not_measured_is_named():
    with pytest.raises(ValueError, match=r"frequency 0\.3"):
        figures.fake_features(fake_features(), CORPORA, min_activation=1.0, frequency=0.3)


def test_firing_histograms_count_every_latent_once():
    axes = draw_figure("firing_frequencies").axes[0]
    heldout = axes.patches[0].get_data().values
    points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert [line.get_marker() for line in points] == ["D", "o", "^", "s"]
    assert [line.get_ydata()[0] for line in points] == pytest.approx([0.25, 0.5, 0.75, 0.0])
    curves = [line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) > 2]
    assert [sum(y) for y in (heldout, *curves)] == pytest.approx([0.75, 0.5, 0.25, 1.0])
