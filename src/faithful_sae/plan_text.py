"""A plan as a page of text for a terminal."""

from collections.abc import Sequence

from faithful_sae.plan import Machine, Plan, Row

HEAD = ["rule", "jobs", "again", "tokens", "FLOP", "time", "GPU h", "memory", "disk", "peak"]
HEAD += ["because"]


def plan_text(plan: Plan, machine: Machine, free: int, gated: Sequence[str] = ()) -> str:
    """The table of rules, and what they come to.

    free: bytes of the disk that nobody uses yet; gated: models to be fetched that need a licence.
    """
    if not plan.rows:
        return "Nothing to be done: everything is there and up to date."
    shown = [row for row in plan.rows if row.seconds]  # the target `all` does nothing itself
    lines = _aligned([HEAD, *(_cells(row) for row in [*shown, _total(shown)])])
    said = [f"UNKNOWN {sentence}" for sentence in plan.unknown]
    if gated:
        said.append(f"GATED   accept the licences of {', '.join(gated)} and set HF_TOKEN.")
    return "\n".join([*lines, "", *_sentences(plan, machine, free), *said])


def _sentences(plan: Plan, machine: Machine, free: int) -> list[str]:
    place = f"{machine.cores} CPU cores"
    if machine.has_gpus:
        place = f"{machine.devices} x {machine.name}, {place}"
    gpu_hours = sum(row.gpu_seconds for row in plan.rows) / 3600
    said = [
        f"Time    about {_duration(plan.wall)} on {place}; {gpu_hours:.3g} GPU-hours",
        f"Disk    {_size(plan.kept)} kept, at most {_size(plan.peak)} more than now; "
        f"{_size(free)} free",
    ]
    again = {row.rule: row for row in plan.rows if row.again}
    if again:
        trained = again["train_sae"].again if "train_sae" in again else "no"
        said.append(
            f"Again   {sum(row.again for row in again.values())} jobs whose results are there; "
            f"retrains {trained} SAE{'' if trained in (1, 'no') else 's'}"
        )
    if free < plan.peak:
        said.append(
            f"WARNING The disk is too small: {_size(plan.peak - free)} are missing. Lower "
            "corpus_size.train_tokens, choose a narrower activations.dtype, or free space."
        )
    limit = machine.rates["memory_gb"]
    for row in plan.rows:
        if limit and row.gpu_seconds and row.memory > 1e9 * limit:
            said.append(
                f"WARNING {row.rule} holds {_size(row.memory)} at once, more than the {limit} GB "
                f"of one {machine.name}: lower a corpus's block, or take a larger device."
            )
    return said


def _total(rows: Sequence[Row]) -> Row:
    return Row(
        rule="total",
        jobs=sum(row.jobs for row in rows),
        again=sum(row.again for row in rows),
        tokens=sum(row.tokens for row in rows),
        flops=sum(row.flops for row in rows),
        seconds=sum(row.seconds for row in rows),
        gpu_seconds=sum(row.gpu_seconds for row in rows),
        memory=max(row.memory for row in rows),
        kept=sum(row.kept for row in rows),
        scratch=max(row.scratch for row in rows),
        why="",
    )


def _cells(row: Row) -> list[str]:
    return [
        row.rule,
        str(row.jobs),
        str(row.again or "-"),
        _number(row.tokens),
        _number(row.flops),
        _duration(row.seconds),
        f"{row.gpu_seconds / 3600:.3g}" if row.gpu_seconds else "-",
        _size(row.memory),
        _size(row.kept),
        _size(row.kept + row.scratch),
        row.why,
    ]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width: the first and last begin, all others end together."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _number(value: float) -> str:
    return f"{value:.2g}" if value else "-"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.0f} s"


def _size(n_bytes: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= length:
            return f"{n_bytes / length:.3g} {unit}"
    return f"{n_bytes / 1e3:.0f} kB" if n_bytes else "-"
