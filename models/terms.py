"""Times and places as vectors, of many wavelengths. Shape suffix: F Fourier terms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_EARTH_KM = 6371.0
_HARMONICS = 4
_PLACE_TERMS = 32
_WAVELENGTHS_KM = (0.5, 200.0)


class TimeTerms(nn.Module):
    """Fourier terms of the day and of the week, or a learned vector where the time is unknown."""

    turns_F: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        waves = [k / 24.0 for k in range(1, _HARMONICS + 1)] + [k / 168.0 for k in range(1, _HARMONICS + 1)]
        self.register_buffer("turns_F", 2 * math.pi * torch.tensor(waves), persistent=False)
        self.project = nn.Linear(2 * len(waves), width)
        self.unknown = nn.Parameter(torch.zeros(width))

    def forward(self, hour: Tensor) -> Tensor:
        angle = hour.unsqueeze(-1) * self.turns_F
        terms = self.project(torch.cat([angle.sin(), angle.cos()], dim=-1))
        return torch.where((hour >= 0).unsqueeze(-1), terms, self.unknown)


class PlaceTerms(nn.Module):
    """Random Fourier features of a position at wavelengths from a block to a region, or a learned "unknown"."""

    waves_2F: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        low, high = (math.log(length) for length in _WAVELENGTHS_KM)
        length = torch.exp(low + (high - low) * torch.rand(_PLACE_TERMS, generator=generator))
        turn = 2 * math.pi * torch.rand(_PLACE_TERMS, generator=generator)
        waves = 2 * math.pi / length * torch.stack([turn.cos(), turn.sin()])
        # In fp64: thousands of kilometres are 1e5 radians of the shortest wave.
        self.register_buffer("waves_2F", waves.double(), persistent=False)
        self.project = nn.Linear(2 * _PLACE_TERMS, width)
        self.unknown = nn.Parameter(torch.zeros(width))

    def forward(self, latitude: Tensor, longitude: Tensor) -> Tensor:
        known = torch.isfinite(latitude) & torch.isfinite(longitude)
        lat = torch.deg2rad(torch.where(known, latitude, 0.0).double())
        lon = torch.deg2rad(torch.where(known, longitude, 0.0).double())
        kilometres = _EARTH_KM * torch.stack([lat, lon * lat.cos()], dim=-1)
        angle = (kilometres @ self.waves_2F).remainder(2 * math.pi).float()
        terms = self.project(torch.cat([angle.sin(), angle.cos()], dim=-1))
        return torch.where(known.unsqueeze(-1), terms, self.unknown)
