"""Which SAEs of a study the page of features shows."""

from __future__ import annotations

from typing import Any, NamedTuple

from faithful_sae.entries import Config, ConfigError, corpora_of, trained
from faithful_sae.schema_errors import nearest


class Shown(NamedTuple):
    """One model, hook and kind of SAE; an SAE of `seed` for each corpus.

    sibling: the seed whose SAE the latents are paired with, the next in the study, in a circle;
    the seed itself where there is no other.
    """

    model: str
    hook: str
    sae: str
    corpora: list[str]
    seed: int
    sibling: int


def shown(config: Config) -> Shown:
    """What `evaluations.features` asks for, null replaced by the first there is.

    Raises ConfigError, naming the key, for what the study does not have.
    """
    asked = config["evaluations"]["features"]
    models = [name for name, model in config["models"].items() if model["hooks"]]
    model = _one_of("model", asked["model"], models, "models with hooks")
    hook = _one_of("hook", asked["hook"], config["models"][model]["hooks"], f"hooks of {model}")
    # The page shows what training on a corpus made; of pretrained SAEs alone it is refused later.
    saes = [name for name in trained(config) or config["saes"] if corpora_of(config, model, name)]
    sae = _one_of("sae", asked["sae"], saes, f"SAEs studied on {model}")
    studied = corpora_of(config, model, sae)
    corpora = [
        _one_of("corpora", name, studied, f"corpora of {sae} on {model}")
        for name in asked["corpora"] or studied
    ]
    seeds = config["seeds"]
    seed = _one_of("seed", asked["seed"], seeds, "seeds")
    sibling = seeds[(seeds.index(seed) + 1) % len(seeds)]
    return Shown(model, hook, sae, corpora, seed, sibling)


def _one_of(key: str, asked: Any, names: list[Any], what: str) -> Any:
    if asked is None:
        return names[0]
    if asked not in names:
        raise ConfigError(
            f"evaluations.features.{key}: {asked!r} is not among the {what}"
            f"{nearest(str(asked), list(map(str, names)))}"
        )
    return asked
