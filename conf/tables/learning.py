"""Training, models and their quality."""

from __future__ import annotations

from conf.contracts import column, fact, log
from conf.tables.columns import user

LEARNING = (
    fact(
        "training_windows",
        "What the trainings of the day read: windows over users' events, each target in one; all arrays of one length.",
        user(),
        column("until", "timestamp", "the training: of events that arrived before this moment", nullable=False),
        column("fold", "string", "train or validation: of the window's targets", nullable=False),
        column("window", "int", "number of the window in the user's history, from 0", nullable=False),
        column(
            "item", "array<int>", "item index in the version's vocabulary, 0 = padding in front, 1 = unknown", nullable=False
        ),
        column("category", "array<int>", "category index, 0 = padding, 1 = unknown", nullable=False),
        column("event_type", "array<int>", "event type index, 0 = padding, 1 = unknown", nullable=False),
        column(
            "timestamp", "array<bigint>", "seconds since 1970, UTC; 0 = padding", unit="second", nullable=False, personal=True
        ),
        column("hour_of_week", "array<float>", "local hours since Monday 00:00, -1 = unknown", unit="hour", nullable=False),
        column("latitude", "array<float>", "latitude, NaN = unknown", unit="degree", nullable=False, personal=True),
        column("longitude", "array<float>", "longitude, NaN = unknown", unit="degree", nullable=False, personal=True),
        column("is_target", "array<int>", "1 where the event is to be predicted", nullable=False),
        column("shuffle", "bigint", "a hash to order windows by that has nothing to do with time", nullable=False),
        key=("user_id", "until", "fold", "window"),
        files_by="shuffle",
        checks={"fold_known": "fold IN ('train', 'validation')"},
        newest_only=True,
        personal=True,
    ),
    log(
        "model_versions",
        "The registry: immutable versions and what was measured of them.",
        column("model_version", "string", "hash of input rows, code and the settings that change learning", nullable=False),
        column("kind", "string", "interest, baseline or ranker (which rank as one), labeller, policy", nullable=False),
        column("method", "string", "its sequence encoder (transformer, lstm ...), or the name of a baseline", nullable=False),
        column("day", "date", "the run date it was trained for", nullable=False),
        column("trained_until", "timestamp", "events before this moment were used", nullable=False),
        column("folder", "string", "folder of the weights, relative to the lake", nullable=False),
        column("settings", "string", "JSON of the settings that change learning", nullable=False),
        column("metrics", "string", "JSON of the validation metrics", nullable=False),
        column("items", "bigint", "items in the vocabulary; of a labeller categories, of a policy contexts", nullable=False),
        column("created_at", "timestamp", "when", nullable=False),
        key=("model_version",),
        unequal=("metrics", "created_at"),
    ),
    log(
        "training_runs",
        "One row per training: what it read, how it went.",
        column("run_id", "string", "the run", nullable=False),
        column("day", "date", "run date", nullable=False),
        column("model_version", "string", "the version it made", nullable=False),
        column("windows", "bigint", "windows read", nullable=False),
        column("targets", "bigint", "targets learnt from, per epoch", nullable=False),
        column("epochs", "int", "epochs run", nullable=False),
        column("processes", "int", "processes", nullable=False),
        column("seconds", "double", "wall time of the training", unit="second", nullable=False),
        column("train_loss", "double", "last epoch's mean loss", unit="nat"),
        column("validation_loss", "double", "best mean loss on the validation fold", unit="nat"),
        column("finished_at", "timestamp", "when", nullable=False),
        key=("run_id", "model_version"),
        unequal=("epochs", "processes", "seconds", "train_loss", "validation_loss", "finished_at"),
    ),
    fact(
        "model_quality",
        "How models and baselines ranked the target events of the day, or of a hold-out that ends with it.",
        column("model_version", "string", "the version, or baseline:NAME", nullable=False),
        column(
            "evaluation",
            "string",
            "day (the day's own events), holdout (the last share of days), or paired: the candidate less the published "
            "version on the day, once per bootstrap sample, kept to be pooled over days",
            nullable=False,
        ),
        column(
            "segment",
            "string",
            "all, or some of the events as DIMENSION=NAME (ndcg and hit at 10 only): slot, active (the user's events in the 28 "
            "days before), known (events known of the user), item (again, new to the user, cold: not in the catalogue), "
            "region, action (the event's type, where several are predicted)",
            nullable=False,
        ),
        column(
            "metric",
            "string",
            "hit, precision, recall, f1, ndcg, mrr, coverage (share of the catalogue on any list), empty_lists, "
            "novelty (bits), diversity, calibration (nats), category_accuracy, category_macro_f1, "
            "ndcg_behind (how far behind the version that was judged, event by event); "
            "of paired: METRIC@K_difference, METRIC@K_weight and METRIC@K_reference (the published version's own value), with "
            "/HASH after K where train.worth is set",
            nullable=False,
        ),
        column("k", "int", "cut-off of the list, 0 = none; of paired: number of the sample, 0 = everybody", nullable=False),
        column(
            "value",
            "double",
            "mean over target events, of ranks by their train.worth; of weight: the sum of it",
            nullable=False,
        ),
        column("lower", "double", "lower bound of the 95% bootstrap interval, clustered by user"),
        column("upper", "double", "upper bound of it"),
        column("events", "bigint", "target events judged", nullable=False),
        column("users", "bigint", "their users", nullable=False),
        key=("model_version", "evaluation", "segment", "metric", "k"),
        newest_only=True,
    ),
    log(
        "publications",
        "Which version serves from which day; the newest row with `day` up to D holds for D.",
        column("day", "date", "from this run date on", nullable=False),
        column("kind", "string", "interest or labeller: of each kind one serves", nullable=False),
        column("model_version", "string", "the version served; rule: no labeller", nullable=False),
        column("decision", "string", "published, refused, kept, baseline, manual or rollback", nullable=False),
        column("candidate", "string", "the version judged"),
        column("reason", "string", "why, in words", nullable=False),
        column("run_id", "string", "the run that decided", nullable=False),
        column("decided_at", "timestamp", "when", nullable=False),
        key=("day", "kind", "run_id"),
        unequal=("decided_at",),
    ),
)
