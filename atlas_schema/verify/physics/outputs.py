"""Outputs, task scores and transport angles (R012, R015, R026 to R028, R131)."""

from __future__ import annotations

import numpy as np

from atlas_schema.evidence.columns import Rows
from atlas_schema.measures.geometry import F64, Ints
from atlas_schema.verify.physics.native import check_present
from atlas_schema.verify.physics.violations import Violation, first_false

SMALL = 1e-6
"""Nats: what a float32 log-softmax may be off near zero, where losses, entropies and divergences are compared."""
RELATIVE = 2.0**-18
"""The same, relative to the larger side."""


def check_output(output: Rows, target: Ints) -> list[Violation]:
    """Check losses, entropies and most likely tokens against each other and the tokens predicted ``[T]`` (R012, R028, R131)."""
    nll, entropy = output["nll"].astype(np.float64), output["entropy"].astype(np.float64)
    found = first_false("ATL-R012", "a loss is negative", output, nll >= 0, nll)
    found += first_false("ATL-R012", "an entropy is negative", output, entropy >= 0, entropy)
    hit = output["top1"] == target
    slack = SMALL + RELATIVE * np.maximum(nll, entropy)
    # Another token is at least as likely: then this one has at most half. The most likely one has at least exp(-entropy).
    found += first_false("ATL-R028", "a token that is not the most likely one is predicted with more than half", output,
                         hit | (nll >= np.log(2.0) - slack) | (nll < 0), nll)  # fmt: skip
    found += first_false("ATL-R028", "the most likely token is less likely than the entropy allows", output,
                         ~hit | (nll <= entropy + slack), nll, entropy)  # fmt: skip
    # Whatever the other tokens do, the entropy is at least that of the two events *this token* and *another token*.
    likely, rest = np.exp(-nll), -np.expm1(-nll)
    least = likely * nll - rest * np.log(np.maximum(rest, 1e-300))
    return found + first_false("ATL-R131", "the entropy is smaller than the loss allows", output,
                               (entropy >= least - 10 * slack) | (nll < 0) | (entropy < 0), entropy, least)  # fmt: skip


def check_divergence(output: Rows, base: Rows, *, arm: bool, equal: bool) -> list[Violation]:
    """Check the divergence from the base at each position against both losses (R015, R027).

    Whatever the other tokens do, the divergence is at least that of the two events *target* and *not target*. ``equal``:
    the weights are the base's, and so is every number of the run.
    """
    found = check_present(output, "kl_from_base", arm)
    if not arm or found:
        return found
    kl = output["kl_from_base"].astype(np.float64)
    n0, n1 = base["nll"].astype(np.float64), output["nll"].astype(np.float64)
    p0, p1 = np.exp(-n0), np.exp(-n1)
    rest0, rest1 = np.maximum(1.0 - p0, 0.0), np.maximum(1.0 - p1, SMALL)
    least = p0 * (n1 - n0) + rest0 * np.log(np.maximum(rest0, 1e-300) / rest1)
    slack = 10 * SMALL * (1.0 + np.abs(np.log(rest1))) + RELATIVE * (np.abs(least) + p0 * n1)
    found += first_false("ATL-R027", "a divergence is negative", output, kl >= -SMALL, kl)
    fits = (kl >= least - slack) | (n0 < 0) | (n1 < 0)  # losses below zero are another rule's
    found += first_false("ATL-R027", "the divergence is smaller than the losses allow", output, fits, kl, least)
    if equal:
        found += first_false("ATL-R027", "weights equal to the base's diverge from it", output, np.abs(kl) <= SMALL, kl)
    return found


def check_task(task: Rows) -> list[Violation]:
    """Check that scores of greedy exact match are 0 or 1 (R012)."""
    fine = (task["score"] == 0) | (task["score"] == 1)
    return first_false("ATL-R012", "a score is neither 0 nor 1", task, fine, task["score"])


def check_transport(update: Rows, *, arm: bool, equal: bool) -> list[Violation]:
    """Check the angle that a layer's own attention and norm add (R015, R026). ``equal``: these tensors are the base's."""
    found = check_present(update, "transport_angle", arm)
    if not arm or found:
        return found
    angle: F64 = update["transport_angle"]
    found += first_false("ATL-R026", "an angle is not between 0 and 1", update, (angle >= 0) & (angle <= 1), angle)
    if equal:
        found += first_false("ATL-R026", "equal attention and norm turn the state", update, angle == 0, angle)
    return found
