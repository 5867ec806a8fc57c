"""Mutated answers of an exchange against the strict readers: `make fuzz`, or a sample in the suite.

A body is decoded as ccxt decodes it (JSON, else plain text) and read. It must be refused with a
typed error, or be accepted with every invariant true, judged here anew from the decoded body: this
file shares no check with the readers. The bodies to mutate are built here; recorded ones of the
exchange are added where CANDLEBOOK_SHARED has them.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from research.answers import parse_day, parse_listings, parse_price, parse_time
from research.errors import CandlebookError
from research.klines import parse_klines, parse_ohlcv

HOUR = 3_600_000
START = 1_677_628_800_000
NOW = START + 400 * 24 * HOUR

Body = Any
Reader = Callable[[Body], Any]
Judge = Callable[[Body, Any], list[str]]


@dataclass(frozen=True)
class Kind:
    """One endpoint: bodies to start from, its reader, and what must hold of what it accepts."""

    seeds: tuple[Body, ...]
    read: Reader
    judge: Judge


# What must hold, judged from the decoded body


def judge_klines(body: Body, klines: Any) -> list[str]:
    return judge_rows([row[:6] for row in body], klines.candles) + [
        f"row {i}: close time {row[6]}"
        for i, row in enumerate(body)
        if row[6] != row[0] + HOUR - 1
        and not (row[0] < row[6] < row[0] + HOUR and row[0] < NOW - 2 * HOUR)
    ]


def judge_rows(rows: list[Any], candles: Any) -> list[str]:
    """Six values a row, each the very number of the body; sound and in order."""
    wrong = [] if len(candles) == len(rows) else [f"{len(candles)} candles of {len(rows)} rows"]
    columns = (candles.ts, candles.open, candles.high, candles.low, candles.close, candles.volume)
    last = -math.inf
    for i, (row, values) in enumerate(zip(rows, zip(*columns, strict=True), strict=False)):
        if [float(one) for one in row] != [float(one) for one in values]:
            wrong.append(f"row {i}: {row} was read as {values}")
        ts, open_, high, low, close, volume = (float(one) for one in row)
        sound = 0 < low <= min(open_, close) <= max(open_, close) <= high < math.inf
        if not (sound and 0 <= volume < math.inf):
            wrong.append(f"row {i}: unsound {row}")
        if not (ts > last and ts % HOUR == 0 and 1e12 <= ts < 1e13):
            wrong.append(f"row {i}: time {row[0]} after {last}")
        last = ts
    return wrong


def judge_listings(body: Body, listings: Any) -> list[str]:
    wrong = []
    for symbol, one in listings.items():
        said = next(row for row in reversed(body["symbols"]) if row["symbol"] == symbol)
        types = {row["filterType"]: row for row in said["filters"]}
        pairs = [
            (one.filters.lot_step, types["LOT_SIZE"]["stepSize"]),
            (one.filters.min_quantity, types["LOT_SIZE"]["minQty"]),
            (one.filters.max_quantity, types["LOT_SIZE"]["maxQty"]),
            (one.filters.tick, types["PRICE_FILTER"]["tickSize"]),
        ]
        wrong += [f"{symbol}: {a} of {b}" for a, b in pairs if a != Decimal(b)]
        notionals = [types[k]["minNotional"] for k in ("NOTIONAL", "MIN_NOTIONAL") if k in types]
        if one.filters.min_notional not in map(Decimal, notionals):
            wrong.append(f"{symbol}: notional {one.filters.min_notional}")
        if not (one.filters.lot_step > 0 and one.filters.tick > 0 <= one.filters.min_quantity):
            wrong.append(f"{symbol}: steps {one.filters}")
        if one.filters.max_quantity < one.filters.lot_step or one.status != said["status"]:
            wrong.append(f"{symbol}: {one}")
    return wrong


def judge_price(body: Body, price: float) -> list[str]:
    sound = 0 < price < math.inf and price == float(body["price"]) and body["symbol"] == "BTCUSDT"
    return [] if sound else [f"price {price} of {body}"]


def judge_day(body: Body, day: Any) -> list[str]:
    texts = [body[name] for name in ("highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume")]
    values = [day.high, day.low, day.last, day.volume, day.quote_volume]
    traded = day.trades == 0 or 0 < day.low <= day.last <= day.high
    sound = all(0 <= one < math.inf for one in values) and values == [float(one) for one in texts]
    ordered = 1e12 <= day.open_time < day.close_time < 1e13 and day.trades == body["count"] >= 0
    return [] if traded and sound and ordered else [f"{day} of {body}"]


def judge_time(body: Body, moment: int) -> list[str]:
    return [] if body["serverTime"] == moment and 1e12 <= moment < 1e13 else [f"time {moment}"]


# Bodies to start from


def _klines(count: int) -> list[list[Any]]:
    rows, price = [], 23_141.57
    for i in range(count):
        ts, close = START + i * HOUR, price + (-1) ** i * 12.5
        prices = (price, max(price, close) + 1, min(price, close) - 1, close, 12.5 + i)
        texts = [f"{one:.8f}" for one in prices]
        rows.append([ts, *texts, ts + HOUR - 1, "294608.80225086", 430, "6.3", "146.1", "0"])
        price = close
    return rows


def _exchange_info() -> dict[str, Any]:
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "tickSize": "0.01000000"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000"}
        | {"stepSize": "0.00001000"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyToMarket": True},
    ]
    symbols = [
        {"symbol": name, "status": "TRADING", "baseAsset": name[:3], "filters": filters}
        for name in ("BTCUSDT", "ETHUSDT")
    ]
    return {"timezone": "UTC", "serverTime": START, "symbols": symbols}


_DAY = {
    **{"symbol": "BTCUSDT", "priceChange": "-94.99", "lastPrice": "100.50", "bidPrice": "100.4"},
    **{"openPrice": "95.5", "highPrice": "110.00", "lowPrice": "90.10", "volume": "8913.30"},
    **{"quoteVolume": "891330.5", "openTime": START, "closeTime": START + 24 * HOUR, "count": 76},
}


def kinds(recorded: Path | None) -> dict[str, Kind]:
    """Every endpoint; ``recorded`` is the folder of bodies that the exchange really answered."""
    klines: list[Body] = [_klines(6)]
    infos: list[Body] = [_exchange_info()]
    if recorded is not None:
        real = json.loads((recorded / "klines_BTCUSDT_1h_2023-03-01.json").read_text())
        klines += [real[first : first + 8] for first in (0, 300, 558)]  # the last holds the outage
        info = json.loads((recorded / "exchangeInfo_2021-10-12.json").read_text())
        listed = [one for one in info["symbols"] if one["symbol"] in ("BTCUSDT", "ETHUSDT")]
        infos.append(info | {"symbols": listed})
    ohlcv = [[row[0], *map(float, row[1:6])] for row in _klines(6)]
    names = ("BTCUSDT", "ETHUSDT")
    return {
        "klines": Kind(
            tuple(klines), lambda body: parse_klines(body, "BTCUSDT", "1h", NOW), judge_klines
        ),
        "exchangeInfo": Kind(
            tuple(infos), lambda body: parse_listings(body, names), judge_listings
        ),
        "ticker/24hr": Kind((_DAY,), lambda body: parse_day(body, "BTCUSDT"), judge_day),
        "ticker/price": Kind(
            ({"symbol": "BTCUSDT", "price": "100.50000000"},),
            lambda body: parse_price(body, "BTCUSDT"),
            judge_price,
        ),
        "time": Kind(({"serverTime": START},), parse_time, judge_time),
        "ohlcv of ccxt": Kind(
            (ohlcv,), lambda body: parse_ohlcv(body, "BTCUSDT", "1h"), judge_rows
        ),
    }


# Mutation

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**53, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(math.nan, math.inf, -math.inf, "", " ", "0", "-1", "1e5", "1E-5", "NaN", "nan", "Infinity"),
    *(
        "0x10",
        "1_000",
        "+5",
        " 5",
        "5 ",
        "5\n",
        ".5",
        "5.",
        "1,5",
        "١٢",
        "0.0000000000000000000001",
    ),
    *("9" * 400, "TRADING", "BREAK", "<html>", [], {}, [[]], {"code": -1003, "msg": "no"}),
    *(START, START + 1, START * 1000, START // 1000, str(START), [1, 2, 3]),
)


def mutated(body: Body, rng: random.Random) -> str:
    """``body`` as text with one to three things wrong in its structure, values or bytes."""
    changed = copy.deepcopy(body)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        changed = _mutated_once(changed, rng)
    text = json.dumps(changed)
    if rng.random() < 0.15:
        at = rng.randrange(len(text) + 1)
        text = rng.choice(
            (
                text[:at],
                text[:at] + rng.choice('0123456789.,:"[]{}eE-nul \\\u0661\x00') + text[at + 1 :],
                text + text,
                "\ufeff" + text,
                f"<html><body>{text}</body></html>",
                "[" * 2000 + text,
            )
        )
    return text


def _places(body: Body) -> list[tuple[Any, Any]]:
    """Every (container, key) in ``body``."""
    found, pending = [], [body]
    while pending:
        one = pending.pop()
        keys: list[Any] = []
        if isinstance(one, dict):
            keys = list(one)
        elif isinstance(one, list):
            keys = list(range(len(one)))
        found += [(one, key) for key in keys]
        pending += [one[key] for key in keys]
    return found


def _mutated_once(body: Body, rng: random.Random) -> Body:
    places = _places(body)
    if not places or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(ODD_VALUES))
    place, key = rng.choice(places)
    other_place, other = rng.choice(places)
    match rng.randrange(8):
        case 0 | 1:
            place[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        case 2:
            del place[key]
        case 3 if isinstance(place, list):
            place.insert(rng.randrange(len(place) + 1), place[key])
        case 4 if isinstance(place, list):
            rng.shuffle(place)
        case 5:
            place[key] = _nudged(place[key], rng)
        case 6 if isinstance(place, dict):
            place[rng.choice(("symbol", "filterType", "x", key.upper()))] = place.pop(key)
        case _:
            # Copies, so that no list ends up inside itself.
            mine, others = copy.deepcopy(place[key]), copy.deepcopy(other_place[other])
            place[key], other_place[other] = others, mine
    return body


def _nudged(value: Any, rng: random.Random) -> Any:
    """``value`` a little or a lot off, still of its type."""
    factor = rng.choice((-1, 0, 0.5, 0.999, 1.001, 2, 1000, 1e-9, 1e30))
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        near = abs(value) < 2**63 and factor < 1e9
        return int(value * factor) if near else value + rng.choice((-HOUR, -1, 1, HOUR))
    if isinstance(value, float):
        return value * factor
    if isinstance(value, str):
        try:
            return f"{float(value) * factor:.8f}"
        except (ValueError, OverflowError):
            return value + rng.choice(("", " ", "0", "\x00"))
    return value


# The run


@dataclass
class Outcome:
    """What became of one endpoint's bodies; ``violations`` must stay empty."""

    refused: Counter[str]
    accepted: int
    violations: list[str]


def decoded(text: str) -> Body:
    """As ccxt hands an answer on: JSON where it is some, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def attack(kind: Kind, bodies: int, seed: int) -> Outcome:
    """Read ``bodies`` mutated bodies of one endpoint."""
    rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
    outcome = Outcome(Counter(), 0, [])
    for number in range(bodies):
        text = mutated(rng.choice(kind.seeds), rng)
        body = decoded(text)
        try:
            value = kind.read(body)
        except CandlebookError as err:
            outcome.refused[type(err).__name__] += 1
            if not str(err) or (err.remedy is None and err.expected is None):
                outcome.violations.append(f"{number}: an error that says nothing: {err!r}")
            continue
        except Exception as err:  # noqa: BLE001 - that is what is looked for
            outcome.violations.append(f"{number}: {type(err).__name__}: {err} for {text[:300]}")
            continue
        outcome.accepted += 1
        try:
            wrong = kind.judge(body, value)
        except (TypeError, ValueError, LookupError, OverflowError) as err:
            wrong = [f"accepted what is none of these bodies ({err}): {text[:300]}"]
        outcome.violations += [f"{number}: {one}" for one in wrong]
    return outcome


def recorded_folder() -> Path | None:
    """Where the exchange's recorded bodies are, if they are here."""
    shared = Path(os.environ.get("CANDLEBOOK_SHARED", "../shared"))
    folder = Path(__file__).resolve().parents[2] / shared / "raw" / "binance_http"
    return folder if folder.is_dir() else None


def main() -> int:
    """Print a table; 1 where anything was violated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bodies", type=int, default=10_000, help="of each endpoint (10,000)")
    parser.add_argument("--seed", type=int, default=None, help="default: another one every time")
    asked = parser.parse_args()
    seed = int(time.time()) if asked.seed is None else asked.seed
    folder = recorded_folder()
    known = kinds(folder)
    print(f"seed {seed}; recorded bodies: {'yes' if folder else 'none (CANDLEBOOK_SHARED)'}")
    print(f"{'endpoint':<16}{'bodies':>8}{'refused':>9}{'accepted':>10}{'violations':>12}")
    bad = 0
    for i, (name, kind) in enumerate(known.items()):
        found = attack(kind, asked.bodies, seed + i)
        refused, wrong = found.refused.total(), len(found.violations)
        print(f"{name:<16}{asked.bodies:>8,}{refused:>9,}{found.accepted:>10,}{wrong:>12,}")
        for one in found.violations[:5]:
            print(f"    {one}")
        bad += wrong
    print("accepted bodies hold every invariant" if not bad else f"{bad} violations")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
