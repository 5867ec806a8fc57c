"""The variables that Candlebook reads from ``.env`` and the process environment, by name.

The environment wins over ``.env``. A variable that is empty counts as not set, so that an empty
line can never lift a limit. Values are taken as they stand: nothing in them is expanded, since a
password may hold a dollar sign.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import parse_stream

from research.account import PathTo, did_you_mean
from research.errors import SettingsError

__all__ = [
    "HIDDEN",
    "HOME",
    "SECRETS",
    "VARIABLES",
    "Variable",
    "environment_with",
    "read_variables",
]

PREFIX = "CANDLEBOOK_"
HOME = "CANDLEBOOK_HOME"
SECRETS = {
    "OPENAI_API_KEY": "openai_api_key",
    "TELEGRAM_BOT_TOKEN": "telegram_bot_token",
    "TELEGRAM_CHAT_ID": "telegram_chat_id",
    "ALERT_WEBHOOK_URL": "alert_webhook_url",
}
VARIABLES: dict[str, PathTo] = {
    "TRADING_MODE": ("trading_mode",),
    "MAX_POSITION_SIZE_USD": ("limits", "max_position_usd"),
    "MAX_DAILY_LOSS_USD": ("limits", "max_daily_loss_usd"),
    "MAX_DRAWDOWN_PERCENT": ("limits", "max_drawdown_pct"),
    "KILL_SWITCH_ENABLED": ("limits", "kill_switch_armed"),
    "DATABASE_URL": ("database_url",),
    "CANDLEBOOK_REPLAY_DATABASE_URL": ("replay_database_url",),
    "CANDLEBOOK_DATA_DIR": ("data_dir",),
    "CANDLEBOOK_TRIALS": ("trials",),
    "CANDLEBOOK_EXCHANGE_URL": ("exchange_url",),
    "CANDLEBOOK_REPLAY_EXCHANGE_URL": ("replay_exchange_url",),
    "CANDLEBOOK_SHARED": ("shared",),
    **{name: (key,) for name, key in SECRETS.items()},
}
# A URL may carry a password, so that none is ever shown as "got ...".
HIDDEN = {
    *("database_url", "replay_database_url", "exchange_url", "replay_exchange_url"),
    *SECRETS.values(),
}


@contextmanager
def environment_with(own: Mapping[str, str]) -> Iterator[None]:
    """``own`` variables on top of the environment, which is then as it was before.

    The kernel of a notebook, which is another process, inherits them.
    """
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class Variable:
    """A variable that is set; ``source`` is what people read, ``field`` what an error names."""

    value: str
    source: str
    field: str


def read_variables(
    root: Path, environ: Mapping[str, str]
) -> tuple[dict[str, Variable], list[SettingsError]]:
    """Every variable that is set, ours or not, and what is wrong with ``.env`` or our names."""
    pairs, problems = _dotenv(root / ".env")
    found: dict[str, Variable] = {}
    for name, text in pairs.items():
        if name == HOME:
            reason = "belongs in the environment; .env lies in the folder that it would change"
            problems.append(SettingsError(reason, field=f".env: {name}"))
        elif text.strip():
            found[name] = Variable(text.strip(), ".env", f".env: {name}")
    for name, text in environ.items():
        if text.strip():
            found[name] = Variable(text.strip(), f"environment {name}", f"environment {name}")
    problems += _unknown(pairs, ".env: ") + _unknown(environ, "environment ")
    return found, problems


def _unknown(names: Iterable[str], place: str) -> list[SettingsError]:
    ours = [name for name in (*VARIABLES, HOME) if name.startswith(PREFIX)]
    return [
        SettingsError(
            f"unknown; expected one of {', '.join(ours)}",
            field=f"{place}{name}",
            remedy=did_you_mean(name, ours),
        )
        for name in names
        if name.startswith(PREFIX) and name not in ours
    ]


def _dotenv(path: Path) -> tuple[dict[str, str], list[SettingsError]]:
    # dotenv_values would skip a line that it cannot read, and a limit with it.
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}, []
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "not UTF-8 text"
        return {}, [SettingsError(f"cannot be read ({reason})", field=".env")]
    pairs: dict[str, str] = {}
    problems: list[SettingsError] = []
    for binding in parse_stream(io.StringIO(text)):
        place = f".env: line {binding.original.line}"
        if binding.error:
            problems.append(SettingsError("expected NAME=value", field=place))
        elif binding.key in pairs and binding.key in VARIABLES:
            problems.append(SettingsError(f"{binding.key} stands twice", field=place))
        elif binding.key is not None:
            pairs[binding.key] = binding.value or ""
    return pairs, problems
