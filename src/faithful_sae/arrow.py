"""Arrow tables in Parquet files whose pages and schema carry digests.

Parquet has checksums for pages; a damaged footer could still rename a column or change a note.
"""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faithful_sae.checksums import damage
from faithful_sae.files import written_whole


def write_arrow(table: pa.Table, path: Path) -> None:
    """Write a table, whole or not at all."""
    with written_whole(path) as temporary:
        table = table.replace_schema_metadata(sealed(table.schema).metadata)
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_arrow(path: Path) -> pa.Table:
    """A table, its checksums verified; ValueError naming the file if it is damaged."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        require_seal(path, file.schema_arrow)
        table = file.read(use_threads=False)
        if len(table) != file.metadata.num_rows:  # a page's own count is not in its checksum
            raise pa.ArrowInvalid(f"{len(table)} rows instead of {file.metadata.num_rows}")
        table.validate(full=True)
        # Notes on columns are sealed nowhere, and a damaged one can crash who reads it.
        plain = pa.schema([(field.name, field.type) for field in table.schema])
        return pa.Table.from_arrays(table.columns, schema=plain)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise damage(path, str(error).strip().splitlines()[0]) from error


def sealed(schema: pa.Schema) -> pa.Schema:
    """The schema with the digest of its names, types and metadata in its metadata."""
    notes = dict(schema.metadata or {})
    return schema.with_metadata(notes | {b"sha256": _digest(schema, notes)})


def require_seal(path: Path, schema: pa.Schema) -> None:
    """Raise ValueError naming the file unless its schema is what was sealed."""
    notes = dict(schema.metadata or {})
    notes.pop(b"ARROW:schema", None)  # pyarrow's own copy of the schema
    if notes.pop(b"sha256", None) != _digest(schema, notes):
        raise damage(path, "its schema differs from its sha256")


def _digest(schema: pa.Schema, notes: dict[bytes, bytes]) -> bytes:
    # Parquet calls what a list holds `element`, Arrow `item`.
    types = [(field.name, str(field.type).replace("element:", "item:")) for field in schema]
    content = types, sorted(notes.items())
    return hashlib.sha256(repr(content).encode()).hexdigest().encode()
