"""The typed settings, one class a section. Unknown keys and bad values are errors that name the key."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from conf.baselines import Baselines
from conf.contracts import SERIES_DAYS
from conf.learning import Evaluate, Gate, Labeller, Model, Ranker, Train, Tune
from conf.mapping import Feedback, Mapping, load_mapping
from conf.section import Section
from conf.tables import TABLES

CONF_DIR = Path(__file__).parent


class SettingsError(ValueError):
    """The caller's settings are wrong (exit code 2)."""


class Source(Section):
    mapping: str
    path: str | None = None


class Spark(Section):
    master: str = "local[*]"
    driver_memory: str = "2g"
    shuffle_partitions: int = Field(2, ge=1)
    conf: dict[str, str] = {}


class Ingest(Section):
    lookback_days: int = Field(30, ge=1)


RuleName = Literal[
    "bad_coordinates", "bad_value", "too_late", "before_source", "clock_skew", "extreme_value", "near_duplicate",
    "impossible_speed", "bot_rate", "bot_regularity", "bot_breadth",
]  # fmt: skip


class Clean(Section):
    disabled: tuple[RuleName, ...] = ()
    source_began: date | None = None
    clock_skew_hours: float = Field(26.0, ge=0)
    near_duplicate_s: float = Field(2.0, ge=0, le=3600)
    near_duplicate_s_by_type: dict[str, Annotated[float, Field(ge=0, le=3600)]] = {}
    max_speed_m_s: float = Field(340.0, gt=0)
    min_jump_m: float = Field(5000.0, ge=0)
    time_slack_s: float = Field(60.0, ge=0)
    bot_events_per_minute: int = Field(60, ge=2)
    bot_min_gaps: int = Field(20, ge=3)
    bot_even_share: float = Field(0.8, gt=0, le=1)
    bot_even_tolerance: float = Field(0.05, gt=0, lt=1)
    bot_items_per_day: int = Field(1000, ge=2)
    value_deviations: float = Field(8.0, gt=0)
    value_min_rows: int = Field(200, ge=20)
    item_max_spread_m: float = Field(250.0, ge=0)
    item_min_events: int = Field(5, ge=1)


class Privacy(Section):
    ip: Literal["drop", "coarsen", "keep"] = "drop"
    ip_database: str | None = None
    coordinate_decimals: int | None = Field(None, ge=0, le=6)
    notice_versions: tuple[str, ...] = ()
    erase_landing: bool = False


class Completeness(Section):
    accept: bool = False
    days: int = Field(28, ge=21)
    spread: float = Field(4.0, gt=0)
    least_factor: float = Field(2.0, gt=1)


class Sequences(Section):
    length: int = Field(200, ge=2)


class Text(Section):
    encoder: str | None = None
    precision: Literal["fp32", "bf16", "int8"] | None = None
    max_tokens: int = Field(128, ge=8, le=512)
    batch_size: int = Field(64, ge=1)


class Label(Section):
    short_half_life_days: float = Field(7.0, gt=0)
    long_half_life_days: float = Field(60.0, gt=0)
    long_min_weeks: int = Field(4, ge=1)
    long_min_weight: float = Field(1.0, ge=0)
    short_min_weight: float = Field(0.5, ge=0)
    event_weights: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    tags: int = Field(50, ge=1)
    synonym_likeness: float = Field(0.88, gt=0, le=1)


class TimeSeries(Section):
    false_discovery_rate: float = Field(0.05, gt=0, lt=1)


ForecastMethod = Literal["seasonal_naive", "ets", "lstm", "arima", "prophet"]


class Forecast(Section):
    history_days: int = Field(182, ge=56)
    items: int = Field(100, ge=0)
    level: float = Field(0.8, gt=0, lt=1)
    methods: tuple[ForecastMethod, ...] = ("seasonal_naive", "ets", "lstm", "arima", "prophet")
    slow_series: int = Field(200, ge=0)
    origins: int = Field(4, ge=1)


class Spatial(Section):
    place_radius_m: float = Field(150.0, gt=0)
    place_min_visits: int = Field(3, ge=1)
    habit_half_life_days: float = Field(45.0, gt=0)
    habit_shrinkage: float = Field(3.0, gt=0)
    habit_elsewhere: float = Field(8.0, gt=0)
    max_precision_m: float = Field(500.0, ge=0)
    hotspot_window_days: int = Field(56, ge=7)
    planning_window_days: int = Field(28, ge=1)
    planning_max_gap_hours: float = Field(8.0, gt=0)
    planning_min_users: int = Field(10, ge=1)
    hotspot_false_discovery_rate: float = Field(0.05, gt=0, lt=1)
    hotspot_min_cells: int = Field(30, ge=2)
    hotspot_min_users: int = Field(3, ge=1)
    area_min_share: float = Field(0.01, gt=0, le=1)


class Interaction(Section):
    half_life_days: float = Field(60.0, gt=0)
    shrinkage: float = Field(5.0, ge=0)
    lift_window_days: int = Field(56, ge=7)
    transition_max_gap_hours: float = Field(8.0, gt=0)


Capped = Literal["category", "brand"]


class Score(Section):
    k: int = Field(20, ge=1)
    slots: bool = True
    block: str | None = None
    boost: dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]] = {}
    caps: dict[Capped, Annotated[int, Field(ge=1)]] = {}
    diversity: float = Field(0.0, ge=0, lt=1)
    dismissed_days: int = Field(60, ge=1, le=3650)
    nearest: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _looks_at_more_than_it_lists(self) -> Score:
        if self.nearest is not None and self.nearest < 4 * self.k:
            raise ValueError(f"nearest: lists of {self.k} are made out of at least {4 * self.k} items: raise score.nearest")
        return self


class Policy(Section):
    by: Literal["feedback", "none"] = "none"
    floor: float = Field(0.005, gt=0, lt=0.1)
    step: float = Field(0.2, gt=0, le=1)
    half_life_days: float = Field(10.0, gt=0)
    strength: float = Field(2000.0, ge=0)
    lists_per_user: float = Field(2.0, gt=0)
    shuffled: float = Field(0.02, ge=0, le=0.5)
    holdout: float = Field(0.0, ge=0, lt=1)
    rewards: dict[str, Annotated[float, Field(ge=-1, le=1)]] = {"click": 0.5, "purchase": 1.0, "check_in": 1.0, "dismiss": -1.0}
    answer_days: int = Field(7, ge=1, le=28)


class Drift(Section):
    weeks: int = Field(4, ge=1)
    max_psi: float = Field(0.25, ge=0)
    max_kl: float = Field(0.125, ge=0)
    max_new_items: float = Field(0.8, ge=0, le=1)
    max_changed_users: float = Field(1.0, ge=0, le=1)


class Alert(Section):
    url_env: str | None = None
    timeout_s: float = Field(5.0, gt=0)
    attempts: int = Field(3, ge=1)


class Target(Section):
    source: str = "recommendations"
    contract: int = Field(1, ge=1)


class Postgres(Target):
    kind: Literal["postgres"]
    dsn: str
    password_env: str | None = None
    table: str = "recommendations"


class Jdbc(Target):
    kind: Literal["jdbc"]
    url: str = Field(pattern=r"^jdbc:\w+:")
    driver: str | None = None
    jars: list[str] = []
    user: str | None = None
    password_env: str | None = None
    table: str = Field("recommendations", pattern=r"^(\w+\.)*\w{1,50}$")
    types: dict[str, str] = {}


class Folder(Target):
    kind: Literal["parquet", "csv", "json"]
    path: str


class Redis(Target):
    kind: Literal["redis"]
    url: str
    password_env: str | None = None
    prefix: str = Field("wherewhen", pattern=r"^[^:{}*?\[\]\\]+$")
    expire_days: float = Field(7.0, gt=0)
    timeout_s: float = Field(30.0, gt=0)


class Webhook(Target):
    kind: Literal["webhook"]
    url_env: str
    token_env: str | None = None
    timeout_s: float = Field(30.0, gt=0)
    attempts: int = Field(5, ge=1)


class S3(Target):
    kind: Literal["s3"]
    url: str
    format: Literal["parquet", "csv", "json"] = "parquet"
    region: str | None = None
    endpoint: str | None = None
    key_id_env: str | None = None
    secret_env: str | None = None
    timeout_s: float = Field(30.0, gt=0)

    @field_validator("url")
    @classmethod
    def _names_bucket_and_prefix(cls, url: str) -> str:
        if not re.fullmatch(r"s3://[\w.-]{3,}(/[\w.=+-]+)+/?", url):
            raise ValueError("write s3://BUCKET/PREFIX, of letters, digits and . _ - = +, with / between")
        return url.rstrip("/")

    @field_validator("endpoint")
    @classmethod
    def _is_a_server(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not re.fullmatch(r"(https?://)?[\w.:\[\]-]+/?", endpoint):
            raise ValueError("write https://HOST:PORT, without a path or a password (http:// where there is no TLS)")
        return endpoint

    @model_validator(mode="after")
    def _has_both_or_neither(self) -> S3:
        if (self.key_id_env is None) != (self.secret_env is None):
            raise ValueError("name key_id_env and secret_env, or neither, for the credentials that AWS's own tools find")
        return self


Sink = Annotated[Postgres | Jdbc | Folder | Redis | S3 | Webhook, Field(discriminator="kind")]


class Segment(Section):
    query: str


_ANY_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


class Report(Section):
    path: str = "out/report/{day}.html"
    users: int = Field(5, ge=1)

    @field_validator("path")
    @classmethod
    def _names_days_in_one_folder(cls, path: str) -> str:
        if "{day}" in str(Path(path).parent):
            raise ValueError("{day} may stand in the file's name alone: the pages of all days lie in one folder")
        return path

    def page(self, day: date) -> Path:
        return Path(self.path.replace("{day}", str(day)))

    @property
    def index(self) -> Path | None:
        """The page that lists the pages of all days; None where each takes the place of the one before."""
        path = Path(self.path)
        return path.with_name("index.html") if "{day}" in path.name else None

    def pages(self) -> list[Path]:
        """Those of all days that are there, and what a writer left behind."""
        path = Path(self.path)
        name = _ANY_DAY.join(map(glob.escape, path.name.split("{day}")))
        found = [one for pattern in (name, f".{name}.*") for one in sorted(path.parent.glob(pattern))]
        return [one for one in found if one.is_file()]


class Maintain(Section):
    keep_days: int = Field(30, ge=1)
    grace_hours: float = Field(24.0, ge=1)
    retention: dict[str, Annotated[int, Field(ge=1)] | None] = {}


_CHANGES_NO_ROW: dict[str, Any] = {
    **dict.fromkeys(
        ("lake", "spark", "sinks", "segments", "report", "sources", "completeness", "maintain", "alert", "tune"), True
    ),
    "privacy": {"erase_landing"},
    "drift": {"max_psi", "max_kl", "max_new_items", "max_changed_users"},
    "train": {"tracking"},
}


class Settings(Section):
    lake: str = "lake"
    sources: dict[Literal["events", "items", "users", "consents", "context", "relations", "vectors", "feedback"], Source]
    spark: Spark = Spark()
    ingest: Ingest = Ingest()
    clean: Clean = Clean()
    privacy: Privacy = Privacy()
    completeness: Completeness = Completeness()
    sequences: Sequences = Sequences()
    text: Text = Text()
    label: Label = Label()
    labeller: Labeller = Labeller()
    time_series: TimeSeries = TimeSeries()
    forecast: Forecast = Forecast()
    spatial: Spatial = Spatial()
    interaction: Interaction = Interaction()
    model: Model = Model()
    train: Train = Train()
    tune: Tune = Tune()
    ranker: Ranker = Ranker()
    evaluate: Evaluate = Evaluate()
    baselines: Baselines = Baselines()
    gate: Gate = Gate()
    score: Score = Score()
    policy: Policy = Policy()
    drift: Drift = Drift()
    alert: Alert = Alert()
    segments: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")], Segment] = {}
    sinks: dict[str, Sink] = {}
    report: Report = Report()
    maintain: Maintain = Maintain()

    @property
    def mapping(self) -> Mapping:
        """The mapping of the main log.

        Raises:
            SettingsError: the file is missing or wrong; names file and key.
        """
        return _mapping(self.sources["events"].mapping)

    @property
    def feedback(self) -> Feedback | None:
        """How feedback is mapped: by its own source's mapping, else by the main log's; None: not at all."""
        own = self.sources.get("feedback")
        return (None if own is None else _mapping(own.mapping).feedback) or self.mapping.feedback

    @property
    def network(self) -> Model:
        """`model` without what the log does not have."""
        has = {"times": self.mapping.has_times, "places": self.mapping.has_places, "repeats": self.mapping.repeats}
        return self.model.model_copy(update={name: there and getattr(self.model, name) for name, there in has.items()})

    @property
    def asks_consent(self) -> bool:
        """Whether the log says what users allow; then who says nothing allows nothing."""
        mapping = self.mapping
        return mapping.consents is not None or "consent" in mapping.events.columns or "consents" in self.sources

    def accepting(self) -> Settings:
        """These settings, but every day's delivery is taken as it is."""
        return self.model_copy(update={"completeness": self.completeness.model_copy(update={"accept": True})})

    def hash(self, sections: Collection[str] | None = None) -> str:
        """Hash of `sections` (and `mapping`), all by default, but for where things lie and with what they are run."""
        kept = self.model_dump(mode="json", exclude=_CHANGES_NO_ROW)
        kept["mapping"] = {name: _mapping(source.mapping).model_dump(mode="json") for name, source in self.sources.items()}
        return digest(kept if sections is None else {name: value for name, value in kept.items() if name in sections})


def digest(value: object) -> str:
    """Sixteen hex digits that identify a JSON-like value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _mapping(name: str) -> Mapping:
    try:
        return load_mapping(find(name))
    except ValueError as error:
        raise SettingsError(str(error)) from None


def find(name: str) -> Path:
    """A file given by path, or by its name inside the installed `conf` (with or without `conf/`).

    Raises:
        SettingsError: there is no such file.
    """
    inside = Path(*Path(name).parts[1:]) if Path(name).parts[:1] == ("conf",) else Path(name)
    for path in (Path(name), CONF_DIR / inside):
        if path.is_file():
            return path
    raise SettingsError(f"no file {name}; give a path, or one of {', '.join(sorted(p.name for p in CONF_DIR.glob('*.yaml')))}")


def load_settings(config: str = "conf/local.yaml", overrides: Sequence[str] = ()) -> Settings:
    """Read `conf/local.yaml`, then what `config` says differently, then `key.path=value` overrides.

    Raises:
        SettingsError: an unknown key, a bad value, a missing or unreadable file; names key and remedy.
    """
    merged = _read(CONF_DIR / "local.yaml")
    if find(config).resolve() != (CONF_DIR / "local.yaml").resolve():
        merged = _merge(merged, _read(find(config)))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise SettingsError(f"--set {override}: write key.path=value, for example --set lake=/data/lake")
        merged = _merge(merged, _nest(key.split("."), _value(text)))
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(_readable(error, config)) from None
    settings.mapping  # noqa: B018  a wrong mapping is a wrong setting: say so before any work
    _check_retention(settings)
    _check_worth(settings)
    return settings


def _check_retention(settings: Settings) -> None:
    """The next night needs what its windows look back at; states reach back less far, to the keyframe before the last."""
    windows = {
        "ingest.lookback_days": settings.ingest.lookback_days,
        "time_series": SERIES_DAYS,
        "forecast.history_days": settings.forecast.history_days,
        "spatial.hotspot_window_days": settings.spatial.hotspot_window_days,
        "spatial.planning_window_days": settings.spatial.planning_window_days,
        "interaction.lift_window_days": settings.interaction.lift_window_days,
        "drift.weeks": 7 * settings.drift.weeks + 1,
    }
    longest = max(windows, key=lambda name: windows[name])
    for name, days in settings.maintain.retention.items():
        if name not in TABLES or not TABLES[name].partitioned:
            known = ", ".join(table for table, contract in TABLES.items() if contract.partitioned)
            raise SettingsError(f"maintain.retention.{name}: no table with days; these are {known}")
        if days is not None and days < windows[longest]:
            why = f"{longest}: {windows[longest]} days"
            raise SettingsError(f"maintain.retention.{name}: {days} days are less than the nights look back at ({why})")


def _check_worth(settings: Settings) -> None:
    """Only what is predicted is worth something; a type misspelt would silently count 1."""
    known = settings.mapping.target_events
    for name in settings.train.worth:
        if name not in known:
            raise SettingsError(
                f"train.worth.{name}: no target event; these are {', '.join(known)} (the mapping's target_events)"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: must hold keys and values")
    return content


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _value(text: str) -> Any:
    """YAML where it is plain YAML, else the text itself (a path with a colon, say)."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _readable(error: ValidationError, config: str) -> str:
    """All mistakes in one line, each with its key."""
    mistakes = []
    for mistake in error.errors():
        key = ".".join(str(part) for part in mistake["loc"])
        kind = "unknown key" if mistake["type"] == "extra_forbidden" else mistake["msg"]
        mistakes.append(f"{key}: {kind}")
    return f"{config}: {'; '.join(mistakes)}; conf/local.yaml lists every key"
