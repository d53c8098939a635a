"""`make soak`: at every commit point of every step a real SIGKILL, the run again, all tables as if nothing had been."""

from __future__ import annotations

import shutil
import sys
import time

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
    found = night.points[step]
    assert "after runs" in found
    failed = {}
    for number, point in enumerate(found, start=1):
        began, name = time.monotonic(), f"{step}-{number}"
        settings = night.lake(name, like=f"until-{step}")
        assert night.killed(name, number, "--from-step", step) == point
        night.run(settings, from_step=step)
        differences = night.differences(settings)
        if differences:
            failed[point] = differences
        shutil.rmtree(night.folder / name)
        with capsys.disabled():
            verdict = f"differs: {differences}" if differences else "equal"
            sys.stdout.write(
                f"{step:<12} {number:>2} of {len(found)}  {point:<32} {verdict}  {time.monotonic() - began:.0f} s\n"
            )
    assert failed == {}
