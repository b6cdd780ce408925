"""Checks with names: what is wrong with a record, how much of it, and what can be done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.records import ECG, DataError, Issue

Array = NDArray[np.float64]
Policy = Literal["reject", "keep"]

# every name that can stand in flags, rejected.csv or issues.csv
MEANING = {
    "amplitude_outlier": "samples farther from the lead's median than an ECG goes",
    "blank_page": "a page of one colour: nothing is drawn on it",
    "blank_video": "all pixels of all frames are nearly one colour",
    "checksum_mismatch": "the 16-bit sum of a signal is not the one in its header",
    "colour_doppler": "blood flow in colours where grey is kept: it would look like tissue",
    "corrupt_header": "the header cannot be understood or contradicts itself",
    "crop_unsure": "trimming would leave little of the page, so nothing was trimmed",
    "derived_leads": "leads that were computed from I and II",
    "duplicate_image": "pixel for pixel the same as an earlier page",
    "duplicate_signal": "sample for sample the same as an earlier record",
    "duplicate_video": "frame for frame the same as an earlier video",
    "empty_file": "a file of 0 bytes",
    "encrypted_file": "a PDF that asks for a password",
    "flat_line": "a lead that does not move (variance under 1e-6 mV^2)",
    "fps_unknown": "a video that does not say how many frames a second it has",
    "frozen_video": "a video in which nothing moves",
    "fs_assumed": "the header names no rate, 250 Hz were assumed",
    "fs_mismatch": "a rate other than the one demanded, or several rates in one record",
    "gaps_filled": "short gaps that were bridged by straight lines",
    "lead_relation": "limb leads that contradict Einthoven's and Goldberger's relations",
    "low_frame_rate": "fewer frames a second than asked for: frames are shown more than once",
    "low_resolution": "fewer pixels than the model takes: what was drawn fine is lost",
    "missing_file": "a file that the header names is not there",
    "missing_leads": "a lead that is not there, or has no sample",
    "missing_page": "the file has fewer pages than the one that was asked for",
    "mixed_rates": "frames that do not follow evenly, or rates that contradict each other",
    "mixed_sizes": "frames of different sizes in one video",
    "nan_values": "samples without a value",
    "no_patient_id": "the file names no patient: the video is taken as a patient of its own",
    "no_sector": "nothing that moves has the shape of an ultrasound sector",
    "not_ultrasound": "a DICOM file of another modality",
    "other_signals": "signals that are no lead of the twelve were left out",
    "reader_crashed": "reading it ended the process",
    "region_mismatch": "the region of the picture that the file names does not lie in its frames",
    "saturation": "a lead rests at its highest or lowest value",
    "sector_unsure": "no fan fits what moves, so that its convex hull was kept",
    "several_pages": "a file of several pages, of which one was read",
    "short_after_crop": "shorter than the store's records; zeros follow the n_valid samples",
    "short_video": "fewer frames than asked for",
    "similar_image": "the same picture as an earlier page, saved or scaled again",
    "single_frame": "a still where a clip is needed",
    "size_limit": "larger, or claimed to be larger, than is read",
    "truncated_signal": "fewer samples than the header says",
    "truncated_video": "fewer whole frames than the file says",
    "unit_suspect": "amplitudes that fit another unit than the declared one",
    "unit_unknown": "a unit that is no voltage",
    "unreadable": "not a file of the format",
    "unsafe_path": "a file name that leads out of the record's folder",
    "unsupported_syntax": "a coding of pictures that no decoder at hand reads",
    "wrong_length": "another number of samples or signals than the header says",
}
# what leaves no signal behind; a policy cannot keep it
FATAL = {
    "corrupt_header",
    "empty_file",
    "encrypted_file",
    "missing_file",
    "missing_page",
    "mixed_sizes",
    "reader_crashed",
    "single_frame",
    "size_limit",
    "truncated_signal",
    "unreadable",
    "unsafe_path",
    "unsupported_syntax",
}
ASK_FOR_FEWER = "--leads NAMES asks for fewer"  # where a command can
# what is said of millivolts as recorded, and not after a recipe
OF_RAW_SIGNALS = {"amplitude_outlier", "lead_relation", "saturation", "unit_suspect"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where plausible ends.

    Attributes:
        amplitude_mv: Farthest from a lead's median that is no outlier.
        unit_mv: Range of the typical peak (see unit_suspect) of an ECG in mV.
        relation: Largest relative error of a limb lead.
        saturation_s: Longest rest at the highest or lowest value.
    """

    amplitude_mv: float = 10.0
    unit_mv: tuple[float, float] = (0.05, 20.0)
    relation: float = 0.25
    saturation_s: float = 0.2


def check(
    ecg: ECG, leads: tuple[str, ...], *, fs: float = 0.0, limits: Limits | None = None
) -> list[Issue]:
    """All checks of a record's samples, in the rate it came with.

    Args:
        ecg: The record; only the leads that are asked for are looked at.
        leads: Names that must be there.
        fs: Rate that the record must have, Hz; 0 allows any.
        limits: Where plausible ends.
    """
    limits = limits or Limits()
    issues = []
    if fs and abs(ecg.fs - fs) > 1e-6 * fs:
        text = f"{ecg.fs:g} Hz, demanded were {fs:g} Hz; leave out --fs-source to allow any"
        issues.append(Issue("fs_mismatch", "error", message=text))
    finite = np.isfinite(ecg.signal)
    here = [
        name for name, valid in zip(ecg.leads, finite, strict=True) if name in leads and valid.any()
    ]
    issues += _missing(leads, here, ecg.leads)
    if not here:
        return issues
    rows = [ecg.leads.index(name) for name in here]
    x, ok = ecg.signal[rows], finite[rows]
    issues += _gaps(x, ok, here)
    filled = x if ok.all() else np.where(ok, x, np.nanmedian(x, axis=1, keepdims=True))
    centred = filled - np.median(filled, axis=1, keepdims=True)
    flat = centred.var(axis=1) < 1e-6
    issues += _flat(filled, flat, here, ecg.seconds)
    if flat.all():  # or so small that another unit explains it
        moving = centred[centred.any(axis=1)]
        return issues + (_units(moving, limits) if len(moving) else [])
    issues += _units(centred[~flat], limits)
    issues += _amplitude(centred, here, limits)
    # the mean, other than the median, keeps the relations between leads
    issues += _relation(filled - filled.mean(axis=1, keepdims=True), flat, here, limits)
    issues += _saturation(filled, flat, here, ecg.fs, limits)
    return issues


def apply_policy(
    issues: Iterable[Issue], policy: Mapping[str, Policy]
) -> tuple[list[Issue], list[Issue]]:
    """Sorts issues into those that reject the record and those that it keeps as flags.

    An error rejects, everything else is kept, unless the policy says otherwise for its name.
    """
    rejecting: list[Issue] = []
    kept: list[Issue] = []
    for issue in issues:
        default = "reject" if issue.severity == "error" else "keep"
        wanted = policy.get(issue.name, default)
        (rejecting if wanted == "reject" else kept).append(issue)
    return rejecting, kept


def parse_policy(words: Iterable[str]) -> dict[str, Policy]:
    """`nan_values=keep` and the like, checked against the names there are."""
    policy: dict[str, Policy] = {}
    for word in words:
        name, _, what = word.partition("=")
        if name not in MEANING or what not in ("reject", "keep"):
            known = ", ".join(sorted(set(MEANING) - FATAL))
            raise DataError(f"error[policy] {word!r} is not NAME=reject|keep with NAME of: {known}")
        if name in FATAL and what == "keep":
            raise DataError(f"error[policy] {name} leaves no signal to keep")
        policy[name] = "keep" if what == "keep" else "reject"
    return policy


def _missing(leads: tuple[str, ...], here: list[str], named: tuple[str, ...]) -> list[Issue]:
    absent = [name for name in leads if name not in here]
    if not absent:
        return []
    there = " ".join(here) or f"its signals are called {', '.join(named[:12])}"
    text = f"{len(here)} of {len(leads)} leads are there ({there})"
    way = f"missing: {' '.join(absent)}; {ASK_FOR_FEWER}"
    if {"I", "II"} <= set(here) and set(absent) <= {"III", "aVR", "aVL", "aVF"}:
        way = f"{', '.join(absent)} can be derived exactly: --derive-leads"
    message = f"{text}; {way}"
    return [Issue("missing_leads", "error", "", len(absent), len(leads), message)]


def _gaps(x: Array, ok: NDArray[np.bool_], here: list[str]) -> list[Issue]:
    total = x.shape[1]
    return [
        Issue(
            "nan_values",
            "error",
            f"lead {name}",
            total - int(valid.sum()),
            total,
            f"{total - int(valid.sum())} of {total} samples are NaN "
            f"({100 - 100 * valid.mean():.1f} %); --fill-gaps MS bridges short gaps, "
            "--policy nan_values=keep keeps them",
        )
        for name, valid in zip(here, ok, strict=True)
        if not valid.all()
    ]


def _flat(x: Array, flat: NDArray[np.bool_], here: list[str], seconds: float) -> list[Issue]:
    if not flat.any():
        return []
    names = [name for name, still in zip(here, flat, strict=True) if still]
    levels = ", ".join(f"{level:.3f}" for level in sorted({round(v, 3) for v in x[flat, 0]})[:4])
    every = bool(flat.all())
    text = f"constant at {levels} mV for {seconds:.1f} s; "
    text += "no lead moves" if every else "kept as it is"
    place = f"lead {' '.join(names)}"
    return [Issue("flat_line", "error" if every else "warning", place, len(names), len(here), text)]


def _units(centred: Array, limits: Limits) -> list[Issue]:
    # the median over leads: one bad electrode is no wrong unit
    at = min(centred.shape[1] - 1, int(0.999 * centred.shape[1]))
    peak = float(np.median(np.partition(np.abs(centred), at, axis=1)[:, at]))
    low, high = limits.unit_mv
    if low <= peak <= high:
        return []
    text = f"99.9 % of |x| lie under {peak:.4g} mV (median lead); ECGs have {low:g} to {high:g}"
    severity: Literal["error", "warning"] = "error"
    if 4 * low * 1e3 <= peak <= high * 1e3:
        way = "this looks like microvolts: --units uV"
    elif peak > high:
        way = "saturated, or a wrong gain; --policy unit_suspect=keep"
    elif peak < low / 10:
        way = "this looks like volts: --units V"
    else:
        severity, way = "warning", "a very low voltage, or a wrong gain"
    return [Issue("unit_suspect", severity, message=f"{text}; {way}")]


def _amplitude(centred: Array, here: list[str], limits: Limits) -> list[Issue]:
    size = np.abs(centred)
    over = (size > limits.amplitude_mv).sum(axis=1)
    if not over.any():
        return []
    worst = int(size.max(axis=1).argmax())
    names = [name for name, count in zip(here, over, strict=True) if count]
    text = (
        f"{over.sum()} of {size.size} samples are more than {limits.amplitude_mv:g} mV from the "
        f"median, at most {size.max():.1f} mV in {here[worst]}"
    )
    place = f"lead {' '.join(names)}"
    return [Issue("amplitude_outlier", "warning", place, int(over.sum()), size.size, text)]


_LIMB = ("I", "II", "III", "aVR", "aVL", "aVF")
_FROM_I_II = np.array([[-1.0, 1.0], [-0.5, -0.5], [1.0, -0.5], [-0.5, 1.0]])
_FORMULA = ("III = II - I", "aVR = -(I + II)/2", "aVL = I - II/2", "aVF = II - I/2")


def relation_errors(limb: Array) -> Array:
    """Relative errors (4,) of III, aVR, aVL, aVF against I and II; limb (6, T) without offset.

    The root mean square of the difference over that of the larger side.
    """
    expected = _FROM_I_II @ limb[:2]
    size = np.maximum((expected**2).mean(axis=1), (limb[2:] ** 2).mean(axis=1))
    error: Array = np.sqrt(((limb[2:] - expected) ** 2).mean(axis=1) / np.maximum(size, 1e-12))
    return error


def _relation(
    centred: Array, flat: NDArray[np.bool_], here: list[str], limits: Limits
) -> list[Issue]:
    if not set(_LIMB) <= set(here):
        return []
    rows = [here.index(name) for name in _LIMB]
    if flat[rows].any():
        return []
    limb = centred[rows]
    error = relation_errors(limb)
    broken = [i for i in range(4) if error[i] > limits.relation]
    if not broken:
        return []
    worst = int(error.argmax())
    text = f"{_FORMULA[worst]} does not hold (relative error {100 * error[worst]:.0f} %)"
    place = f"lead {' '.join(_LIMB[2 + i] for i in broken)}"
    for what, order, sign in _mistakes():
        if relation_errors(limb[order] * sign).max() < limits.relation / 2:
            text += (
                f", but all relations do {what}; the leads are named wrongly: --leads-source ORDER"
            )
            return [Issue("lead_relation", "error", place, len(broken), 4, text)]
    return [Issue("lead_relation", "warning", place, len(broken), 4, text)]


def _mistakes() -> Iterable[tuple[str, list[int], Array]]:
    """Ways in which six limb leads are mixed up: two exchanged, aVR inverted, a cycle of three."""
    plain = np.ones((6, 1))
    for a, b in sorted(combinations(range(6), 2), reverse=True):  # aVL and aVF first
        order = list(range(6))
        order[a], order[b] = b, a
        yield f"if leads {a + 1} ({_LIMB[a]}) and {b + 1} ({_LIMB[b]}) are exchanged", order, plain
    inverted = plain.copy()
    inverted[3] = -1
    yield "if aVR is inverted", list(range(6)), inverted
    yield "if leads 4, 5, 6 are in the order aVL, aVF, aVR", [0, 1, 2, 5, 3, 4], plain
    yield "if leads 4, 5, 6 are in the order aVF, aVR, aVL", [0, 1, 2, 4, 5, 3], plain


def _saturation(
    x: Array, flat: NDArray[np.bool_], here: list[str], fs: float, limits: Limits
) -> list[Issue]:
    least = max(2, round(limits.saturation_s * fs))
    rest: dict[str, int] = {}
    for name, lead, still in zip(here, x, flat, strict=True):
        if still:
            continue
        for level in (lead.max(), lead.min()):
            at = lead == level
            if at.sum() < least:  # most leads end here
                continue
            edges = np.flatnonzero(np.diff(np.concatenate(([0], at.view(np.int8), [0]))))
            longest = int((edges[1::2] - edges[::2]).max())
            if longest >= least:
                rest[name] = max(rest.get(name, 0), longest)
    if not rest:
        return []
    name, longest = max(rest.items(), key=lambda item: item[1])
    text = (
        f"{name} rests at its highest or lowest value for {longest / fs:.2f} s "
        f"({longest} of {x.shape[1]} samples)"
    )
    return [Issue("saturation", "warning", f"lead {' '.join(rest)}", longest, x.shape[1], text)]
