"""What one job of each rule computes, moves, keeps and holds, from the config and shapes alone.

Sizes follow from the config. The constants in capitals were measured (benchmarks/README.md, and the
default study's own jobs); they are the same on every machine, whose rates `plan.Machine` has.
"""

from collections.abc import Callable

from faithful_sae.entries import corpora_of, corpus_size_of, documents_to_sample, saes_of
from faithful_sae.hook_names import hook_block
from faithful_sae.random_inputs import RANDOM_INPUTS
from faithful_sae.study_sizes import LIBRARIES, MODEL, PLAIN, TORCH, Cost, Study, Unknown

TEXT_BYTES = 2.2  # a token in a file of contexts
BLOCK_LAUNCHES, STEP_LAUNCHES = 40, 120  # operations of a block, and of a training step
ADAM_BYTES, TOPK_BYTES = 28, 12  # memory moved per parameter and step, per pre-activation
MATCH_BYTES = 300  # memory moved to match two latents of all
MATCHINGS, SQUARES = 12, 24  # of a pair with its nulls; its products of d_sae x d_in x d_sae
NULL_PAIRS = 3  # as in similarity.py
PROBE_FLOPS = 100_000  # per document and dimension: all penalties, all iterations
TOKENIZE_FLOPS = 400_000  # per token, as if the tokenizer were a dense product
FIGURES = 16.0  # seconds to draw all
Wildcards = dict[str, str]


def cost(rule: str, at: Wildcards, study: Study) -> Cost:
    """What a job costs, given its wildcards.

    Raises Unknown for a rule that has no cost here, a model or a download whose size nobody knows.
    """
    if rule not in RULES:
        raise Unknown(f"{rule}: not in the cost model, counted as the start of its jobs alone.")
    return RULES[rule](at, study)


def _fetch_archive(at: Wildcards, study: Study) -> Cost:
    return _download([at["file"]], study)


def _fetch_dataset(at: Wildcards, study: Study) -> Cost:
    entry = (study.config["corpora"] | study.config["tasks"])[at["corpus"]]
    return _download([f"{entry['hub']}/{file}" for file in entry["files"]], study)


def _download(files: list[str], study: Study) -> Cost:
    for file in files:
        if file not in study.downloads:
            raise Unknown(f"{file}: its size is unknown until it is here, and not counted.")
    size = sum(study.downloads[file] for file in files)
    return Cost(PLAIN, fetched=size, kept=size)


def _fetch_model(at: Wildcards, study: Study) -> Cost:
    shape = study.shape(at["model"])
    size = shape.parameters * shape.stored
    return Cost(PLAIN, fetched=size, kept=size)


def _make_model(at: Wildcards, study: Study) -> Cost:
    weights = study.weights(at["model"])
    return Cost(MODEL, traffic=200 * weights, kept=weights, memory=LIBRARIES + 3 * weights)


def _generate_corpus(at: Wildcards, study: Study) -> Cost:
    config, corpus = study.config, study.config["corpora"][at["corpus"]]
    shape = study.shape(corpus.get("model", at["model"]))
    size, block = corpus_size_of(config, at["model"]), corpus["block"]
    documents = documents_to_sample(corpus["documents"], block, **size) / config["shards"]
    length = size["context_length"] - 1
    tokens, steps = documents * length, documents / block * length
    cache = 4.0 * shape.blocks * shape.kv * length  # of one document
    weights = study.weights(corpus.get("model", at["model"]))
    return Cost(
        MODEL,
        tokens,
        flops=tokens * shape.predict(length),
        # Every step reads all weights and what is cached, and passes over the vocabulary.
        traffic=steps * weights + tokens * (cache / 2 + 16.0 * shape.vocab),
        launches=steps * shape.blocks * BLOCK_LAUNCHES,
        moved=weights,
        kept=TEXT_BYTES * tokens,
        memory=LIBRARIES + weights + block * (cache + 12.0 * shape.vocab),
    )


def _text(at: Wildcards, study: Study) -> Cost:
    """Text into contexts of both splits, or of a task."""
    model, corpus = at["model"], at["corpus"]
    splits = ["examples"] if corpus in study.config["tasks"] else ["train", "heldout"]
    tokens = sum(study.tokens(model, corpus, split) for split in splits)
    return Cost(MODEL, flops=TOKENIZE_FLOPS * tokens, kept=TEXT_BYTES * tokens)


def _random_tokens(at: Wildcards, study: Study) -> Cost:
    tokens = study.tokens(at["model"], at["corpus"], "heldout")
    return Cost(PLAIN, kept=TEXT_BYTES * tokens)


def _corpus_statistics(at: Wildcards, study: Study) -> Cost:
    shape, length = study.shape(at["model"]), study.context_length(at["model"])
    asked = study.config["evaluations"]["corpus_statistics"]["tokens"]
    tokens = min(asked, study.tokens(at["model"], at["corpus"], "heldout"))
    weights = study.weights(at["model"])
    return Cost(
        MODEL,
        tokens,
        flops=tokens * shape.predict(length),
        traffic=24.0 * tokens * shape.vocab,
        moved=weights,
        kept=25_000,
        memory=LIBRARIES + weights + study.batch(shape),
    )


def _extract_activations(at: Wildcards, study: Study) -> Cost:
    model, shape = at["model"], study.shape(at["model"])
    jobs = study.config["shards"] if at["split"] == "train" else 1
    tokens = study.tokens(model, at["corpus"], at["split"]) / jobs
    kept, weights = study.activations(model, tokens), study.weights(model)
    return Cost(
        MODEL,
        tokens,
        flops=tokens * shape.forward(hook_block(at["hook"]), study.context_length(model)),
        moved=weights + 2 * kept,
        kept=kept,
        scratch=kept,  # the shard is put together from pieces
        memory=LIBRARIES + weights + study.batch(shape),
    )


def _draw_activations(at: Wildcards, study: Study) -> Cost:
    model = study.config["models"][at["model"]]
    jobs = study.config["shards"] if at["split"] == "train" else 1
    tokens = study.tokens(at["model"], at["corpus"], at["split"]) / jobs
    kept = study.activations(at["model"], tokens)
    flops = 2.0 * tokens * model["d_in"] * (model["features"] + model["external_features"])
    return Cost(tokens=tokens, flops=flops, moved=kept, kept=kept)


def _activation_statistics(at: Wildcards, study: Study) -> Cost:
    tokens = study.tokens(at["model"], at["corpus"], "train")
    return Cost(PLAIN, moved=study.activations(at["model"], tokens), kept=10_000)


def _train_sae(at: Wildcards, study: Study) -> Cost:
    model, sae = at["model"], study.config["saes"][at["sae"]]
    d_in, d_sae = study.d_in(model), study.d_sae(model, at["sae"])
    tokens, parameters = sae["training_tokens"], 2 * d_in * d_sae
    steps = tokens / sae["batch_size"]
    shards = study.activations(model, study.tokens(model, at["corpus"], "train"))
    return Cost(
        tokens=tokens,
        # The encoder's product, and four with the k active latents.
        trained=tokens * (2.0 * d_in * d_sae + 8.0 * sae["k"] * d_in),
        traffic=ADAM_BYTES * steps * parameters + TOPK_BYTES * tokens * d_sae,
        launches=steps * STEP_LAUNCHES,
        moved=shards + study.activations(model, tokens),
        kept=4.0 * parameters,
        scratch=16.0 * parameters,  # a checkpoint
        memory=LIBRARIES + 16.0 * parameters + 4.0 * sae["batch_size"] * (d_sae + 4 * d_in),
    )


def _reconstruction(at: Wildcards, study: Study) -> Cost:
    config, model, shape = study.config, at["model"], study.shape(at["model"])
    corpora, seeds = corpora_of(config, model, at["sae"]), len(config["seeds"])
    length, hook = study.context_length(model), hook_block(at["hook"])
    heldout = study.tokens(model, at["corpus"], "heldout")
    asked = config["evaluations"]["reconstruction"]["ce_tokens"] + length / 2  # in whole contexts
    read = min(asked, heldout)
    # Under the policy: untouched, zero, mean, every SAE; on all positions only SAEs of this text.
    runs = 2 * 3 + len(corpora) * seeds + seeds
    above = shape.forward(shape.blocks - hook, length) + 2.0 * shape.head
    encoded = 2 * len(corpora) * seeds * heldout
    parameters = 2 * study.d_in(model) * study.d_sae(model, at["sae"])
    saes = 4.0 * parameters * len(corpora) * seeds
    weights = study.weights(at["model"])
    return Cost(
        MODEL,
        runs * read + encoded,
        flops=read * (2 * shape.forward(hook, length) + runs * above),
        hosted=study.encode(model, at["sae"], encoded),
        moved=weights + saes + 2 * study.activations(model, heldout),
        kept=10_000,
        memory=LIBRARIES + weights + saes + study.batch(shape),
    )


def _compare(pairs: float, encoded: float, at: Wildcards, study: Study) -> Cost:
    d_in, d_sae = study.d_in(at["model"]), study.d_sae(at["model"], at["sae"])
    entries = pairs * d_sae**2
    return Cost(
        tokens=encoded,
        flops=SQUARES * 2.0 * entries * d_in + study.encode(at["model"], at["sae"], encoded) / 2,
        traffic=MATCHINGS * MATCH_BYTES * entries,
        moved=study.activations(at["model"], encoded),
        kept=10_000,
        memory=LIBRARIES + 8.0 * d_sae**2 + 16.0 * d_in * d_sae,
    )


def _similarity(at: Wildcards, study: Study) -> Cost:
    seeds = len(study.config["seeds"])
    pairs = seeds * (seeds - 1) / 2
    # Half of it all belongs to the dearer nulls.
    counted = min(pairs, NULL_PAIRS) + 1 / 2 * max(0, pairs - NULL_PAIRS)
    heldout = study.tokens(at["model"], at["corpus"], "heldout")
    return _compare(counted, 2 * seeds * heldout, at, study)


def _similarity_between_corpora(at: Wildcards, study: Study) -> Cost:
    corpora = corpora_of(study.config, at["model"], at["sae"])
    seeds = len(study.config["seeds"])
    heldout = sum(study.tokens(at["model"], corpus, "heldout") for corpus in corpora)
    pairs = len(corpora) * (len(corpora) - 1) / 2
    return _compare(1 / 3 * pairs * seeds, seeds * heldout, at, study)


def _on_random_input(at: Wildcards, study: Study) -> Cost:
    """fake_features, and recovery, which counts the same beside what is known."""
    random = 1 if study.config["models"][at["model"]].get("features") else len(RANDOM_INPUTS)
    tokens = random * study.tokens(at["model"], RANDOM_INPUTS[0], "heldout")
    tokens += study.tokens(at["model"], at["corpus"], "heldout")
    tokens *= len(study.config["seeds"])
    d_sae = study.d_sae(at["model"], at["sae"])
    return Cost(
        tokens=tokens,
        flops=study.encode(at["model"], at["sae"], tokens) / 2,
        moved=study.activations(at["model"], tokens),
        kept=15 * len(study.config["seeds"]) * d_sae,
        memory=LIBRARIES + 16.0 * study.d_in(at["model"]) * d_sae,
    )


def _probes(saes: list[str], at: Wildcards, study: Study) -> Cost:
    config, model = study.config, at["model"]
    seeds, draws = len(config["seeds"]), len(config["evaluations"]["probing"]["seeds"])
    documents = sum(task["examples"] for task in config["tasks"].values())
    tokens = sum(study.tokens(model, task, "examples") for task in config["tasks"])
    fits = PROBE_FLOPS * documents * study.d_in(model) * seeds * draws * len(saes)
    d_sae = max((study.d_sae(model, sae) for sae in saes), default=0)
    return Cost(
        tokens=tokens * seeds * len(saes),
        flops=fits + sum(study.encode(model, sae, tokens * seeds) for sae in saes),
        moved=study.activations(model, tokens),
        kept=10_000,
        memory=LIBRARIES + 6.0 * tokens * study.d_in(model) + 16.0 * study.d_in(model) * d_sae,
    )


RULES: dict[str, Callable[[Wildcards, Study], Cost]] = {
    "fetch_archive": _fetch_archive,
    "fetch_dataset": _fetch_dataset,
    "fetch_model": _fetch_model,
    "convert_gguf": _make_model,
    "randomize": _make_model,
    "link_model": lambda at, study: Cost(PLAIN),
    "describe_model": lambda at, study: Cost(TORCH),
    "generate_corpus": _generate_corpus,
    "collect_corpus": _text,
    "tokenize_corpus": _text,
    "mix_corpus": _text,
    "tokenize_task": _text,
    "random_tokens": _random_tokens,
    "corpus_statistics": _corpus_statistics,
    "extract_activations": _extract_activations,
    "draw_activations": _draw_activations,
    "activation_statistics": _activation_statistics,
    "train_sae": _train_sae,
    "reconstruction": _reconstruction,
    "similarity": _similarity,
    "similarity_between_corpora": _similarity_between_corpora,
    "fake_features": _on_random_input,
    "recovery": _on_random_input,
    "probing": lambda at, study: _probes([at["sae"]], at, study),
    "probing_baselines": lambda at, study: _probes(saes_of(study.config, at["model"]), at, study),
    "summarise": lambda at, study: Cost(PLAIN, kept=3_000_000),
    "draw_figures": lambda at, study: Cost(FIGURES, kept=2_300_000),
    "provenance": lambda at, study: Cost(PLAIN, kept=30_000),
    "all": lambda at, study: Cost(0),
}
