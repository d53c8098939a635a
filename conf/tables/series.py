"""Activity over time."""

from __future__ import annotations

from conf.contracts import FORECAST_DAYS, SERIES_WINDOWS, Column, column, fact, snapshot, state

_ENTITY = (
    column("entity_type", "string", "user, item, category, region, region_category or region_slot", nullable=False),
    column("entity_id", "string", "which one; of a pair both, with ' | ' between them", nullable=False, personal=True),
)

_FORECAST = (
    column("entity_type", "string", "category, region or item", nullable=False),
    column("entity_id", "string", "which one", nullable=False),
    column("event_type", "string", "event type, of the mapping's target events", nullable=False),
)
_FORECAST_KEY = ("entity_type", "entity_id", "event_type")


def _window(days: int) -> Column:
    """Events of the last so many days; the days that leave the window with time are known from `recent`."""
    left = f"CASE WHEN age_days < {days} THEN element_at(recent, CAST({days} - age_days AS INT)) ELSE 0 END"
    return column(f"events_{days}d", "bigint", f"events of the last {days} days", nullable=False, aged=left)


TIME_SERIES = (
    fact(
        "activity_daily",
        "Events per entity, type, own date and local hour that arrived on the day; sum over `day` when reading.",
        *_ENTITY,
        column("event_type", "string", "event type", nullable=False),
        column("event_date", "date", "the events' own UTC date", nullable=False),
        column("local_hour", "int", "local hour, 0..23; null where it is not known"),
        column("events", "bigint", "how many", nullable=False),
        key=("entity_type", "entity_id", "event_type", "event_date", "local_hour"),
        checks={"some": "events > 0"},
        personal=True,
    ),
    state(
        "time_series_features",
        "Shape of the daily activity of each entity and event type over the last 91 days; of those that the log has seen.",
        column("entity", "string", "entity_type:entity_id, the owner", nullable=False, personal=True),
        *_ENTITY,
        column("event_type", "string", "event type", nullable=False),
        column("observed_days", "int", "days described: 91, or those since the log's first day", unit="day", nullable=False),
        *map(_window, SERIES_WINDOWS),
        column(
            "recent", "array<bigint>", "events of the last 1, 2, ... 90 days before the end of `changed_on`", nullable=False
        ),
        column("level", "double", "mean events per day", unit="1/day", nullable=False),
        column(
            "slope", "double", "median of the slopes between any two weeks (Theil-Sen); null before 3 weeks", unit="1/day^2"
        ),
        column("volatility", "double", "standard deviation of a day against its weekday; null before 2 weeks", unit="1/day"),
        column("weekly_strength", "double", "share of the detrended variance at a period of 7 days; null before 2 weeks"),
        column("weekly_peak_day", "double", "when that component peaks, from Monday 00:00 on; null without one", unit="day"),
        column("trend", "double", "trend on the last day (STL); null before 4 weeks", unit="1/day"),
        column("trend_strength", "double", "1 - var(remainder) / var(remainder + trend), 0..1"),
        column(
            "season", "array<double>", "season of the last seven days (STL), Monday first; null before 4 weeks", unit="1/day"
        ),
        column("season_strength", "double", "1 - var(remainder) / var(remainder + season), 0..1"),
        column("active_days", "int", "days with events", unit="day", nullable=False),
        column(
            "days_since", "int", "days since the last one with events", unit="day", nullable=False, aged="days_since + age_days"
        ),
        column("gap_mean", "double", "mean of the days from one day with events to the next; null without two", unit="day"),
        column("gap_sd", "double", "their standard deviation", unit="day"),
        column("gap_max", "double", "the longest", unit="day"),
        column("burstiness", "double", "of the gaps: -1 an even pace, 0 random, 1 bursts; null with fewer than two"),
        column("daily_strength", "double", "strength of the daily rhythm: |mean of exp(i 2 pi hour / 24)|; null without hours"),
        column("daily_peak_hour", "double", "local hour at which that rhythm peaks; null without a rhythm", unit="hour"),
        column("hour_entropy", "double", "Shannon entropy of the local hours; null without hours", unit="nat"),
        column(
            "change_days_ago",
            "int",
            "days since the level changed, if it did: the likeliest day; null before 4 weeks",
            unit="day",
            aged="change_days_ago + age_days",
        ),
        column("change_log_ratio", "double", "logarithm of the level since then over the one before"),
        column("change_p", "double", "probability of so great a difference somewhere without any change"),
        column("expected", "double", "what the weeks before let expect of the last day; null before 15 days", unit="1/day"),
        column("anomaly", "double", "z of the last day: (events - expected) / standard deviation"),
        column(
            "anomaly_p", "double", "probability of a day that far off, two-sided; of one with events given that it has some"
        ),
        column(
            "is_anomaly",
            "boolean",
            "the last day stands out among all series of its entity type on that day (Benjamini-Hochberg)",
            nullable=False,
        ),
        owner="entity",
        key=("entity", "event_type"),
        personal=True,
    ),
    snapshot(
        "forecasts",
        f"Events to be expected on each of the next {FORECAST_DAYS} days, of categories, regions and the busiest items.",
        *_FORECAST,
        column("forecast_date", "date", "the day that is forecast", nullable=False),
        column("horizon_days", "int", f"how far it is from `day`, 1..{FORECAST_DAYS}", unit="day", nullable=False),
        column(
            "method",
            "string",
            "what made it: seasonal_naive, ets, lstm, arima, prophet or combination (the median of the fast ones); mean, where "
            "there are less than two weeks",
            nullable=False,
        ),
        column("expected", "double", "events to be expected", unit="1/day", nullable=False),
        column(
            "lower",
            "double",
            "lower bound of the interval that holds them with probability `forecast.level`",
            unit="1/day",
            nullable=False,
        ),
        column("upper", "double", "its upper bound", unit="1/day", nullable=False),
        key=(*_FORECAST_KEY, "forecast_date"),
        checks={"in_order": "0 <= lower AND lower <= upper", "horizon": f"horizon_days BETWEEN 1 AND {FORECAST_DAYS}"},
        newest_only=True,
    ),
    snapshot(
        "forecast_quality",
        "How each way to forecast a series did at origins of the past, and which is used; made on Mondays and the first day.",
        *_FORECAST,
        column("method", "string", "as in `forecasts`", nullable=False),
        column(
            "stage",
            "string",
            "selection: the early origins, by which a method was chosen; report: later ones, which nothing was chosen by",
            nullable=False,
        ),
        column(
            "mase", "double", "mean absolute scaled error, over the mean difference from a week before; null where that is 0"
        ),
        column("smape", "double", "mean of |f - y| / (|f| + |y|), 0..1", nullable=False),
        column("coverage", "double", "share of the days that lay within their interval", nullable=False),
        column("origins", "int", f"origins, a week apart, each judged on {FORECAST_DAYS} days", nullable=False),
        column("chosen", "boolean", "the method that forecasts this series", nullable=False),
        key=(*_FORECAST_KEY, "method", "stage"),
        checks={"stage_known": "stage IN ('selection', 'report')"},
        newest_only=True,
    ),
    snapshot(
        "forecast_networks",
        "What the LSTM has learnt of all series, to forecast with until the next selection; made with forecast_quality.",
        column("weights", "string", "its weights, as torch saves them, in base64", nullable=False),
        column("history_days", "int", "days that it has learnt from", unit="day", nullable=False),
        key=("history_days",),
        newest_only=True,
    ),
)
