"""One model, one fresh process: loads it, binds it, answers requests for evidence until its input closes.

Run as `python -m atlas_extractors.routing.worker` by `atlas_extractors.routing.extract`, which alone writes to the
store. Requests: `batch` (rows of some windows), `check` (the self-check alone), `task`, `finish` (layer rows).
Memory holds one model, the routed layers of the base, and one batch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from atlas_extractors.models.adapters import RoutedLayer
from atlas_extractors.models.binding import BoundModel, bind
from atlas_extractors.models.identity import expert_permutation, layer_digests, lowest_rank, parameter_distance
from atlas_extractors.models.loading import Execution, load_model
from atlas_extractors.routing.capture import capture
from atlas_extractors.routing.channel import Frame, pack, receive, send
from atlas_extractors.routing.evaluator import evaluate
from atlas_extractors.routing.rows import (
    Windows,
    executed_routing,
    layer_row,
    output_rows,
    routing_rows,
    state_rows,
    task_rows,
    update_rows,
    vector_rows,
)
from atlas_schema.errors import AtlasError
from atlas_schema.evidence.tables import Dims
from atlas_schema.protocol.process import process_digest


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker is for. `base` is the base's folder for an arm, the model's own for a null arm, else None."""

    run_id: str
    model: Path
    base: Path | None
    execution: Execution
    layers: tuple[int, ...]
    first_allowed: int
    dims: Dims

    def to_json(self) -> dict[str, Any]:
        """JSON form for the pipe."""
        return {
            "run_id": self.run_id, "model": str(self.model), "base": None if self.base is None else str(self.base),
            "execution": {name: getattr(self.execution, name) for name in Execution.__slots__},
            "layers": list(self.layers), "first_allowed": self.first_allowed,
            "dims": [self.dims.d, self.dims.E, self.dims.k, self.dims.P],
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Job:
        """Inverse of `to_json`."""
        return cls(
            run_id=value["run_id"], model=Path(value["model"]),
            base=None if value["base"] is None else Path(value["base"]), execution=Execution(**value["execution"]),
            layers=tuple(value["layers"]), first_allowed=value["first_allowed"], dims=Dims(*value["dims"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What is known of a layer from the weights alone."""

    rank: int
    digests: dict[str, str]
    permutation: list[int]


class Worker:
    """A loaded, bound model with its stored layers and, for arms and null arms, the base's."""

    def __init__(self, job: Job) -> None:
        self.job = job
        torch.set_num_threads(job.execution.threads)
        model = load_model(job.model, job.execution)
        self.bound: BoundModel = bind(model, job.layers)
        wide = model if job.execution.dtype == "float32" else load_model(job.model, job.execution, dtype="float32")
        self.stored = _stored_layers(wide, job.layers)
        self.parameters = sum(parameter.numel() for parameter in wide.parameters())
        self.base: dict[int, RoutedLayer] | None = None
        self.param_distance = 0.0
        if job.base is not None:
            self._compare_with_base(wide, job.base)
        self.facts = {index: self._layer_facts(wide, index) for index in job.layers}

    def _compare_with_base(self, wide: PreTrainedModel, folder: Path) -> None:
        if folder == self.job.model:
            self.base = self.stored
            return
        base = load_model(folder, self.job.execution, dtype="float32")
        self.base = _stored_layers(base, self.job.layers)
        self.param_distance = parameter_distance(base, wide)

    def _layer_facts(self, wide: PreTrainedModel, index: int) -> LayerFacts:
        stored = self.stored[index]
        reference = stored if self.base is None else self.base[index]
        return LayerFacts(
            rank=lowest_rank(stored.gate_up),
            digests=layer_digests(wide, self.bound.row, stored),
            permutation=[int(place) for place in expert_permutation(reference.gate_up, stored.gate_up)],
        )

    def hello(self) -> dict[str, Any]:
        """Facts for the `run` row that only the loaded model gives."""
        return {
            "adapter": self.bound.row.model_type,
            "architecture": type(self.bound.model).__name__,
            "parameters": self.parameters,
            "param_distance": self.param_distance,
            "process": process_digest(),
        }

    def answer(self, request: Frame) -> tuple[dict[str, Any], list[bytes]]:
        """Carry out one request."""
        header = request.header
        match header["op"]:
            case "batch":
                return self._batch(header, request.blobs)
            case "check":
                errors = capture(self.bound, self._tokens(header["tokens"])).layers
                return {"errors": {str(i): layer.reconstruction_error for i, layer in errors.items()}}, []
            case "task":
                return self._task(header)
            case "finish":
                return self._finish(header["errors"])
        raise ValueError(f"unknown request {header['op']!r}")

    def _tokens(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int64, device=self.bound.model.device)

    def _batch(self, header: dict[str, Any], blobs: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        windows = Windows(tuple(header["ids"]), np.array(header["tokens"]), np.array(header["positions"]))
        captured = capture(self.bound, self._tokens(header["tokens"]))
        job = self.job
        tables: list[tuple[str, bytes]] = []
        errors: dict[str, float] = {}
        for place, (index, layer) in enumerate(captured.layers.items()):
            live, stored = self.bound.layers[index].live, self.stored[index]
            executed = executed_routing(layer, live)
            rows = routing_rows(job.run_id, index, job.dims, windows, executed, first_allowed=job.first_allowed)
            tables.append(("routing", pack(rows)))
            states = state_rows(job.run_id, index, job.dims, windows, layer, executed, live, stored)
            tables.append(("state", pack(states)))
            if self.base is not None:
                z0 = torch.from_numpy(np.frombuffer(blobs[place], dtype="<f4").reshape(-1, job.dims.d).copy())
                same = evaluate(self.base[index], stored, z0.to(stored.router_weight.device)).cpu()
                tables.append(("update", pack(update_rows(job.run_id, index, job.dims, windows, same))))
                chosen = np.array(header["vectors"], dtype=np.bool_)
                if chosen.any():
                    vectors = vector_rows(job.run_id, index, job.dims, windows, same, chosen)
                    tables.append(("update_vector", pack(vectors)))
            errors[str(index)] = layer.reconstruction_error
        tables.append(("output", pack(output_rows(job.run_id, job.dims, windows, captured.logits))))
        return {"errors": errors, "tables": [name for name, _ in tables]}, [blob for _, blob in tables]

    def _task(self, header: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Greedy exactness, teacher-forced: 1 where every answer token is the most likely one given all before it."""
        tokens, answer = self._tokens(header["tokens"]), int(header["answer_length"])
        with torch.inference_mode():
            logits = self.bound.model(input_ids=tokens, use_cache=False, logits_to_keep=answer + 1).logits
        exact = (logits[:, :-1].argmax(dim=-1) == tokens[:, -answer:]).all(dim=1)
        rows = task_rows(self.job.run_id, self.job.dims, header["ids"], exact.double().tolist())
        return {"tables": ["task"]}, [pack(rows)]

    def _finish(self, errors: dict[str, float]) -> tuple[dict[str, Any], list[bytes]]:
        blobs = []
        for index in self.job.layers:
            facts = self.facts[index]
            row = layer_row(
                self.job.run_id, self.job.dims, self.stored[index], executed_dtype=self.job.execution.dtype,
                rank=facts.rank, digests=facts.digests, reconstruction_error=errors[str(index)],
                permutation=np.array(facts.permutation, dtype=np.uint16),
            )  # fmt: skip
            blobs.append(pack(row))
        return {"tables": ["layer"] * len(blobs)}, blobs


def _stored_layers(model: PreTrainedModel, layers: Sequence[int]) -> dict[int, RoutedLayer]:
    """Proved layers of a model loaded in float32; the rest of the model may be dropped."""
    bound = bind(model, layers)
    return {index: layer.live.to(torch.float32) for index, layer in bound.layers.items()}


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until the input closes. Anticipated failures travel back as a frame and end the worker."""
    first = receive(requests)
    if first is None:
        return
    try:
        worker = Worker(Job.from_json(first.header))
        send(replies, worker.hello())
        while (request := receive(requests)) is not None:
            header, blobs = worker.answer(request)
            send(replies, header, blobs)
    except AtlasError as error:
        parts = {name: getattr(error, name) for name in ("what", "where", "expected", "found", "todo")}
        send(replies, {"error": {"kind": type(error).__name__, **parts}})
    except BrokenPipeError:
        return  # the extraction has gone; what it committed is in the store


def main() -> None:
    """Serve on the original standard input and output; whatever libraries print goes to standard error."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
