"""The house stands as described: floors, a light core, no network, small functions, and tests beside what they test."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from signing.material import key, written
from verify.forging import honest, study

from atlas_schema.files import document_text
from atlas_schema.signing.envelope import sign
from atlas_schema.signing.keys import public_pem
from atlas_schema.signing.statement import statement_bytes
from atlas_schema.verify.loading import load, signature_path
from atlas_schema.verify.verifier import statement_over

ROOT = Path(__file__).parents[1]
CORE = ROOT / "atlas_schema"
EXTRACTORS = ROOT / "extractors" / "atlas_extractors"
SHIPPED = sorted([*CORE.rglob("*.py"), *EXTRACTORS.rglob("*.py"), *(ROOT / "contracts").rglob("*.py")])
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in CORE.rglob("*.py")
)
HEAVY = (
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "matplotlib",
    "pandas",
    "peft",
    "cryptography",
    "sigstore",
)
"""What the core neither needs nor imports; the last two only where a reviewer gives a key or a bundle, or a signer signs."""
NETWORK = (
    "http.client",
    "urllib.request",
    "requests",
    "urllib3",
    "httpx",
    "aiohttp",
    "asyncio",
    "ftplib",
    "smtplib",
    "xmlrpc",
)
RECORDS = ("claims", "verify/records.py")
"""What decides a measurement or a prediction; no receipt's verdict passes through it."""
TRUSTED = (
    "verify",
    "measures",
    "verdict",
    "evidence/digest.py",
    "evidence/columns.py",
    "evidence/source.py",
    "canonical.py",
)
"""What decides a verdict: reading, digests, measures, bootstrap, predicates, rules."""
VOUCHING = ("signing", "verify/authenticity.py")
"""What decides who vouches."""
BESIDE = tuple(f"measures/{name}.py" for name in ("reported", "occupancy", "overlap", "statements", "matched"))
"""What is reported and decides no verdict."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def python(code: str, *args: str | Path) -> Any:
    """Run code in a fresh interpreter that prints one JSON value on its last line."""
    done = subprocess.run([sys.executable, "-B", "-c", code, *map(str, args)], capture_output=True, text=True, timeout=300,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# --- floors -------------------------------------------------------------------------------------------------------


def test_imports_point_down_only() -> None:
    """The contracts stand in pyproject.toml; `lint-imports` run by hand says the same."""
    code = """
import json
from importlinter.cli import lint_imports
print()
print(json.dumps(lint_imports(no_cache=True)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0", done.stdout


def test_a_package_is_on_a_floor() -> None:
    """A layer named in the contract but absent from the tree, or the reverse, would make the contract say less."""
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = next(c for c in contracts if c["type"] == "layers")["layers"]
    named = {part.strip() for layer in floors for part in layer.split(":")}
    packages = {p.name for p in CORE.iterdir() if (p / "__init__.py").is_file()}
    modules = {p.stem for p in CORE.glob("*.py")} - {"__init__"}
    assert named == packages | modules


# --- a light core -------------------------------------------------------------------------------------------------


def test_importing_every_core_module_pulls_in_nothing_heavy() -> None:
    code = """
import importlib, json, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
print(json.dumps(sorted(sys.modules)))
"""
    loaded = python(code, *MODULES)
    assert set(MODULES) <= set(loaded)
    assert {m for m in loaded if m.split(".")[0] in HEAVY} == set()


def test_importing_the_package_is_cheap() -> None:
    loaded = python("import json, sys, atlas_schema; print(json.dumps(sorted(sys.modules)))")
    assert {m.split(".")[0] for m in loaded} & {
        "numpy",
        "pyarrow",
        "duckdb",
        "pydantic",
        "typer",
        *HEAVY,
    } == set()


GUARDED = """
import json, os, sys
import numpy, pyarrow, pyarrow.parquet, jsonschema, pydantic, rfc8785, typer
FORBIDDEN = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "subprocess.", "os.system", "os.exec", "os.posix_spawn",
             "os.spawn", "os.fork", "pty.", "webbrowser.", "pickle.", "os.remove", "os.rename", "shutil.")
seen, written = [], []

def hook(event, arguments):
    if event.startswith(FORBIDDEN):
        seen.append(event)
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        mode, flags = arguments[1] or "", arguments[2] or 0
        if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(str(arguments[0]))

from atlas_schema.cli import verify
import atlas_schema.evidence.bundle, atlas_schema.verify.verifier, atlas_schema.verify.reproduction, atlas_schema.verify.binding
import atlas_schema.measures.summarise, atlas_schema.reports.text
sys.addaudithook(hook)
sys.argv = ["atlas-verify", *sys.argv[1:]]
try:
    verify.main()
except SystemExit as ended:
    code = ended.code
print(json.dumps({"code": code, "seen": sorted(set(seen)), "written": written, "modules": sorted(sys.modules)}))
"""


def test_verifying_reaches_no_network_starts_no_process_and_writes_nothing(tmp_path: Path) -> None:
    """Held by an audit hook while a real receipt is verified, and by what is loaded afterwards.

    What cannot be held: `socket` and `ssl` are loaded, by `email.utils` (under `importlib.metadata`) and `pyarrow.fs`.
    Neither is used.
    """
    folder = study().write(tmp_path / "study")
    (folder / "receipt.json").write_text(document_text(honest()), encoding="utf-8")
    found = python(GUARDED, folder / "receipt.json", "--contract", folder / "contract.json")
    assert found["code"] == 0
    assert found["seen"] == []
    assert found["written"] == []
    loaded = set(found["modules"])
    assert {m for m in loaded if m in NETWORK or m.split(".")[0] in NETWORK} == set()
    assert {m for m in loaded if m.split(".")[0] in (*HEAVY, "scipy", "duckdb", "atlas_extractors")} == set()
    assert "atlas_schema.evidence.store" not in loaded


def test_checking_a_signature_reaches_no_network_and_writes_nothing(tmp_path: Path) -> None:
    folder = study().write(tmp_path / "study")
    receipt = folder / "receipt.json"
    receipt.write_text(document_text(honest()), encoding="utf-8")
    made = statement_over(load(receipt, contract=str(folder / "contract.json")))
    assert made is not None
    signature_path(receipt).write_bytes(written(sign(statement_bytes(made), key(1))))
    (tmp_path / "key.pub").write_bytes(public_pem(key(1).public))
    call = (receipt, "--contract", folder / "contract.json", "--key", tmp_path / "key.pub", "--profile", "release")
    found = python(GUARDED, *call)
    assert (found["code"], found["seen"], found["written"]) == (0, [], [])
    loaded = {m.split(".")[0] for m in found["modules"]}
    assert "cryptography" in loaded
    assert not loaded & {"sigstore", "requests", "urllib3"}


# --- habits -------------------------------------------------------------------------------------------------------


def nodes(kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[tuple[Path, Any]]:
    for path in SHIPPED:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield path, node


def test_no_assert_statement_ships() -> None:
    assert [f"{name(p)}:{n.lineno}" for p, n in nodes(ast.Assert)] == []


def test_broad_excepts_stand_at_the_boundary_only() -> None:
    """A fault must never look like a verdict, so the reviewer's command catches everything; nothing else in the core does."""
    broad = ("Exception", "BaseException")
    found: dict[str, int] = {}
    for path, handler in nodes(ast.ExceptHandler):
        names = {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)} if handler.type else {"BaseException"}
        rethrown = any(isinstance(n, ast.Raise) and n.exc is None for n in handler.body)
        if names & set(broad) and not rethrown and path.is_relative_to(CORE):
            found[name(path)] = found.get(name(path), 0) + 1
    assert found == {"atlas_schema/cli/verify.py": 2}


def test_nothing_is_evaluated_or_unpickled() -> None:
    risky = {"eval", "exec", "compile", "__import__", "pickle", "marshal", "shelve", "yaml"}
    found = [f"{name(p)}:{n.lineno} {n.id}" for p, n in nodes(ast.Name) if n.id in risky and p.is_relative_to(CORE)]
    assert found == []


def test_functions_are_short() -> None:
    functions = [(p, n) for p, n in nodes((ast.FunctionDef, ast.AsyncFunctionDef)) if p.is_relative_to(CORE)]
    lengths = sorted((n.end_lineno or n.lineno) - n.lineno + 1 for _, n in functions)
    long = [f"{name(p)} {n.name}" for p, n in functions if (n.end_lineno or n.lineno) - n.lineno + 1 > 60]
    assert long == []
    assert lengths[len(lengths) // 2] < 15


def code_lines(path: Path) -> int:
    """Count lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    prose: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in quiet:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - prose)


def test_what_decides_a_verdict_can_be_read_in_an_afternoon() -> None:
    def files(parts: tuple[str, ...]) -> set[Path]:
        return {p for part in parts for p in ([CORE / part] if part.endswith(".py") else (CORE / part).rglob("*.py"))}

    beside = {CORE / part for part in BESIDE}
    assert beside <= files(TRUSTED)
    assert sum(map(code_lines, files(TRUSTED) - files(VOUCHING) - files(RECORDS) - beside)) < 4800
    assert sum(map(code_lines, files(VOUCHING))) < 600
    assert sum(map(code_lines, files(RECORDS))) < 1200
    assert sum(map(code_lines, beside)) < 600


def test_public_functions_and_classes_say_what_they_do() -> None:
    silent = []
    for path in SHIPPED:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
        silent += [f"{name(path)} {n.name}" for n in public if not ast.get_docstring(n)]
        silent += [] if ast.get_docstring(tree) or not tree.body else [name(path)]
    assert silent == []


def test_tests_mirror_packages() -> None:
    packages = {p.name for p in CORE.iterdir() if (p / "__init__.py").is_file()}
    mirrored = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir() and list(p.glob("test_*.py"))}
    # The demo is run by the command's tests; the run log by those of the commands that write it.
    assert packages - mirrored <= {"demo", "protocol", "verdict"}
    assert mirrored - packages <= {"attacks", "extractors", "fuzz", "mutation", "naive", "docs", "properties"}
