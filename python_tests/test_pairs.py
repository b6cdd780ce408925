"""Numbers of labels, relations of pairs, strips of products."""

from __future__ import annotations

import pytest
import torch

from ecgfast.ops._pairs import all_pairs, relations
from ecgfast.ops._strips import add_product, products


def test_labels_are_equal_where_they_were_equal():
    x = torch.randn(5, 3)
    big = torch.tensor([2**40, -7, 2**40, 2**33, -(2**62)])
    pairs = all_pairs(x, big, groups=torch.tensor([1, 1, 2, 2, 3]))
    assert pairs.row_labels.tolist() == [3, 1, 3, 2, 0]
    assert pairs.row_labels.dtype == torch.int32
    positive, negative = relations(pairs)
    for i in range(5):
        for j in range(5):
            assert positive[i, j] == (i != j and big[i] == big[j])
            alone = pairs.row_groups[i] != pairs.column_groups[j]
            assert negative[i, j] == bool(big[i] != big[j] and alone)


def test_both_sides_are_numbered_together():
    pairs = all_pairs(
        torch.randn(2, 3),
        torch.tensor([9, 4]),
        references=torch.randn(3, 3),
        reference_labels=torch.tensor([4, 100, 9]),
        places=torch.tensor([2, -1]),
    )
    positive, negative = relations(pairs)
    assert positive.tolist() == [[False, False, False], [True, False, False]]
    assert negative.tolist() == [[True, True, False], [False, True, True]]


def test_no_rows():
    pairs = all_pairs(torch.randn(0, 3), torch.empty(0, dtype=torch.int64))
    assert relations(pairs)[0].shape == (0, 0)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"embeddings": torch.randn(3)}, "embeddings must be"),
        ({"embeddings": torch.randn(3, 0)}, "D > 0"),
        ({"embeddings": torch.ones(3, 2, dtype=torch.int64)}, "float16"),
        ({"labels": torch.arange(4)}, r"labels must be \(3,\)"),
        ({"labels": torch.arange(3.0)}, "label_distance"),
        ({"references": torch.randn(4, 2)}, "reference_labels must be given"),
        ({"reference_labels": torch.arange(3)}, "reference_labels must be given"),
        ({"places": torch.arange(3)}, "no references"),
        (
            {"references": torch.randn(4, 5), "reference_labels": torch.arange(4)},
            "2 columns, references 5",
        ),
        (
            {"references": torch.randn(4, 2).double(), "reference_labels": torch.arange(4)},
            "must be torch.float32",
        ),
        (
            {
                "references": torch.randn(4, 2),
                "reference_labels": torch.arange(4),
                "places": torch.arange(4),
            },
            r"places must be \(3,\)",
        ),
    ],
)
def test_refuses(words, what):
    given = {"embeddings": torch.randn(3, 2), "labels": torch.arange(3)} | words
    with pytest.raises((ValueError, TypeError), match=what):
        all_pairs(given.pop("embeddings"), given.pop("labels"), **given)


@pytest.mark.parametrize("height", [1, 3, 7, 100, None])
def test_strips_hold_every_product(height):
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    found = torch.cat([strip.clone() for _, strip in products(x, y, height=height)])
    torch.testing.assert_close(found, x @ y.T)
    total = torch.ones(7, 5, dtype=torch.float64)
    add_product(total, found, y)
    torch.testing.assert_close(total, 1 + x @ y.T @ y)


def test_autocast_does_not_touch_the_products():
    x = torch.randn(64, 33)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ((_, strip),) = products(x, x)
    assert torch.equal(strip, x @ x.T)
