"""What extraction costs over plain forward passes of the same model and windows, and its memory against their number.

    python benchmarks/extraction.py             # speed: plain passes and extractions in turn, medians per batch
    python benchmarks/extraction.py --memory    # peak memory of both processes at two numbers of windows

The model is a random OLMoE of about 135 million parameters: width 512, 6 layers of 32 experts of width 384, top-4, 16,384
tokens of vocabulary. Windows have 256 tokens, 16 of them sampled, and half of the layers are protected. Weights are random,
since cost does not depend on them. "Extraction" is the real command's: worker process, hooks, every routed expert's update
and its self-check, rows, pipe, DuckDB. Per batch, from one commit to the next; loading and hashing are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from atlas_extractors.models.loading import Execution, load_model
from atlas_extractors.routing.extract import Request, extract
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast

from atlas_schema.canonical import digest_bytes
from atlas_schema.documents.preregistration import PlannedArm
from atlas_schema.study.contracts import load_contract
from atlas_schema.study.preregister import Plan, write_preregistration
from atlas_schema.study.probe import encode, load_tokenizer, load_windows

SIZES: dict[str, Any] = {
    "vocab_size": 16_384, "hidden_size": 512, "intermediate_size": 384, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_experts": 32, "num_experts_per_tok": 4, "norm_topk_prob": True, "max_position_embeddings": 512,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
LAYERS, TOKENS, POSITIONS, BATCH = (1, 3, 5), 256, 16, 8
EXECUTION = Execution(batch_size=BATCH, attention="sdpa")
ARM_FACTOR = 2  # an arm's run also runs the base


def make_model(folder: Path, seed: int) -> Path:
    """A random model with a byte tokenizer, saved in bfloat16."""
    torch.manual_seed(seed)
    model = OlmoeForCausalLM(OlmoeConfig(**SIZES)).to(torch.bfloat16)
    model.save_pretrained(folder)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE(vocab={symbols[byte]: byte for byte in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def make_study(folder: Path, base: Path, windows: int) -> Path:
    """A pre-registration of one arm over made-up text, one window in eight for evaluation."""
    folder.mkdir()
    text = [
        f"window {at} " + "".join(chr(97 + (7 * at + at * i * i) % 26) for i in range(TOKENS)) for at in range(windows)
    ]
    rows = [
        {"window_id": f"w{at:05d}", "cluster_id": digest_bytes(b"%d" % at), "domain": "made-up", "source": "made up",
         "licence": "CC0-1.0", "text": line[:TOKENS], "split": "evaluation" if at % 8 == 0 else "probe"}
        for at, line in enumerate(text)
    ]  # fmt: skip
    items = [{"item_id": f"i{at}", "prompt": f"say {at}:", "answer": "a"} for at in range(100)]
    for name, lines in (("windows.jsonl", rows), ("task.jsonl", items)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    plan = Plan(
        study="bench", base=base, base_name="bench", windows=folder / "windows.jsonl", task=folder / "task.jsonl",
        contract=load_contract("chart-preserving.v1"), protected_layers=LAYERS, positions_per_window=POSITIONS,
        first_allowed_position=1, overlap_pairs=16, target=0.5, tolerance=0.05, damage_tolerance_nats=0.05,
        arms=(PlannedArm(name="arm", policy="random", chart_preserving=True),), pilot=None, notes="a benchmark",
    )  # fmt: skip
    write_preregistration(plan, folder / "preregistration.json")
    return folder / "preregistration.json"


class Stopwatch:
    """Seconds from one commit to the next, per run. The first batch of a run, which includes starting, is left out."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._last: float | None = None

    def run_started(self, run_id: str, batches: int, done: int) -> None:
        self._last = None

    def batch_done(self, run_id: str) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.setdefault(run_id, []).append(now - self._last)
        self._last = now

    def run_finished(self, run_id: str, *, resumed: bool) -> None:
        self._last = None


def plain(base: Path, prereg: Path) -> list[float]:
    """Seconds per batch of plain forward passes, in this process, under the execution of the extraction."""
    torch.set_num_threads(EXECUTION.threads)
    model, tokenizer = load_model(base, EXECUTION), load_tokenizer(base)
    tokens = [encode(tokenizer, window.text) for window in load_windows(prereg.with_name("windows.jsonl"))]
    found = []
    with torch.inference_mode():
        for start in range(0, len(tokens), BATCH):
            begun = time.perf_counter()
            model(input_ids=torch.tensor(tokens[start : start + BATCH]), use_cache=False)
            found.append(time.perf_counter() - begun)
    return found[1:]


def extraction(base: Path, arm: Path, prereg: Path, evidence: Path) -> dict[str, list[float]]:
    """Seconds per batch of the base's and the arm's run."""
    watch = Stopwatch()
    extract(Request(prereg, base, {"arm": arm}, evidence, EXECUTION), watch)
    return {run: watch.seconds.get(run, []) for run in ("base", "arm:arm")}


def child(*arguments: str) -> Any:
    """One measurement in a process of its own; it prints JSON on the last line."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def speed(folder: Path, windows: int, rounds: int) -> None:
    base, arm = make_model(folder / "base", 0), make_model(folder / "arm", 1)
    prereg = make_study(folder / "study", base, windows)
    passes: list[float] = []
    runs: dict[str, list[float]] = {"base": [], "arm:arm": []}
    for turn in range(rounds):
        passes += child("--plain", str(base), str(prereg))
        evidence = folder / f"{turn}.duckdb"
        for run, seconds in child("--extract", str(base), str(arm), str(prereg), str(evidence)).items():
            runs[run] += seconds
        evidence.unlink()
    passes += child("--plain", str(base), str(prereg))
    one = statistics.median(passes)
    print(f"{windows} windows of {TOKENS} tokens, batches of {BATCH}, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"plain forward             {one:8.3f} s per batch (median; fastest {min(passes):.3f})")
    for run, factor in (("base", 1), ("arm:arm", ARM_FACTOR)):
        middle, fastest = statistics.median(runs[run]), min(runs[run])
        ratios = f"{middle / one / factor:.2f} (fastest {fastest / min(passes) / factor:.2f})"
        print(f"extraction of {run:10s}  {middle:8.3f} s per batch: {ratios} times {factor} plain forward")


def memory(folder: Path, windows: int) -> None:
    base, arm = make_model(folder / "base", 0), make_model(folder / "arm", 1)
    for number in (windows, 4 * windows):
        prereg = make_study(folder / f"study{number}", base, number)
        peaks = child("--peak", str(base), str(arm), str(prereg), str(folder / f"{number}.duckdb"))
        print(f"{number:6d} windows: worker {peaks['worker']:7.0f} MiB, extraction {peaks['extraction']:7.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    for name, count in (("--plain", 2), ("--extract", 4), ("--peak", 4)):
        parser.add_argument(name, nargs=count, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain:
        print(json.dumps(plain(*given.plain)))
    elif given.extract:
        print(json.dumps(extraction(*given.extract)))
    elif given.peak:
        extraction(*given.peak)
        used = {"worker": resource.RUSAGE_CHILDREN, "extraction": resource.RUSAGE_SELF}
        print(json.dumps({name: resource.getrusage(who).ru_maxrss / 1024 for name, who in used.items()}))
    else:
        with tempfile.TemporaryDirectory() as name:
            (memory if given.memory else speed)(
                Path(name), *([given.windows] if given.memory else [given.windows, given.rounds])
            )


if __name__ == "__main__":
    main()
