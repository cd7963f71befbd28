import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from discl_ray import doctor
from discl_ray.core.storage import Store
from discl_ray.data import READERS
from discl_ray.data.listing import Listing, inline
from discl_ray.data.splits import codes_of, fill_splits, split_codes, split_names
from discl_ray.doctor import (
    IMAGES,
    SHOWN,
    Finding,
    Problem,
    Subject,
    check_class_names,
    check_data,
    check_spectrum,
    every_check,
    examine,
)
from discl_ray.embedded.digits import NAMES, render, scans_of
from discl_ray.errors import ConfigError, DataError, ImageError

CONF = str(Path(__file__).resolve().parents[1] / "conf" / "digits_lt.yaml")


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def rows_of(names, *, split="train", count=5, first=0):
    """`count` digits of each class in the web's look, the i-th class called `names[i]`."""
    rows = []
    for label, name in enumerate(names):
        for scan in [s for s in scans_of((7, 8)) if s.label == label % 10][first : first + count]:
            row = {
                "sample_id": f"{label}/{scan.index}",
                "class_key": name,
                "split": split,
                "bytes": png(render(scan, "web")),
            }
            rows.append(row)
    return rows


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A configured image folder whose reader gives what a test made."""

    def subject(rows, *overrides, conf=(), **listing):
        made = inline(rows, Store.at(tmp_path))
        made = Listing(**{**made.__dict__, **listing})
        monkeypatch.setitem(READERS, "imagefolder", lambda config, seed: made)
        (tmp_path / "own.yaml").write_text(
            f"data: {{name: imagefolder, root: {tmp_path}}}\ngenerator: {{model: {tmp_path}}}\n"
        )
        return Subject([str(tmp_path / "own.yaml"), *conf], overrides)

    return subject


def test_the_embedded_data_set_is_counted_and_its_names_are_known():
    subject = Subject([CONF], ["data.look=web"])
    assert check_data(subject) == "digits_lt: 126 train, 100 val, 340 test; 10 classes"
    text = check_class_names(subject)
    assert (
        text == "the scorer knows them (tried on 10 of 10 classes, up to 3 training images of each)"
    )


def test_a_data_set_is_counted_by_split_and_what_is_open_is_said(folder):
    rows = rows_of(NAMES[:4], count=3) + rows_of(NAMES[:4], split=None, count=2, first=3)
    assert check_data(folder(rows)) == "imagefolder: 12 train, 8 to be split; 4 classes"


def test_a_data_set_that_cannot_be_trained_on_is_a_problem(folder):
    with pytest.raises(Problem, match="1 class; at least two"):
        check_data(folder(rows_of(NAMES[:1])))
    with pytest.raises(Problem, match="no training image among 10"):
        check_data(folder(rows_of(NAMES[:2], split="test")))


def test_the_readers_error_is_reported_once(monkeypatch, folder):
    subject = folder([])

    def nothing(config, seed):
        raise DataError(f"{config.root}: holds no image")

    monkeypatch.setitem(READERS, "imagefolder", nothing)
    checks = [(name, check) for name, check in every_check() if name in ("data", "class names")]
    data, names = examine(subject.paths, subject.overrides, checks)
    assert (data.ok, names.ok) == (False, False)
    assert data.text.endswith("holds no image")
    assert names.text == "not checked: see above"


def test_a_spectrum_that_is_named_and_not_there_is_a_problem(tmp_path, spectrum_run):
    assert check_spectrum(Subject([CONF])) == "the run's own"
    (finding,) = examine(
        [CONF],
        [f"spectrum.path={tmp_path}/nope"],
        [check for check in every_check() if check[0] == "spectrum"],
    )
    assert not finding.ok
    assert finding.text.startswith(f"spectrum.path = '{tmp_path}/nope': No such file")
    place = spectrum_run[1].store.base
    found = check_spectrum(Subject([CONF], [f"spectrum.path={place}"]))
    assert found.startswith(f"{place}: complete, 10 classes, ")


def test_a_folder_that_the_system_refuses_is_said_like_a_jobs_error(tmp_path):
    def refused(subject):
        text = "Cannot list directory '/data/x'. Detail: [errno 13] Permission denied"
        raise PermissionError(13, text)

    (finding,) = examine([CONF], [], [("spectrum", refused)])
    assert finding.text.startswith("/data/x: Permission denied; change its permissions")


def test_names_that_are_codes_are_a_problem_unless_forced(folder):
    codes = [f"n{i:08d}" for i in range(4)]
    with pytest.raises(ConfigError, match="n00000000"):
        check_class_names(folder(rows_of(codes)))
    assert "4 classes" in check_class_names(folder(rows_of(codes), "prompts.force=true"))


def test_the_data_sets_own_names_count_and_not_its_keys(folder):
    codes = [f"n{i:08d}" for i in range(10)]
    subject = folder(rows_of(codes), names=dict(zip(codes, NAMES, strict=True)))
    assert check_class_names(subject).startswith("the scorer knows them")


def test_some_unknown_names_are_a_note_and_most_are_a_problem_worst_first(folder):
    text = check_class_names(folder(rows_of(["eight", *NAMES[1:8], "zero", "nine"])))
    assert text.startswith("the scorer hardly knows 2, ")
    assert "data.names=FILE" in text
    assert {line.split("'")[1] for line in text.split("\n")[1:]} == {"eight", "zero"}
    turned = [*NAMES[5:], *NAMES[:5]]
    with pytest.raises(Problem) as caught:
        check_class_names(folder(rows_of(turned)))
    plumbing = folder(rows_of(turned), "generator.model=embedded")
    assert check_class_names(plumbing) == str(caught.value)
    ranks = [
        int(line.rpartition("rank ")[2].split(" of ")[0])
        for line in str(caught.value).split("\n")[1:]
    ]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] <= 10


def test_only_the_worst_are_shown_with_the_number_of_the_others(folder):
    names = [f"creature {chr(97 + i)}" for i in range(20)]
    ranks = {name: 20.0 - i / 2 for i, name in enumerate(names)}
    with pytest.raises(Problem) as caught:
        doctor.rank_words(folder(rows_of(names, count=1)), ranks, 20)
    lines = str(caught.value).split("\n")
    assert len(lines) == 2 + SHOWN
    assert lines[1] == "class 'creature a': rank 20 of 20"
    assert lines[-1] == "and 10 more"


@pytest.mark.parametrize("split", ["train", None])
def test_few_training_images_are_opened_and_none_of_another_split(folder, split):
    opened: list[str] = []

    def read(root, rows):
        for row in rows.to_pylist():
            opened.append(row["sample_id"])
            yield row["bytes"]

    rows = rows_of(NAMES, count=12, split=split) + rows_of(
        NAMES, split="test" if split else None, count=4, first=12
    )
    subject = folder(rows, read=read)
    check_class_names(subject)
    table = subject.listing.table
    label = np.array([NAMES.index(key) for key in table["class_key"].to_pylist()])
    ids, data = table["sample_id"], subject.config.data
    drawn = fill_splits(
        split_codes(table["split"]),
        label,
        codes_of(table["group"]),
        ids,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=0,
    )
    names = split_names(drawn).to_pylist()
    assert {"train", "val", "test"} == set(names)
    assert len(opened) == len(set(opened)) == IMAGES * len(NAMES)
    assert set(opened) <= {
        sample_id for sample_id, s in zip(ids.to_pylist(), names, strict=True) if s == "train"
    }


def test_of_many_classes_only_some_are_tried_and_always_the_same(folder, monkeypatch):
    monkeypatch.setattr(doctor, "CLASSES", 4)
    subject = folder(rows_of(NAMES))
    rows, names = doctor.some_training_rows(subject)
    assert (len(rows), len(names)) == (4 * IMAGES, 4)
    assert doctor.some_training_rows(folder(rows_of(NAMES)[::-1]))[1] == names
    assert "tried on 4 of 10 classes" in check_class_names(subject)


def test_it_ends_after_a_while_with_what_it_has(folder, monkeypatch):
    monkeypatch.setattr(doctor, "SECONDS", -1)
    assert "tried on 1 of 10 classes" in check_class_names(folder(rows_of(NAMES)))


def test_images_that_cannot_be_read_are_left_out(folder):
    rows = rows_of(NAMES)
    for row in rows:
        if row["class_key"] in ("two", "three"):
            row["bytes"] = b"no image"
    assert "tried on 8 of 10 classes" in check_class_names(folder(rows))

    def missing(root, rows: pa.Table):
        yield from [ImageError("missing")] * rows.num_rows

    with pytest.raises(Problem, match=r"none of 30 training images can be read"):
        check_class_names(folder(rows, read=missing))


def test_a_scorer_that_is_not_here_yet_is_no_problem(folder):
    text = check_class_names(
        folder(rows_of(NAMES), "scorer.model=ViT-B-32", "scorer.pretrained=openai")
    )
    assert text == "not tried: ViT-B-32 is not on this machine yet"
    finding = Finding(name="class names", ok=True, text=text)
    assert finding.skipped
    assert str(finding).split() == ["class", "names", "–", *text.split()]


def test_the_scene_descriptions_belong_to_the_configuration(tmp_path):
    checks = [(name, check) for name, check in every_check() if name in ("prompts", "class names")]
    (tmp_path / "s.yaml").write_text("any: ['{x}']")
    overrides = ["data.look=web", f"prompts.scenes={tmp_path / 's.yaml'}"]
    scenes, names = examine([CONF], overrides, checks)
    assert "any[0]" in scenes.text
    assert names.text == "not checked: see above"
    (tmp_path / "s.yaml").write_text("classes: {sevn: [x]}")
    scenes, names = examine([CONF], overrides, checks)
    assert (scenes.ok, names.ok) == (True, False)
    assert "did you mean 'seven'" in names.text


def test_a_finding_of_several_lines_is_one_column():
    shown = str(doctor.Finding(name="class names", ok=False, text="one\ntwo"))
    assert [
        line.index(word) for line, word in zip(shown.split("\n"), ("one", "two"), strict=True)
    ] == [25, 25]
