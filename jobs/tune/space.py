"""The settings that a search may try, from `tune.space`: checked, and as distributions of Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, ValidationError

from conf.learning import Span
from conf.settings import Settings, SettingsError
from jobs.train.lineage import learning_settings

# `section.key` -> value.
Values = dict[str, Any]
_SECTIONS = ("model", "train")
# The windows are cut for one, the fold by another, what is good is said by a third; a search goes by the seed; and it
# starts no training from a parent.
_FIXED = {
    "model.window", "train.validation_share", "train.seed", "train.warm_epochs", "train.warm_learning_rate", "train.worth",
}  # fmt: skip


def tunable(settings: Settings) -> Values:
    """Every setting that may be searched, as it is set."""
    learning = learning_settings(settings)
    flat = {f"{section}.{key}": value for section in _SECTIONS for key, value in learning[section].items()}
    return {name: value for name, value in flat.items() if name not in _FIXED}


def space_of(settings: Settings) -> dict[str, BaseDistribution]:
    """What to try, by `section.key` in alphabetical order.

    Raises:
        SettingsError: nothing is left to try, or an entry of `tune.space` names no setting that can be searched, or a
            value that it may not have.
    """
    known = tunable(settings)
    found: dict[str, BaseDistribution] = {}
    for section, keys in sorted(settings.tune.space.items()):
        for key, given in sorted((keys or {}).items()):
            name = f"{section}.{key}"
            if given is None:
                continue
            if name not in known:
                raise SettingsError(f"tune.space.{name}: cannot be searched; these can: {', '.join(known)}")
            found[name] = _distribution(settings, name, given)
    if not found:
        raise SettingsError("tune.space: nothing is left to try; conf/local.yaml shows how to name what to search")
    _check_heads(settings, found)
    return found


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with others in the place of some."""
    changed = {}
    for section in _SECTIONS:
        own = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{section}.")}
        changed[section] = getattr(settings, section).model_copy(update=own)
    return settings.model_copy(update=changed)


def nested(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """As they stand in a settings file.

    >>> nested({"model.width": 8, "model.heads": 2})
    {'model': {'width': 8, 'heads': 2}}
    """
    made: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        made.setdefault(section, {})[key] = value
    return made


def _distribution(settings: Settings, name: str, given: Span | list[Any]) -> BaseDistribution:
    if isinstance(given, list):
        return CategoricalDistribution(list(dict.fromkeys(_valid(settings, name, value) for value in given)))
    low, high = _valid(settings, name, given.low), _valid(settings, name, given.high)
    if isinstance(low, bool) or not isinstance(low, int | float):
        raise SettingsError(f"tune.space.{name}: is no number; list what to try: [a, b]")
    if low > high or (given.log and low <= 0):
        raise SettingsError(f"tune.space.{name}: low must be below high, and above 0 where log is true")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=given.log)
    return FloatDistribution(low, high, log=given.log)


def _valid(settings: Settings, name: str, value: object) -> Any:
    """The value as the setting takes it: 0 is 0.0 where that is a float."""
    section, _, key = name.partition(".")
    kind: type[BaseModel] = type(getattr(settings, section))
    try:
        return getattr(kind.model_validate({key: value}), key)
    except ValidationError as error:
        raise SettingsError(f"tune.space.{name}: {value}: {error.errors()[0]['msg']}") from None


def _check_heads(settings: Settings, space: Mapping[str, BaseDistribution]) -> None:
    """Each width with each number of heads: a trial that cannot be is found before the first."""
    widths, heads = (_all(space.get(f"model.{key}"), getattr(settings.model, key)) for key in ("width", "heads"))
    encoders = _all(space.get("model.encoder"), settings.model.encoder)
    for width, head in product(widths, heads):
        if "transformer" in encoders and width % head:
            raise SettingsError(f"tune.space.model.width: {width} is no multiple of {head} heads; list some that are: [32, 64]")


def _all(tried: BaseDistribution | None, as_set: Any) -> list[Any]:
    if isinstance(tried, CategoricalDistribution):
        return list(tried.choices)
    return list(range(tried.low, tried.high + 1)) if isinstance(tried, IntDistribution) else [as_set]
