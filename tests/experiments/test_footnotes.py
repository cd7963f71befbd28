"""Footnotes of a table: sums over seeds, correct plurals, and the words of the data it is about."""

from dataclasses import replace

import numpy as np

from discl_ray.data.notes import NOTES
from discl_ray.experiments.cells import Cell
from discl_ray.experiments.footnotes import Computed, notes, probes_of, synthetic_images_of
from discl_ray.experiments.rows import CE, row
from discl_ray.experiments.statistics import Predicted
from discl_ray.experiments.tables import Table

WEB = row("web", "all_level", web="retrieved")
COLUMN = ("top1", "few")
TABLE = Table(rows=(CE, WEB), baselines={WEB.label: CE.label}, columns=(COLUMN,))


def cell(**values: object) -> Cell:
    label = np.zeros(4, np.int64)
    predicted = {COLUMN: Predicted(label, label, np.array([True, True, False, True]))}
    plain = Cell(predicted=predicted, history=[], openings=1, read={}, device="the CPU")
    return plain._replace(**values)


def computed(seeds: int = 2) -> Computed:
    cells = {seed: {"CE": cell(), "web": cell(openings=2)} for seed in range(seeds)}
    return Computed(
        cells=cells, hard=[3, 5], probes={}, data="imagefolder", caveat="", since_made=("It moved",)
    )


def test_notes_say_what_figures_rest_on_in_the_words_of_the_data() -> None:
    text = notes(TABLE, computed(), "make compare", 12)
    for part in (
        "- 2 seeds; a seed redraws the splits",
        "few 3; hard training images: 3 to 5.",
        "2 cells 1 time, 2 cells 2 times.",
        "- It moved.",
        "by one worker, on the CPU.",
        "Command: `make compare`, commit ",
        "Wall time 12 s",
    ):
        assert part in text
    assert "digit" not in text
    assert "writer" not in text
    assert "- 1 seed; " in notes(TABLE, computed(1), "", 0)
    for name, own in NOTES.items():
        assert own.redrawn in notes(TABLE, replace(computed(), data=name), "", 0)


def test_adaptive_rows_bring_their_probes_and_ensembles_their_alphas() -> None:
    plain = computed()
    cells = {seed: rows | {"CE": cell(read={"alpha": 0.3})} for seed, rows in plain.cells.items()}
    text = notes(TABLE, replace(plain, cells=cells, probes={0: (1, 4)}), "", 0)
    assert "CE: α by seed, chosen on OOD val: 0.3, 0.3." in text
    assert "Probes are not filtered" in text
    assert "λ 0: 25 % of 4." in text


def test_probes_are_summed_over_seeds() -> None:
    assert probes_of([{0: (1, 2), 50: (0, 1)}, {0: (2, 2)}]) == {0: (3, 4), 50: (0, 1)}
    assert probes_of([]) == {}


def test_retrieved_images_are_counted_apart_from_synthetic_ones() -> None:
    history = [{"epoch": 1, "synthetic": 30, "borrowed": 4, "borrowed_real": 4}]
    cells = {0: {"CE": cell(), "web": cell(history=history)}}
    assert synthetic_images_of(CE, cells) == "0"
    assert synthetic_images_of(WEB, cells) == "0, and 26 of the web"
