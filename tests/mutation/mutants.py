"""Mutants of one module, made by Cosmic Ray's operators: which there are, which are left out by rule, which one is drawn.

A *place* is a piece of source and a kind of change: this comparison moved by its boundary, this number, this operator. Cosmic Ray
offers several replacements for one place (a `-` may become any of ten other operators). At every place one is drawn.
"""

from __future__ import annotations

import ast
import hashlib
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

ROOT = Path(__file__).resolve().parents[2]
BOUNDARY = {"Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt"}
IDENTITY = {"Eq_Is", "NotEq_IsNot", "Is_Eq", "IsNot_NotEq"}
"""Equality for identity and back: what differs is interning, and the linter refuses `is` beside a literal."""
NEED_ARGUMENTS = {"VariableReplacer", "VariableInserter"}
"""Operators of Cosmic Ray that do nothing without a list of variables."""
MESSAGES = {"AtlasError", "RowsError", "EvidenceError", "Problem", "Violation", "problem"}
"""Calls whose formatted texts are messages; other arguments of them are mutated."""

Spot = tuple[int, int]
Range = tuple[Spot, Spot]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the module's path, where, the whole source after it, and how a reader sees it."""

    path: str
    function: str
    line: int
    family: str
    operator: str
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """What identifies it while lines move: file, function, the line before and after."""
        return "\x1f".join((self.path, self.function, self.before, self.after))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a kind of change applies, and what Cosmic Ray offers there: operators with their occurrence in the file."""

    family: str
    spot: Range
    options: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Made:
    """The places of one module in the order in which the seed asks for them, and how many replacements the rules leave out."""

    path: str
    source: str
    seed: int
    places: tuple[Place, ...]
    excluded: int

    @property
    def possible(self) -> int:
        """All replacements that are offered."""
        return sum(len(p.options) for p in self.places)

    def mutants(self) -> Iterator[Mutant]:
        """Draw one mutant at each place, lazily."""
        for place in self.places:
            drawn = _drawn(self.path, self.source, self.seed, place)
            if drawn is not None:
                yield drawn


def family(operator: str) -> str:
    """Return the kind of change: replacements of one kind at one piece of source form one place."""
    name, _, change = operator.partition("_")
    if name == "ReplaceComparisonOperator":
        return "boundary" if change in BOUNDARY else "comparison"
    return {"ReplaceBinaryOperator": "binary", "ReplaceUnaryOperator": "unary", "NumberReplacer": "number"}.get(
        name, name
    )


def make(path: str, seed: int) -> Made:
    """Find every place of a source file (`path` below the root) that no rule leaves out."""
    source = (ROOT / path).read_text(encoding="utf-8")
    left_out, powers = list(_left_out(source)), list(_powers(source))
    lines = source.splitlines()
    places: dict[tuple[Range, str], list[tuple[str, int]]] = {}
    excluded = 0
    nodes = list(ast_nodes(get_ast(source)))
    provider = OperatorProvider()
    for name in provider:
        if name in NEED_ARGUMENTS:
            continue
        operator: Any = provider[name]()
        positions = [p for node in nodes for p in operator.mutation_positions(node)]
        for occurrence, (start, stop) in enumerate(positions):
            # Cosmic Ray takes the two stars that unpack a mapping for a power; no other operator may stand there.
            stars = start[0] == stop[0] and lines[start[0] - 1][start[1] : stop[1]] == "**"
            unpacks = stars and not any(a <= start and stop <= b for a, b in powers)
            if unpacks or name.partition("_")[2] in IDENTITY or any(a <= start and stop <= b for a, b in left_out):
                excluded += 1
            else:
                places.setdefault(((start, stop), family(name)), []).append((name, occurrence))
    found = [Place(kind, spot, tuple(options)) for (spot, kind), options in sorted(places.items())]
    random.Random(f"{seed} {path}").shuffle(found)
    return Made(path, source, seed, tuple(found), excluded)


def _drawn(path: str, source: str, seed: int, place: Place) -> Mutant | None:
    kind, spot, options = place.family, place.spot, place.options
    lines = source.splitlines()
    line = spot[0][0]
    # Drawn from what stands there, not from where it stands: lines that move keep their mutants.
    text = f"{seed}\x1f{path}\x1f{kind}\x1f{lines[line - 1]}\x1f{spot[0][1]}"
    first = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % len(options)
    for name, occurrence in (*options[first:], *options[:first]):
        mutated = mutate_code(source, OperatorProvider()[name](), occurrence)
        if mutated is not None and mutated != source and _compiles(mutated):
            break
    else:
        return None
    new = mutated.splitlines()
    at = next(i for i, (a, b) in enumerate(zip(lines, [*new, ""] + [""] * len(lines), strict=False)) if a != b)
    after = " ".join(new[at].split()) if len(new) == len(lines) else "(line removed)"
    return Mutant(path, enclosing(source, at + 1), at + 1, kind, name, " ".join(lines[at].split()), after, mutated)


def _compiles(source: str) -> bool:
    """Whether it is a program at all: `x > not y` is not, though Cosmic Ray offers it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def enclosing(source: str, line: int) -> str:
    """Return the qualified name of the innermost function or class around a line, or an empty text."""
    best: list[str] = []

    def visit(node: ast.AST, names: list[str]) -> None:
        nonlocal best
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                start = min([child.lineno, *(d.lineno for d in child.decorator_list)])
                if start <= line <= (child.end_lineno or start):
                    best = [*names, child.name]
                    visit(child, best)
            else:
                visit(child, names)

    visit(ast.parse(source), [])
    return ".".join(best)


def function_lines(source: str, line: int) -> range:
    """Return the lines of the innermost function around a line, or of the whole source."""
    best = range(1, len(source.splitlines()) + 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.lineno <= line <= (node.end_lineno or 0):
            best = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return best


def statement(source: str, line: int) -> range:
    """Return the lines of the innermost statement around a line; of one that holds others, its head."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
            if node.lineno <= line <= max(end, node.lineno):
                best = range(node.lineno, max(end, node.lineno) + 1)
    return best


def _left_out(source: str) -> Iterator[Range]:
    """Yield what cannot matter: annotations, docstrings, `__all__`, formatted texts of messages."""
    lines = source.splitlines()

    def of(node: ast.expr | ast.stmt) -> Range:
        return _range(lines, node)

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns:
            yield of(node.returns)
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation:
            yield of(node.annotation)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield of(node)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            yield of(node)
        if isinstance(node, ast.Call) and _name(node.func) in MESSAGES:
            for value in [*node.args, *(k.value for k in node.keywords)]:
                if isinstance(value, ast.JoinedStr):
                    yield of(value)


def _powers(source: str) -> Iterator[Range]:
    """Yield where numbers are raised to powers."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            yield _range(lines, node)


def _range(lines: Sequence[str], node: ast.expr | ast.stmt) -> Range:
    """Return where a node stands, columns in characters."""

    def column(line: int, byte: int) -> int:
        return len(lines[line - 1].encode()[:byte].decode())

    end = node.end_lineno or node.lineno
    return (node.lineno, column(node.lineno, node.col_offset)), (end, column(end, node.end_col_offset or 0))


def _name(called: ast.expr) -> str:
    return called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
