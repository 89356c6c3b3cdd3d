"""An SAE that we export is one that we can audit: its files say all that the audit asks for."""

from types import SimpleNamespace

import pytest
import torch
from exports import ABOUT, SEED, K, save_sae, tables

from faithful_sae.audit_checks import check_tokenizer
from faithful_sae.export_sae import export_sae
from faithful_sae.heldout import Heldout
from faithful_sae.pretrained import import_sae, stated
from faithful_sae.sae import SAE
from faithful_sae.vocabulary import VOCABULARY, vocabulary_sha256


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_an_export_comes_back_as_the_same_function_and_names_its_vocabulary(
    tmp_path, tokenizer, threshold
):
    sae = save_sae(tmp_path / "sae", threshold=threshold)
    own = vocabulary_sha256(tokenizer)
    export_sae([tmp_path / "sae"], tmp_path / "out", tables(), **ABOUT | {"vocabulary": own})
    x = 3 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    heldout = Heldout([SimpleNamespace(d_in=6, batches=lambda: iter([x]))])
    back, provenance = import_sae(tmp_path / "out/layers.7", "resid_pre.8", heldout, {})
    assert torch.allclose(back.encode(x), sae.encode(x), atol=1e-6)
    back.save(tmp_path / "imported", provenance)
    said = stated(tmp_path / "imported")
    assert (said["k"], said["hook"], said[VOCABULARY]) == (K, "resid_pre.8", own)
    (row,) = check_tokenizer(said[VOCABULARY], own, {}, 128)
    assert row.verdict == "fits" and "the one that its files name" in row.cause
    tokenizer_of_another = SimpleNamespace(get_vocab=lambda: {"a": 0})
    other = vocabulary_sha256(tokenizer_of_another)
    (row,) = check_tokenizer(said[VOCABULARY], other, {}, 128)
    assert row.verdict == "suspect" and own[:8] in row.cause and other[:8] in row.cause


def test_a_rare_frequency_is_not_rounded_away_on_the_card(tmp_path):
    save_sae(tmp_path / "sae")
    rare = tables() | {"fake_features": tables()["fake_features"].with_columns(frequency=0.005)}
    export_sae([tmp_path / "sae"], tmp_path / "out", rare, **ABOUT | {"frequency": 0.005})
    assert (
        f"{0.2468 + SEED:.4g} of the latents exceed 1.0 on more than 0.5 %"
        in (tmp_path / "out/README.md").read_text()
    )


def test_a_card_does_not_call_the_embeddings_what_enters_block_0(tmp_path):
    """GPT-2 adds positions to them and Gemma scales them: the module's output is another."""
    save_sae(tmp_path / "sae", hook="resid_pre.0")
    export_sae([tmp_path / "sae"], tmp_path / "out", tables("resid_pre.0"), **ABOUT)
    card = (tmp_path / "out/README.md").read_text()
    assert "`blocks.0.hook_resid_pre` of a model loaded by `from_pretrained_no_processing`" in card
    assert "`embed_tokens`, where nothing scales them or adds positions" in card
    assert SAE.load(tmp_path / "out/embed_tokens").d_in == 6
