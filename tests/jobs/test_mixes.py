"""`wherewhen policy`: what lists are mixed from, and what another mix would have earned."""

import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from conf.contracts import IMPRESSION
from jobs import cli, mixes
from jobs.lake import logs
from jobs.score.blending import SOURCES
from models.mixing import mix
from models.policy import EVERYWHERE, Limits, Policy

MADE, SHOWN = date(2024, 2, 1), date(2024, 2, 2)
# What an entry earns, by the source that lists it alone.
EARNS = {"ranked": 0.3, "own": 0.6, "popular": 0.1}


def share_of(**shares):
    return np.array([shares.get(name, 0.0) for name in SOURCES])


@pytest.fixture
def lake(small_lake):
    """Four hundred users who saw lists of three, mixed of three sources that share no item."""
    share, users, k = share_of(ranked=0.6, own=0.25, popular=0.15), 400, 3
    nothing = np.zeros((1, len(SOURCES)))
    policy = Policy(
        sources=SOURCES, limits=Limits(), contexts=(EVERYWHERE,), share_CS=share[None, :], seen_CS=nothing, spread_CS=nothing,
        earned_CS=nothing,
    )  # fmt: skip
    policy.save(Path(small_lake.root) / "models" / "p1")
    small_lake.write("model_versions", {"model_version": "p1", "kind": "policy", "folder": "models/p1"})
    decided = {"kind": "policy", "model_version": "p1", "decision": "published", "day": MADE}
    small_lake.write("publications", decided)
    rng = np.random.default_rng(1)
    best = np.full((users, len(SOURCES), k), -1)
    for place, name in enumerate(EARNS):
        best[:, SOURCES.index(name)] = np.arange(k) + 10 * place
    lists = mix(best, np.broadcast_to(share, (users, len(SOURCES))), rng.random((users, k)))
    rows = []
    for user in range(users):
        for rank in range(k):
            name = list(EARNS)[lists.item_BK[user, rank] // 10]
            source = "+".join(one for bit, one in enumerate(SOURCES) if lists.agreed_BK[user, rank] >> bit & 1)
            row = {
                "user_id": f"{user:04x}", "list_day": MADE, "slot": "any", "rank": rank + 1, "source": source, "day": SHOWN,
                "policy_version": "p1", "policy_context": "|new", "event_timestamp": datetime(2024, 2, 2, 23, tzinfo=UTC),
                "propensity": float(lists.propensity_BK[user, rank]),
            }  # fmt: skip
            rows.append({**row, "event_type": IMPRESSION, "feedback_id": f"{user}-{rank}"})
            if rng.random() < EARNS[name]:
                # Past midnight: it counts for the showing of the day before.
                later = {"event_timestamp": datetime(2024, 2, 3, 1, tzinfo=UTC), "day": date(2024, 2, 3)}
                rows.append({**row, **later, "event_type": "purchase", "feedback_id": f"{user}-{rank}-p"})
    version = small_lake.write("feedback", *rows)
    small_lake.finish(date(2024, 2, 3), {"feedback": version}, step="night")
    return small_lake


def test_a_mix_is_judged_by_the_answers_to_another(lake):
    found = mixes.judged(lake.settings, None, "ranked=0.4,own=0.5,popular=0.1", 14)
    assert found.is_enough
    assert found.shown.value == pytest.approx(3 * (0.6 * 0.3 + 0.25 * 0.6 + 0.15 * 0.1), abs=0.1)
    truth = 3 * (0.4 * 0.3 + 0.5 * 0.6 + 0.1 * 0.1)
    for method, estimate in found.verdict.by.items():
        assert estimate.low < truth < estimate.high, method
    same = mixes.judged(lake.settings, None, None, 14)
    assert same.verdict.by["ips"].value == pytest.approx(same.shown.value)


@pytest.fixture
def run(lake, monkeypatch, capsys):
    """`wherewhen policy ...`: how it ends, what it prints, what it says besides."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["wherewhen", "--set", f"lake={lake.root}", "policy", *arguments])
        with pytest.raises(SystemExit) as done:
            cli.main()
        said = capsys.readouterr()
        return done.value.code, said.out, said.err

    return command


def test_the_command_says_enough_or_too_little(run):
    code, said, _ = run("--evaluate", "--shares", "ranked=0.5,own=0.35,popular=0.15")
    assert code == 0 and "enough to tell" in said and "as shown" in said
    code, said, _ = run("--evaluate", "--shares", "popular=1", "--format", "json")
    assert code == 3 and json.loads(said)["is_enough"] is False
    code, said, _ = run()
    assert code == 0 and "policy p1" in said and "ranked" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shares", "ranked=1"], "--evaluate"),
        (["--evaluate", "--shares", "ranked=0.5"], "sum to 1"),
        (["--evaluate", "--shares", "mine=1"], "there is no source mine"),
        (["--evaluate", "--shares", "ranked=much"], "is no share"),
        (["--evaluate", "p9"], "there is no policy p9"),
        (["--evaluate", "p1", "--shares", "ranked=1"], "not both"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, arguments, said):
    code, out, error = run(*arguments)
    assert code in (1, 2) and out == ""
    assert said in error and error.count("\n") == 1


def test_without_feedback_or_policy_it_says_what_to_do(small_lake):
    small_lake.finish(date(2024, 2, 3), {"items": small_lake.write("items", {"day": MADE})}, step="night")
    with pytest.raises(ValueError, match="map a feed"):
        mixes.judged(small_lake.settings, None, "ranked=1", 14)
    with pytest.raises(ValueError, match="no policy is in force"):
        mixes.shown(small_lake.settings, None)
    assert logs.read(small_lake.settings.lake, "publications") == []
