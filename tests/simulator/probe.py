"""The probe and the task: windows drawn by the seed, sampled positions, item names, and the files that hold their texts."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from atlas_schema.canonical import digest_bytes
from atlas_schema.study.probe import positions_for, token_digest
from simulator.arithmetic import Ints
from simulator.settings import VOCABULARY, Settings


@dataclass(frozen=True, slots=True)
class Probe:
    """The windows: ids, clusters, domains, tokens and sampled positions, in order of window id."""

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    domains: tuple[str, ...]
    texts: tuple[str, ...]
    splits: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]

    @property
    def lengths(self) -> Ints:
        return np.array([len(t) for t in self.tokens], dtype=np.int64)

    @property
    def token_rows(self) -> tuple[list[str], Ints]:
        """Window id and position of every token."""
        ids = [w for w, t in zip(self.ids, self.tokens, strict=True) for _ in t]
        return ids, np.concatenate([np.arange(n) for n in self.lengths])

    @property
    def sampled(self) -> tuple[list[str], Ints, Ints]:
        """Window id and position of every sampled token, and its row among all tokens."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        ids = [w for w, p in zip(self.ids, self.positions, strict=True) for _ in p]
        rows = np.concatenate([start + np.array(p) for start, p in zip(starts, self.positions, strict=True)])
        return ids, np.concatenate([np.array(p) for p in self.positions]), rows.astype(np.int64)


def make_probe(s: Settings) -> Probe:
    """Draw windows; the first clusters of each domain own two windows each."""
    rng = np.random.default_rng([s.seed, 3])
    entries = []
    for domain, count in s.clusters:
        for c in range(count):
            cluster = digest_bytes(f"{s.seed} {domain} {c}".encode())
            for w in range(2 if c < s.double_windows else 1):
                length = int(rng.integers(s.window_tokens[0], s.window_tokens[1] + 1))
                tokens = tuple(int(t) for t in rng.integers(0, VOCABULARY, length))
                entries.append((f"{domain}-{c:03d}-{w}", cluster, domain, tokens))
    entries.sort()
    positions = [tuple(positions_for(token_digest(t), len(t), s.positions, s.first_allowed)) for *_, t in entries]
    ids, clusters, domains, tokens_of = zip(*entries, strict=True)
    texts = tuple(" ".join(f"t{t}" for t in tokens) for tokens in tokens_of)
    splits = tuple("evaluation" if domains[:at].count(d) < s.evaluation else "probe" for at, d in enumerate(domains))
    return Probe(ids, clusters, domains, texts, splits, tokens_of, tuple(positions))


def predicted_bytes(text: str) -> int:
    """Return the bytes of a text from its second token on."""
    return len(text.encode()) - len(text.split(" ")[0]) - 1


def item_names(s: Settings) -> list[str]:
    return [f"item-{i:04d}" for i in range(s.items)]


def probe_files(s: Settings) -> dict[str, str]:
    """Return the texts of the probe and task files."""
    probe = make_probe(s)
    windows = [
        {
            "window_id": w,
            "cluster_id": c,
            "domain": d,
            "split": split,
            "source": "simulated",
            "licence": "CC0-1.0",
            "text": text,
        }
        for w, c, d, split, text in zip(
            probe.ids, probe.clusters, probe.domains, probe.splits, probe.texts, strict=True
        )
    ]
    items = [{"item_id": name, "prompt": f"t{i}", "answer": f"t{i + 1}"} for i, name in enumerate(item_names(s))]
    return {
        "windows.jsonl": "".join(json.dumps(row) + "\n" for row in windows),
        "task.jsonl": "".join(json.dumps(row) + "\n" for row in items),
    }
