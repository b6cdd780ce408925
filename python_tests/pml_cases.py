"""What the tests of ecgfast.pml compare: batches by label pattern, and kinds of lists."""

from __future__ import annotations

import torch

PATTERNS = {
    "pairs": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    "fours": [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
    "one_class": [7] * 6,
    "all_different": list(range(8)),
    "unequal": [0, 0, 0, 0, 0, 1, 1, 2, 5, 5, 0, 9],
    "wide_labels": [2**40, -3, 2**40, -3, 2**40 + 1, 2**40 + 1, -3],
    "one_row": [0],
}
KINDS = ["none", "triplets", "pairs", "repeated", "empty", "only_positives"]
REFERENCES = ["none", "other", "shared_rows"]


def rows(count, width=6, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=draw, dtype=torch.float64).to(dtype)


def references(kind, embeddings, labels):
    """Other rows to compare with, and their labels."""
    if kind == "none":
        return None, None
    other, its_labels = rows(9, embeddings.shape[1], seed=5), labels.repeat(9)[:9].flip(0)
    if kind == "other":
        return other.to(embeddings), its_labels
    return torch.cat([embeddings.detach(), other.to(embeddings)]), torch.cat([labels, its_labels])


def lists(kind, labels, ref_labels, seed=0):
    """An indices_tuple as a miner may give it."""
    if kind == "none":
        return None
    draw = torch.Generator().manual_seed(seed)
    partners = labels if ref_labels is None else ref_labels
    same = labels[:, None] == partners
    other = ~same
    if ref_labels is None:
        same = same & ~torch.eye(len(labels), dtype=torch.bool)
    a1, p = same.nonzero().unbind(1)
    a2, n = other.nonzero().unbind(1)
    if kind == "empty":
        return (a1[:0],) * 3
    if kind == "only_positives":
        return a1, p, a2[:0], n[:0]
    if kind == "pairs":  # some of each, in no order
        some = torch.randperm(len(a1), generator=draw)[: 1 + len(a1) // 2]
        more = torch.randperm(len(a2), generator=draw)[: 1 + len(a2) // 2]
        return a1[some], p[some], a2[more], n[more]
    pairs, rivals = (a1[:, None] == a2).nonzero().unbind(1)
    some = torch.randperm(len(pairs), generator=draw)[: 1 + len(pairs) // 4]
    if kind == "repeated":
        some = torch.cat([some, some[: 1 + len(some) // 2], some[:1]])
    return a1[pairs[some]], p[pairs[some]], n[rivals[some]]


def outcome(loss, embeddings, labels, indices=None, ref_emb=None, ref_labels=None, before=None):
    """Value, and gradients of embeddings and of references."""
    leaves = [x.detach().clone().requires_grad_() for x in (embeddings, ref_emb) if x is not None]
    given = leaves if before is None else [before(x) for x in leaves]
    ref_emb = given[1] if len(given) > 1 else None
    copies = None if indices is None else tuple(x.clone() for x in indices)
    value = loss(given[0], labels, copies, ref_emb, ref_labels)
    gradients = [torch.zeros_like(x) for x in leaves]
    if value.requires_grad:
        found = torch.autograd.grad(value, leaves, allow_unused=True)
        pairs = zip(found, gradients, strict=True)
        gradients = [zero if g is None else g for g, zero in pairs]
    return [value.detach(), *gradients]
