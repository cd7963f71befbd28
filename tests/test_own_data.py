"""A folder of one's own images, of several kinds and sizes, some broken.

It goes through the whole of phase 1 and into training's table.
"""

import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from discl_ray.commands import generate
from discl_ray.config import load_config
from discl_ray.core.images import encode_image
from discl_ray.core.schema import SPECTRUM
from discl_ray.core.storage import Store
from discl_ray.data import read_samples, summarize_samples
from discl_ray.errors import DataError
from discl_ray.plan.hardness import hardness
from discl_ray.report.canvas import fitted, font_of
from discl_ray.report.hardest import class_table, tail_rows, tail_sheet
from discl_ray.report.sheet import contact_sheet
from discl_ray.spectrum.open import Spectrum
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.samples import samples_of
from discl_ray.synthesize.layout import lay_out
from discl_ray.synthesize.run import prepare
from discl_ray.train.images.table import build_table, open_table
from tests.support.runs import ROOT, promptly

NAMES = [
    *("red fox", "AC/DC", "../up", "\N{FOX FACE}", "0123", "c" * 200, "a", "A"),
    *("<script>alert(1)</script>", "{{7*7}}", "=cmd|' /C calc'!A0", "con", "snow owl, young"),
]
"""What people, and others, call classes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    kinds = [
        ("RGB", "jpg"),
        ("L", "png"),
        ("RGBA", "webp"),
        ("P", "png"),
        ("CMYK", "jpg"),
        ("1", "png"),
    ]
    for name, count in {"red fox": 20, "snow owl": 16, "pine marten": 5}.items():
        (root / name).mkdir()
        for i in range(count):
            mode, suffix = kinds[i % len(kinds)]
            pixels = rng.integers(
                0, 256, (rng.integers(20, 60), rng.integers(20, 60), 3), dtype=np.uint8
            )
            Image.fromarray(pixels).convert(mode).save(root / name / f"{i:02d}.{suffix}")
    (root / "red fox" / "00.jpg").write_bytes((root / "red fox" / "00.jpg").read_bytes()[:200])
    (root / "snow owl" / "01.png").write_bytes(b"")
    return root


def listed(root, rows):
    """A manifest of (label, split), each with an image unlike the others."""
    root.mkdir(parents=True)
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "split"])
        for i, (label, split) in enumerate(rows):
            pixels = np.random.default_rng(i).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            (root / f"{i}.png").write_bytes(encode_image(pixels, "png"))
            out.writerow([f"{i}.png", label, split])
    return root


@pytest.mark.timeout(300)
def test_a_folder_of_mixed_images_becomes_a_spectrum_marked_as_a_plumbing_test(
    folder, tmp_path, ray_local, capsys
):
    config = load_config(
        ROOT / "conf" / "imagefolder.yaml",
        [
            f"data.root={folder}",
            f"run.root={tmp_path}",
            "generator.allow_embedded=true",
            "hard.below=5",
            "plan.replicas=1",
            "plan.num_steps=4",
            "plan.lams=[0,0.5]",
            "generator.actors=1",
            "data.max_bad_fraction=0.1",
        ],
    )
    generate.job(config)
    said = capsys.readouterr().out
    for words in (
        "red fox/00.jpg: truncated",
        "snow owl/01.png: not_an_image",
        "3 classes",
        "PLUMBING TEST",
    ):
        assert words in said
    store = prepare(config).store
    spectrum = open_spectrum(store, config.filter)
    assert set(spectrum["status"].to_pylist()) == {"ok"}
    assert samples_of(store).read_table("rejects.parquet").num_rows == 2
    marked, plain = (
        store.read("contact_sheet.png"),
        contact_sheet(spectrum, store.read_table("sources/000000.parquet")),
    )
    assert Image.open(io.BytesIO(marked)).height > Image.open(io.BytesIO(plain)).height
    table = open_table(build_table(Spectrum.open(store), config.filter, config.train.image_size))
    assert table.images.shape[1:] == (32, 32, 3)
    assert table.hard.sum() == len(set(spectrum["sample_id"].to_pylist()))
    assert set(table.role) <= {"train", "val"}


def test_an_empty_or_wrong_folder_ends_the_job_before_anything_is_started_or_written(
    tmp_path, monkeypatch
):
    import ray

    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("started Ray"))
    (tmp_path / "void").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("no image")
    with promptly():
        for root, found in (
            ("void", "the folder is empty"),
            ("docs", r"found 1 file \(1 \.txt\)"),
            ("none", "no such folder"),
        ):
            overrides = [
                f"data.root={tmp_path / root}",
                f"run.root={tmp_path / 'runs'}",
                "generator.allow_embedded=true",
            ]
            with pytest.raises(DataError, match=found):
                generate.job(load_config(ROOT / "conf" / "imagefolder.yaml", overrides))
    assert not (tmp_path / "runs").exists()


def test_any_class_name_is_safe_in_paths_ids_tables_and_sheets(tmp_path):
    root = listed(
        tmp_path / "data",
        [(name, split) for name in NAMES for split in ("train", "train", "val", "test")],
    )

    def planned(runs):
        overrides = [
            f"data.root={root}",
            f"run.root={runs}",
            "generator.allow_embedded=true",
            "prompts.force=true",
        ]
        config = load_config(ROOT / "conf" / "manifest.yaml", [*overrides, "plan.replicas=1"])
        return config, lay_out(prepare(config))

    config, prepared = planned(tmp_path / "runs")
    assert prepared.plan.equals(planned(tmp_path / "elsewhere")[1].plan)
    assert set(prepared.plan["prompt"].to_pylist()) == {f"a photo of a {name}" for name in NAMES}
    made = [path.name for runs in ("runs", "elsewhere") for path in (tmp_path / runs).rglob("*")]
    assert made
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]{1,40}", name) for name in made)
    samples = samples_of(prepared.store)
    sources = prepared.store.read_table("sources/000000.parquet")
    verdicts = SPECTRUM.empty_table().append_column("kept", [[]]).append_column("reason", [[]])
    assert Image.open(io.BytesIO(contact_sheet(verdicts, sources))).width < 300
    table = read_samples(config.data, config.seed, Store.at(tmp_path / "again")).table
    judged = hardness(table, config.hard, None)
    assert [line.split("  ")[1] for line in class_table(judged).split("\n")[1:-1]] == [
        name if len(name) <= 28 else name[:27] + "…" for name in sorted(NAMES)
    ]
    shown = tail_rows(judged)
    images = table.filter(
        [sample in set(shown["sample_id"].to_pylist()) for sample in table["sample_id"].to_pylist()]
    )
    sheet = Image.open(io.BytesIO(tail_sheet(shown, images, judged, title="x")))
    assert sheet.height > 12 * 96
    assert samples.exists("rejects.parquet")


@pytest.mark.parametrize("width", [0, 5, 40, 90])
def test_words_on_a_sheet_keep_their_beginning_and_their_place(width):
    font = font_of(13)
    for words in ("", "otter", "white-lipped peccary", "c" * 200):
        shown = fitted(words, font, width)
        assert font.getlength(shown) <= max(width, font.getlength("…"))
        assert words == shown or words.startswith(shown[:-1])
        assert fitted(words, font, 10_000) == words


def test_classes_too_small_for_a_split_are_listed_and_stay_classes(tmp_path):
    def read(name, rows):
        config = load_config(
            ROOT / "conf" / "manifest.yaml", [f"data.root={listed(tmp_path / name, rows)}"]
        )
        samples = read_samples(config.data, 0, Store.at(tmp_path / f"run-{name}"))
        counts = {}
        for row in samples.table.to_pylist():
            counts.setdefault(row["class_name"], []).append(row["split"])
        return samples, {name: sorted(splits) for name, splits in counts.items()}

    # drawn: one and two images are all for training
    samples, splits = read(
        "drawn",
        [(name, "") for name, n in (("one", 1), ("two", 2), ("twenty", 20)) for _ in range(n)],
    )
    assert (splits["one"], splits["two"], len(splits["twenty"])) == (["train"], ["train"] * 2, 20)
    words = summarize_samples(samples)
    assert "2 classes without an image to tune on (val): one, two" in words
    assert "2 classes without an image to judge by (test): one, two" in words
    # given: a class that training never sees has its label all the same
    given = [("ant", split) for split in ("train", "val", "test")] + [
        ("bee", "train"),
        ("new", "val"),
        ("unseen", "test"),
    ]
    samples, splits = read("given", given)
    assert samples.classes == ("ant", "bee", "new", "unseen")
    assert (splits["new"], splits["unseen"]) == (["val"], ["test"])
    assert "2 classes without an image to train on (train): new, unseen" in summarize_samples(
        samples
    )
