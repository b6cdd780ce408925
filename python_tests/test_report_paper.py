"""ECG paper: true to scale, complete, and blank where nothing was recorded."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfast.config import LEADS
from ecgfast.report.paper import beat_page, ecg_page, fitting_page

draw = ecg_page.__wrapped__  # the figure, before it becomes an image


def lines_of(figure):
    return [np.stack(line.get_data()) for line in figure.axes[0].lines]


def test_a_millivolt_is_ten_millimetres_and_a_second_twenty_five():
    ecg = np.zeros((12, 2500))
    ecg[:, 1::250] = 1.0  # a spike of 1 mV each second
    figure = draw(ecg, LEADS, 250.0, title="x", synthetic=False)
    axis = figure.axes[0]
    assert figure.get_figwidth() * 25.4 == pytest.approx(np.ptp(axis.get_xlim()))
    assert figure.get_figheight() * 25.4 == pytest.approx(np.ptp(axis.get_ylim()))
    lines = lines_of(figure)
    pulses = [line for line in lines if line.shape[1] == 6]
    assert len(pulses) == 4
    for pulse in pulses:
        assert np.ptp(pulse[1]) == pytest.approx(10)
        assert pulse[0, 3] - pulse[0, 2] == pytest.approx(5)
    traces = [line for line in lines if line.shape[1] > 600]
    assert [line.shape[1] for line in traces] == [625] * 12 + [2500]
    strip = traces[-1]
    assert np.ptp(strip[1]) == pytest.approx(10)
    assert np.diff(strip[0, strip[1] > strip[1].min() + 5]) == pytest.approx(25)


def test_columns_show_successive_times_and_leads_by_name():
    ecg = np.arange(12)[:, None] * 100 + np.linspace(0, 1, 2500)
    order = [LEADS.index(n) for n in reversed(LEADS)]
    figures = [
        draw(ecg, LEADS, 250.0, title="x", synthetic=False),
        draw(ecg[order], tuple(LEADS[i] for i in order), 250.0, title="x", synthetic=False),
    ]
    for a, b in zip(*(lines_of(f) for f in figures), strict=True):
        np.testing.assert_array_equal(a, b)
    names = [t.get_text() for t in figures[0].axes[0].texts]
    assert names[:13] == [
        *("I", "aVR", "V1", "V4", "II", "aVL", "V2", "V5", "III", "aVF", "V3", "V6", "II")
    ]


def test_gaps_stay_gaps():
    ecg = np.zeros((12, 2500))
    ecg[LEADS.index("V1")] = np.nan
    ecg[LEADS.index("V2"), 1300:1400] = np.nan
    figure = draw(ecg, LEADS, 250.0, title="x", synthetic=False)
    assert "not recorded" in [t.get_text() for t in figure.axes[0].texts]
    traces = [line for line in lines_of(figure) if line.shape[1] > 600]
    assert len(traces) == 12
    assert sum(np.isnan(line[1]).sum() for line in traces) == 100


@pytest.mark.parametrize("leads", [["II"], LEADS[:8], [*LEADS, "V7"]])
def test_other_leads_get_a_row_each(leads):
    figure = draw(np.zeros((len(leads), 5000)), tuple(leads), 500.0, title="x", synthetic=True)
    rows = 4 if set(LEADS) <= set(leads) else len(leads)
    assert figure.get_figheight() * 25.4 == pytest.approx(11 + 28 * rows + 8)
    assert "SYNTHETIC" in [t.get_text() for t in figure.axes[0].texts]


def test_a_long_record_is_cut_and_says_so():
    figure = draw(np.zeros((1, 7500)), ("II",), 250.0, title="x", synthetic=False)
    assert any("first 10 s of 30 s" in t.get_text() for t in figure.axes[0].texts)
    assert figure.get_figwidth() * 25.4 == pytest.approx(14 + 250 + 4)


def test_a_beat_is_drawn_whole_in_every_lead():
    ecg = np.random.default_rng(0).normal(size=(12, 608))
    ecg[3, 100:120] = np.nan
    figure = beat_page.__wrapped__(ecg, LEADS, 500.0, title="a beat", synthetic=True)
    names = [axis.get_title(loc="left") for axis in figure.axes]
    assert names[:4] == ["I", "aVR", "V1", "V4"]
    assert sorted(names) == sorted(LEADS)
    for axis, name in zip(figure.axes, names, strict=True):
        time, values = axis.lines[0].get_data()
        lead = ecg[LEADS.index(name)]
        assert time[-1] == pytest.approx(1000 * 607 / 500)
        np.testing.assert_allclose(np.diff(values), np.diff(lead))
    assert "SYNTHETIC" in figure.get_label()
    two = beat_page.__wrapped__(ecg[:2], ("I", "II"), 500.0, title="two", synthetic=False)
    assert len(two.axes) == 2


def test_a_page_of_paper_takes_records_of_two_and_a_half_seconds():
    words = {"title": "a record", "synthetic": False}
    short, long = np.zeros((12, 249)), np.zeros((12, 250))
    assert fitting_page(short, LEADS, 100.0, **words) == beat_page(short, LEADS, 100.0, **words)
    assert fitting_page(long, LEADS, 100.0, **words) == ecg_page(long, LEADS, 100.0, **words)
