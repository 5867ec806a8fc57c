"""Every error that Candlebook raises on purpose: one tree, one exit code a branch.

CandlebookError
├── InputError               2  the person who typed it can mend it
│   ├── SettingsError           a file in params/, .env or the environment
│   ├── ParameterError          a strategy or backtest parameter out of bounds
│   ├── LookAheadFound          a strategy's answers depend on later candles
│   └── UnknownNameError        no such symbol, strategy, timeframe, artefact
├── DataError                3  the candles cannot be used as they are
│   ├── HistoryMissing          nothing stored for this series or range
│   ├── CorruptHistory          bytes on disk are not what was written
│   ├── CandlesRejected         a row breaks an invariant
│   └── GapNotAccepted          bars are missing and nobody has accepted that
├── ExchangeError            4  the exchange answered wrongly, or not at all
│   ├── ExchangeUnreachable     no connection, or a deadline passed
│   ├── ExchangeRefused         an error status, a ban, a rate limit
│   └── MarketChanged           halted, or other filters than were promoted
├── PromotionError           5  the artefact must not run
│   ├── ArtefactTampered        something changed since it was promoted
│   ├── ArtefactExpired         its time is over
│   └── PromotionRefused        a check failed
├── LedgerError              6  the books cannot be trusted or reached
│   ├── CursorError             not the next bar and phase
│   └── IllegalTransition       an order moved in a way it may not
├── ParityBroken             7  paper and backtest differ
├── Busy                     8  another process holds the lock
├── RunFailed                9  a scheduled notebook run did not finish
└── ClusterError            10  the machines of a sweep cannot be had, or are lost
    └── WorkerDiffers           one would compute something else than this process

Exit code 0 is success, 1 an error that nobody foresaw (please report it), 130 an interruption.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ArtefactExpired",
    "ArtefactTampered",
    "Busy",
    "CandlebookError",
    "CandlesRejected",
    "ClusterError",
    "CorruptHistory",
    "CursorError",
    "DataError",
    "ExchangeError",
    "ExchangeRefused",
    "ExchangeUnreachable",
    "GapNotAccepted",
    "HistoryMissing",
    "IllegalTransition",
    "InputError",
    "LedgerError",
    "LookAheadFound",
    "MarketChanged",
    "ParameterError",
    "ParityBroken",
    "PromotionError",
    "PromotionRefused",
    "RunFailed",
    "SettingsError",
    "UnknownNameError",
    "WorkerDiffers",
]

_UNSET = object()


class CandlebookError(Exception):
    """Base of the tree.

    ``field`` says where (``params/symbols.yaml: symbols[0].tick``), ``value`` what stood there,
    ``expected`` what should have, ``remedy`` what to do about it. The message is built from them,
    so that no error can forget one of its parts.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        value: object = _UNSET,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.field = field
        self.value = None if value is _UNSET else value
        self.expected = expected
        self.remedy = remedy
        parts = [] if field is None else [field]
        if message:
            parts.append(message)
        if expected is not None:
            got = "" if value is _UNSET else f", got {_shown(value)}"
            parts.append(f"expected {expected}{got}")
        text = ": ".join(parts)
        if remedy is not None:
            text = f"{text.rstrip('.')}. {remedy}"
        super().__init__(text)


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


class InputError(CandlebookError):
    exit_code = 2


class SettingsError(InputError):
    """A value in params/*.yaml, .env or the environment is missing, unknown or out of range."""


class ParameterError(InputError):
    """A parameter of a strategy, backtest or sweep is out of its bounds."""


class LookAheadFound(InputError):
    """A strategy says of a bar what it could not have known at that bar's close."""


class UnknownNameError(InputError):
    """No symbol, strategy, timeframe or artefact of that name."""


class DataError(CandlebookError):
    exit_code = 3


class HistoryMissing(DataError):
    """The store holds nothing for this series or range."""


class CorruptHistory(DataError):
    """A stored file does not hold the bytes that were written."""


class CandlesRejected(DataError):
    """A candle breaks an invariant: non-finite, unsorted, high below low, still forming, ..."""


class GapNotAccepted(DataError):
    """Bars are missing and nobody has accepted the gap by name."""


class ExchangeError(CandlebookError):
    exit_code = 4


class ExchangeUnreachable(ExchangeError):
    """No connection, or no whole answer before the deadline."""


class ExchangeRefused(ExchangeError):
    """The exchange answered with an error, a ban or a rate limit."""


class MarketChanged(ExchangeError):
    """The exchange has halted a symbol, or lists it with other filters than were promoted."""


class PromotionError(CandlebookError):
    exit_code = 5


class ArtefactTampered(PromotionError):
    """Data, code, parameters, limits or libraries are not those that were promoted."""


class ArtefactExpired(PromotionError):
    """The artefact's expiry has passed."""


class PromotionRefused(PromotionError):
    """A check that guards promotion failed."""


class LedgerError(CandlebookError):
    exit_code = 6


class CursorError(LedgerError):
    """A bar or phase came that is not the next one."""


class IllegalTransition(LedgerError):
    """An order was moved from a state to one that cannot follow it."""


class ParityBroken(CandlebookError):
    """The paper ledger differs from the backtest over the same candles."""

    exit_code = 7


class Busy(CandlebookError):
    """Another process holds the lock."""

    exit_code = 8


class RunFailed(CandlebookError):
    """A notebook run did not finish."""

    exit_code = 9


class ClusterError(CandlebookError):
    """A cluster does not answer, does not start, or has lost all its workers."""

    exit_code = 10


class WorkerDiffers(ClusterError):
    """A worker has other code or libraries, or finds other figures, than the asking process."""
