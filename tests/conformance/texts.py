"""What the corpus says to people: the README of every case, and that of the whole."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from conformance.capture import Captured
from conformance.catalogue import Entry

from atlas_schema.conformance.corpus import Expected
from atlas_schema.verify.outcome import Channel, Code
from atlas_schema.verify.rules import RULES

WHO = {
    Channel.ADMISSION: "whoever hands the files over, to crash, exhaust or mislead the reader",
    Channel.SCHEMA: "whoever hands the files over, with something that looks like a document of this project",
    Channel.CONTRACT: "a producer whose plan, contract or history does not fit the result, or who hopes that nobody compares them",
    Channel.BINDING: "a courier between producer and reviewer, or a producer who shows other rows than those measured",
    Channel.AUTHENTICITY: "a courier who wants somebody else's name under it, or a signer who was careless",
    Channel.REPRODUCTION: "a producer who writes rows or numbers to taste and re-issues everything that cites them",
    Channel.DECISION: "a producer who claims more than the rows give",
    Channel.REPLAY: "a producer without the models",
}
WORDS = {
    Code.VERIFIED: "Accepted", Code.NOT_PRESERVED: "Judged as it is", Code.USAGE: "Refused as a call", Code.INADMISSIBLE: "Refused",
    Code.TAMPERED: "Refused", Code.DIVERGED: "Refused", Code.UNPROVEN: "Not proven",
}  # fmt: skip

PLAIN = {
    Code.VERIFIED: "No rule is broken. A verifier that refuses more than the rules do is as wrong as one that refuses less.",
    Code.NOT_PRESERVED: "No rule is broken, and the verdict is not the one that is required. That is an outcome, not a fault.",
    Code.UNPROVEN: "Nothing is contradicted, and what is asked for cannot be established. Absence of a fault is not proof.",
}
"""Why a case in which no rule fires is there."""


def case_page(entry: Entry, made: Captured, expected: Expected) -> str:
    """Return the README of a case."""
    code = Code(expected.exit_code)
    fired = [RULES[rule] for rule in expected.rules]
    why = [f"- `{r.id}` ({r.channel.value}): {r.statement} {r.rationale} Source: {r.source}." for r in fired]
    if code is Code.USAGE:
        why = ["- The call cannot be carried out. That says nothing about the receipt, and must not look as if it did."]
        who = "a reviewer, by mistake"
    elif fired:
        who = "; ".join(dict.fromkeys(WHO[r.channel] for r in fired))
    else:
        why = [f"- {PLAIN[code]}"]
        who = "nobody in bad faith" + ("" if code is Code.UNPROVEN else ": this is an honest submission")
    lines = [f"# {entry.name}", "", f"**{WORDS[code]}** (exit code {int(code)}, `{code.name}`). {entry.sentence}", "",
             "Why it exists:", "", *why, "", f"Who would do it: {who}.", "",
             f"How it was made: function `{entry.function}` of `{entry.origin}`, written out by `tests/conformance/generate.py`. "
             f"{_differs(made)}", "",
             "What to do with it: lay it out as the README of the corpus says, and in that folder call", "",
             "```sh", f"VERIFIER {shlex.join(expected.arguments)}", "```", ""]  # fmt: skip
    if expected.needs:
        lines += [f"Needs: {', '.join(expected.needs)}.", ""]
    return "\n".join(lines)


def _differs(made: Captured) -> str:
    if made.base is None:
        return f"It stands alone: {', '.join(sorted(made.files))}."
    parts = [f"laid over it: {', '.join(f'`{n}`' for n in sorted(made.files))}"] if made.files else []
    parts += [f"removed: {', '.join(f'`{n}`' for n in made.removed)}"] if made.removed else []
    parts += [f"linked: {', '.join(f'`{n}` to `{to}`' for n, to in made.links.items())}"] if made.links else []
    return f"Base `{made.base}`; {'; '.join(parts)}." if parts else f"Base `{made.base}`, unchanged."


def corpus_page(expected: Mapping[str, Expected], gaps: Sequence[tuple[str, str]], adequacy: str) -> str:
    """Return the README of the corpus."""
    codes = [e.exit_code for e in expected.values()]
    counted = [f"| {c} | `{Code(c).name}` | {codes.count(c)} |" for c in sorted(set(codes))]
    rules = {r for e in expected.values() for r in e.rules}
    missing = [f"| `{name}` | {why} |" for name, why in gaps]
    return PAGE.format(cases=len(expected), rules=len(rules), of=len(RULES), codes="\n".join(counted), gaps="\n".join(missing),
                       adequacy=adequacy.strip())  # fmt: skip


PAGE = """# Conformance corpus

{cases} cases that hold a verifier of atlas receipts to this project's rules, through its command line alone. Each case is a folder with
its inputs, what must come of them, and a page that says why it exists. [docs/conformance.md](../../docs/conformance.md) describes the
protocol and shows how a foreign verifier is held to it.

```sh
atlas conformance run --verifier atlas-verify
atlas conformance run --verifier "python my_verifier.py" --exit-code-only
```

## How a case is laid out

`CASE/expected.json` says how. In an empty folder:

1. copy the folder that `base` names (`base`, `base-grouped`), unless it is `null`;
2. lay `CASE/files/` over it, if there is one;
3. remove every file or folder that `removed` lists;
4. make the symbolic links that `links` lists: name to target, both from the top of the folder;
5. call the verifier there, with `arguments`.

Nothing else of a case is input. `needs` names what a verifier or a system may lack: `signatures`, `sigstore`, `duckdb`, `links`.

## What a verifier must answer

The exit code must be `exit_code`. Where the verifier is also asked for a report (`--report json` at the end), the report must state
the same exit code, `verdict`, the status of every channel, and problems of exactly the rules that `rules` lists.

| exit code | name | cases |
|---|---|---|
{codes}

{rules} of {of} rules fire in some case.

## Bases

`base` is the study that the test suite's simulator makes: two domains of eleven documents, one protected layer, three arms (`frozen`,
`close`, `rewritten`), with the receipt of `frozen`. `base-grouped` has a router with selection bias and groups. Both are small enough
to be judged in a fraction of a second; neither is a measurement of any model. Documents laid over a base are written without white space.

## Adequacy

<!-- made by tests/conformance/adequacy.py -->
{adequacy}
<!-- end -->

## Not in the corpus

Cases of the test suite that no files and no command line can bring about; files say the nearest that can be said of each:

| case | why |
|---|---|
{gaps}

## Making it anew

`make vectors` writes this folder from the cases of the test suite; a test compares. Equal versions of the libraries in `constraints.txt`
give equal bytes, but for DuckDB files: they hold a random identifier, and are kept while their size stays.
"""
