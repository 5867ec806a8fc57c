"""What judging comes to: a verdict a check, in words and with its figure, as an artefact keeps it.

A verdict that decides nothing (``passed`` None) is shown all the same: its threshold is null, or
its question cannot be asked of this run, which it then says. Figures that are undefined are None.
"""

from __future__ import annotations

from research.account import Frozen
from research.params import Thresholds

__all__ = ["Judgement", "Override", "TrialsHead", "Verdict"]


class Verdict(Frozen):
    """One check: its figure, what is demanded of it (empty: nothing), and a sentence about it."""

    check: str
    passed: bool | None
    value: float | None
    demanded: str
    said: str

    @property
    def word(self) -> str:
        """``passed``, ``FAILED`` or ``shown``."""
        return "shown" if self.passed is None else "passed" if self.passed else "FAILED"

    def __str__(self) -> str:
        demanded = f" [{self.demanded}]" if self.demanded else ""
        return f"{self.word:<7} {self.check:<13} {self.said}{demanded}"


class TrialsHead(Frozen):
    """The ledger of trials as the judge read it: its file, its last batch and that one's digest."""

    ledger: str
    number: int
    digest: str


class Judgement(Frozen):
    """What was found of one run.

    ``in_sample`` and ``out_of_sample`` are the windows of walk-forward: the second is what choosing
    was tested on, and empty for a lone run; the promoted parameters were chosen over all of it. A
    figure that is undefined, or infinite, is None.

    ``trials`` is how many things had been tried on this market, ``effective_trials`` how many
    different things those were; ``digest`` is that of the run's orders and fills; windows are UTC.
    ``head`` is where the ledger of trials ended then; None for trials that were handed over.
    """

    digest: str
    trials: int
    effective_trials: int
    head: TrialsHead | None
    seed: int
    in_sample: str
    out_of_sample: str
    thresholds: Thresholds
    verdicts: tuple[Verdict, ...]
    statistics: dict[str, float | None]

    @property
    def refusals(self) -> tuple[Verdict, ...]:
        """The verdicts that refuse it."""
        return tuple(one for one in self.verdicts if one.passed is False)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that refuse it."""
        return tuple(one.check for one in self.refusals)

    @property
    def passed(self) -> bool:
        return not self.failed


class Override(Frozen):
    """A person's decision to promote what fails ``failed`` (or was not judged), and the reason."""

    who: str
    at: str
    why: str
    failed: tuple[str, ...]
