"""The rhythm of the day, from counts per local hour."""

from __future__ import annotations

import numpy as np

from jobs.time_series.series import HOURS, Floats
from jobs.time_series.shape import NOTHING, Features, sum_days


def rhythm(hours_HP: Floats) -> Features:
    """Strength and peak of the 24-hour rhythm, and the entropy of the hours, of counts (H, P).

    daily_strength: the mean resultant of the hours as angles (Mardia and Jupp, Directional Statistics, 2.2).
    daily_peak_hour: its direction; NaN without a rhythm. hour_entropy: Shannon entropy of the shares of the
    hours, in nats. All are NaN without hours.
    """
    angle = 2 * np.pi * np.arange(HOURS) / HOURS
    total = sum_days(hours_HP)
    cosine, sine = sum_days(hours_HP * np.cos(angle)[:, None]), sum_days(hours_HP * np.sin(angle)[:, None])
    known = total > 0
    strength = np.divide(np.hypot(cosine, sine), total, out=np.full(len(total), np.nan), where=known)
    strength = np.where(strength > NOTHING, np.minimum(strength, 1), np.where(known, 0.0, np.nan))
    peak = np.arctan2(sine, cosine) * HOURS / (2 * np.pi) % HOURS
    share_HP = np.divide(hours_HP, total, out=np.ones_like(hours_HP), where=hours_HP > 0)
    return {
        "daily_strength": strength,
        "daily_peak_hour": np.where(strength > 0, np.where(peak < HOURS, peak, 0.0), np.nan),
        "hour_entropy": np.where(known, np.maximum(-sum_days(share_HP * np.log(share_HP)), 0.0), np.nan),
    }
