"""Names of the random inputs of the fake-feature evaluation, which rules use as corpora."""

UNIFORM, UNIGRAM, SHUFFLED = "uniform-tokens", "unigram-tokens", "shuffled-tokens"
RANDOM_INPUTS = (UNIFORM, UNIGRAM, SHUFFLED)
