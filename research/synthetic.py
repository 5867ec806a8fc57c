"""Made-up candles for demonstrations and tests: a regime-switching GARCH walk, labelled as such.

Units as in candles.py. Invariants: the same seed gives the same bits on every platform and version
(only raw PCG64 output and IEEE + - * / sqrt, no exp or log); the first n bars of a longer series
are the series of n bars; a symbol's candles do not depend on which other symbols were asked for.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from research.candles import DAY, Candles, CandleSet, Floats, Ints, iso, timeframe_ms, utc_ms
from research.errors import ParameterError

__all__ = ["SYNTHETIC_NOTICE", "synthetic_candles"]

SYNTHETIC_NOTICE = (
    "Synthetic candles: made by a random generator, no market data. "
    "Nothing here says anything about a real market."
)


@dataclass(frozen=True, slots=True)
class _Profile:
    """How one symbol behaves: first price, daily volatility, share of the market, base per day."""

    price: float
    daily_volatility: float
    correlation: float
    daily_volume: float
    decimals: int


_PROFILES = {
    "BTCUSDT": _Profile(42_000.0, 0.028, 0.90, 30_000.0, 2),
    "ETHUSDT": _Profile(2_400.0, 0.036, 0.85, 400_000.0, 2),
    "BNBUSDT": _Profile(310.0, 0.034, 0.75, 500_000.0, 2),
    "SOLUSDT": _Profile(100.0, 0.048, 0.75, 4_000_000.0, 2),
}
_OTHER = _Profile(10.0, 0.050, 0.65, 5_000_000.0, 4)

# Regimes of the whole market: drift per day and factor on the volatility; a change about every
# 15 days to any of them.
_DRIFTS = (0.0, 0.004, -0.003)
_FACTORS = (0.75, 1.0, 1.4)
_CHANGES_PER_DAY = 1 / 15
# GARCH(1,1) with unit variance in the long run (Bollerslev 1986, eq. 1).
_OMEGA, _ALPHA, _BETA = 0.03, 0.09, 0.88
_MAX_MOVE = 0.25


def synthetic_candles(
    symbols: Sequence[str], timeframe: str, start: str | int, bars: int, seed: int = 7
) -> CandleSet:
    """A sound, gapless CandleSet with source ``synthetic``; say SYNTHETIC_NOTICE beside it.

    ``start`` is the first open, UTC, on the timeframe's grid. Correlated over symbols, volatility
    in clusters, volumes log-normal with a daily rhythm; prices in whole ticks (0.01, or 0.0001 for
    symbols without a profile). Raises ParameterError, UnknownNameError, InputError.
    """
    bar, first = timeframe_ms(timeframe), utc_ms(start)
    if isinstance(bars, bool) or not isinstance(bars, int) or bars < 1:
        raise ParameterError(field="bars", value=bars, expected="a whole number of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ParameterError(field="seed", value=seed, expected="a whole number of at least 0")
    if first % bar:
        raise ParameterError(
            field="start", value=iso(first), expected=f"a time on the {timeframe} grid"
        )
    ts = first + bar * np.arange(bars, dtype=np.int64)
    market = _market(bars, bar, seed)
    return CandleSet(
        tuple(_series(symbol, timeframe, ts, market, seed) for symbol in symbols),
        source="synthetic",
    )


@dataclass(frozen=True, slots=True)
class _Market:
    """What all symbols share, per bar: a standard shock, the drift and the volatility factor."""

    shock: Floats
    drift: Floats
    factor: Floats


def _market(bars: int, bar: int, seed: int) -> _Market:
    raw = _raw(seed, "the market", bars, 4)
    regime = np.zeros(bars, np.int64)
    changes = (raw[:, 3] >> np.uint64(11)) / 2**53 < _CHANGES_PER_DAY * bar / DAY
    choices = (raw[:, 3] & np.uint64(0x3FF)) % np.uint64(len(_DRIFTS))
    # Each bar's regime is that of the latest change: carry the position of the change forward.
    latest = np.maximum.accumulate(np.where(changes, np.arange(bars), -1))
    regime[latest >= 0] = choices[latest[latest >= 0]]
    return _Market(
        _normals(raw[:, :3])[:, 0],
        np.array(_DRIFTS)[regime] * (bar / DAY),
        np.array(_FACTORS)[regime],
    )


def _series(symbol: str, timeframe: str, ts: Ints, market: _Market, seed: int) -> Candles:
    profile = _PROFILES.get(symbol, _OTHER)
    share = timeframe_ms(timeframe) / DAY
    own, gap, up, down, crowd = _normals(_raw(seed, symbol, len(ts), 15)).T
    weight = profile.correlation
    shock = weight * market.shock + np.sqrt(1 - weight * weight) * own
    sigma = profile.daily_volatility * np.sqrt(share) * market.factor * _garch(shock)
    # Half the variance: without it a simple return drags every price towards zero over years.
    moves = market.drift + sigma * shock + sigma * sigma / 2
    open_, close = _walk(moves, 0.02 * sigma * gap, profile)
    top, bottom = np.maximum(open_, close), np.minimum(open_, close)
    high = _ticks(top * (1 + np.minimum(0.5 * sigma * np.abs(up), _MAX_MOVE)), profile)
    low = _ticks(bottom * (1 - np.minimum(0.5 * sigma * np.abs(down), _MAX_MOVE)), profile)
    # Busiest at 15:00 UTC, quietest at 03:00: a triangle, since a sine differs between platforms.
    hour = (ts % DAY) / (DAY / 24)
    rhythm = 1.4 - np.abs((hour - 3) % 24 - 12) / 15
    busy = _growth(0.45 * crowd + 0.35 * np.abs(shock) - 0.35)
    volume = np.round(profile.daily_volume * share * rhythm * busy, 5)
    return Candles(symbol, timeframe, ts, open_, high, low, close, volume)


def _garch(shock: Floats) -> Floats:
    """Conditional volatility per bar, about 1 on average; bar i knows shocks before i only."""
    variance, volatility = 1.0, np.empty(len(shock))
    for i, one in enumerate(shock.tolist()):
        volatility[i] = variance
        variance = _OMEGA + (_ALPHA * one * one + _BETA) * variance
    return np.sqrt(volatility)


def _walk(moves: Floats, gaps: Floats, profile: _Profile) -> tuple[Floats, Floats]:
    """Opens and closes in whole ticks: each open is the last close, but for a small gap."""
    price, floor = profile.price, profile.price / 100
    opens, closes = np.empty(len(moves)), np.empty(len(moves))
    for i, (gap, move) in enumerate(zip(gaps.tolist(), moves.tolist(), strict=True)):
        opens[i] = price * (1 + gap)
        price = max(price * (1 + min(max(move, -_MAX_MOVE), _MAX_MOVE)), floor)
        closes[i] = price
    return _ticks(opens, profile), _ticks(closes, profile)


def _ticks(prices: Floats, profile: _Profile) -> Floats:
    rounded: Floats = np.round(prices, profile.decimals)
    return rounded


def _growth(x: Floats) -> Floats:
    """Close to e^x, made of multiplications: np.exp differs in the last bit between machines."""
    power = np.maximum(1 + x / 64, 0.5)
    for _ in range(6):
        power = power * power
    return power


def _raw(seed: int, name: str, bars: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype]:
    """Raw 64-bit PCG64 output, bars x columns, row by row; numpy keeps this stream for good.

    It does not promise that of ``Generator.normal`` (NEP 19).
    """
    source = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    return source.random_raw(bars * columns).reshape(bars, columns)


def _normals(raw: np.ndarray[tuple[int, int], np.dtype]) -> Floats:
    """Nearly standard normal, one per three raw columns: the sum of twelve 16-bit uniforms."""
    bars, columns = raw.shape
    pieces = np.ascontiguousarray(raw).view(np.uint16).reshape(bars, columns // 3, 12)
    normals: Floats = (pieces.sum(axis=2, dtype=np.int64) - 393_210) / 65_536
    return normals
