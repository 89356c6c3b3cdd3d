"""A direction's logit effect is the usual product, whatever the model's family calls its norm."""

import numpy as np
import pytest
import torch
from conftest import make_model

from faithful_sae.logit_effects import EFFECTS, final_norm, logit_effects, strongest_effects


def test_the_final_norm_is_what_the_unembedding_reads(family_model):
    seen = {}
    handles = [
        module.register_forward_hook(lambda *args, name=name: seen.update({name: args}))
        for name, module in (
            ("norm", final_norm(family_model)),
            ("decoder", family_model.get_decoder()),
        )
    ]
    family_model(torch.tensor([[0, 5, 9]]))
    for handle in handles:
        handle.remove()
    _, (before,), after = seen["norm"]
    assert torch.equal(after, seen["decoder"][2].last_hidden_state)
    assert not torch.equal(before, after)


def test_a_norm_of_the_embeddings_is_not_taken_for_it():
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=20, hidden_size=16, n_layer=2, n_head=2))
    assert final_norm(model) is model.transformer.ln_f


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_it_orders_tokens_as_the_direction_times_gain_times_unembedding(family):
    model, generator = make_model(family), torch.Generator().manual_seed(0)
    norm = final_norm(model)
    for parameter in norm.parameters():  # gain, and the bias of a LayerNorm
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    d = torch.nn.functional.normalize(torch.randn(5, 16, generator=generator), dim=1)
    gain = norm.weight + 1 if family == "gemma2" else norm.weight
    centred = d - d.mean(dim=1, keepdim=True) if family == "gpt2" else d
    usual = (centred * gain) @ model.get_output_embeddings().weight.T
    usual = usual - usual.mean(dim=1, keepdim=True)
    found = logit_effects(model, d)
    same = torch.nn.functional.cosine_similarity(found, usual)
    assert torch.allclose(same, torch.ones(5), atol=1e-5)
    assert found.mean(dim=1).abs().max() < 1e-4


def test_strongest_effects_are_both_ends_of_the_logits_in_order():
    effects = torch.tensor([[0.5, -2.0, 3.0, 1.0] + [0.0] * 20, torch.linspace(-1, 1, 24).tolist()])
    table = strongest_effects(effects, np.array([40, 7]))
    assert len(table) == 2 * 2 * EFFECTS
    first = table.filter(latent=40, effect="promoted").head(3)
    assert first.select("rank", "token", "value").rows() == [(0, 2, 3.0), (1, 3, 1.0), (2, 0, 0.5)]
    assert table.filter(latent=40, effect="suppressed").row(0)[2:] == (0, 1, -2.0)
    assert table.filter(latent=7, effect="suppressed")["token"].to_list() == list(range(EFFECTS))
