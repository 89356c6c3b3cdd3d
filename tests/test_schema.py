"""The schema and the library say the same: readers, dtypes, fields of dataclasses."""

from dataclasses import fields

from configs import KNOWN, MINIMAL, SCHEMA, load

from faithful_sae.entries import model_entry, sae_entry
from faithful_sae.known_features import KnownFeatures
from faithful_sae.readers import CORPUS_READERS, TASK_READERS
from faithful_sae.shards import DTYPES, Positions
from faithful_sae.trainer import SAEConfig


def properties(*path: str) -> dict:
    schema = SCHEMA
    for name in path:
        schema = schema["properties"][name]
    return schema.get("additionalProperties") or schema


def readers(section: str) -> dict[str, list[str]]:
    """By source."""
    offered = {
        branch["properties"]["source"]["const"]: branch["properties"].get("reader", {})
        for branch in properties(section)["oneOf"]
    }
    return {
        source: sorted((SCHEMA["$defs"]["corpus_reader"] if "$ref" in reader else reader)["enum"])
        for source, reader in offered.items()
        if reader
    }


def test_the_schema_offers_exactly_the_readers_that_the_library_has():
    of_text, of_tasks = sorted(CORPUS_READERS), sorted(TASK_READERS)
    assert readers("corpora") == {"pypi": of_text}
    assert readers("tasks") == {"pypi": of_tasks, "swapped_words": of_text}


def test_the_schema_of_an_sae_has_exactly_the_fields_of_its_dataclass():
    branch = properties("saes")["oneOf"][0]
    trained = [name for name in branch["properties"] if name not in ("source", "corpora", "models")]
    assert trained == [f.name for f in fields(SAEConfig)]
    SAEConfig(**sae_entry(load(MINIMAL), "small"))


def test_the_schema_of_positions_has_exactly_the_fields_of_its_dataclass():
    assert list(properties("positions")["properties"]) == [f.name for f in fields(Positions)]
    Positions(**load(MINIMAL)["positions"])


def test_the_schema_offers_exactly_the_dtypes_that_shards_store():
    assert properties("activations")["properties"]["dtype"]["enum"] == list(DTYPES)


def test_every_object_of_the_schema_refuses_unknown_keys():
    def objects(schema, where="schema"):
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield where, schema
            for key, inner in schema.items():
                yield from objects(inner, f"{where}.{key}")
        elif isinstance(schema, list):
            for number, inner in enumerate(schema):
                yield from objects(inner, f"{where}.{number}")

    found = list(objects(SCHEMA))
    assert len(found) > 20
    assert [where for where, o in found if "additionalProperties" not in o] == []


def test_the_schema_of_known_features_has_exactly_the_fields_of_their_dataclass():
    (branch,) = [
        branch["properties"]
        for branch in properties("models")["oneOf"]
        if branch["properties"]["source"]["const"] == "known_features"
    ]
    assert [*branch] == ["source", *(f.name for f in fields(KnownFeatures)), "hooks", "corpora"]
    model = model_entry(load(KNOWN), "known")
    KnownFeatures(**{k: v for k, v in model.items() if k != "source"})
