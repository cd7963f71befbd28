"""What an adaptive curriculum measured, as a table and as a picture."""

import io

import pytest
from PIL import Image

from discl_ray.core.storage import Store
from discl_ray.report.history import (
    PICTURE,
    TABLE,
    history_figure,
    history_picture,
    history_table,
    synthetic_seen,
    within_one_se,
    write_history_report,
)


def record(epoch, **progress):
    """An epoch's record; `p50=(0.1, 0.01)` is the progress of λ = 0.5 and its standard error."""
    row = {"epoch": epoch, "lam": 0.5}
    for name, (mean, se) in progress.items():
        row |= {f"progress_{name[1:]}": mean, f"progress_se_{name[1:]}": se}
    return row


HISTORY = [
    {**record(1, p50=(0.1, 0.01), p100=(0.0, 0.02)), "lead_in_se": 0.5},
    {"epoch": 2, "lam": 1.0},
    {**record(3, p50=(0.3, 0.01), p100=(0.2, 0.02)), "lead_in_se": 2.0},
]


def test_the_table_has_a_line_per_epoch_and_lam():
    assert history_table(HISTORY).splitlines() == [
        "epoch,lam_taken,lead_in_se,lam,progress,se",
        "1,0.5,0.5,0.5,0.1,0.01",
        "1,0.5,0.5,1.0,0.0,0.02",
        "3,0.5,2.0,0.5,0.3,0.01",
        "3,0.5,2.0,1.0,0.2,0.02",
    ]


def test_the_share_of_close_leads():
    assert within_one_se(HISTORY) == 0.5
    assert within_one_se(HISTORY[1:2]) is None


def test_borrowed_real_images_are_no_synthetic_ones():
    told = [{"synthetic": 10, "borrowed": 4, "borrowed_real": 3}, {"synthetic": 5, "borrowed": 0}]
    assert synthetic_seen(told) == 12
    assert synthetic_seen([*told, {"synthetic": 5, "borrowed": 2}]) is None


def test_the_picture_has_a_line_per_lam_with_its_band_and_the_lam_taken():
    top, bottom = history_figure(HISTORY).axes
    lines = {line.get_label(): line for line in top.lines}
    assert list(lines["λ = 0.5"].get_xdata()) == [1, 3]
    assert list(lines["λ = 0.5"].get_ydata()) == pytest.approx([10, 30])  # in points
    assert list(lines["λ = 1"].get_ydata()) == pytest.approx([0, 20])
    heights = [band.get_paths()[0].get_extents().intervaly.tolist() for band in top.collections]
    assert heights == [pytest.approx([9, 31]), pytest.approx([-2, 22])]
    legend = [text.get_text() for text in top.get_legend().get_texts()]
    assert legend == ["λ = 0.5", "λ = 1"]
    (taken,) = bottom.lines
    assert list(taken.get_ydata()) == [0.5, 1.0, 0.5]
    assert bottom.get_ylabel() == "λ taken"
    assert Image.open(io.BytesIO(history_picture(HISTORY))).format == "PNG"


def test_a_run_gets_both_or_without_progress_none(tmp_path):
    store = Store.at(tmp_path)
    write_history_report(store, HISTORY[1:2])
    assert not store.exists(TABLE)
    write_history_report(store, HISTORY)
    assert store.read(TABLE).decode() == history_table(HISTORY)
    assert store.exists(PICTURE)
