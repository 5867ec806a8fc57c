"""Settings: who wins, what is refused and in which words, and that no secret ever shows.

Every test has its own project folder and environment; a developer's .env is never read.
"""

from __future__ import annotations

import io
import json
import os
import pprint
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
import rich.console
import yaml
from pydantic import SecretStr

import research.settings
from research.account import Account, Filters, Limits, Stops
from research.candles import TIMEFRAMES
from research.errors import CandlebookError, SettingsError, UnknownNameError
from research.settings import Settings, Thresholds, Timeframe, load_settings, project_root
from research.variables import HOME, SECRETS, VARIABLES

REPOSITORY = Path(__file__).resolve().parents[2]
CANARY = "canary-7d41c0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project folder with the params/ that the repository ships, without its .env."""
    home = tmp_path / "project"
    shipped = home / "params"
    (shipped / "filters").mkdir(parents=True)
    names = ["settings", "symbols", "strategies", "risk_limits", "promotion", "filters/binance"]
    for name in names:
        shutil.copy(REPOSITORY / "params" / f"{name}.yaml", shipped / f"{name}.yaml")
    return home


def edit(root: Path, file: str, **changes: Any) -> None:
    """Rewrites top-level keys of one YAML file."""
    path = root / "params" / file
    tree = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def write(root: Path, file: str, text: str) -> None:
    (root / file).write_text(text)


def at(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def source_of(settings: Settings, key: str) -> str:
    return next(row.source for row in settings.explain() if row.key == key)


def refusal(root: Path, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(root, environ or {})
    return str(caught.value)


# --- what ships, and what holds without it --------------------------------------------------


def test_the_shipped_files_say_the_built_in_defaults(root: Path, tmp_path: Path) -> None:
    bare = load_settings(tmp_path, {})
    shipped = load_settings(root, {})
    for key in ("trading_mode", "exchange", "exchange_url", "timeframe", "limits", "stops"):
        assert at(shipped, key) == at(bare, key)
    for key in ("initial_cash", "fee_rate", "slippage_bps"):
        assert at(shipped, key) == at(bare, key) == getattr(Account(), key)
    assert bare.limits == Limits()
    assert bare.stops == Stops()
    assert (bare.symbols, bare.strategies, bare.filters) == ((), {}, None)
    assert {row.source for row in bare.explain() if row.key != "root"} == {"default"}


def test_every_key_that_may_be_set_stands_in_the_shipped_files(root: Path) -> None:
    rows = {row.key: row.source for row in load_settings(root, {}).explain()}
    from_files = {key for key, source in rows.items() if source.startswith("params/")}
    others = {"root", "database_url", "replay_database_url", "replay_exchange_url", "shared"}
    others |= {"trials"}
    others |= set(SECRETS.values())
    assert from_files == rows.keys() - others


def test_promotion_yaml_gives_every_threshold_its_default_and_says_so() -> None:
    text = (REPOSITORY / "params/promotion.yaml").read_text()
    given = yaml.safe_load(text)["promotion"]
    assert given == Thresholds().model_dump()
    for key, value in given.items():
        said = text.split(f"\n  {key}:")[0].rpartition("\n\n")[2]
        assert said.rstrip().endswith(f"Default: {json.dumps(value)}"), key


def test_the_shipped_symbols_and_strategies_are_the_documented_ones(root: Path) -> None:
    settings = load_settings(root, {})
    assert settings.enabled == ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    assert len(settings.symbols) == 10
    trend = settings.strategies["sma_trend"]
    assert (trend.strategy, trend.parameters) == ("SmaCrossover", {"fast": 20, "slow": 50})
    dip = settings.strategies["rsi_dip"]
    assert dip.strategy == "RsiReversal"
    assert dip.parameters == {"window": 14, "oversold": 30, "overbought": 70}
    assert trend.symbols == dip.symbols == settings.enabled
    assert trend.timeframe == "1h"


def test_the_shipped_filters_are_those_the_exchange_answered(root: Path) -> None:
    shared = Path(os.environ.get("CANDLEBOOK_SHARED", REPOSITORY.parent / "shared"))
    answer = shared / "raw/binance_http/exchangeInfo_2021-10-12.json"
    if not answer.is_file():
        pytest.skip(f"needs the recorded answer {answer.name} in CANDLEBOOK_SHARED")
    listed = {row["symbol"]: row for row in json.loads(answer.read_text())["symbols"]}
    settings = load_settings(root, {})
    assert settings.filters is not None
    assert settings.filters.taken_at.isoformat() == "2021-10-12"
    for one in settings.symbols:
        said = {row["filterType"]: row for row in listed[one.symbol]["filters"]}
        assert settings.filters.filters[one.symbol] == Filters(
            lot_step=Decimal(said["LOT_SIZE"]["stepSize"]),
            min_quantity=Decimal(said["LOT_SIZE"]["minQty"]),
            max_quantity=Decimal(said["LOT_SIZE"]["maxQty"]),
            tick=Decimal(said["PRICE_FILTER"]["tickSize"]),
            min_notional=Decimal(said["MIN_NOTIONAL"]["minNotional"]),
        )
        assert (one.base, one.quote) == (
            listed[one.symbol]["baseAsset"],
            listed[one.symbol]["quoteAsset"],
        )


def test_timeframes_are_those_of_candles() -> None:
    assert get_args(Timeframe) == tuple(TIMEFRAMES)


# --- precedence -----------------------------------------------------------------------------

# variable, key of Settings, text in .env, text in the environment, and what each means
WINS: list[tuple[str, str, str, str, Any, Any]] = [
    ("TRADING_MODE", "trading_mode", "paper", "PAPER", "paper", "paper"),
    ("MAX_POSITION_SIZE_USD", "limits.max_position_usd", "300", "450.5", 300.0, 450.5),
    ("MAX_DAILY_LOSS_USD", "limits.max_daily_loss_usd", "70", "1e2", 70.0, 100.0),
    ("MAX_DRAWDOWN_PERCENT", "limits.max_drawdown_pct", "12", " 7.5 ", 12.0, 7.5),
    ("KILL_SWITCH_ENABLED", "limits.kill_switch_armed", "no", "on", False, True),
    ("DATABASE_URL", "database_url", "sqlite:////a/b.db", "postgresql://h/n", ..., ...),
    (
        "CANDLEBOOK_REPLAY_DATABASE_URL",
        "replay_database_url",
        "sqlite:////r",
        "sqlite://",
        ...,
        ...,
    ),
    ("CANDLEBOOK_DATA_DIR", "data_dir", "/d/e", "/d/env", Path("/d/e"), Path("/d/env")),
    ("CANDLEBOOK_TRIALS", "trials", "/t/e", "/t/env", Path("/t/e"), Path("/t/env")),
    ("CANDLEBOOK_EXCHANGE_URL", "exchange_url", "http://a:1", "https://b/x", ..., ...),
    (
        "CANDLEBOOK_REPLAY_EXCHANGE_URL",
        "replay_exchange_url",
        "http://c:1",
        "https://d",
        ...,
        ...,
    ),
    ("CANDLEBOOK_SHARED", "shared", "/s/e", "/s/env", Path("/s/e"), Path("/s/env")),
    ("OPENAI_API_KEY", "openai_api_key", "k-file", "k-env", ..., ...),
    ("TELEGRAM_BOT_TOKEN", "telegram_bot_token", "t-file", "t-env", ..., ...),
    ("TELEGRAM_CHAT_ID", "telegram_chat_id", "-100", "-200", ..., ...),
    ("ALERT_WEBHOOK_URL", "alert_webhook_url", "https://h/a", "http://h/b", ..., ...),
]


def test_the_table_below_covers_every_variable() -> None:
    assert [row[0] for row in WINS] == list(VARIABLES)


@pytest.mark.parametrize(("name", "key", "low", "high", "low_value", "high_value"), WINS)
def test_env_file_beats_params_and_environment_beats_both(
    root: Path, name: str, key: str, low: str, high: str, low_value: Any, high_value: Any
) -> None:
    low_value = low if low_value is ... else low_value
    high_value = high if high_value is ... else high_value
    before = load_settings(root, {})
    write(root, ".env", f"{name}={low}\n")
    from_file = load_settings(root, {})
    assert (at(from_file, key), source_of(from_file, key)) == (low_value, ".env")
    from_environment = load_settings(root, {name: high})
    assert at(from_environment, key) == high_value
    assert source_of(from_environment, key) == f"environment {name}"
    if name != "TRADING_MODE":  # which has one value only
        assert at(before, key) != low_value != high_value
    for other in VARIABLES:  # nothing else moved
        below_data = ("DATABASE_URL", "CANDLEBOOK_REPLAY_DATABASE_URL", "CANDLEBOOK_TRIALS")
        if other not in (name, *below_data):
            path = ".".join(str(part) for part in VARIABLES[other])
            assert at(from_file, path) == at(before, path)


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_lifts_nothing(root: Path, empty: str) -> None:
    write(root, ".env", "MAX_DAILY_LOSS_USD=70\n")
    settings = load_settings(root, dict.fromkeys(VARIABLES, empty))
    assert settings.limits.max_daily_loss_usd == 70
    assert settings.openai_api_key is None


@pytest.mark.parametrize(
    ("file", "change", "key", "value"),
    [
        ("settings.yaml", {"initial_cash": 2500}, "initial_cash", 2500.0),
        ("settings.yaml", {"fee_rate": "0.00075"}, "fee_rate", 0.00075),
        ("settings.yaml", {"slippage_bps": 0}, "slippage_bps", 0.0),
        ("settings.yaml", {"timeframe": "4h"}, "timeframe", "4h"),
        (
            "settings.yaml",
            {"exchange_url": "http://localhost:8080/"},
            "exchange_url",
            "http://localhost:8080",
        ),
        ("risk_limits.yaml", {"limits": {"max_positions": 7}}, "limits.max_positions", 7),
        ("risk_limits.yaml", {"limits": {"on_trip": "flatten"}}, "limits.on_trip", "flatten"),
        ("risk_limits.yaml", {"stops": {"stop_loss_pct": 4}}, "stops.stop_loss_pct", 4.0),
        ("risk_limits.yaml", {"limits": {"cooldown_minutes": 90}}, "limits.cooldown_minutes", 90),
        ("promotion.yaml", {"promotion": {"min_trades": 12}}, "promotion.min_trades", 12),
        ("promotion.yaml", {"promotion": {"max_spa_p": 0.1}}, "promotion.max_spa_p", 0.1),
        (
            "risk_limits.yaml",
            {"limits": {"max_exposure_pct_by_symbol": {"BTCUSDT": 20}}},
            "limits.max_exposure_pct_by_symbol",
            {"BTCUSDT": 20.0},
        ),
    ],
)
def test_a_file_beats_the_default(
    root: Path, file: str, change: dict[str, Any], key: str, value: Any
) -> None:
    before = load_settings(root, {})
    edit(root, file, **change)
    after = load_settings(root, {})
    assert at(before, key) != value
    assert (at(after, key), source_of(after, key)) == (value, f"params/{file}")


def test_a_variable_beats_its_file_and_leaves_the_rest_of_the_section(root: Path) -> None:
    edit(root, "risk_limits.yaml", limits={"max_drawdown_pct": 20, "max_positions": 2})
    settings = load_settings(root, {"MAX_DRAWDOWN_PERCENT": "15"})
    assert settings.limits == Limits(max_drawdown_pct=15, max_positions=2)
    assert source_of(settings, "limits.max_positions") == "params/risk_limits.yaml"
    assert source_of(settings, "limits.max_daily_loss_pct") == "default"


def test_the_snapshot_is_not_taken_for_the_source_of_other_keys(root: Path) -> None:
    (root / "params/settings.yaml").unlink()
    settings = load_settings(root, {})
    assert source_of(settings, "exchange") == "default"
    assert source_of(settings, "filters") == "params/filters/binance.yaml"


@pytest.mark.parametrize(
    ("text", "armed"),
    [("true", 1), ("1", 1), ("YES", 1), ("On", 1), ("false", 0), ("0", 0), ("no", 0), ("OFF", 0)],
)
def test_the_kill_switch_reads_the_usual_words(root: Path, text: str, armed: int) -> None:
    settings = load_settings(root, {"KILL_SWITCH_ENABLED": text})
    assert settings.limits.kill_switch_armed is bool(armed)


def test_paths_count_from_the_root_wherever_one_stands(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(root, {})
    assert settings.data_dir == root / "data"
    assert settings.database_url == f"sqlite:///{root}/data/ledger.db"
    assert settings.replay_database_url == f"sqlite:///{root}/data/replay.db"
    moved = load_settings(
        root, {"CANDLEBOOK_DATA_DIR": "store", "DATABASE_URL": "sqlite:///x/y.db"}
    )
    assert moved.replay_database_url == f"sqlite:///{root}/store/replay.db"
    assert moved.database_url == f"sqlite:///{root}/x/y.db"
    for url in ("sqlite:////abs.db", "sqlite://", "sqlite:///:memory:", "postgresql://u@h/n"):
        assert load_settings(root, {"DATABASE_URL": url}).database_url == url


def test_shared_is_the_folder_beside_the_project_if_it_has_history(root: Path) -> None:
    assert load_settings(root, {}).shared is None
    (root.parent / "shared" / "history").mkdir(parents=True)
    assert load_settings(root, {}).shared == root.parent / "shared"
    assert load_settings(root, {"CANDLEBOOK_SHARED": "../other"}).shared == root / "../other"


# --- what is refused, and in which words ----------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "symbols.yaml",
            'min_trade_size: "0.0001"',
            "min_trade_size: abc",
            'params/symbols.yaml: symbols[0].min_trade_size: expected a positive number, got "abc"',
        ),
        (
            "symbols.yaml",
            "base: ETH",
            "base: ETC",
            "params/symbols.yaml: symbols[1]: expected a symbol made of base and quote, ETCUSDT",
        ),
        (
            "symbols.yaml",
            "    enabled: true\n",
            "    enable: true\n",
            "params/symbols.yaml: symbols[0].enable: unknown; expected one of symbol, base, quote, "
            "enabled, min_trade_size. Did you mean enabled?",
        ),
        (
            "symbols.yaml",
            "    base: SOL\n",
            "",
            "params/symbols.yaml: symbols[2].base: missing; expected text",
        ),
        (
            "settings.yaml",
            "timeframe: 1h",
            "timeframe: 90m",
            "params/settings.yaml: timeframe: expected one of 1m, 3m, 5m, 15m, 30m, 1h, 2h, "
            '4h, 6h, 8h, 12h, 1d, got "90m"',
        ),
        (
            "settings.yaml",
            "fee_rate: 0.001",
            "fee_rat: 0.001",
            "params/settings.yaml: fee_rat: unknown; expected one of ",
        ),
        (
            "settings.yaml",
            "initial_cash: 10000",
            "initial_cash: yes",
            "params/settings.yaml: initial_cash: expected a positive number, got True",
        ),
        (
            "settings.yaml",
            "trading_mode: paper",
            "trading_mode: live",
            "params/settings.yaml: trading_mode: expected paper (live trading is not available in "
            'this version, only paper), got "live"',
        ),
        (
            "settings.yaml",
            "slippage_bps: 5",
            "slippage_bps: 5\nslippage_bps: 0",
            "params/settings.yaml: slippage_bps: stands twice",
        ),
        (
            "risk_limits.yaml",
            "max_drawdown_pct: 10",
            "max_drawdown_pct: 110",
            "params/risk_limits.yaml: limits.max_drawdown_pct: expected a number greater than 0 "
            "and at most 100, got 110",
        ),
        (
            "risk_limits.yaml",
            "max_exposure_pct_by_symbol: null",
            "max_exposure_pct_by_symbol: {BTCUSD: 20}",
            "params/risk_limits.yaml: limits.max_exposure_pct_by_symbol: expected one of BTCUSDT, ",
        ),
        (
            "risk_limits.yaml",
            "risk_per_trade_pct: null",
            "risk_per_trade_pct: 1",
            "params/risk_limits.yaml: expected a stop_loss_pct or trailing_stop_pct, which ",
        ),
        (
            "risk_limits.yaml",
            'start: "00:00"',
            "start: 10:30",
            "params/risk_limits.yaml: limits.trading_hours.start: expected a UTC time of day in "
            'quotes, such as "08:30", got 630',
        ),
        (
            "strategies.yaml",
            "  sma_trend:",
            "  Sma Trend:",
            "params/strategies.yaml: strategies.Sma Trend: expected text of the form",
        ),
        (
            "strategies.yaml",
            "fast: 20",
            "fast: [20]",
            "params/strategies.yaml: strategies.sma_trend.parameters.fast: expected a finite "
            "number, true or false, or text, got [20]",
        ),
        (
            "strategies.yaml",
            "[BTCUSDT, ETHUSDT, SOLUSDT]",
            "[BTCUSDT, ETHUSD]",
            "params/strategies.yaml: strategies.sma_trend.symbols[1]: expected one of BTCUSDT, ",
        ),
        (
            "filters/binance.yaml",
            'lot_step: "0.00001"',
            'lot_step: "-1"',
            "params/filters/binance.yaml: filters.BTCUSDT.lot_step: expected a number greater than "
            '0, got "-1"',
        ),
        (
            "filters/binance.yaml",
            'min_notional: "10"',
            'min_notional: "10"\n    min_trade_size: "1"',
            "params/filters/binance.yaml: filters: expected no min_trade_size here",
        ),
    ],
)
def test_a_wrong_file_is_told_by_file_key_value_and_expectation(
    root: Path, file: str, old: str, new: str, message: str
) -> None:
    path = root / "params" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert refusal(root).startswith(message)


def test_a_symbol_listed_twice_is_refused(root: Path) -> None:
    one = {"symbol": "BTCUSDT", "base": "BTC", "quote": "USDT", "min_trade_size": "1"}
    edit(root, "symbols.yaml", symbols=[one, dict(one)])
    assert "each symbol once, but BTCUSDT stands twice" in refusal(root)


@pytest.mark.parametrize("section", ["null", "[]", "5", "text"])
def test_a_section_that_is_no_mapping_is_refused_even_under_variables(
    root: Path, section: str
) -> None:
    write(root, "params/risk_limits.yaml", f"limits: {section}\n")
    told = refusal(root, {"MAX_DAILY_LOSS_USD": "5"})
    assert told.startswith("params/risk_limits.yaml: limits: expected a mapping of keys to values")


def test_everything_wrong_is_told_at_once_in_the_order_of_the_files(root: Path) -> None:
    write(
        root,
        "params/risk_limits.yaml",
        "stops: {stop_loss_pct: -1}\nlimits:\n  on_trip: never\n  max_positions: 0\n  odd: 1\n",
    )
    edit(root, "settings.yaml", fee_rate=3)
    told = refusal(root, {"MAX_DRAWDOWN_PERCENT": "lots", "CANDLEBOOK_DATADIR": "x"}).splitlines()
    assert [line.split(": expected")[0].split(": unknown")[0] for line in told] == [
        "environment CANDLEBOOK_DATADIR",
        "params/settings.yaml: fee_rate",
        "environment MAX_DRAWDOWN_PERCENT",
        "params/risk_limits.yaml: stops.stop_loss_pct",
        "params/risk_limits.yaml: limits.on_trip",
        "params/risk_limits.yaml: limits.max_positions",
        "params/risk_limits.yaml: limits.odd",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("TRADING_MODE", "live", "live trading is not available in this version, only paper"),
        (
            "TRADING_MODE",
            "dry",
            'expected paper (live trading is not available in this version, only paper), got "dry"',
        ),
        ("MAX_POSITION_SIZE_USD", "5,000", 'expected a positive number, got "5,000"'),
        ("MAX_POSITION_SIZE_USD", "0", 'expected a number greater than 0, got "0"'),
        ("MAX_DAILY_LOSS_USD", "inf", 'expected a positive number, got "inf"'),
        (
            "MAX_DRAWDOWN_PERCENT",
            "101",
            'expected a number greater than 0 and at most 100, got "101"',
        ),
        ("KILL_SWITCH_ENABLED", "maybe", 'expected true or false, got "maybe"'),
        ("DATABASE_URL", "ledger.db", "expected a database URL that starts with"),
        ("ALERT_WEBHOOK_URL", "ftp://x", "expected a URL that starts with"),
        ("CANDLEBOOK_EXCHANGE_URL", "localhost:80", "expected a base URL such as"),
    ],
)
def test_a_wrong_variable_is_told_by_where_it_was_set(
    root: Path, name: str, text: str, message: str
) -> None:
    told = refusal(root, {name: text})
    assert told.startswith(f"environment {name}: ")
    assert message in told
    write(root, ".env", f"{name}={text}\n")
    told = refusal(root)
    assert told.startswith(f".env: {name}: ")
    assert message in told


@pytest.mark.parametrize("name", ["CANDLEBOOK_DATADIR", "CANDLEBOOK_X", "CANDLEBOOK_"])
def test_an_unknown_variable_with_our_prefix_is_refused_by_name(root: Path, name: str) -> None:
    suggestion = "Did you mean CANDLEBOOK_DATA_DIR?" if name == "CANDLEBOOK_DATADIR" else ""
    for place, told in (
        ("environment ", refusal(root, {name: CANARY})),
        (".env: ", (write(root, ".env", f"{name}={CANARY}"), refusal(root))[1]),
    ):
        assert told.startswith(f"{place}{name}: unknown; expected one of CANDLEBOOK_")
        assert suggestion in told
        assert CANARY not in told


def test_other_peoples_variables_are_left_alone(root: Path) -> None:
    write(root, ".env", "EDITOR=vi\nAWS_REGION=x\nBARE\n# note\nexport MAX_DAILY_LOSS_USD='8'\n")
    settings = load_settings(root, {"PATH": "/bin", "candlebook_lower": "1"})
    assert settings.limits.max_daily_loss_usd == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MAX_DAILY_LOSS_USD 5\n", ".env: line 1: expected NAME=value"),
        ("A=1\nMAX_DAILY_LOSS_USD='5\n", ".env: line 2: expected NAME=value"),
        ("DATABASE_URL=a\nDATABASE_URL=b\n", ".env: line 2: DATABASE_URL stands twice"),
        (f"{HOME}=/x\n", f".env: {HOME}: belongs in the environment"),
    ],
)
def test_a_line_of_env_that_would_be_lost_is_refused(root: Path, text: str, message: str) -> None:
    write(root, ".env", text)
    assert refusal(root).startswith(message)


def test_env_is_taken_literally_and_may_be_unreadable(root: Path) -> None:
    write(root, ".env", "OPENAI_API_KEY=a${HOME}$b\n")
    assert at(load_settings(root, {"HOME": "/h"}), "openai_api_key") == "a${HOME}$b"
    (root / ".env").write_bytes(b"A=\xff\n")
    assert refusal(root) == ".env: cannot be read (not UTF-8 text)"


def test_the_example_env_names_every_variable_and_changes_nothing(root: Path) -> None:
    before = load_settings(root, {})
    text = (REPOSITORY / ".env.example").read_text()
    assert set(re.findall(r"^(\w+)=", text, re.M)) == set(VARIABLES)
    write(root, ".env", text)
    assert load_settings(root, {}) == before


# --- interpolation --------------------------------------------------------------------------


def test_a_file_takes_variables_from_env_and_environment(root: Path) -> None:
    edit(root, "settings.yaml", data_dir="${STORE}/${SUB:-candles}", initial_cash="${CASH:-500}")
    write(root, ".env", "STORE=/low\nCASH=700\n")
    assert load_settings(root, {}).data_dir == Path("/low/candles")
    settings = load_settings(root, {"STORE": "/high", "SUB": "x"})
    assert (settings.data_dir, settings.initial_cash) == (Path("/high/x"), 700.0)


def test_an_undefined_variable_names_file_and_key(root: Path) -> None:
    edit(root, "settings.yaml", data_dir="${STORE}")
    assert refusal(root).startswith("params/settings.yaml: data_dir: variable STORE is not set")


def test_a_wrong_value_from_a_variable_shows_the_name_alone(root: Path) -> None:
    edit(root, "settings.yaml", fee_rate="${FEE}")
    told = refusal(root, {"FEE": CANARY})
    assert told.endswith(
        'fee_rate: expected a number of at least 0 and less than 0.1, got "${FEE}"'
    )


# --- secrets --------------------------------------------------------------------------------

PLANTED = {
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "TELEGRAM_BOT_TOKEN": f"12:{CANARY}",
    "TELEGRAM_CHAT_ID": f"-1{CANARY}",
    "ALERT_WEBHOOK_URL": f"https://hooks.example/{CANARY}",
    "DATABASE_URL": f"postgresql+psycopg://me:{CANARY}@db.example:5432/books?sslpassword={CANARY}",
    "CANDLEBOOK_REPLAY_DATABASE_URL": f"postgresql://me:p@ss/{CANARY}@db.example/replay",
}


def every_view(settings: Settings) -> str:
    screen = io.StringIO()
    console = rich.console.Console(file=screen, width=200)
    console.print(settings)
    console.print(rich.pretty.pretty_repr(settings))
    console.print(settings.explain())
    views = [repr(settings), str(settings), f"{settings}", pprint.pformat(settings)]
    return "\n".join(
        [*views, screen.getvalue(), repr(settings.account()), repr(settings.explain())]
    )


@pytest.mark.parametrize("in_file", [True, False])
def test_no_planted_secret_shows_anywhere(root: Path, in_file: bool) -> None:
    if in_file:
        write(root, ".env", "".join(f"{name}='{text}'\n" for name, text in PLANTED.items()))
    settings = load_settings(root, {} if in_file else PLANTED)
    for name, text in PLANTED.items():  # the control: they did arrive
        assert at(settings, str(VARIABLES[name][0])) == text
    assert CANARY not in every_view(settings)
    shown = {row.key: row.value for row in settings.explain()}
    assert shown["openai_api_key"] == "********"
    assert shown["database_url"] == (
        "postgresql+psycopg://me:********@db.example:5432/books?sslpassword=********"
    )
    assert shown["replay_database_url"] == "postgresql://me:********@db.example/replay"


@pytest.mark.parametrize(
    "broken",
    [
        {"DATABASE_URL": f"mysql://me:{CANARY}@h/n"},
        {"CANDLEBOOK_REPLAY_DATABASE_URL": f"//me:{CANARY}@h/n"},
        {"CANDLEBOOK_EXCHANGE_URL": f"https://me:{CANARY}@h"},
        {"CANDLEBOOK_EXCHANGE_URL": f"https://h/?key={CANARY}"},
        {"ALERT_WEBHOOK_URL": f"hooks.example/{CANARY}"},
        {"MAX_DAILY_LOSS_USD": "x"},
        {"CANDLEBOOK_OPENAI_API_KEY": CANARY},
    ],
)
def test_no_planted_secret_shows_in_an_error(root: Path, broken: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(root, PLANTED | broken)
    error = caught.value
    assert next(iter(broken)) in str(error)
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert CANARY not in told
    assert error.__context__ is None


@pytest.mark.parametrize(
    "line",
    [
        f"openai_api_key: {CANARY}",
        f"database_url: postgresql://u:{CANARY}@h/n",
        f"exchange_url: https://u:{CANARY}@h",
        "exchange_url: https://h/${OPENAI_API_KEY}",
        f"OPENAI_API_KEY: {CANARY}",
    ],
)
def test_a_secret_in_params_is_refused_unseen(root: Path, line: str) -> None:
    write(root, "params/settings.yaml", f"{line}\n")
    told = refusal(root, PLANTED)
    assert told.startswith("params/settings.yaml: ")
    assert CANARY not in told


# --- the account ----------------------------------------------------------------------------


def test_the_account_carries_costs_limits_stops_and_merged_filters(root: Path) -> None:
    edit(root, "settings.yaml", initial_cash=500, fee_rate=0.002, slippage_bps=7)
    edit(root, "risk_limits.yaml", stops={"stop_loss_pct": 3})
    settings = load_settings(root, {"MAX_POSITION_SIZE_USD": "90"})
    account = settings.account(["SOLUSDT", "DOGEUSDT"])
    assert (account.initial_cash, account.fee_rate, account.slippage_bps) == (500, 0.002, 7)
    assert account.limits == Limits(max_position_usd=90)
    assert account.stops == Stops(stop_loss_pct=3)
    assert account.filters is not None
    assert list(account.filters) == ["SOLUSDT", "DOGEUSDT"]
    assert account.filters["DOGEUSDT"] == Filters(
        lot_step=Decimal(1),
        tick=Decimal("0.0001"),
        min_quantity=Decimal(1),
        max_quantity=Decimal(9_000_000),
        min_notional=Decimal(10),
        min_trade_size=Decimal(10),
    )


def test_the_account_of_nothing_named_is_that_of_the_enabled_symbols(root: Path) -> None:
    settings = load_settings(root, {})
    assert list(settings.account().filters or {}) == list(settings.enabled)
    assert settings.account("BTCUSDT") == settings.account(["BTCUSDT"])


def test_an_unknown_symbol_is_refused_by_the_file_that_lacks_it(root: Path) -> None:
    settings = load_settings(root, {})
    with pytest.raises(UnknownNameError, match=r"params/symbols.yaml: .*Did you mean SOLUSDT\?"):
        settings.account(["BTCUSDT", "SOLUSD"])
    (root / "params/filters/binance.yaml").unlink()
    with pytest.raises(UnknownNameError, match=r"params/filters/binance.yaml: .*Add BTCUSDT to"):
        load_settings(root, {}).account()


# --- where the project is -------------------------------------------------------------------


def test_the_root_is_home_then_the_nearest_folder_above_then_the_package(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = root / "notebooks" / "drafts"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert project_root({}) == root
    other = tmp_path / "other"
    other.mkdir()
    assert project_root({HOME: str(other)}) == other
    settings = load_settings(environ={HOME: str(other)})
    assert (settings.root, source_of(settings, "root")) == (other, f"environment {HOME}")
    monkeypatch.chdir(tmp_path)
    assert project_root({}) == REPOSITORY


def test_no_project_at_all_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(research.settings, "__file__", str(tmp_path / "lib" / "settings.py"))
    with pytest.raises(SettingsError, match=f"or set {HOME} to it"):
        project_root({})
    for load in (lambda: project_root({HOME: "/no/such"}), lambda: load_settings(Path("/no/such"))):
        with pytest.raises(SettingsError, match="a folder that exists"):
            load()


def test_the_process_environment_is_the_default(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CANDLEBOOK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(HOME, str(root))
    monkeypatch.setenv("MAX_DAILY_LOSS_USD", "77")
    assert load_settings().limits.max_daily_loss_usd == 77
    assert project_root() == root


def test_settings_load_without_numpy_pandas_or_a_network_client() -> None:
    heavy = ["numpy", "pandas", "pyarrow", "ccxt", "vectorbt", "sqlalchemy"]
    code = f"import sys, research.settings; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_settings_errors_are_for_the_person_who_typed_it() -> None:
    assert issubclass(SettingsError, CandlebookError)
    assert SettingsError.exit_code == 2
