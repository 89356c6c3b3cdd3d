"""What holds for all figures: they are read back from what is drawn."""

import ast
import inspect
import math
import os
import re
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
import pytest
from drawn_figures import NAMES, OF_EVALUATIONS, OF_KNOWN, draw_figure, words_of
from figure_tables import CORPORA, SEEDS, norms, reconstruction, summarised, tables

from faithful_sae import figures
from faithful_sae.figures.style import PALETTE, describe, looks
from faithful_sae.statistics import Interval, seed_interval


def test_reconstruction_cells_hold_mean_and_half_interval_of_kept_positions():
    ce, mse, variance = draw_figure("reconstruction").axes
    half = seed_interval({0: 0.0, 1: 0.1, 2: 0.2}).high - 0.1
    cells = {text.get_position(): text.get_text() for text in ce.texts}
    assert cells[0, 0] == f"1.30\n±{half:.2f}"
    assert cells[1, 0] == f"4.30\n±{half:.2f}"  # trained on the first, evaluated on the second
    assert cells[0, 1] == f"4.60\n±{half:.2f}"
    assert np.asarray(ce.images[0].get_array()) == pytest.approx(np.array([[1.3, 4.3], [4.6, 1.6]]))
    assert {text.get_text().split("\n")[0] for text in mse.texts} == {"150", "151"}
    assert [label.get_text() for label in variance.get_xticklabels()] == CORPORA


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("first_tokens", "norms")])
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_figure_over_seeds_says_how_many_or_that_they_are_too_few(name, seeds):
    heading = " ".join(words_of(draw_figure(name, tables(tuple(SEEDS[:seeds])))))
    if seeds == 3:
        assert "n = 3 seeds" in heading
    else:
        assert "n = 1 seed" in heading or "too few seeds" in heading
        assert "95 % interval" not in heading


def test_seed_counts_that_differ_are_given_as_a_range():
    intervals = [Interval(0.1, 0.0, 0.2, 3), Interval(0.1, math.nan, math.nan, 1)]
    assert describe(intervals).endswith("n = 1 to 3 seeds")


@pytest.mark.parametrize(("value", "everywhere"), [(math.nan, True), (math.inf, False)])
@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_leave_every_figure_of_evaluations_drawable(value, everywhere):
    made = dict(tables())
    broken = pl.lit(True) if everywhere else pl.col("corpus") == "code"
    # Shares of latents are finite or, where none is alive, no number.
    shares = [] if math.isinf(value) else ["similarity", "fake_features", "probing"]
    for name in ("reconstruction", *shares):
        made[name] = made[name].with_columns(value=pl.when(broken).then(value).otherwise("value"))
    divergence = {"metric": pl.lit("first_token_kl_model_corpus"), "value": pl.lit(value)}
    gaps = made["corpus_statistics"]
    made["corpus_statistics"] = pl.concat([gaps, gaps.with_columns(**divergence)])
    made |= summarised(made)
    for name in OF_EVALUATIONS:
        draw_figure(name, made).savefig(BytesIO(), format="png", dpi=20)
    texts = draw_figure("reconstruction", made).axes[0].texts
    # Cells without a number are white.
    assert {t.get_color() for t in texts if t.get_text() == f"{value}"} == {"black"}


def test_rule_library_and_captions_name_the_same_figures():
    workflow = Path(__file__).parent.parent / "workflow"
    rule = (workflow / "rules" / "report.smk").read_text()
    ruled = re.findall(r'"(\w+)"', re.search(r"^FIGURES = \[\n(.*?)^\]", rule, re.M | re.S)[1])
    captions = {path.stem for path in (workflow / "report").glob("*.rst")}
    (keys,) = [
        [ast.literal_eval(key) for key in node.keys]
        for node in ast.walk(ast.parse(inspect.getsource(figures.draw)))
        if isinstance(node, ast.Dict) and isinstance(node.values[0], ast.Lambda)
    ]
    drawn = captions - {"audit", "features", "summary", "ground_truth", "workflow"}
    assert sorted(ruled) == sorted(keys) == sorted(drawn) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_combination_gets_panels_of_its_own_and_no_word_is_too_small(name):
    one = tables()
    two = {
        key: pl.concat([table, table.with_columns(model=pl.lit("other"))])
        for key, table in one.items()
    }
    figure = draw_figure(name, two)
    assert len(figure.axes) == 2 * len(draw_figure(name, one).axes)
    assert any(word.startswith("other") for word in words_of(figure))
    sizes = [t.get_fontsize() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]
    assert min(sizes) >= 8


# Comparisons with the reference corpus have no such model; known features have all corpora.
@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("claims", "differences", *OF_KNOWN)]
)
def test_a_model_studied_on_some_corpora_alone_has_panels_of_these(name):
    control = {}
    for table, rows in tables().items():
        if "corpus" not in rows.columns:
            control[table] = rows
            continue
        there = pl.col("corpus") != "faithful"  # probing baselines have a corpus of their own
        if "eval_corpus" in rows.columns:
            there &= pl.col("eval_corpus") != "faithful"
        control[table] = pl.concat([rows, rows.filter(there).with_columns(model=pl.lit("z"))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_figure(name, control)
    whole, part = figure.subfigs
    used = [[axes for axes in half.axes if axes.axison] for half in (whole, part)]
    assert [axes.get_title() for axes in used[0]].count("faithful") == [
        axes.get_title() for axes in used[1]
    ].count("faithful") + (name in ("first_tokens", "firing_frequencies", "threshold_curves"))
    assert used[1][0].get_ylabel() == used[0][0].get_ylabel()
    assert "faithful" not in [t.get_text() for axes in used[1] for t in axes.get_xticklabels()]


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_does_not_change_a_figure(name):
    made = tables()
    shuffled = {key: t.sample(fraction=1, shuffle=True, seed=1) for key, t in made.items()}
    files = []
    for version in (made, shuffled):
        drawn = BytesIO()  # a PDF, unlike pixels, shows the order of what is drawn
        draw_figure(name, version).savefig(drawn, format="pdf", metadata={"CreationDate": None})
        files.append(drawn.getvalue())
    assert files[0] == files[1]


def test_a_colour_stays_with_its_place_and_many_corpora_stay_apart():
    assert looks(["a", "b"])["b"].colour == looks(["x", "b", "c"])["b"].colour == PALETTE[1]
    many = looks([f"c{i}" for i in range(18)]).values()
    assert len({(look.colour, look.marker) for look in many}) == 18
    assert len({(look.colour, look.line) for look in many}) == 18


def test_a_table_about_other_corpora_is_an_error():
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.norms(norms(), ["elsewhere"])


def test_two_values_of_one_seed_are_an_error():
    with pytest.raises(ValueError, match="several values"):
        figures.reconstruction(pl.concat([reconstruction(), reconstruction()]), CORPORA)


SAVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import drawn_figures as t
out = Path(sys.argv[2])
t.figures.save(t.draw_figure("first_tokens"), out / "a.pdf", out / "a.png", 60)
"""


def test_the_same_table_gives_the_same_bytes_in_another_process(tmp_path):
    saved = []
    for salt in ("1", "2"):
        out = tmp_path / salt
        environment = os.environ | {
            "PYTHONHASHSEED": salt,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SOURCE_DATE_EPOCH": salt,
        }
        command = [sys.executable, "-c", SAVE, str(Path(__file__).parent), str(out)]
        subprocess.run(command, check=True, env=environment)
        saved.append([(out / "a.pdf").read_bytes(), (out / "a.png").read_bytes()])
    assert saved[0] == saved[1]
    assert b"/Type3" not in saved[0][0] and b"CreationDate" not in saved[0][0]


def test_a_figure_that_cannot_be_saved_leaves_no_file(tmp_path):
    figure = draw_figure("norms")
    figure.axes[0].set_title("$unclosed {$")
    with pytest.raises(ValueError):
        figures.save(figure, tmp_path / "a.pdf", tmp_path / "a.png", 60)
    assert list(tmp_path.iterdir()) == []
