"""A few kills of `make chaos`; by hand it deals out 25."""

import re
import subprocess
import sys
from pathlib import Path

import chaos
import pytest
from repository import ROOT


def test_kills_are_aimed_at_every_rule_that_has_state():
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    state = r'^rule (\w+):\n(?:(?!^rule ).*\n)*? +state="state/(\w+)/\{study\}/'
    found = re.findall(state, text, re.M)
    assert set(chaos.STATEFUL) == {name for _, name in found}
    # A rule that is renamed must not leave its state behind: -R would no longer drop it.
    assert all(rule == name for rule, name in found), found


@pytest.mark.workflow
def test_a_study_killed_at_random_moments_comes_out_as_if_nothing_had_happened():
    script = Path(__file__).parent / "chaos.py"
    done = subprocess.run(
        [sys.executable, script, "--kills", "4", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = r"^[234] kills survived, [1-9]\d* jobs resumed, 0 results lost or changed$"
    assert re.search(last, done.stdout, flags=re.M)
