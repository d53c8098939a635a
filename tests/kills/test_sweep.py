"""`make soak`: at every commit point of every step a real SIGKILL, the run again, all tables as if nothing had been."""

from __future__ import annotations

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.pipeline import order

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]


@pytest.fixture(scope="module")
def stepwise(night):
    """The lake `until-STEP` stands as it does before the step."""
    settings = night.lake("until-none")
    for step in order():
        night.lake(f"until-{step.name}", like="until-none")
        night.run(settings, only=(step.name,))
    assert night.differences(settings) == {}, "step by step as at once"


@pytest.mark.parametrize("step", [step.name for step in order()])
def test_every_commit_point(night, stepwise, capsys, step):
    """After each kill the step is run again and its tables compared; after the last the rest of the night as well, and all.

    What comes after a step reads the versions that its record names, and nothing else of it.
    """
    found = night.points[step]
    assert "after runs" in found
    failed, began = {}, time.monotonic()

    def killed(number):
        name = f"{step}-{number}"
        return night.lake(name, like=f"until-{step}"), night.killed(name, number, "--from-step", step)

    # While one lake is run again and compared, the next night is on its way to its end.
    with ThreadPoolExecutor(1) as ahead:
        lakes = ahead.map(killed, range(1, len(found) + 1))
        for number, (point, (settings, reached)) in enumerate(zip(found, lakes, strict=True), start=1):
            assert reached == point
            which = {"from_step": step} if number == len(found) else {"only": (step,)}
            night.run(settings, **which)
            if differences := night.differences(settings, **({} if number == len(found) else which)):
                failed[point] = differences
            shutil.rmtree(Path(settings.lake).parent)
            with capsys.disabled():
                verdict = f"differs: {differences}" if differences else "equal"
                took, began = time.monotonic() - began, time.monotonic()
                sys.stdout.write(f"{step:<12} {number:>2} of {len(found)}  {point:<32} {verdict}  {took:.0f} s\n")
    assert failed == {}
