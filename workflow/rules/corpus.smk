"""Turn text into contexts of token ids, split into train and held-out documents.

IN   resources/, or the model itself
OUT  results/{study}/{model}/{corpus}/generated/shard{shard}.parquet   text that a model wrote
     results/{study}/{model}/{corpus}/{train,heldout}.parquet          contexts
     results/{study}/{model}/{corpus}/examples.parquet                 contexts of a labelled task
     results/{study}/{model}/{random input}/heldout.parquet            contexts of random tokens
     results/{study}/{model}/{corpus}/corpus_statistics.parquet, first_tokens.parquet
"""

SAMPLED = sources("corpora", "faithful", "written_by")
MIXED = sources("corpora", "mixture")
TOKENIZED = [name for name in CORPORA if name not in [*SAMPLED, *MIXED]]


rule fetch_dataset:
    output:
        directory("resources/datasets/{corpus}@{revision}"),
    log:
        "results/logs/fetch_dataset/{corpus}@{revision}.log",
    wildcard_constraints:
        corpus=one_of([*sources("corpora", "hub"), *sources("tasks", "hub")]),
    priority: 2  # what can be refused is asked for before anything is computed
    conda:
        "../../envs/torch.yaml"
    params:
        hub=hub_text("hub"),
        files=hub_text("files"),
    script:
        "../scripts/fetch_dataset.py"


rule generate_corpus:
    input:
        model=lambda wildcards: model_folder(wildcards, writer(wildcards)),
        facts=lambda wildcards: f"results/{{study}}/{writer(wildcards)}/model.json",
    output:
        "results/{study}/{model}/{corpus}/generated/shard{shard}.parquet",
    log:
        "results/logs/generate_corpus/{study}/{model}/{corpus}/shard{shard}.log",
    benchmark:
        "results/logs/generate_corpus/{study}/{model}/{corpus}/shard{shard}.tsv"
    wildcard_constraints:
        corpus=one_of(SAMPLED),
    priority: 1  # the longest way to the end begins here
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=1,
    params:
        temperature=lookup(dpath="corpora/{corpus}/temperature", within=config),
        top_p=lookup(dpath="corpora/{corpus}/top_p", within=config),
        repetition_penalty=lookup(
            dpath="corpora/{corpus}/repetition_penalty", within=config
        ),
        seed=lookup(dpath="corpora/{corpus}/seed", within=config),
        documents=lookup(dpath="corpora/{corpus}/documents", within=config),
        block=lookup(dpath="corpora/{corpus}/block", within=config),
        size=corpus_size,
        shards=config["shards"],
        state="state/generate_corpus/{study}/{model}/{corpus}/shard{shard}",
        code=code_digest("generate_corpus"),
    script:
        "../scripts/generate_corpus.py"


rule collect_corpus:
    input:
        shards=expand(
            "results/{study}/{model}/{corpus}/generated/shard{shard}.parquet",
            shard=range(config["shards"]),
            allow_missing=True,
        ),
        model=model_folder,
        writer=lambda wildcards: model_folder(wildcards, writer(wildcards)),
        facts="results/{study}/{model}/model.json",
    output:
        train="results/{study}/{model}/{corpus}/train.parquet",
        heldout="results/{study}/{model}/{corpus}/heldout.parquet",
        counts="results/{study}/{model}/{corpus}/counts.json",
    log:
        "results/logs/collect_corpus/{study}/{model}/{corpus}.log",
    wildcard_constraints:
        corpus=one_of(SAMPLED),
    conda:
        "../../envs/torch.yaml"
    params:
        size=corpus_size,
        pack=lookup(dpath="corpora/{corpus}/pack", within=config),
        code=code_digest("collect_corpus"),
    script:
        "../scripts/collect_corpus.py"


rule tokenize_corpus:
    input:
        sources=source_files("corpora"),
        model=model_folder,
        facts="results/{study}/{model}/model.json",
    output:
        train="results/{study}/{model}/{corpus}/train.parquet",
        heldout="results/{study}/{model}/{corpus}/heldout.parquet",
        counts="results/{study}/{model}/{corpus}/counts.json",
    log:
        "results/logs/tokenize_corpus/{study}/{model}/{corpus}.log",
    wildcard_constraints:
        corpus=one_of(TOKENIZED),
    priority: 2  # what can be refused is asked for before anything is computed
    conda:
        "../../envs/torch.yaml"
    params:
        corpus=text_entry("corpora"),
        size=corpus_size,
        code=code_digest("tokenize_corpus"),
    script:
        "../scripts/tokenize_corpus.py"


rule mix_corpus:
    input:
        train=parts("train.parquet"),
        heldout=parts("heldout.parquet"),
        counts=parts("counts.json"),
    output:
        train="results/{study}/{model}/{corpus}/train.parquet",
        heldout="results/{study}/{model}/{corpus}/heldout.parquet",
        counts="results/{study}/{model}/{corpus}/counts.json",
    log:
        "results/logs/mix_corpus/{study}/{model}/{corpus}.log",
    wildcard_constraints:
        corpus=one_of(MIXED),
    conda:
        "../../envs/torch.yaml"
    params:
        # Snakemake sees which inputs change, not their order, which numbers the documents.
        of=lookup(dpath="corpora/{corpus}/of", within=config),
        train_tokens=lookup(dpath="corpus_size/train_tokens", within=config),
        heldout_tokens=lookup(dpath="corpus_size/heldout_tokens", within=config),
        code=code_digest("mix_corpus"),
    script:
        "../scripts/mix_corpus.py"


rule tokenize_task:
    input:
        sources=source_files("tasks"),
        model=model_folder,
        facts="results/{study}/{model}/model.json",
    output:
        "results/{study}/{model}/{corpus}/examples.parquet",
    log:
        "results/logs/tokenize_task/{study}/{model}/{corpus}.log",
    wildcard_constraints:
        corpus=one_of(TASKS),
    conda:
        "../../envs/torch.yaml"
    params:
        task=text_entry("tasks"),
        context_length=context_length,
        code=code_digest("tokenize_task"),
    script:
        "../scripts/tokenize_task.py"


rule random_tokens:
    # One of each for all SAEs of a model, so that its corpora are compared on equal inputs.
    input:
        facts="results/{study}/{model}/model.json",
        heldout=random_input_texts,
    output:
        "results/{study}/{model}/{corpus}/heldout.parquet",
    log:
        "results/logs/random_tokens/{study}/{model}/{corpus}.log",
    wildcard_constraints:
        corpus=one_of(RANDOM_INPUTS),
    conda:
        "../../envs/torch.yaml"
    params:
        corpora=random_input_corpora,
        context_length=context_length,
        tokens=lookup(dpath="evaluations/fake_features/tokens", within=config),
        code=code_digest("random_tokens"),
    script:
        "../scripts/random_tokens.py"


rule corpus_statistics:
    input:
        train="results/{study}/{model}/{corpus}/train.parquet",
        heldout="results/{study}/{model}/{corpus}/heldout.parquet",
        counts="results/{study}/{model}/{corpus}/counts.json",
        model=model_folder,
        facts="results/{study}/{model}/model.json",
    output:
        statistics="results/{study}/{model}/{corpus}/corpus_statistics.parquet",
        first_tokens="results/{study}/{model}/{corpus}/first_tokens.parquet",
    log:
        "results/logs/corpus_statistics/{study}/{model}/{corpus}.log",
    benchmark:
        "results/logs/corpus_statistics/{study}/{model}/{corpus}.tsv"
    wildcard_constraints:
        corpus=one_of(CORPORA),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=1,
    params:
        tokens=lookup(dpath="evaluations/corpus_statistics/tokens", within=config),
        code=code_digest("corpus_statistics"),
    script:
        "../scripts/corpus_statistics.py"
