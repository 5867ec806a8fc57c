"""One exchange's HTTP through ccxt: deadlines, retries, waits and bans, and errors with a type.

Every question ends, within a hard deadline, in an answer, ExchangeUnreachable or ExchangeRefused.
Nothing is known here of what an answer means. No API key is ever given, so nothing can trade.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tenacity

from research.cooldown import Cooldown, CooldownFile
from research.errors import (
    ExchangeError,
    ExchangeRefused,
    ExchangeUnreachable,
    ParameterError,
    SettingsError,
    UnknownNameError,
)

__all__ = ["Transport"]

Question = Callable[[Any], Any]

_BASE_URL = re.compile(r"https?://[^/@?#\s]+")
_ATTEMPTS = 4
# How often one question may be asked again after a wait that the exchange asked for.
_WAITS = 3
# Binance counts the weight of a minute's questions; this much of it may be used up.
WEIGHT_LIMIT = 6_000
WEIGHT_SHARE = 0.8
# A refusal without a time: Binance's shortest ban, and the minute after which weights start anew.
UNTIMED_WAIT_S = {418: 120.0, 429: 60.0}
LARGEST_ANSWER = 64 * 2**20


class _Retryable(Exception):
    """A failure worth another attempt: the error to raise if none is left, the wait asked for."""

    def __init__(self, error: ExchangeError, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


@dataclass(frozen=True)
class _Heard:
    """What ccxt drops of an answer: its status and the headers that tell when to ask again."""

    status: int
    retry_after: str | None
    used_weight: str | None
    date: str | None


class Transport:
    """A connection to one exchange; for one thread. Opens on the first question.

    ``base_url`` (scheme and host) sends every question to another server that speaks the
    exchange's REST. ``deadline_s`` bounds each question with all its retries; beyond it,
    ``patience_s`` may be spent on waits that the exchange asked for; ``on_wait`` is told how many
    seconds and why. ``memory`` is a folder in which bans are remembered, for every process. Raises
    UnknownNameError for an exchange that ccxt does not have.
    """

    def __init__(
        self,
        exchange: str,
        base_url: str | None,
        deadline_s: float,
        patience_s: float = 0.0,
        memory: Path | None = None,
        on_wait: Callable[[float, str], None] | None = None,
    ) -> None:
        if base_url is not None and not _BASE_URL.fullmatch(base_url.rstrip("/")):
            raise SettingsError(
                field="base_url", value=base_url, expected="scheme and host: https://host[:port]"
            )
        if not 0 < deadline_s <= 600:
            raise ParameterError(field="deadline_s", value=deadline_s, expected="0 to 600 seconds")
        if not 0 <= patience_s <= 3600:
            raise ParameterError(field="patience_s", value=patience_s, expected="0 to 3600 seconds")
        if exchange != "binance":  # which needs no look into ccxt, whose import takes a second
            _require_known(exchange)
        self.exchange = exchange
        self.base_url = None if base_url is None else base_url.rstrip("/")
        self.deadline_s = deadline_s
        self.patience_s = patience_s
        self._memory, self._on_wait = memory, on_wait
        self._bans = CooldownFile(self.file("cooldown"))
        self._ccxt: Any = None
        self._heard: list[_Heard] = []
        # By the monotonic clock: when the next question may be asked, and why not before.
        self._silent_until, self._silent_why = 0.0, ""

    @property
    def host(self) -> str:
        """Who is asked, in words."""
        return self.exchange if self.base_url is None else f"{self.exchange} at {self.base_url}"

    def file(self, kind: str) -> Path | None:
        """Where something about this host is remembered; None where nothing is to be."""
        # Another server's bans and listings are its own.
        other = (self.base_url or "").encode()
        digest = f"-{hashlib.sha256(other).hexdigest()[:12]}" if other else ""
        return self._memory and self._memory / f"{self.exchange}{digest}-{kind}.json"

    @property
    def date_ms(self) -> int | None:
        """The last answer's HTTP date, UTC milliseconds, whole seconds; None where it had none."""
        try:
            date = parsedate_to_datetime(self._heard[-1].date or "")
            zoned = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
            return int(zoned.timestamp() * 1000)
        except (IndexError, ValueError, OverflowError):
            return None

    def ask(self, question: Question) -> Any:
        """What ``question`` (of a ccxt exchange) answers, retried where that may help.

        All of it, waits among it, takes at most ``deadline_s`` and ``patience_s`` together.
        """
        self.open()  # importing ccxt is no fault of the exchange: before the clock starts
        give_up = time.monotonic() + self.deadline_s + self.patience_s
        for _ in range(_WAITS):
            wait = self._silence()
            if 0 < wait <= give_up - time.monotonic():
                if self._on_wait is not None and wait > self.deadline_s:
                    self._on_wait(wait, self._silent_why)
                time.sleep(wait)
            try:
                return self._with_retries(question, give_up)
            except _Retryable as failure:
                left = give_up - time.monotonic()
                if failure.wait_s is None or failure.wait_s > left:
                    raise failure.error from failure.__cause__
                last = failure
        raise last.error from last.__cause__

    def probe(self, question: Question, timeout_s: float) -> Any:
        """What one attempt at ``question`` answers within ``timeout_s``. Raises ExchangeError."""
        self.open()
        try:
            return self._attempt(question, time.monotonic() + timeout_s)
        except _Retryable as failure:
            raise failure.error from failure.__cause__

    def open(self) -> Any:
        """The ccxt exchange, made at the first call."""
        if self._ccxt is None:
            import ccxt  # seconds to import: only for those who ask the exchange

            options = {"fetchMarkets": {"types": ["spot"]}} if "binance" in self.exchange else {}
            exchange = getattr(ccxt, self.exchange)({"options": options, "enableRateLimit": True})
            if self.base_url is not None:
                # Every entry, so that no question can leave for the real exchange.
                exchange.urls["api"] = _moved(exchange.urls["api"], self.base_url)
            # A redirect would be a portal or a proxy: an answer from somebody else.
            exchange.session.max_redirects = 0
            heard: list[_Heard] = []

            def listen(response: Any, **_: Any) -> None:
                get = response.headers.get
                weight = get("X-MBX-USED-WEIGHT-1M")
                heard.append(_Heard(response.status_code, get("Retry-After"), weight, get("Date")))
                response.raw = _Bounded(response.raw)

            exchange.session.hooks["response"].append(listen)
            self._ccxt, self._heard = exchange, heard
        return self._ccxt

    def _with_retries(self, question: Question, give_up: float) -> Any:
        started = time.monotonic()
        deadline = min(started + self.deadline_s, give_up)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_passing),
            stop=tenacity.stop_after_attempt(_ATTEMPTS)
            | tenacity.stop_before_delay(max(deadline - started, 0.001)),
            wait=_pause,
            reraise=True,
        )
        return retrying(self._attempt, question, deadline)

    def _attempt(self, question: Question, deadline: float) -> Any:
        exchange = self.open()
        silence = self._silence()
        if silence > max(deadline - time.monotonic(), 0):
            raise ExchangeRefused(
                f"{self._silent_why}; asked to wait for another {silence:.0f} s",
                field=self.host,
                remedy="Wait: asking sooner lengthens the ban.",
            )
        time.sleep(silence)
        self._heard.clear()
        left = max(deadline - time.monotonic(), 0.001)
        # Silence on the socket; half, so that one silent connection leaves time for another.
        exchange.timeout = max(int(500 * left), 1)
        try:
            answer = _within(left, lambda: question(exchange))
        except _Overrun:
            # The abandoned worker keeps this connection: the next attempt opens its own.
            self._ccxt = None
            if self._heard and self._heard[-1].status in (418, 429):
                # The ban was told, whatever became of the rest of the answer.
                raise self._rate_limited(
                    f"status {self._heard[-1].status}", self._heard[-1]
                ) from None
            raise ExchangeUnreachable(
                f"no whole answer within {self.deadline_s:g} s",
                field=self.host,
                remedy="Ask again later; nothing was stored.",
            ) from None
        except Exception as err:
            raise self._translated(err) from err
        self._count_weight()
        return answer

    # Waits

    def _silence(self) -> float:
        """Seconds until the next question may be asked; 0 for now."""
        now = time.time() * 1000
        ban = self._bans.read(int(now))
        own = self._silent_until - time.monotonic()
        if ban is not None and (ban.until - now) / 1000 > own:
            self._silent_why = ban.said
            return (ban.until - now) / 1000
        return max(own, 0.0)

    def _keep_silent(self, seconds: float, why: str) -> None:
        self._silent_until, self._silent_why = time.monotonic() + seconds, why

    def _count_weight(self) -> None:
        """Wait for the next minute where this one's share of questions is used up."""
        used = self._heard[-1].used_weight if self._heard else None
        if used is None or not re.fullmatch(r"[0-9]{1,9}", used):
            return
        if int(used) >= WEIGHT_SHARE * WEIGHT_LIMIT:
            second = (self.date_ms or 0) // 1000 % 60
            why = f"{used} of {WEIGHT_LIMIT} request weight of this minute is used up"
            self._keep_silent(61.0 - second, why)

    # Failures

    def _translated(self, err: Exception) -> Exception:
        """What a failed request means: an ExchangeError, or a _Retryable around one."""
        import ccxt
        import requests

        if isinstance(err, ExchangeError):  # what the question itself found wrong
            return err
        heard = self._heard[-1] if self._heard else _Heard(0, None, None, None)
        cause = err.__cause__
        # Without the query of an address: it tells nothing more, and may be long.
        text = re.sub(r"\?\S+", "", " ".join(str(err).split()))[:200]
        # requests' errors are OSErrors; HTTPError only repeats the status.
        broken = isinstance(cause, OSError) and not isinstance(cause, requests.HTTPError)
        if heard.status < 300 and broken:
            return _Retryable(
                ExchangeUnreachable(
                    f"{text} ({type(cause).__name__})",
                    field=self.host,
                    remedy="Check the network; stored history still works.",
                )
            )
        said = f"status {heard.status}: {text}"
        limited = isinstance(err, ccxt.DDoSProtection | ccxt.RateLimitExceeded)
        if heard.status in (418, 429) or (limited and heard.status < 500):
            return self._rate_limited(said, heard)
        if heard.status >= 500 and heard.retry_after is not None:
            return self._rate_limited(said, heard)
        if heard.status >= 500:
            return _Retryable(
                ExchangeRefused(said, field=self.host, remedy="Ask again in a few minutes.")
            )
        remedy = "Check symbol, timeframe and dates."
        if heard.status in (401, 403, 451):
            remedy = "The exchange does not serve this network or region; use stored history."
        elif 300 <= heard.status < 400:
            remedy = "Something on the way answers instead of the exchange; check the network."
        return ExchangeRefused(said, field=self.host, remedy=remedy)

    def _rate_limited(self, said: str, heard: _Heard) -> Exception:
        wait = _asked_wait(said, heard)
        self._keep_silent(wait, said)
        now = int(time.time() * 1000)
        self._bans.impose(Cooldown(now + int(wait * 1000), said), now)
        error = ExchangeRefused(
            said, field=self.host, remedy=f"Wait {wait:.0f} s before asking again."
        )
        return _Retryable(error, wait_s=wait)


def _asked_wait(said: str, heard: _Heard) -> float:
    """Seconds for which a refusal asks, at least one: by header or text, whichever is longer, else
    what is customary."""
    asked = []
    header = heard.retry_after or ""
    if re.fullmatch(r"[0-9]{1,7}", header):
        asked.append(float(header))
    elif header:
        try:
            asked.append(parsedate_to_datetime(header).timestamp() - time.time())
        except (ValueError, OverflowError):
            asked.append(UNTIMED_WAIT_S.get(heard.status, 60.0))
    until = re.search(r"banned until ([0-9]{13})", said)
    if until is not None:
        asked.append(int(until.group(1)) / 1000 - time.time())
    return max(max(asked, default=UNTIMED_WAIT_S.get(heard.status, 60.0)), 1.0)


class _Overrun(Exception):
    """A call did not return in time."""


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What ``call`` returns or raises; _Overrun after ``seconds``, whatever the sockets do.

    A socket's timeout starts again with every byte, and name look-ups have none; so the call runs
    in a daemon thread, which cannot keep the process alive once it is abandoned.
    """
    outcome: list[tuple[Any, Exception | None]] = []

    def work() -> None:
        try:
            outcome.append((call(), None))
        except Exception as err:  # noqa: BLE001 - carried over to the caller
            outcome.append((None, err))

    worker = threading.Thread(target=work, name="exchange-request", daemon=True)
    worker.start()
    worker.join(seconds)
    if not outcome:
        raise _Overrun
    answer, err = outcome[0]
    if err is not None:
        raise err
    return answer


class _Bounded:
    """A response's raw body that breaks off after LARGEST_ANSWER bytes, unpacked."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, *arguments: Any, **options: Any) -> Iterator[bytes]:
        from urllib3.exceptions import ProtocolError

        read = 0
        for chunk in self._raw.stream(*arguments, **options):
            read += len(chunk)
            if read > LARGEST_ANSWER:
                raise ProtocolError(f"an answer of more than {LARGEST_ANSWER} bytes")
            yield chunk


def _is_passing(failure: BaseException) -> bool:
    """Whether to ask again at once: not where the exchange has asked to wait."""
    return isinstance(failure, _Retryable) and failure.wait_s is None


def _pause(state: tenacity.RetryCallState) -> float:
    return min(0.2 * 2.0 ** (state.attempt_number - 1), 2.0)


def _moved(urls: Any, base_url: str) -> Any:
    """ccxt's tree of addresses, each with ``base_url`` in place of its scheme and host."""
    if isinstance(urls, dict):
        return {name: _moved(inner, base_url) for name, inner in urls.items()}
    return base_url + urlsplit(urls).path if isinstance(urls, str) else urls


def _require_known(exchange: str) -> None:
    import ccxt

    if exchange not in ccxt.exchanges:
        raise UnknownNameError(
            field="exchange", value=exchange, expected="an exchange that ccxt has, by its id"
        )
