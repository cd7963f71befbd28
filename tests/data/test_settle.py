import pyarrow as pa

from discl_ray.core.storage import Store
from discl_ray.data.listing import Listing, listing_table, read_files
from discl_ray.data.settle import settled
from tests.support.folders import PNG, lay, listed


def test_names_compare_in_nfc_and_files_are_found_as_they_are_spelt(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    lay(
        tmp_path,
        f"{composed}/1.png",
        f"{apart}/2.png",
        f"{apart}/{apart}.png",
        "red fox /3.png",
        "red fox/4.png",
        "b/5.png",
    )
    lay(tmp_path, f"b/{composed}.png", f"b/{apart}.png")
    listing = settled(listed(tmp_path), links=False)
    assert set(listing.table["class_key"].to_pylist()) == {composed, "red fox", "b"}
    assert list(listing.read(listing.root, listing.table)) == [PNG] * 8
    ids = listing.table["sample_id"].to_pylist()
    assert {f"{composed}/2.png", f"{composed}/{composed}.png"} < set(ids)
    assert len(set(ids)) == 8  # two that are the same in NFC stay as they are
    assert "'red fox' and 'red fox ' are 'red fox'" in listing.notes[-1]


def test_classes_that_differ_by_case_alone_stay_apart_and_are_said(tmp_path):
    listing = settled(
        listed(lay(tmp_path, "Fox/1.png", "fox/2.png", "FOX/3.png", "otter/4.png")), links=False
    )
    assert set(listing.table["class_key"].to_pylist()) == {"Fox", "fox", "FOX", "otter"}
    (note,) = listing.notes
    assert "differ by case alone: 'FOX' and 'Fox' and 'fox'" in note
    assert "otter" not in note


def made(keys, **fields):
    rows = [
        {"sample_id": f"s{i}", "path": f"{i}.png", "class_key": key} for i, key in enumerate(keys)
    ]
    return Listing(
        table=listing_table(rows), root=Store.at("."), read=read_files, stamp="", **fields
    )


def test_spellings_of_a_class_become_one_in_the_order_of_the_listing():
    composed, apart = "caf\u00e9", "cafe\u0301"
    listing = settled(
        made([apart, "b ", composed], classes=[composed, apart, "b "], names={"b ": " bee "}),
        links=True,
    )
    assert listing.table["class_key"].to_pylist() == [composed, "b", composed]
    assert listing.classes == [composed, "b"]
    assert listing.names == {"b": "bee"}
    assert listing.notes[0].startswith("one class each, because they differ by blanks or the")
    assert listing.notes[1] == "blanks at the ends of a class are no part of its name: 'b '"


def test_names_that_are_settled_already_change_nothing():
    before = made(["a", "b"], classes=["b", "a"])
    after = settled(before, links=True)
    assert after.table.equals(before.table)
    assert (after.classes, after.notes) == (before.classes, ())


def test_links_out_of_the_root_are_refused_unless_they_are_allowed(tmp_path):
    lay(tmp_path / "root", "a/1.png", "b/2.png")
    lay(tmp_path, "secret.png")
    (tmp_path / "root" / "a" / "out.png").symlink_to(tmp_path / "secret.png")
    listing = listed(tmp_path / "root")
    kept = settled(listing, links=False)
    assert kept.table["path"].to_pylist() == ["a/1.png", "b/2.png"]
    assert kept.refused["sample_id"].to_pylist() == ["a/out.png"]
    assert "a/out.png" in settled(listing, links=True).table["path"].to_pylist()
    assert isinstance(kept.table, pa.Table)
