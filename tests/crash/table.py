"""What came of the deaths, as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.crash.campaign import Campaign, Outcome

COLUMNS = (("self", "delete"), ("self", "gc"), ("agent", ""))  # victims, and what cleans up; empty is either
PHASES = ("create", "start", "hot-plug", "stop", "delete")
_NEVER = "–"
_NAMES = {"start": "`start`", "join": "`start` of a further container", "shim": "the shim"}
_HEAD = """\
| Step | Program | Program killed, then `delete` | Program killed, then `gc` | Agent killed |
|---|---|---|---|---|"""


@dataclass(slots=True)
class Row:
    """A step of a program, and what its deaths have left: by column, before and after it.

    Attributes:
        phase: What the manager had asked for.
        program: The program.
        what: The step.
        agent: Whether there is an agent to kill.
        left: How many things were left, by column, and whether after the step.
    """

    phase: str
    program: str
    what: str
    agent: bool
    left: dict[tuple[int, bool], int] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count what a death has left."""
        doom = outcome.point.doom
        for number, (victim, cure) in enumerate(COLUMNS):
            if victim == doom.victim and cure in ("", outcome.point.cure):
                place = number, doom.after
                self.left[place] = self.left.get(place, 0) + len(outcome.left)

    def cell(self, column: int) -> str:
        """What is left after a death before the step, and after one that comes after it."""
        cells = [str(self.left.get((column, moment), _NEVER)) for moment in (False, True)]
        return cells[0] if cells == [_NEVER, _NEVER] else ", ".join(cells)

    @property
    def is_whole(self) -> bool:
        """Whether the program has died on both sides of it, for each cure, and the agent before it.

        While a pod ends, the agent's own end may be faster than this or that step.
        """
        needed = [(column, after) for column in range(2) for after in (False, True)]
        if self.agent and self.program == "shim" and self.phase not in PHASES[-2:]:
            needed.append((2, False))
        return all(each in self.left for each in needed)


def rows(result: Campaign) -> list[Row]:
    """One for each kind of step of a whole life."""
    found: dict[tuple[str, str], Row] = {}
    for program, steps in result.steps.items():
        for step in steps:
            found.setdefault((program, step.what), Row(step.phase, program, step.what, "agent" in step.victims))
    for outcome in result.outcomes:
        program = outcome.point.doom.program
        if outcome.died:
            found[program, outcome.point.doom.what].add(outcome)
    return sorted(found.values(), key=lambda row: PHASES.index(row.phase))


def deaths(result: Campaign) -> list[Outcome]:
    """Those that came."""
    return [outcome for outcome in result.outcomes if outcome.died]


def survivors(result: Campaign) -> list[str]:
    """All that was left, by whom and after what, one line each."""
    return [f"{outcome.point}: {line}" for outcome in result.outcomes for line in outcome.left]


def unreached(result: Campaign) -> list[str]:
    """The steps beside which somebody has not died who could have, one line each."""
    return [f"not everywhere reached: {row.program}, {row.what}" for row in rows(result) if not row.is_whole]


def markdown(result: Campaign) -> str:
    """The table, a section for each thing that the manager asked for."""
    return "\n\n".join(f"## {phase.capitalize()}\n\n{_HEAD}\n" + "\n".join(_lines(result, phase)) for phase in PHASES)


def _lines(result: Campaign, phase: str) -> Iterator[str]:
    for row in rows(result):
        if row.phase == phase:
            cells = (f"`{row.what}`", _NAMES[row.program], *(row.cell(column) for column in range(len(COLUMNS))))
            yield f"| {' | '.join(cells)} |"


def summary(result: Campaign) -> str:
    """One sentence."""
    steps = sum(map(len, result.steps.values()))
    left = len(survivors(result))
    return f"{steps} steps, {len(deaths(result))} deaths, {left} survivors"
