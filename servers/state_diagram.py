"""Draws the table of states for docs/reliability.md:  python -m servers.state_diagram"""

from collections.abc import Container, Iterator

from servers.states import RULES, OperationKind, PowerState, Rule, ServerStatus, status_after_failure

S = ServerStatus


def mermaid() -> str:
    """A Mermaid state diagram of what ``RULES`` says."""
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in _lines())])


def _lines() -> Iterator[str]:
    for kind, rule in RULES.items():
        if kind == OperationKind.DELETE:
            yield f"note right of {rule.shows}: from every status, whatever is under way"
            continue
        if not rule.allowed_in:
            yield f"[*] --> {rule.shows}: {kind}"
        for before in _in_order(rule.allowed_in):
            yield f"{before} --> {rule.shows}: {kind}"
    seen = set()
    for kind, rule in RULES.items():
        for line in _ends(kind, rule):
            if line not in seen:
                yield line
                seen.add(line)
    yield f"{S.DELETED} --> [*]"


def _ends(kind: OperationKind, rule: Rule) -> Iterator[str]:
    """The statuses an operation can end in, by success and by failure."""
    succeeds_in = [rule.succeeds_in] if rule.succeeds_in else [S.ACTIVE, S.STOPPED]
    for status in succeeds_in:
        yield f"{rule.shows} --> {status}: done"
    if rule.deadline is None:
        return
    told = (PowerState.RUNNING, PowerState.OFF)
    befores = rule.allowed_in or {rule.shows}
    fails_in = {status_after_failure(kind, before, power) for before in befores for power in told}
    for status in _in_order(fails_in):
        yield f"{rule.shows} --> {status}: failed"


def _in_order(statuses: Container[ServerStatus]) -> list[ServerStatus]:
    return [status for status in S if status in statuses]


if __name__ == "__main__":
    print(mermaid())
