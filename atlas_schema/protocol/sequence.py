"""What the protocol demands of the steps of a log, beyond its chain. `docs/protocol.md` states each demand.

Nothing here blocks for an absence: a missing step lowers the tier (`fidelity`). A fault is a step that cannot be what
it says it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from atlas_schema.documents.run_log import Actor, Step, StepName
from atlas_schema.protocol.log import PARTY, PROCESS, party_digest

ORDER, ACTOR, ISOLATION, PARTIES, STIMULUS = "ATL-C040", "ATL-C041", "ATL-C042", "ATL-C043", "ATL-C044"
MAY: dict[StepName, tuple[Actor, ...]] = {
    "read0": ("technician",), "read1": ("technician",), "judge": ("technician",), "transcribe": ("automation",),
    "declare": ("technician", "automation"), "stimulus": ("technician", "automation"),
    "extract": ("automation", "model"), "issue": ("automation", "technician"), "verify": ("automation", "technician"),
}  # fmt: skip
"""Who may take a step."""
REGISTERED = "stimulus "
"""Begins the name of the artefact under which a version of a stimulus is registered and read."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A step that breaks a rule: where, what, what was expected, and what to do."""

    rule: str
    index: int
    what: str
    stated: str
    expected: str
    todo: str


def is_run(step: Step) -> bool:
    """Return whether a model ran in this step. A step that only sums up the evidence of a study is no run."""
    return step.step == "extract" and any(a.name != "evidence" for a in step.outputs)


def first(steps: Sequence[Step], *names: StepName) -> int:
    """Return the position of the first step of these names, or one beyond the last step."""
    return next((i for i, s in enumerate(steps) if s.step in names), len(steps))


def protocol_faults(steps: Sequence[Step]) -> list[Fault]:
    """Return every fault, by rule and step. The chain is not checked here.

    Whether a step is a fault depends on the steps before it alone: a sound log is sound wherever it is cut.
    """
    return [*_order(steps), *_actors(steps), *_isolation(steps), *_parties(steps), *_stimuli(steps)]


def _order(steps: Sequence[Step]) -> Iterator[Fault]:
    run, issue = first(steps, "extract"), first(steps, "issue")
    advice = {
        "declare": "what is declared after a run is no declaration; start a new log",
        "read0": "an expectation written after a run is a reconstruction; leave it out, the tier says so",
        "read1": "leave it out, the tier says so",
        "transcribe": "record the run first", "judge": "record the run first", "verify": "issue the document first",
    }  # fmt: skip
    for i, step in enumerate(steps):
        early = {"read1": run, "transcribe": run, "judge": run, "verify": issue}.get(step.step, -1)
        late = {"declare": run, "read0": run, "read1": issue}.get(step.step, len(steps))
        if i < early:
            after = "issue" if step.step == "verify" else "the first run"
            yield Fault(
                ORDER,
                i,
                f"The step '{step.step}' stands before {after}.",
                f"step {i}",
                f"after {after}",
                advice[step.step],
            )
        elif i > late:
            before = "issue" if step.step == "read1" else "the first run"
            yield Fault(
                ORDER,
                i,
                f"The step '{step.step}' stands after {before}.",
                f"step {i}",
                f"before step {late}",
                advice[step.step],
            )


def _actors(steps: Sequence[Step]) -> Iterator[Fault]:
    for i, step in enumerate(steps):
        if step.actor not in MAY[step.step]:
            yield Fault(ACTOR, i, f"The step '{step.step}' was taken by {step.actor}.", step.actor, " or ".join(MAY[step.step]),
                        "only a person may write a Read or a judgement; blank it and let a person answer")  # fmt: skip


def processes(step: Step) -> list[str]:
    """Return the processes that a step names."""
    return [a.digest for a in step.inputs if a.name == PROCESS]


def parties(step: Step) -> list[str]:
    """Return the names of the parties that a step states."""
    return [a.name.removeprefix(PARTY) for a in step.inputs if a.name.startswith(PARTY)]


def _isolation(steps: Sequence[Step]) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for i, step in enumerate(steps):
        for process in processes(step) if step.step == "extract" else ():
            if process in seen:
                yield Fault(ISOLATION, i, "Two runs share one process.", f"{process}, also of step {seen[process]}",
                            "a fresh process for every run", "run the model again in a process of its own")  # fmt: skip
            seen.setdefault(process, i)


def _parties(steps: Sequence[Step]) -> Iterator[Fault]:
    for i, step in enumerate(steps):
        for artefact in step.inputs:
            if artefact.name.startswith(PARTY) and artefact.digest != party_digest(artefact.name.removeprefix(PARTY)):
                yield Fault(PARTIES, i, "A party's digest is not that of its name.", artefact.digest,
                            party_digest(artefact.name.removeprefix(PARTY)), "name the party as it was recorded")  # fmt: skip
    # What a verifier makes later is not what they verified: only the steps before count, so that no later step undoes one.
    who: set[str] = set()
    where: set[str] = set()
    for i, step in enumerate(steps):
        if step.step in ("extract", "transcribe", "issue"):
            who |= {party_digest(name) for name in parties(step)}
            where |= set(processes(step))
        if step.step != "verify":
            continue
        same = [name for name in parties(step) if party_digest(name) in who]
        if same or set(processes(step)) & where:
            yield Fault(PARTIES, i, "The verifying party is the extracting one.", ", ".join(same) or "the same process",
                        "another party, in a process of its own", "let someone else verify")  # fmt: skip


def _stimuli(steps: Sequence[Step]) -> Iterator[Fault]:
    known: dict[str, str] = {}
    plans: set[str] = set()
    for i, step in enumerate(steps):
        if step.step == "stimulus":
            for artefact in step.outputs:
                if known.setdefault(artefact.name, artefact.digest) != artefact.digest:
                    yield Fault(STIMULUS, i, f"'{artefact.name}' was registered with other content.", artefact.digest,
                                known[artefact.name], "other content is another version: give it one")  # fmt: skip
        if step.step == "declare":
            plans |= {a.digest for a in step.outputs}
        if step.step != "extract":
            continue
        cited = [a for a in step.inputs if a.name.startswith(REGISTERED)]
        for artefact in cited:
            if known.get(artefact.name) != artefact.digest:
                yield Fault(STIMULUS, i, f"The run read '{artefact.name}', which no earlier step registers with this content.",
                            artefact.digest, known.get(artefact.name, "a step 'stimulus' before it"),
                            "register the version before the run: atlas log stimulus")  # fmt: skip
        if not cited and not any(a.name == "preregistration" and a.digest in plans for a in step.inputs):
            yield Fault(STIMULUS, i, "The run names no registered stimulus; what the model was given cannot be traced.",
                        ", ".join(a.name for a in step.inputs) or "no inputs", "a registered stimulus, or a declared pre-registration",
                        "register the stimulus before the run: atlas log stimulus")  # fmt: skip
