"""Findings of the doctor, each with a code, a severity, evidence and a cure; and the diagnosis of one subject."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Literal

from deeplab_tf.errors import visible

Severity = Literal["error", "warning", "note"]
ERROR: Severity = "error"
WARNING: Severity = "warning"
NOTE: Severity = "note"
SEVERITIES: tuple[Severity, ...] = (ERROR, WARNING, NOTE)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
      code: its kind, for scripts: small letters and dashes.
      severity: error (results will be wrong), warning (they may be), or note.
      evidence: lines; the first says what was found, the others where.
      cure: what to do about it, or an empty string.
    """

    code: str
    severity: Severity
    evidence: tuple[str, ...]
    cure: str = ""

    def __post_init__(self) -> None:
        # Names of files, classes and variables are in it.
        object.__setattr__(self, "evidence", tuple(map(visible, self.evidence)))
        object.__setattr__(self, "cure", visible(self.cure))

    def lines(self) -> Iterator[str]:
        """Yields the finding as it is printed."""
        yield f"{self.severity.upper():<7} {self.code}: {self.evidence[0]}"
        yield from (f"          {line}" for line in self.evidence[1:])
        if self.cure:
            yield f"        -> {self.cure}"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """All findings on one subject, the most severe first.

    Attributes:
      subject: what was checked.
      findings: sorted by severity.
      facts: figures, as JSON types.
      table: figures as text, for people.
    """

    subject: str
    findings: tuple[Finding, ...]
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)
    table: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", tuple(sorted(self.findings, key=lambda f: SEVERITIES.index(f.severity))))

    def count(self, severity: Severity) -> int:
        """Returns the number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of errors and warnings."""
        return tuple(finding.code for finding in self.findings if finding.severity != NOTE)

    def to_json(self) -> dict:
        """Returns the diagnosis as JSON types."""
        values = {
            "subject": self.subject,
            "facts": self.facts,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            **{f"{severity}s": self.count(severity) for severity in SEVERITIES},
        }
        return json.loads(json.dumps(values))

    def text(self) -> str:
        """Returns the diagnosis as it is printed."""
        counts = ", ".join(f"{self.count(s)} {s}{'' if self.count(s) == 1 else 's'}" for s in SEVERITIES)
        parts = [self.subject, *([self.table] if self.table else [])]
        parts += [line for finding in self.findings for line in finding.lines()]
        return "\n".join([*parts, counts])
