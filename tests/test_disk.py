"""A disk that is too small is an error before any work, and says what to do."""

from types import SimpleNamespace

import pytest
from synthetic_shards import LENGTHS, rows_of, write_shards

from faithful_sae import disk
from faithful_sae.disk import require_disk_for_study


def test_too_small_a_disk_is_an_error_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(
        OSError,
        match="shard0.parquet, for a while twice, need .* GB",
    ):
        write_shards(tmp_path, rows_of(), LENGTHS)
    assert not [*tmp_path.rglob("shard*"), *tmp_path.rglob("*.partial")]


def test_a_study_too_large_for_the_disk_is_refused_and_what_is_there_counts(tmp_path, monkeypatch):
    shard = tmp_path / "faithful" / "resid_pre.1" / "train" / "shard0.parquet"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(bytes(6_000))
    config = {
        "models": {tmp_path.name: {"hooks": ["resid_pre.1", "resid_pre.2"], "corpora": None}},
        "corpora": {"faithful": {}},
        "corpus_size": {"train_tokens": 30, "heldout_tokens": 10},
        "evaluations": {"fake_features": {"tokens": 10}},
        "activations": {"dtype": "float16"},
    }
    # Of 2 hooks x (40 tokens, 3 random inputs of 10) x 100 bytes, 6,000 are there.
    free = SimpleNamespace(free=8_000)
    monkeypatch.setattr("faithful_sae.disk.shutil.disk_usage", lambda _: free)
    require_disk_for_study(tmp_path, 40, config)
    config["corpus_size"]["train_tokens"] = 31
    with pytest.raises(OSError, match="the activations of this study need"):
        require_disk_for_study(tmp_path, 40, config)
    # A model that is studied on fewer corpora needs less.
    config["corpora"]["other"] = {}
    config["corpus_size"]["train_tokens"] = 30
    with pytest.raises(OSError, match="the activations of this study need"):
        require_disk_for_study(tmp_path, 40, config)
    config["models"][tmp_path.name]["corpora"] = ["other"]
    require_disk_for_study(tmp_path, 40, config)
