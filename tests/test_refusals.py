"""What Snakemake refuses to begin or to go on with, in one line that says why."""

import shutil

import pytest
from tiny_study import snakemake

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("study: tiny", "study: tiny\nsedes: [1]", "sedes: unknown key; did you mean seeds?"),
        ("k: 4", "k: many", "saes.topk.k: 'many' must be of type integer"),
        ("path: notes.jsonl", "path: nowhere.jsonl", "corpora.notes.path: nowhere.jsonl does not"),
    ],
)
def test_a_bad_config_fails_in_one_line_before_any_work(study, edit, old, new, said):
    edit("tests/tiny/config.yaml", old, new)
    output = snakemake(study, "-n")
    assert said in output and not output.endswith("exit 0")
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[resid_pre.1]", "[resid_pre.7]", "models.tiny.hooks: resid_pre.7 lies beyond"),
        ("k: 4", "k: 65", "saes.topk.k: 65 active latents exceed d_sae = 64"),
    ],
)
def test_what_only_the_model_can_tell_fails_before_other_work(study, edit, old, new, said):
    edit("tests/tiny/config.yaml", old, new)
    # The model is known: before any work, in a dry run too.
    output = snakemake(study, "-n")
    assert said in output and not output.endswith("exit 0")
    # The model is not known yet: as soon as it is.
    edit("tests/tiny/config.yaml", "study: tiny", "study: other")
    output = snakemake(study, "--cores", "1", "--show-failed-logs")
    assert said in output and not output.endswith("exit 0")
    assert not (study / "tests/tiny/results/other/tiny").joinpath("faithful").exists()
    shutil.rmtree(study / "tests/tiny/results/other", ignore_errors=True)


def test_a_damaged_shard_is_named_and_no_sae_is_left(study, edit):
    folder = study / "tests/tiny/results/tiny/tiny/faithful/resid_pre.1"
    shard = folder / "train/shard0.parquet"
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 1
    shard.write_bytes(damaged)
    weights = folder / "topk/seed0/sae_weights.safetensors"
    kept = weights.read_bytes()
    try:
        target = str(weights.relative_to(study / "tests/tiny"))
        output = snakemake(study, target, "-R", "train_sae", "--cores", "1", "--show-failed-logs")
        assert "shard0.parquet is damaged" in output and output.endswith("exit 1")
        assert not weights.exists()
    finally:
        shard.write_bytes(whole)
        weights.parent.mkdir(exist_ok=True)
        weights.write_bytes(kept)


def test_a_table_that_was_damaged_is_refused_by_name_and_never_summarised(study):
    output = snakemake(study, "--cores", "2")  # whatever tests before this one left undone
    assert output.endswith("exit 0"), output[-3000:]
    path = study / "tests/tiny/results/tiny/tables/reconstruction.csv"
    whole = path.read_bytes()
    seal = path.with_name("SHA256SUMS").read_bytes()
    digit = whole.rindex(b".") + 1
    path.write_bytes(whole[:digit] + b"%d" % (9 - int(whole[digit:][:1])) + whole[digit + 1 :])
    output = snakemake(study, "-R", "draw_figures", "--cores", "1", "--show-failed-logs")
    assert "reconstruction.csv is damaged" in output and output.endswith("exit 1")
    output = snakemake(study, "-R", "summarise", "--cores", "1")
    assert output.endswith("exit 0"), output[-3000:]
    assert path.read_bytes() == whole  # gathered anew, from tables that carry digests
    assert path.with_name("SHA256SUMS").read_bytes() == seal
