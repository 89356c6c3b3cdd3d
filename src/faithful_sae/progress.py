"""Progress of long jobs: one log line every few seconds, with rate and time left."""

import sys
import time

INTERVAL = 10.0  # seconds between lines: a log should be followed with `tail -f`, not flooded


class Progress:
    """Counts units of work and writes a line to standard error now and then and at the end.

    before: of `total`, units that an earlier run did; they do not count into the rate.
    """

    def __init__(self, what: str, total: int, unit: str, before: int = 0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self.before = before
        self.start = self.last = time.monotonic()

    def advance(self, n: int, note: str = "") -> None:
        self.done += n
        now = time.monotonic()
        if now - self.last < INTERVAL and self.done < self.total:
            return
        self.last = now
        rate = (self.done - self.before) / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate
        sys.stderr.write(
            f"{self.what}: {self.done:,}/{self.total:,} {self.unit}, {rate:,.1f} {self.unit}/s, "
            f"{left:,.0f} s left{'; ' + note if note else ''}\n"
        )
        sys.stderr.flush()
