"""What a check of the books or of the hosts finds: a code, what it is about, and a sentence."""

from dataclasses import dataclass
from enum import StrEnum, auto
from uuid import UUID


class Severity(StrEnum):
    """An error breaks a promise to a customer; a warning may do so soon, or heals by itself."""

    ERROR = auto()
    WARNING = auto()


class FindingCode(StrEnum):
    """The base of each check's codes.  A code never changes its meaning; the docs have its remedy."""

    @property
    def severity(self) -> Severity:
        return Severity.ERROR


@dataclass(frozen=True)
class Finding:
    code: FindingCode
    object: str
    sentence: str
    # The machine whose rows must be unchanged since the host was asked.  None: no host was asked.
    machine: UUID | None = None

    def __str__(self) -> str:
        return f"{self.code} {self.code.severity} {self.object}: {self.sentence}"

    @property
    def as_json(self) -> dict[str, str]:
        return {
            "code": self.code,
            "severity": self.code.severity,
            "object": self.object,
            "sentence": self.sentence,
        }
