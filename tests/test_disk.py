"""A disk that is too small is an error before any work, and says what to do."""

from types import SimpleNamespace

import pytest
from synthetic_shards import LENGTHS, rows_of, write_shards

from faithful_sae import disk


def test_too_small_a_disk_is_an_error_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(
        OSError,
        match="shard0.parquet, for a while twice, need .* GB",
    ):
        write_shards(tmp_path, rows_of(), LENGTHS)
    assert not [*tmp_path.rglob("shard*"), *tmp_path.rglob("*.partial")]
