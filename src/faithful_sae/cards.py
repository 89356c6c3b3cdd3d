"""What the cards of exported SAEs and corpora have in common."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from faithful_sae.digest import LIBRARY
from faithful_sae.provenance import git_commit, plain_json


def front_matter(fields: Mapping[str, Any]) -> str:
    """The YAML head of a README that model hubs read; fields that are None or empty are left out.

    Values are JSON, which YAML contains.
    """
    lines = [f"{key}: {json.dumps(value)}" for key, value in fields.items() if value]
    return "\n".join(["---", *lines, "---", ""])


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown; fractions with four digits, None as a dash."""
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return f"{value:,.0f}" if isinstance(value, float) else str(value)


def described(entry: Mapping[str, Any]) -> str:
    """An entry of the config in one line; of a local path its last part, for a card travels."""
    settings = {k: Path(v).name if k == "path" else v for k, v in entry.items()}
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)


def origin(facts: Mapping[str, Any], revision: str) -> str:
    """Where a model's weights come from; `facts` are those of `describe_model`, and its entry."""
    own = {"hooks", "corpora", "start_token", "end_tokens"}
    entry = {key: value for key, value in facts["entry"].items() if key not in own}
    return (
        f"{described(entry)}, revision {revision}" if "revision" not in entry else described(entry)
    )


def hub_id(facts: Mapping[str, Any]) -> str | None:
    """The id of a model on the hub, of one that comes from there."""
    found: str | None = facts["entry"].get("hub")
    return found


def config_digest(config: Mapping[str, Any]) -> str:
    """sha256 of the study's config.json, which holds its config with all defaults filled in."""
    return hashlib.sha256(plain_json(config).encode()).hexdigest()


def provenance_lines(config: Mapping[str, Any]) -> str:
    """By what an export was made: for the end of a card."""
    commit = git_commit(LIBRARY.parents[1]) or "unknown"
    return (
        f"Made by the FaithfulSAE workflow, commit `{commit}` (`+`: edited since), from the study "
        f"whose config.json has the sha256 `{config_digest(config)}`.\n"
    )
