"""What verifying a released checkpoint finds: its checks, its scores beside the published ones, and the verdict."""

import dataclasses
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped", "unavailable"]
PASSED: Status = "passed"
FAILED: Status = "failed"
SKIPPED: Status = "skipped"
UNAVAILABLE: Status = "unavailable"


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: its name (archive, variables, weights, prediction or data), its status, and the reason in words."""

    name: str
    status: Status
    words: str


@dataclasses.dataclass(frozen=True)
class Measured:
    """A published score beside ours, in percent.

    Attributes:
      settings: of the measurement, in words.
      published: the published score.
      measured: ours.
      verdict: their comparison in words: as published, higher, lower or why they are not comparable.
      contaminated: why the weights have seen the images of ours; None where nothing says so.
    """

    settings: str
    published: float
    measured: float
    verdict: str
    contaminated: str | None = None


@dataclasses.dataclass(frozen=True)
class Verification:
    """All checks of one checkpoint, and its scores."""

    name: str
    checks: tuple[Check, ...]
    scores: tuple[Measured, ...] = ()

    @property
    def verdict(self) -> Status:
        """Failed if a check has or a score is lower than published; unavailable if there is no archive; else passed."""
        if any(check.status == FAILED for check in self.checks) or any(s.verdict == "lower" for s in self.scores):
            return FAILED
        return UNAVAILABLE if self.checks[0].status == SKIPPED else PASSED

    def to_json(self) -> dict[str, Any]:
        """Returns the verification as JSON types."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}
