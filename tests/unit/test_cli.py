"""Parts of the command that need no project: grids, what to fetch, JSON, how errors end."""

from __future__ import annotations

import io
import json
import re
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.cli import exit_codes, output
from live.cli.ending import told
from live.cli.options import (
    grid_option,
    me,
    param_option,
    symbols_option,
    time_option,
    writes,
)
from research import errors
from research.blotter import OrderStatus
from research.candles import Gap
from research.errors import Busy, CandlebookError, InputError
from research.fetching import OVERLAP_BARS, lacking
from research.history_manifest import Manifest, MonthFile, Series

HOUR = 3_600_000


def parsed(option: Any, *args: str) -> Any:
    """What a command with this option is handed."""
    command = option(click.Command("test", callback=lambda **values: values))
    return next(iter(command.main(list(args), standalone_mode=False).values()))


# Options


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5,10,20", (5, 10, 20)),
        ("5:20:5", (5, 10, 15, 20)),
        ("5:21:5", (5, 10, 15, 20)),
        ("5:7", (5, 6, 7)),
        ("0.1:0.5:0.1", (0.1, 0.2, 0.3, 0.4, 0.5)),
        ("3", (3,)),
        ("2e1,-1", (20, -1)),
        ("1:10000", tuple(range(1, 10_001))),
    ],
)
def test_a_grid_is_a_list_or_a_span_with_its_last_value(
    text: str, values: tuple[float, ...]
) -> None:
    found = parsed(grid_option, "--grid", f"fast={text}")
    assert found == {"fast": values}
    assert [type(one) for one in found["fast"]] == [type(one) for one in values]


@pytest.mark.parametrize(
    "text",
    ["", "a", "5,", "5:", "9:5", "1:9:0", "1:9:-1", "1:2:3:4", "nan", "1:inf", "1:10001", "1,x"],
)
def test_a_grid_that_makes_no_sense_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match="--grid fast: expected A,B,C or FIRST:LAST:STEP"):
        parsed(grid_option, "--grid", f"fast={text}")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("fast=1", "fast=2"), "each name once"),
        (("fast",), "NAME=NUMBER"),
        (("=3",), "NAME=NUMBER"),
        (("fast=abc",), "--param fast: expected a number"),
        (("fast=inf",), "--param fast: expected a number"),
        (("fast=1e999999999",), "--param fast: expected a number"),
    ],
)
def test_a_parameter_that_cannot_be_read_is_refused(args: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parsed(param_option, *(word for one in args for word in ("--param", one)))


def test_parameters_keep_their_kind() -> None:
    found = parsed(param_option, "--param", "fast=20", "--param", "level=0.5")
    assert found == {"fast": 20, "level": 0.5}
    assert isinstance(found["fast"], int)


def test_symbols_are_names_with_commas_between() -> None:
    assert parsed(symbols_option, "--symbols", "BTCUSDT, ETHUSDT") == ("BTCUSDT", "ETHUSDT")
    assert parsed(symbols_option) is None
    with pytest.raises(InputError, match="--symbols"):
        parsed(symbols_option, "--symbols", "BTCUSDT,,ETHUSDT")


@given(st.datetimes(datetime(2010, 1, 1), datetime(2090, 1, 1)))  # noqa: DTZ001 - UTC below
def test_a_time_is_utc_whatever_its_spelling(moment: datetime) -> None:
    option = time_option("--at", help="x")
    ts = int(moment.replace(tzinfo=UTC).timestamp()) * 1000 + moment.microsecond // 1000
    for text in (moment.isoformat(), moment.isoformat() + "Z", moment.isoformat() + "+00:00"):
        assert parsed(option, "--at", text) == ts


def test_a_time_that_depends_on_the_clock_is_refused_by_the_option_it_was_given_to() -> None:
    option = time_option("--at", help="x")
    for text in ("now", "today", "12:00", "", "2024-13-01"):
        with pytest.raises(InputError, match=r"^--at: expected a UTC date") as caught:
            parsed(option, "--at", text)
        assert caught.value.field == "--at"


def test_a_user_without_a_name_is_known_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise OSError("no such user")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert me("ada") == "ada"
    assert re.fullmatch(r"uid \d+", me(None))


def test_a_file_that_cannot_be_written_is_the_options_fault() -> None:
    with (
        pytest.raises(InputError, match=r"--csv: expected a file that can be written.*denied"),
        writes("--csv", Path("x.csv")),
    ):
        raise PermissionError(13, "Permission denied")


# What to fetch


def manifest_of(bars: set[int]) -> Manifest:
    """A record of these bars of hours; all in one month file, which is all that matters here."""
    ordered = sorted(bars)
    gaps = [
        Gap("BTCUSDT", (left + 1) * HOUR, right * HOUR)
        for left, right in pairwise(ordered)
        if right > left + 1
    ]
    month = MonthFile("1970-01", len(ordered), ordered[0] * HOUR, ordered[-1] * HOUR, "")
    series = Series("binance", "BTCUSDT", "1h")
    return Manifest(series, months=(month,), gaps=tuple(gaps))


@given(st.sets(st.integers(0, 40), max_size=30), st.integers(0, 45), st.integers(1, 45))
def test_exactly_what_is_missing_is_asked_for_and_the_last_candles_again(
    stored: set[int], since: int, length: int
) -> None:
    until = since + length
    ranges = lacking(manifest_of(stored) if stored else None, since * HOUR, until * HOUR)
    asked = [bar for start, end in ranges for bar in range(start // HOUR, end // HOUR)]
    again = set(range(max(stored) - OVERLAP_BARS + 1, max(stored) + 1)) if stored else set()
    assert asked == sorted(asked)
    assert set(asked) == {bar for bar in range(since, until) if bar not in stored or bar in again}
    assert len(set(asked)) == len(asked)


# Output


def test_json_has_no_nan_and_knows_numpy_enums_paths_and_dataclasses() -> None:
    document = {
        "nan": float("nan"),
        "inf": np.float64("inf"),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "many": np.array([1.5, np.nan]),
        "path": Path("a"),
        "status": OrderStatus.FILLED,
        "gap": Gap("BTCUSDT", 1, 2),
        7: None,
    }
    plain = output.plain(document)
    assert json.loads(json.dumps(plain, allow_nan=False)) == {
        "nan": None,
        "inf": None,
        "count": 3,
        "flag": True,
        "many": [1.5, None],
        "path": "a",
        "status": "FILLED",
        "gap": {"symbol": "BTCUSDT", "start": 1, "end": 2, "name": ""},
        "7": None,
    }


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 slots"), (1, "1 slot"), (35_063, "35,063 slots")]
)
def test_one_is_no_plural(number: int, text: str) -> None:
    assert output.counted(number, "slot") == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_shows_on_a_terminal_only_and_never_on_standard_output(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("TERM", "xterm")
    with output.progress("fetching", "candles") as advance:
        advance(50, 100)
        print("a result")  # noqa: T201
    with output.busy("thinking"):
        pass
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert capsys.readouterr().out == "a result\n"
    assert ("fetching" in shown and "candles/s" in shown and "thinking" in shown) == (
        stream is Terminal
    )
    assert bool(shown) == (stream is Terminal)


def test_what_a_person_typed_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.answer(False, {}, output.table(("why",), [("[red]really[/red] :smile:",)]))
    assert "[red]really[/red] :smile:" in capsys.readouterr().out


# Endings


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__])
def test_every_error_of_ours_is_one_message_with_its_exit_code(
    kind: type[CandlebookError], capsys: pytest.CaptureFixture[str]
) -> None:
    err = kind(field="place", value=1, expected="two", remedy="Mend it.")
    assert told(err, as_json=False, debug=True) == kind.exit_code
    out, shown = capsys.readouterr()
    assert out == ""
    assert shown == "error: place: expected two, got 1. Mend it.\n" or kind.exit_code == 1
    assert told(err, as_json=True, debug=False) == kind.exit_code
    out, shown = capsys.readouterr()
    assert shown == ""
    assert json.loads(out)["error"] == {
        "type": kind.__name__,
        "message": str(err),
        "field": "place",
        "exit_code": kind.exit_code,
    }


def test_an_error_that_nobody_foresaw_shows_its_traceback_only_when_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    err = ZeroDivisionError("by zero")
    assert told(err, as_json=False, debug=False) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ZeroDivisionError: by zero. Nobody foresaw this")
    assert "Traceback" not in shown
    assert told(err, as_json=False, debug=True) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err.split("error: ")[0]


def test_an_interruption_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(KeyboardInterrupt(), as_json=False, debug=False) == 130
    assert told(click.exceptions.Abort(), as_json=True, debug=False) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_reads_its_exit_codes_from_the_tree_of_errors() -> None:
    drawing = str(errors.__doc__)
    text = exit_codes(drawing)
    for name in errors.__all__:
        kind = getattr(errors, name)
        if CandlebookError in kind.__bases__:
            assert f"  {kind.exit_code:>3}  {name} " in text
    assert "130 an interruption" in text
    changed = drawing.replace("├── Busy                     8", "├── Busy                    88")
    assert f"   88  {Busy.__name__} " in exit_codes(changed)
