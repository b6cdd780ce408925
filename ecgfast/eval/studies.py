"""From scores of videos to scores of studies: what a reader decides on is a study, not a video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEANS = ("score", "survival", "embedding")  # averaged; of `scores` each run's
ANY = ("trained_on", "pretrained_on")
UNKNOWN = ("", "None", "nan", "<NA>")


def whose(found: Mapping[str, NDArray[Any]], *, videos: bool) -> NDArray[np.str_]:
    """The patient of each record, whom a bootstrap draws or leaves as a whole.

    A record of nobody known is a patient of its own; the videos of a study are one patient's, also
    of one whom nobody knows.

    Args:
        found: Columns ``(N,)``: record_id, patient_id, and study_id if there is one.
        videos: Whether the records are videos, or their studies.

    Example:
        >>> whose(
        ...     {
        ...         "record_id": np.array(["a", "b", "c"]),
        ...         "patient_id": np.array(["", "", "p"]),
        ...         "study_id": np.array(["s", "s", "t"]),
        ...     },
        ...     videos=True,
        ... ).tolist()
        ['study s', 'study s', 'p']
    """
    patient = np.asarray(found["patient_id"]).astype(str)
    own = np.char.add("record ", np.asarray(found["record_id"]).astype(str))
    if videos and "study_id" in found:
        study = np.asarray(found["study_id"]).astype(str)
        own = np.where(np.isin(study, UNKNOWN), own, np.char.add("study ", study))
    return np.where(np.isin(patient, UNKNOWN), own, patient)


def by_study(
    found: Mapping[str, NDArray[Any]], label: NDArray[Any] | None = None
) -> dict[str, NDArray[Any]]:
    """Averages what is said of the videos of each study (Holste et al., Commun Med 2024).

    A study is one of a patient: two patients' studies of one name stay two. A video whose study
    nobody knows is a study of its own. A study has been trained on if one of its videos has. What
    else is known is that of the first video.

    Args:
        found: Columns ``(N, ...)``, of ``scores`` ``(S, N, ...)``: record_id, patient_id, study_id.
        label: ``(N,)``, where it is not the column ``label``.

    Returns:
        The same columns of M studies in the order of their first videos, with record_id the
        study's id (``patient/study`` where it is not the only one of that name), and ``videos``
        ``(M,)``, how many each has.

    Raises:
        ValueError: Videos of one study have different labels.

    Example:
        >>> found = by_study({
        ...     "record_id": np.array(["a", "b", "c"]),
        ...     "patient_id": np.array(["p", "p", "q"]),
        ...     "study_id": np.array(["s", "s", "t"]),
        ...     "score": np.array([0.2, 0.4, 0.9]),
        ... })
        >>> found["record_id"].tolist(), found["score"].round(3).tolist()
        (['s', 't'], [0.3, 0.9])
    """
    names = np.asarray(found["record_id"]).astype(str)
    study = np.asarray(found["study_id"]).astype(str)
    alone = np.isin(study, UNKNOWN)
    patient = np.asarray(found["patient_id"]).astype(str)
    pairs = np.stack([np.unique(ids, return_inverse=True)[1] for ids in (patient, study)], axis=1)
    pairs[alone] = np.stack([np.full(alone.sum(), -1), np.flatnonzero(alone)], axis=1)
    _, first, code = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    code = code.reshape(-1)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    first, code = first[order], rank[code]
    count = np.bincount(code, minlength=len(first))

    labels = found.get("label") if label is None else label
    if labels is not None:
        _expect_one(np.asarray(labels), names, study, first, code)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.zeros((len(first), *values.shape[1:]), dtype=np.float64)
        np.add.at(sums, code, values)
        return sums / count.reshape(-1, *[1] * (values.ndim - 1))

    told: dict[str, NDArray[Any]] = {}
    for name, column in found.items():
        if name in MEANS:
            told[name] = mean(column)
        elif name == "scores":
            told[name] = np.stack([mean(one) for one in column])
        elif name in ANY:
            told[name] = np.bincount(code, weights=column, minlength=len(first)) > 0
        else:
            told[name] = np.asarray(column)[first]
    own = np.where(alone, names, study)[first]
    twice = np.unique(own, return_inverse=True, return_counts=True)
    several = twice[2][twice[1]] > 1
    told["record_id"] = np.where(several, _join(patient[first], own, "/"), own)
    return {**told, "videos": count}


def _join(ones: NDArray[Any], others: NDArray[Any], between: str) -> NDArray[Any]:
    return np.char.add(np.char.add(ones, between), others)


def _expect_one(
    labels: NDArray[Any],
    names: NDArray[Any],
    study: NDArray[Any],
    first: NDArray[np.int64],
    code: NDArray[np.int64],
) -> None:
    of_first = labels[first][code]
    differ = of_first != labels
    if labels.dtype.kind == "f":
        differ &= ~(np.isnan(of_first) & np.isnan(labels))
    if differ.any():
        at = int(np.flatnonzero(differ)[0])
        raise ValueError(
            f"error[study_label] {len(np.unique(code[differ]))} of {len(first)} studies have "
            f"videos with different labels (first: study {study[at]}, video {names[at]}): a label "
            "is of a study; mend the table of labels, or score videos (--by record)"
        )
