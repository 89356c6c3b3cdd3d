"""Each mistake in the use of a pretrained SAE, planted on a tiny model, is told from none."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import VOCABULARY, make_model

from faithful_sae.audit import audit_sae, kept_activations, nll
from faithful_sae.audit_checks import (
    check_hook,
    check_input,
    check_k,
    check_tokenizer,
    slope,
)
from faithful_sae.checksums import seal
from faithful_sae.hook_names import hook_block
from faithful_sae.sae import SAE
from faithful_sae.shards import Positions
from faithful_sae.trainer import SAEConfig, Trainer
from faithful_sae.verdicts import suspicions
from faithful_sae.vocabulary import vocabulary_sha256

POSITIONS = Positions(skip_first=1, max_norm=None)
HOOK, K = "resid_pre.1", 4


def contexts(n: int, seed: int) -> list[np.ndarray]:
    """The text of this test: one id after the other, from a random one on."""
    starts = np.random.default_rng(seed).integers(1, VOCABULARY, n)
    return [np.r_[0, (start + np.arange(15)) % (VOCABULARY - 1) + 1] for start in starts]


@pytest.fixture(scope="module")
def model():
    """A model that has learned the text."""
    model = make_model("llama").requires_grad_(True)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(60):
        ids = torch.tensor(np.stack(contexts(16, step)))
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def sae(model) -> SAE:
    """Trained on the model's activations of the text at HOOK, in the units they have."""
    return trained_on(kept_activations(model, contexts(200, 7), hook_block(HOOK), POSITIONS))


def trained_on(x: torch.Tensor) -> SAE:
    sae = SAE.untrained(d_in=16, d_sae=64, k=K, seed=0)
    sae.b_dec = x.mean(0)
    config = SAEConfig(
        architecture="topk", expansion=4, k=K, encoder_bias=False, training_tokens=0,
        batch_size=256, lr=3e-3, dead_after=10_000,
    )  # fmt: skip
    trainer = Trainer(sae, config)
    order = torch.Generator().manual_seed(0)
    for _ in range(200):
        trainer.step(x[torch.randint(len(x), (256,), generator=order)])
    return trainer.trained()


@pytest.fixture(scope="module")
def near(model):
    return {
        f"resid_pre.{block}": kept_activations(model, contexts(40, 9), block, POSITIONS)
        for block in range(3)
    }


def verdict(rows):
    (row,) = [row for row in rows if row.verdict]
    return row.verdict, row.cause


def test_an_sae_at_its_own_hook_fits_and_at_a_neighbour_of_it_is_told_so(sae, near):
    assert verdict(check_hook(sae, HOOK, near, None))[0] == "fits"
    for stated in ("resid_pre.0", "resid_pre.2"):
        found, cause = verdict(check_hook(sae, stated, near, None))
        assert found == "suspect" and cause.endswith(f"its hook is {HOOK}, or beyond")


def test_an_sae_whose_files_name_another_hook_is_suspect(sae, near):
    assert verdict(check_hook(sae, HOOK, near, HOOK))[0] == "fits"
    found, cause = verdict(check_hook(sae, HOOK, near, "resid_pre.2"))
    assert found == "suspect" and "names resid_pre.2, the study reads resid_pre.1" in cause


def test_an_sae_that_explains_nothing_near_its_hook_is_no_sae_of_it(sae, near):
    found, cause = verdict(check_hook(replace(sae, W_dec=-sae.W_dec), HOOK, near, HOOK))
    assert found == "suspect" and "less than the mean alone" in cause


def test_what_leaves_the_last_block_is_a_neighbour_before_the_final_norm(model):
    last = len(model.model.layers)
    text = contexts(5, 2)
    found = kept_activations(model, text, last, POSITIONS)
    tokens = torch.tensor(np.stack(text))
    outputs = []
    handle = model.model.layers[-1].register_forward_hook(lambda _m, _a, y: outputs.append(y))
    normed = model(tokens, output_hidden_states=True).hidden_states[last][:, 1:]
    handle.remove()
    assert torch.allclose(found, outputs[0][:, 1:].flatten(0, 1), atol=1e-6)
    assert not torch.allclose(found, normed.flatten(0, 1), atol=0.1)


def test_an_sae_of_the_last_blocks_output_is_told_from_one_of_its_input(model, tokenizer):
    last = len(model.model.layers)
    texts = {"b": pa.table({"tokens": contexts(80, 5)})}
    x = kept_activations(model, contexts(200, 7), last, POSITIONS)
    found = audit_sae(
        model, tokenizer, trained_on(x), {"k": K}, f"resid_pre.{last - 1}", texts, ["b"], POSITIONS
    )
    (cause,) = found.filter(check="hook", verdict="suspect")["cause"]
    assert cause.endswith(f"its hook is resid_pre.{last}, or beyond")


def folded(sae: SAE, factor: float) -> SAE:
    """Trained on activations times `factor`, and used on them as they are."""
    return SAE(sae.W_enc, sae.b_enc * factor, sae.W_dec, sae.b_dec * factor, sae.k)


def test_an_input_that_is_used_otherwise_than_in_training_is_told(sae, near):
    x = near[HOOK]
    norm = float(x.norm(dim=1).mean())
    shift = sae.b_dec @ sae.W_enc
    assert verdict(check_input(sae, x))[0] == "fits"
    for wrong, said in (
        (folded(sae, math.sqrt(sae.d_in) / norm), "norms of sqrt(d_in)"),
        (folded(sae, 1 / norm), "norms of 1"),
        (replace(sae, b_enc=sae.b_enc + shift), "b_dec subtracted"),
        (replace(sae, b_enc=sae.b_enc - shift), "b_dec not subtracted"),
    ):
        found, cause = verdict(check_input(wrong, x))
        assert found == "suspect" and f"with {said}: " in cause, (said, cause)
    z = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    found, cause = verdict(check_input(trained_on(z), x))
    assert found == "suspect" and "with each token standardised: " in cause, cause


def test_a_k_that_is_not_the_one_of_the_training_is_told(model, sae, near):
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (40, 15))
    unknown = kept_activations(model, [np.r_[0, row] for row in ids], hook_block(HOOK), POSITIONS)
    assert slope(sae, unknown) < 0.95  # where it would be called another k
    texts = {"known": near[HOOK], "unknown": unknown}
    assert verdict(check_k(sae, K, texts))[0] == "fits"
    for wrong, said in ((K // 2, "larger"), (2 * K, "smaller"), (32, "smaller")):
        found, cause = verdict(check_k(replace(sae, k=wrong), wrong, texts))
        assert found == "suspect" and f"k = {wrong}" in cause and said in cause, (wrong, cause)


def test_a_topk_sae_that_is_read_as_relu_fires_too_often(sae, near):
    as_relu = replace(sae, threshold=torch.zeros(sae.d_sae))
    found, cause = verdict(check_k(as_relu, K, {"a": near[HOOK]}))
    assert found == "suspect" and "activation function is not the one" in cause
    assert verdict(check_k(as_relu, None, {"a": near[HOOK]}))[0] == "unknown"


def test_a_wrong_tokenizer_makes_every_text_as_unlikely_as_random_ids(model):
    right = {"notes": nll(model, contexts(20, 3))}
    assert verdict(check_tokenizer(None, "a", right, VOCABULARY))[0] == "fits"
    other = np.random.default_rng(0).permutation(VOCABULARY)
    wrong = {"notes": nll(model, [np.r_[0, other[row[1:]]] for row in contexts(20, 3)])}
    found, cause = verdict(check_tokenizer(None, "a", wrong, VOCABULARY))
    assert found == "suspect" and "another tokenizer's ids" in cause
    both = verdict(check_tokenizer(None, "a", {"other": wrong["notes"]} | right, VOCABULARY))
    assert both[0] == "fits"  # one strange text is no wrong tokenizer
    assert verdict(check_tokenizer(None, "a", {}, VOCABULARY))[0] == "unknown"


def test_the_vocabulary_that_the_files_name_is_said_to_be_the_one():
    found, cause = verdict(check_tokenizer("a", "a", {}, 100))
    assert found == "fits" and "vocabulary is the one that its files name" in cause
    assert "vocabulary" not in verdict(check_tokenizer(None, "a", {"notes": 1.0}, 100))[1]


def test_another_vocabulary_than_the_one_named_is_suspect_whatever_the_likelihood():
    likely = {"notes": 1.0}
    assert verdict(check_tokenizer("a", "a", likely, 100))[0] == "fits"
    found, cause = verdict(check_tokenizer("b" * 64, "a" * 64, likely, 100))
    assert found == "suspect" and "bbbbbbbb" in cause and "aaaaaaaa" in cause


def test_the_digest_of_a_vocabulary_changes_with_any_token_and_not_with_their_order():
    digest = [
        vocabulary_sha256(SimpleNamespace(get_vocab=lambda vocabulary=v: vocabulary))
        for v in ({"a": 0, "b": 1}, {"b": 1, "a": 0}, {"a": 1, "b": 0}, {"a": 0, "c": 1})
    ]
    assert digest[0] == digest[1] and len(set(digest)) == 3


def test_likelihood_is_the_mean_over_predicted_tokens(model):
    rows = [*contexts(3, 1), contexts(1, 2)[0][:6]]
    losses = [
        -model(torch.tensor(row[None])).logits[0, :-1].log_softmax(-1)[range(len(row) - 1), row[1:]]
        for row in rows
    ]
    assert nll(model, rows) == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)


def test_an_audit_has_one_verdict_for_each_check(model, sae, tokenizer):
    texts = {name: pa.table({"tokens": contexts(80, seed)}) for name, seed in (("a", 4), ("b", 5))}
    said = {"k": K, "hook": HOOK, "vocabulary_sha256": vocabulary_sha256(tokenizer)}
    table = audit_sae(model, tokenizer, sae, said, HOOK, texts, ["b"], POSITIONS)
    judged = table.filter(table["verdict"].is_not_null())
    assert dict(judged.select("check", "verdict").iter_rows()) == dict.fromkeys(
        ("hook", "input", "k", "tokenizer"), "fits"
    )
    assert dict(judged.select("check", "candidate").iter_rows()) == {
        "hook": HOOK, "input": "as read", "k": str(K), "tokenizer": "random ids"
    }  # fmt: skip
    assert set(table.filter(table["check"] == "hook")["candidate"]) == {
        "resid_pre.0", "resid_pre.1", "resid_pre.2"
    }  # fmt: skip
    chance = table.filter(table["candidate"] == "random ids")["value"].item()
    assert chance == pytest.approx(math.log(VOCABULARY))


def test_who_runs_a_study_is_told_of_what_is_suspect_and_of_nothing_else(tmp_path):
    assert suspicions(tmp_path / "audit.csv") == []
    (tmp_path / "audit.csv").write_text(
        "model,sae,check,verdict,cause\n"
        'gpt2,jb,hook,suspect,"explains 0.1, its hook is resid_pre.9"\n'
        "gpt2,jb,k,fits,as stated\ngpt2,jb,k,,\n"
    )
    assert suspicions(tmp_path / "audit.csv") == [
        "gpt2, jb, hook: explains 0.1, its hook is resid_pre.9"
    ]
    seal(tmp_path, tmp_path / "audit.csv")
    text = (tmp_path / "audit.csv").read_text()
    (tmp_path / "audit.csv").write_text(text.replace("suspect", "suspecu"))
    with pytest.raises(ValueError, match="audit.csv is damaged"):
        suspicions(tmp_path / "audit.csv")
