"""A study that the disk cannot hold is refused before it begins."""

from types import SimpleNamespace

import pytest

from faithful_sae.study_disk import require_disk_for_study


def test_a_study_too_large_for_the_disk_is_refused_and_what_is_there_counts(tmp_path, monkeypatch):
    shard = tmp_path / "faithful" / "resid_pre.1" / "train" / "shard0.parquet"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(bytes(6_000))
    config = {
        "models": {tmp_path.name: {"hooks": ["resid_pre.1", "resid_pre.2"], "corpora": None}},
        "corpora": {"faithful": {}},
        "saes": {"topk": {"source": "trained", "models": None, "corpora": None}},
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
    # So do SAEs that are trained on fewer, and an SAE of another model needs nothing.
    config["models"][tmp_path.name]["corpora"] = None
    config["saes"]["topk"]["corpora"] = ["faithful"]
    config["saes"]["elsewhere"] = {"source": "trained", "models": ["another"], "corpora": None}
    require_disk_for_study(tmp_path, 40, config)
