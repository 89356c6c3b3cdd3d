"""What a config breaks in its schema, in one sentence: the key, what was found, what to write."""

import math
from difflib import get_close_matches
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

Config = dict[str, Any]


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: Any) -> bool:
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


# JSON Schema lets 8.0 pass as an integer, which would break where the number counts or names
# something, and knows no NaN, which passes every minimum.
_Validator: Any = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)


def first_error(config: Config, schema: Config) -> str | None:
    """One sentence for the config's first error against the schema; None where it has none."""
    errors = sorted(_Validator(schema).iter_errors(config), key=lambda e: [str(p) for p in e.path])
    return _sentence(errors[0], config, schema) if errors else None


def _sentence(error: ValidationError, config: Config, schema: Config) -> str:
    """One sentence for one schema error: the key, what was found, what to write instead."""
    path = [str(p) for p in error.absolute_path]
    key = ".".join(path) or "config"
    found = error.instance
    if error.validator == "oneOf":
        return _source_sentence(key, found, error.validator_value, config, schema)
    rules: Config = error.schema
    if error.validator == "additionalProperties":
        known = list(rules["properties"])
        unknown = str(next(k for k in found if k not in known))
        return f"{_join(path, unknown)}: unknown key{nearest(unknown, known)}"
    if error.validator == "required":
        missing = next(k for k in error.validator_value if k not in found)
        return f"{_join(path, missing)}: this key is required{_about(rules, missing)}."
    if error.validator == "enum":
        known = [str(v) for v in error.validator_value]
        return f"{key}: {found!r} is unknown{nearest(str(found), known)}"
    if error.validator == "type":
        kinds = error.validator_value
        kind = " or ".join(kinds) if isinstance(kinds, list) else kinds
        kind = kind.replace("array", "list")
        return f"{key}: {found!r} must be of type {kind}{_spelling(found, kind)}."
    if error.validator == "pattern":
        return f"{key}: {found!r} must be {rules.get('description', error.validator_value)}."
    if error.validator == "contains":
        return f"{key}: {found!r} must contain {error.validator_value['const']}."
    return f"{key}: {error.message}."


def _spelling(found: Any, kind: str) -> str:
    """How YAML wants a number to be written that was read as something else."""
    if isinstance(found, float) and not math.isfinite(found):
        return " and finite"
    if kind.startswith("integer") and isinstance(found, str | float):
        return "; YAML reads 8e3 as text and 8.0e+3 as a fraction, write 8_000"
    if kind.startswith("number") and isinstance(found, str):
        return "; YAML reads 3e-4 as text, write 3.0e-4 or 8.0e+3"
    return ""


def _source_sentence(
    key: str, entry: Any, branches: list[Config], config: Config, schema: Config
) -> str:
    """An error inside an entry that comes in several kinds, in terms of the kind it names."""
    sources = [branch["properties"]["source"]["const"] for branch in branches]
    if not isinstance(entry, dict) or entry.get("source") not in sources:
        source = entry.get("source") if isinstance(entry, dict) else entry
        return f"{key}.source: {source!r} is unknown{nearest(str(source), sources)}"
    branch = branches[sources.index(entry["source"])]
    inner = next(_Validator(branch | {"$defs": schema["$defs"]}).iter_errors(entry))
    return f"{key}.{_sentence(inner, config, schema)}".replace(".config:", ":")


def _join(path: list[str], key: str) -> str:
    return ".".join([*path, key])


def _about(schema: Config, key: str) -> str:
    description = schema["properties"][key].get("description")
    return f" ({description})" if description else ""


def nearest(name: str, known: list[str]) -> str:
    """How the sentence about an unknown name ends: the nearest valid name, or all of them."""
    close = get_close_matches(name, known, n=1)
    return (
        f"; did you mean {close[0]}?" if close else f"; valid here: {', '.join(known) or 'none'}."
    )
