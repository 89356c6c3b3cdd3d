"""What the cards of exported SAEs and corpora have in common."""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


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
    """sha256 of a study's config with its defaults filled in, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def commit() -> str:
    """The commit of this library, `-dirty` with uncommitted changes; `unknown` outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def provenance_lines(config: Mapping[str, Any]) -> str:
    """By what an export was made: for the end of a card."""
    return (
        f"Made by the FaithfulSAE workflow, commit `{commit()}`, from a config whose sha256 is "
        f"`{config_digest(config)}` (`faithful_sae.cards.config_digest`).\n"
    )
