"""How much of users' lists comes from which source, by context: a policy that moves a little each night, by how lists did.

A contextual bandit by Thompson sampling, as a share: of each source in a context the chance that it is the one that earns
most (Thompson, "On the likelihood that one unknown probability exceeds another", Biometrika 1933; Russo et al., "A Tutorial on
Thompson Sampling", 2018). Draws from sources are known by their chances, so that what a source earns is told without bias from
lists that another mix made (`models.mixing`), and ranks by how much they are looked at (`models.position_bias`).

Whatever feedback says, in one night no context's shares move by more than `Limits.step`, no source falls below `Limits.floor`,
and no user counts for more than `Limits.lists_per_user` lists.

Shape suffixes: C contexts, S sources, K ranks, E entries of lists, N rows to tell shares of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from models.mixing import agreeing
from models.position_bias import Examined, from_shuffled

ANY = ""
# region, slot, activity; what is ANY stands for all.
Context = tuple[str, str, str]
EVERYWHERE: Context = (ANY, ANY, ANY)
_DRAWS = 1_000
_LEAST = 1e-3
_FILE, METHOD = "version.json", "thompson"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds a policy. `step`: how much of a context's lists may come from another source than the night before.

    `half_life_days`: after so many, answers count half. `strength`: entries that a wider context counts for in a narrower one.
    """

    floor: float = 0.005
    step: float = 0.2
    half_life_days: float = 10.0
    strength: float = 2000.0
    lists_per_user: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """Entries that were shown, how often, and what they earned, since they were last heard of.

    `context_E`: the place in `contexts` of the narrowest there is. `rank_E`: from 0. `reward_E`: up to 1 for each time
    it was shown, less than 0 where something was taken back. `shown_E`: how often more. `user_E`: any numbers.
    """

    contexts: tuple[Context, ...]
    context_E: np.ndarray
    user_E: np.ndarray
    rank_E: np.ndarray
    agreed_E: np.ndarray
    propensity_E: np.ndarray
    reward_E: np.ndarray
    shown_E: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What answers of one day say, each of its narrowest context (C, S), as `Policy` has it.

    `shown_K`, `answered_K`: of shuffled lists, how many entries there were at each rank, and what they earned.
    """

    contexts: tuple[Context, ...]
    seen_CS: np.ndarray
    spread_CS: np.ndarray
    earned_CS: np.ndarray
    shown_K: np.ndarray
    answered_K: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`share_CS` sums to 1 in each context. What is known of a source there, older answers for less:

    `seen_CS`: entries as far as they were looked at, each by how unlikely it was; `spread_CS`: the same by the square of that;
    `earned_CS`: their rewards. `shown_K`, `answered_K`: of shuffled lists, the entries of each rank and what they earned.
    """

    sources: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    contexts: tuple[Context, ...]
    share_CS: np.ndarray
    seen_CS: np.ndarray
    spread_CS: np.ndarray
    earned_CS: np.ndarray
    shown_K: np.ndarray = field(default_factory=lambda: np.zeros(0))
    answered_K: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @staticmethod
    def first(sources: Sequence[str], limits: Limits | None = None) -> Policy:
        """Nearly all from the first source.

        Raises:
            ValueError: more sources than the floor leaves room for.
        """
        limits = limits or Limits()
        if limits.floor * len(sources) > 1.0:
            raise ValueError(f"a floor of {limits.floor} for {len(sources)} sources is more than there is: lower it")
        share_S = np.full(len(sources), limits.floor)
        share_S[0] = 1.0 - limits.floor * (len(sources) - 1)
        nothing = np.zeros((1, len(sources)))
        return Policy(
            sources=tuple(sources),
            limits=limits,
            contexts=(EVERYWHERE,),
            share_CS=share_S[None, :],
            seen_CS=nothing,
            spread_CS=nothing,
            earned_CS=nothing,
        )

    @cached_property
    def _row(self) -> dict[Context, int]:
        return {context: place for place, context in enumerate(self.contexts)}

    def shares(self, contexts: Iterable[Context]) -> np.ndarray:
        """Of each context, (N, S); of one that was never heard from those of the next wider one."""
        row = self._row
        found = [next(row[wider] for wider in reversed(ancestry(context)) if wider in row) for context in contexts]
        return self.share_CS[found]

    def under(self, limits: Limits) -> Policy:
        """The same, from here on within other limits; shares below a new floor are lifted to it."""
        if limits == self.limits:
            return self
        free_CS = np.maximum(self.share_CS, limits.floor) - limits.floor
        left = 1.0 - limits.floor * len(self.sources)
        share_CS = limits.floor + left * free_CS / np.maximum(free_CS.sum(axis=1, keepdims=True), 1e-12)
        return replace(self, limits=limits, share_CS=share_CS)

    def examined(self, ranks: int) -> np.ndarray:
        """How much each rank is looked at, the first 1, (K,); all alike as long as too few shuffled lists were answered."""
        told = from_shuffled(self.shown_K, self.answered_K) or Examined.evenly(max(ranks, len(self.shown_K)))
        known_K = told.examined_K[:ranks]
        return np.concatenate([known_K, np.full(ranks - len(known_K), known_K[-1] if len(known_K) else 1.0)])

    def after(self, evidence: Evidence, seed: int = 0) -> Policy:
        """The policy of the night that has seen the answers of one day more."""
        known = self._known(evidence.contexts)
        fading = 0.5 ** (1.0 / self.limits.half_life_days)
        learnt = replace(
            known,
            seen_CS=fading * known.seen_CS + known._spread_up(evidence.contexts, evidence.seen_CS),
            spread_CS=fading * known.spread_CS + known._spread_up(evidence.contexts, evidence.spread_CS),
            earned_CS=fading * known.earned_CS + known._spread_up(evidence.contexts, evidence.earned_CS),
            shown_K=_sum_of(fading * self.shown_K, evidence.shown_K),
            answered_K=_sum_of(fading * self.answered_K, evidence.answered_K),
        )
        # Of what nothing is known nothing is wanted either.
        wanted_CS = np.where(learnt.seen_CS.sum(axis=1, keepdims=True) > 0, learnt._wanted(seed), known.share_CS)
        # As far that way as one night may go.
        far_C = 0.5 * np.abs(wanted_CS - known.share_CS).sum(axis=1)
        part_C = np.minimum(1.0, self.limits.step / np.maximum(far_C, 1e-12))
        return replace(learnt, share_CS=known.share_CS + part_C[:, None] * (wanted_CS - known.share_CS))

    def held_at(self, before: Policy) -> Policy:
        """What is known now, and the shares of before."""
        return replace(self, share_CS=before.shares(self.contexts))

    def _spread_up(self, contexts: Sequence[Context], values_CS: np.ndarray) -> np.ndarray:
        """Sums of the contexts given, in each of ours those of all that are narrower."""
        total_CS = np.zeros(self.share_CS.shape)
        for context, value_S in zip(contexts, values_CS, strict=True):
            total_CS[[self._row[wider] for wider in ancestry(context)]] += value_S
        return total_CS

    def _known(self, contexts: Sequence[Context]) -> Policy:
        """With these contexts and all that are wider; new ones start as the next wider one stands."""
        wanted = sorted({*self.contexts, *(wider for context in contexts for wider in ancestry(context))}, key=_narrow)
        place_C = np.array([self._row.get(context, -1) for context in wanted])
        new_C1 = (place_C < 0)[:, None]
        seen_CS, spread_CS, earned_CS = (
            np.where(new_C1, 0.0, known_CS[place_C]) for known_CS in (self.seen_CS, self.spread_CS, self.earned_CS)
        )
        return replace(
            self,
            contexts=tuple(wanted),
            share_CS=self.shares(wanted),
            seen_CS=seen_CS,
            spread_CS=spread_CS,
            earned_CS=earned_CS,
        )

    def _wanted(self, seed: int) -> np.ndarray:
        """The shares that answers speak for, (C, S): how likely each source is the best, and none below the floor."""
        mean_CS, many_CS = self.worth()
        random = np.random.default_rng(seed)
        # Besides what is known one entry that earned as all do: a source that nobody has looked at yet may be anything.
        prior = min(max(self._overall(), _LEAST), 1.0 - _LEAST)
        best_CS = np.empty(mean_CS.shape)
        for place, (mean_S, many_S) in enumerate(zip(mean_CS, many_CS, strict=True)):
            drawn = random.beta(mean_S * many_S + prior, (1.0 - mean_S) * many_S + 1.0 - prior, (_DRAWS, len(mean_S)))
            best_CS[place] = np.bincount(drawn.argmax(axis=1), minlength=len(mean_S)) / _DRAWS
        floor = self.limits.floor
        return floor + (1.0 - floor * best_CS.shape[1]) * best_CS

    def worth(self) -> tuple[np.ndarray, np.ndarray]:
        """What each source earns per entry that is looked at, (C, S), and from how many entries that is known.

        A context is believed as far as its own entries go, and for the rest what is known outside of it: of the next wider
        one without it, and so on.
        """
        sums, overall = np.stack([self.seen_CS, self.spread_CS, self.earned_CS]), self._overall()
        mean_CS, many_CS = np.zeros(self.share_CS.shape), np.zeros(self.share_CS.shape)
        for place, context in enumerate(self.contexts):
            chain = [self._row[wider] for wider in ancestry(context)]
            mean_S, many_S = np.full(len(self.sources), overall), np.zeros(len(self.sources))
            for at, within in zip(chain, [*chain[1:], None], strict=True):
                around = sums[:, at] if within is None else np.maximum(sums[:, at] - sums[:, within], 0.0)
                many_R, lent_S = _entries(around[0], around[1]), np.minimum(many_S, self.limits.strength)
                rate_R = np.clip(around[2] / np.maximum(around[0], 1e-12), 0.0, 1.0)
                many_S = many_R + lent_S
                told_S = (many_R * rate_R + lent_S * mean_S) / np.maximum(many_S, 1e-12)
                mean_S = np.where(many_S > 0, told_S, mean_S)
            mean_CS[place], many_CS[place] = mean_S, many_S
        return mean_CS, many_CS

    def _overall(self) -> float:
        """What an entry that is looked at earns, whoever gave it, wherever."""
        place = self._row[EVERYWHERE]
        return float(np.clip(self.earned_CS[place].sum() / max(self.seen_CS[place].sum(), 1e-12), 0.0, 1.0))

    @property
    def version(self) -> str:
        """Of equal policies the same."""
        return hashlib.sha256(self._written().encode()).hexdigest()[:16]

    def _written(self) -> str:
        arrays = {name: value.tolist() for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return json.dumps(
            {"method": METHOD, "sources": self.sources, "limits": vars(self.limits), "contexts": self.contexts, **arrays}
        )

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FILE).write_text(self._written())

    @staticmethod
    def load(folder: Path) -> Policy:
        """
        Raises:
            ValueError: the folder holds no policy, or a damaged one.
        """
        try:
            held: dict[str, Any] = json.loads((folder / _FILE).read_text())
            if held.pop("method") != METHOD:
                raise ValueError("it is a version of another kind")
            contexts = tuple((region, slot, activity) for region, slot, activity in held.pop("contexts"))
            sources, limits = tuple(held.pop("sources")), Limits(**held.pop("limits"))
            arrays = {name: np.array(values, dtype=np.float64) for name, values in held.items()}
            policy = Policy(sources=sources, limits=limits, contexts=contexts, **arrays)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder / _FILE} holds no policy that can be read ({error}): take up an earlier one") from None
        shares, of_ranks = policy.share_CS, policy.shown_K.shape
        shapes = {name: of_ranks if name.endswith("_K") else (len(contexts), len(sources)) for name in arrays}
        if any(values.shape != shapes[name] or not np.isfinite(values).all() for name, values in arrays.items()):
            raise ValueError(
                f"{folder / _FILE} is damaged: not as many numbers of each kind as there must be; take up an earlier one"
            )
        if (shares < 0).any() or not np.allclose(shares.sum(axis=1), 1.0) or EVERYWHERE not in contexts:
            raise ValueError(f"{folder / _FILE} is damaged: shares that do not sum to 1; take up an earlier one")
        return policy


def ancestry(context: Context) -> list[Context]:
    """The context and all that are wider, the widest first.

    >>> ancestry(("Shinjuku", "weekday_morning", "new"))[:3]
    [('', '', ''), ('', '', 'new'), ('', 'weekday_morning', 'new')]
    """
    region, slot, activity = context
    chain: list[Context] = [EVERYWHERE, (ANY, ANY, activity), (ANY, slot, activity), (region, slot, activity)]
    return [one for place, one in enumerate(chain) if place == 0 or one != chain[place - 1]]


def _narrow(context: Context) -> tuple[int, Context]:
    return len(ancestry(context)), context


def _entries(seen_S: np.ndarray, spread_S: np.ndarray) -> np.ndarray:
    """How many entries of one weight would tell as much (Kish); what is left of a rounding tells nothing."""
    return np.where(spread_S > 1e-9, seen_S**2 / np.maximum(spread_S, 1e-9), 0.0)


def _sum_of(one_K: np.ndarray, other_K: np.ndarray) -> np.ndarray:
    """Of lists that may have become longer or shorter."""
    total_K = np.zeros(max(len(one_K), len(other_K)))
    total_K[: len(one_K)] += one_K
    total_K[: len(other_K)] += other_K
    return total_K


def evidence(feedback: Feedback, policy: Policy, examined_K: np.ndarray, shuffled: tuple[np.ndarray, np.ndarray]) -> Evidence:
    """What a day's answers say; `shuffled`: of shuffled lists how many entries there were at each rank, and what they earned.

    Of whoever more is told in a day than so many lists hold, each entry counts for less.
    """
    looked_E = examined_K[feedback.rank_E] * feedback.shown_E
    _, user_E = np.unique(feedback.user_E, return_inverse=True)
    # What is told of an entry that was shown before counts as a look too: answers may come a day after all that was shown.
    told_E = np.maximum(looked_E, np.abs(feedback.reward_E))
    told_U = np.bincount(user_E, weights=told_E) if len(user_E) else np.zeros(0)
    most = policy.limits.lists_per_user * examined_K.sum()
    counts_E = np.minimum(1.0, most / np.maximum(told_U, 1e-12))[user_E]
    weight_ES = agreeing(feedback.agreed_E, len(policy.sources)) * (counts_E / feedback.propensity_E)[:, None]
    sums = [np.zeros((len(feedback.contexts), len(policy.sources))) for _ in range(3)]
    entries = (weight_ES * looked_E[:, None], weight_ES**2 * looked_E[:, None], weight_ES * feedback.reward_E[:, None])
    for total_CS, value_ES in zip(sums, entries, strict=True):
        np.add.at(total_CS, feedback.context_E, value_ES)
    return Evidence(
        contexts=feedback.contexts,
        seen_CS=sums[0],
        spread_CS=sums[1],
        earned_CS=sums[2],
        shown_K=shuffled[0],
        answered_K=shuffled[1],
    )
