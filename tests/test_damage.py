"""One flipped bit in any kind of file is found when the file is read, or changes nothing."""

import json
import zipfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_shards import write_shards

from faithful_sae.archives import read_member
from faithful_sae.arrow import read_arrow, write_arrow
from faithful_sae.checksums import SEAL, read_json, seal, verify, write_json
from faithful_sae.contexts import Context, context_table
from faithful_sae.corpus import SAMPLES
from faithful_sae.digest import folder_stamp
from faithful_sae.prepare import link_model
from faithful_sae.sae import SAE
from faithful_sae.shards import EVERY_POSITION, Shards
from faithful_sae.tables import read_tables, write_csv
from faithful_sae.tidy import read_parquet, write_parquet

TABLE = pl.DataFrame({"metric": ["l0", "fvu"], "value": [1.25, None], "seed": [0, 1]})


def contexts(folder: Path) -> tuple[Path, object]:
    rows = [Context(b"", i, 0, torch.arange(i + 3).numpy(), i == 2) for i in range(4)]
    write_arrow(context_table(rows), folder / "train.parquet")
    return folder / "train.parquet", lambda: read_arrow(folder / "train.parquet").to_pylist()


def samples(folder: Path) -> tuple[Path, object]:
    rows = [{"document": i, "tokens": [i, 7], "ended": True} for i in range(3)]
    write_arrow(pa.Table.from_pylist(rows, schema=SAMPLES), folder / "shard0.parquet")
    return folder / "shard0.parquet", lambda: read_arrow(folder / "shard0.parquet").to_pylist()


def shard(folder: Path) -> tuple[Path, object]:
    (path,) = write_shards(folder, torch.arange(40.0).view(20, 2), [5] * 4)

    def read() -> list:
        shards = Shards([path], EVERY_POSITION)
        x = torch.cat(list(shards.batches())).tolist()
        columns = [shards.document, shards.position, shards.norm]
        return [x, *(column.tolist() for column in columns), shards.metadata]

    return path, read


def facts(folder: Path) -> tuple[Path, object]:
    write_json({"start_token": 0, "entry": {"hooks": ["resid_pre.1"]}}, folder / "model.json")
    return folder / "model.json", lambda: read_json(folder / "model.json")


def table(folder: Path) -> tuple[Path, object]:
    write_parquet(TABLE, folder / "similarity.parquet")
    return folder / "similarity.parquet", lambda: read_parquet(folder / "similarity.parquet").rows()


def gathered(folder: Path) -> tuple[Path, object]:
    write_csv(TABLE, folder / "summary.csv")
    seal(folder, folder / "summary.csv")
    paths = [folder / "summary.csv", folder / SEAL]
    return folder / "summary.csv", lambda: read_tables(paths)["summary"].rows()


def weights(folder: Path) -> tuple[Path, object]:
    SAE.untrained(d_in=3, d_sae=4, k=2, seed=0).save(folder, {"seed": 0, "hook": "resid_pre.1"})

    def read() -> list:
        sae = SAE.load(folder)
        config = json.loads((folder / "cfg.json").read_text())  # read by exports
        return [config, *(t.tolist() for t in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec))]

    return folder / "sae_weights.safetensors", read


def sae_config(folder: Path) -> tuple[Path, object]:
    return folder / "cfg.json", weights(folder)[1]


def model(folder: Path) -> tuple[Path, object]:
    (folder / "model.safetensors").write_bytes(bytes(range(100)))
    seal(folder)

    def read() -> bytes:
        verify(folder)
        return (folder / "model.safetensors").read_bytes()

    return folder / "model.safetensors", read


def models_seal(folder: Path) -> tuple[Path, object]:
    return folder / SEAL, model(folder)[1]


def tables_seal(folder: Path) -> tuple[Path, object]:
    return folder / SEAL, gathered(folder)[1]


def download(folder: Path) -> tuple[Path, object]:
    with zipfile.ZipFile(folder / "a.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("package/text.txt", "once upon a time " * 20)
    return folder / "a.whl", lambda: read_member(folder / "a.whl", "package/text.txt")


KINDS = [
    *(contexts, samples, shard, facts, table, gathered, tables_seal),
    *(weights, sae_config, model, models_seal, download),
]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, derandomize=True)  # more of them by hand: 1,500 passed
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_with_the_files_name_or_changes_nothing(
    tmp_path_factory, kind, where, bit
):
    path, read = kind(tmp_path_factory.mktemp("damage"))
    expected = read()
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        found = read()
    except ValueError as error:
        assert str(path.parent) in str(error) and path.name in str(error)
    else:
        assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_off_file_is_found(tmp_path, kind):
    path, read = kind(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{path.parent}.*{path.name}"):
        read()


def test_a_seal_names_the_file_that_is_missing_or_changed(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("config.json", "sub/model.safetensors"):
        (tmp_path / name).write_text(name)
    seal(tmp_path)
    verify(tmp_path)
    (tmp_path / "sub/model.safetensors").write_text("other")
    with pytest.raises(ValueError, match="sub/model.safetensors is damaged"):
        verify(tmp_path)
    verify(tmp_path, without=".safetensors")  # whoever reads only the rest
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json is damaged .it is missing"):
        verify(tmp_path, without=".safetensors")


def sealed_folder(folder: Path) -> None:
    (folder / "sub").mkdir(parents=True)
    for name in ("config.json", "sub/model.safetensors"):
        (folder / name).write_text(name)
    seal(folder)


@pytest.mark.parametrize("lines", [0, 1])
def test_a_seal_that_was_cut_at_a_line_accepts_nothing(tmp_path, lines):
    sealed_folder(tmp_path)
    whole = (tmp_path / SEAL).read_text().splitlines(keepends=True)
    (tmp_path / SEAL).write_text("".join(whole[:lines]))
    with pytest.raises(ValueError, match="is damaged .SHA256SUMS does not list it"):
        verify(tmp_path)


def test_a_file_that_was_not_sealed_is_refused_unless_it_is_hidden_or_passed_over(tmp_path):
    sealed_folder(tmp_path)
    (tmp_path / ".snakemake_timestamp").touch()
    verify(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="model.safetensors.index.json is damaged"):
        verify(tmp_path)
    verify(tmp_path, without=".index.json")
    verify(tmp_path, tmp_path / "config.json")  # what else lies beside is not asked about


def test_damage_in_a_folder_that_one_rule_makes_says_to_delete_the_folder(tmp_path):
    """Without the file alone, Snakemake sees its output there and makes nothing anew."""
    sealed_folder(tmp_path / "model")
    (tmp_path / "model/config.json").write_text("other")
    with pytest.raises(ValueError, match=f"delete the folder {tmp_path / 'model'} and run again"):
        verify(tmp_path / "model")
    with pytest.raises(ValueError, match="; delete it and run again"):
        verify(tmp_path / "model", tmp_path / "model/config.json")


def test_a_linked_models_subfolders_are_sealed_too(tmp_path):
    for folder in ("mine/sub", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.safetensors").write_text("weights")
    (tmp_path / "mine/linked").symlink_to(tmp_path / "elsewhere")
    link_model(tmp_path / "mine", tmp_path / "model")
    for folder in ("mine/sub", "elsewhere"):
        before = folder_stamp(tmp_path / "mine")
        verify(tmp_path / "model")
        (tmp_path / folder / "model.safetensors").write_text("other weights")
        with pytest.raises(ValueError, match="model.safetensors is damaged"):
            verify(tmp_path / "model")
        (tmp_path / folder / "model.safetensors").write_text("weights")
        assert folder_stamp(tmp_path / "mine") != before


def test_a_linked_model_that_was_sealed_before_is_sealed_anew(tmp_path):
    """A folder that this workflow made, for instance, in another study."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text("{}")
    for _ in range(2):
        seal(tmp_path / "mine")
        verify(tmp_path / "mine")
    link_model(tmp_path / "mine", tmp_path / "linked")
    verify(tmp_path / "linked")
    assert not (tmp_path / "linked" / SEAL).is_symlink()


def test_a_linked_model_is_sealed_too(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text("{}")
    link_model(tmp_path / "mine", tmp_path / "linked")
    (tmp_path / "mine/config.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="linked/config.json is damaged"):
        verify(tmp_path / "linked")


def test_what_a_user_may_edit_in_an_saes_config_is_no_damage(tmp_path):
    weights(tmp_path)
    text = (tmp_path / "cfg.json").read_text()
    (tmp_path / "cfg.json").write_text(text.replace('"seed": 0', '"seed": 0, "author": "me"'))
    assert SAE.load(tmp_path).k == 2


def test_weights_of_another_seed_are_not_those_of_this_ones_config(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / f"seed{seed}"
        SAE.untrained(d_in=3, d_sae=4, k=2, seed=seed).save(folder, {"seed": seed})
    (tmp_path / "seed1/sae_weights.safetensors").replace(tmp_path / "seed0/sae_weights.safetensors")
    with pytest.raises(ValueError, match="seed0/sae_weights.safetensors is damaged"):
        SAE.load(tmp_path / "seed0")


def test_a_study_that_is_moved_with_its_models_still_has_them(tmp_path, monkeypatch):
    (tmp_path / "study/mine/inner").mkdir(parents=True)
    (tmp_path / "study/mine/inner/weights").write_text("1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study/resources").symlink_to(tmp_path / "elsewhere")  # on a larger disk
    monkeypatch.chdir(tmp_path / "study")
    link_model(Path("mine"), Path("resources/far"))
    verify(Path("resources/far"))
    link_model(Path("mine"), Path("models/near"))
    link_model(Path("mine").absolute(), Path("models/fixed"))
    (tmp_path / "study").rename(tmp_path / "moved")
    verify(tmp_path / "moved/models/near")
    with pytest.raises(ValueError, match="inner/weights is damaged .it is missing"):
        verify(tmp_path / "moved/models/fixed")
