"""Which machine a plan is for."""

from pathlib import Path

import pytest
import yaml

from faithful_sae.plan import machine_of

HARDWARE = yaml.safe_load((Path(__file__).parents[1] / "workflow/plan/hardware.yaml").read_text())


def test_a_machine_has_its_own_rates_and_those_of_a_core_beside_it():
    machine = machine_of(HARDWARE, "h200", devices=2, cores=16)
    assert (machine.name, machine.devices, machine.cores) == ("h200", 2, 16)
    assert machine.rates == HARDWARE["h200"] and machine.host == HARDWARE["cpu"]


def test_a_machine_that_is_not_known_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match="plan:hardware=h2000 is unknown; did you mean h200?"):
        machine_of(HARDWARE, "h2000", devices=1, cores=1)
    with pytest.raises(ValueError, match="valid here: cpu, t4, .*h200"):
        machine_of(HARDWARE, "quantum", devices=1, cores=1)
