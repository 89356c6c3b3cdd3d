"""What the plan counts of each rule, worked out by hand on a study of round sizes.

The study of test_plan.py: contexts of 10 tokens with their start token, so that 900, 90 and 90
tokens of training, held-out and random text are 1,000, 100 and 100; 4 blocks of 1,000 parameters
and a head of 400, 17,600 bytes; d_in 8 and 52 bytes a token in a shard; d_sae 32; two seeds and two
corpora.
"""

import re

import pytest
from test_plan import AT, ROOT, SHAPE, study

from faithful_sae.costs import RULES, cost
from faithful_sae.study_sizes import LIBRARIES

HUB = {"source": "hub", "hub": "a/c", "revision": "0" * 40}
TASKS = {"mood": HUB | {"files": ["x.parquet"], "label": "y", "examples": 40}}
EVALUATIONS = {
    "reconstruction": {"ce_tokens": 20},
    "fake_features": {"tokens": 90},
    "corpus_statistics": {"tokens": 50},
    "probing": {"seeds": [0, 1, 2]},
}
KNOWN = {"source": "known_features", "d_in": 8, "features": 16, "external_features": 4, "active": 2}
FORWARD = 2_160  # of a block and token: 2 x 1,000, and 2 x 8 x 10
PREDICT = 4 * FORWARD + 2 * 400
ENCODE = 4 * 8 * 32  # of a token, decoded too
BATCH = 4 * (
    1_024 * (32 + 4 * 8) + 2 * 256 * 50
)  # 1,024 tokens through an MLP, two tiles of logits
BY_HAND = {
    # Two jobs of 20 documents, 2 blocks of 10, 9 steps each; a document's cache is 4 bytes x
    # 4 blocks x 4 x 9 positions = 576, half of it read in the mean.
    "generate_corpus": {
        "tokens": 180,
        "flops": 180 * (4 * (2_000 + 2 * 8 * 9) + 800),
        "traffic": 18 * 17_600 + 180 * (288 + 16 * 50),
        "launches": 18 * 4 * 40,
        "moved": 17_600,
        "kept": 2.2 * 180,
        "memory": LIBRARIES + 17_600 + 10 * (576 + 12 * 50),
    },
    "tokenize_corpus": {"flops": 400_000 * 1_100, "kept": 2.2 * 1_100},
    "tokenize_task": {"flops": 400_000 * 400, "kept": 2.2 * 400},  # of 40 texts no more than 10
    "random_tokens": {"kept": 2.2 * 100},
    "corpus_statistics": {
        "tokens": 50,
        "flops": 50 * PREDICT,
        "traffic": 24 * 50 * 50,
        "memory": LIBRARIES + 17_600 + BATCH,
    },
    "extract_activations": {
        "moved": 17_600 + 2 * 500 * 52,
        "scratch": 500 * 52,
        "memory": LIBRARIES + 17_600 + BATCH,
    },
    "activation_statistics": {"moved": 1_000 * 52},
    # 512 parameters; 20 batches; reads its shards, and every token that it trains on.
    "train_sae": {
        "traffic": 28 * 20 * 512 + 12 * 1_000 * 32,
        "moved": 1_000 * 52 + 1_000 * 52,
        "scratch": 16 * 512,
        "memory": LIBRARIES + 16 * 512 + 4 * 50 * (32 + 4 * 8),
    },
    # 20 tokens end in the middle of a context, so about 25 are read: untouched, zeroed and
    # averaged, both ways; under the policy by the SAEs of both corpora, on all positions by its
    # own. One block and the head are above the hook.
    "reconstruction": {
        "tokens": 12 * 25 + 2 * 4 * 100,
        "flops": 25 * (2 * 3 * FORWARD + 12 * (FORWARD + 800)),
        "hosted": 800 * ENCODE,
        "moved": 17_600 + 4 * 2_048 + 2 * 100 * 52,
        "memory": LIBRARIES + 17_600 + 4 * 2_048 + BATCH,
    },
    # One pair of 32 x 32.
    "similarity": {
        "tokens": 2 * 2 * 100,
        "flops": 24 * 2 * 1_024 * 8 + 400 * ENCODE / 2,
        "traffic": 12 * 300 * 1_024,
        "moved": 400 * 52,
        "memory": LIBRARIES + 8 * 1_024 + 16 * 8 * 32,
    },
    # One pair of corpora, of two seeds, without the nulls that are two thirds of the work.
    "similarity_between_corpora": {"tokens": 2 * 200, "traffic": 12 * 300 * 2 / 3 * 1_024},
    # Three random inputs and the held-out text, by two SAEs.
    "fake_features": {
        "tokens": 2 * 400,
        "flops": 800 * ENCODE / 2,
        "moved": 800 * 52,
        "kept": 15 * 2 * 32,
        "memory": LIBRARIES + 16 * 8 * 32,
    },
    # 40 documents, three draws of them, two seeds.
    "probing": {
        "tokens": 2 * 400,
        "flops": 100_000 * 40 * 8 * 2 * 3 + 800 * ENCODE,
        "moved": 400 * 52,
        "memory": LIBRARIES + 6 * 400 * 8 + 16 * 8 * 32,
    },
    "fetch_model": {"fetched": 2 * 4_400, "kept": 2 * 4_400},
    "convert_gguf": {
        "traffic": 200 * 17_600,
        "kept": 17_600,
        "memory": LIBRARIES + 3 * 17_600,
    },
}  # fmt: skip


def made(**changes):
    corpora = {"own": {"source": "faithful", "block": 10, "documents": 40}}
    return study(
        **{"corpora": corpora | {"code": {"source": "stdlib"}}, "shards": 2, "tasks": TASKS}
        | {"evaluations": EVALUATIONS}
        | changes
    )


@pytest.mark.parametrize("rule", BY_HAND)
def test_the_cost_of_a_job_by_hand(rule):
    at = AT | {"split": "train"} | ({"corpus": "mood"} if rule == "tokenize_task" else {})
    found = cost(rule, at, made())._asdict()
    expected = BY_HAND[rule]
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_pairs_beyond_the_third_cost_half():
    """Four seeds have six pairs, of which three are compared with every null."""
    one, many = (cost("similarity", AT, made(seeds=list(range(seeds)))).traffic for seeds in (2, 4))
    assert many / one == 3 + 3 / 2


def test_each_pair_of_corpora_is_compared_by_every_seed():
    three = made(corpora=made().config["corpora"] | {"more": {"source": "stdlib"}})
    one, many = (cost("similarity_between_corpora", AT, each) for each in (made(), three))
    assert (many.traffic / one.traffic, many.tokens / one.tokens) == (3, 3 / 2)


def test_a_corpus_of_another_writer_costs_what_that_model_costs():
    base = study().config["models"]["base"]
    models = {"base": base, "small": base | {"hooks": []}}
    corpora = {"own": {"source": "written_by", "model": "small", "block": 10}}
    shapes = {"base": SHAPE, "small": SHAPE._replace(blocks=2)}
    found = cost(
        "generate_corpus", AT, study(models=models, corpora=corpora)._replace(shapes=shapes)
    )
    assert found.moved == 4 * (2 * 1_000 + 400)


def test_known_features_are_drawn_and_counted_on_one_random_input():
    known = study(
        models={"base": KNOWN},
        corpora={"own": {"source": "known_features", "shift": 0.0}},
        evaluations=EVALUATIONS,
        shards=2,
    )
    assert cost("draw_activations", AT | {"split": "train"}, known).tokens == 1_000 / 2
    drawn = cost("draw_activations", AT | {"split": "heldout"}, known)
    assert (drawn.tokens, drawn.flops) == (100, 2 * 100 * 8 * (16 + 4))
    assert drawn.kept == drawn.moved == 100 * 52
    assert cost("recovery", AT, known).tokens == 2 * (100 + 100)


def test_baselines_are_probed_once_for_each_shape_of_sae():
    saes = study().config["saes"]
    wide = saes | {"wide": saes["small"] | {"expansion": 8}}
    one, two = (cost("probing_baselines", AT, made(saes=both)) for both in (saes, wide))
    assert two.tokens == 2 * one.tokens
    assert two.flops == 2 * one.flops + 800 * ENCODE  # the wider one encodes for twice as much
    assert two.memory - one.memory == 16 * 8 * 32


def test_every_rule_that_a_study_may_run_has_a_cost_here():
    """A rule that is forgotten would be counted as the start of its jobs, with a note."""
    rules = {
        name
        for file in (ROOT / "workflow/rules").glob("*.smk")
        for name in re.findall(r"^rule (\w+):", file.read_text(), flags=re.M)
    }
    other_targets = {"plan", "export_sae", "export_corpus", "feature_facts", "features"}
    # What a pretrained SAE costs hangs on its width, which only its files say.
    pretrained = {"fetch_sae", "import_sae", "audit_sae", "similarity_of_pretrained"}
    assert set(RULES) - {"all"} == rules - other_targets - pretrained
