import hashlib
import tempfile
import uuid
from pathlib import Path

import pytest

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.train.images.node_cache import make_local, node_folder, on_shared_disk
from discl_ray.train.images.segments import Segment

DATA = b"pixels" * 1000


def segment_of(data: bytes) -> Segment:
    return Segment(hashlib.sha256(data).hexdigest(), rows=1, size=len(data))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A table's folder in an object store, read by a node whose temporary folder is empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Store.at(f"memory://bucket-{uuid.uuid4().hex[:8]}/table")


def test_segments_of_an_object_store_are_copied_once(bucket: Store, tmp_path: Path) -> None:
    segments = [segment_of(DATA), segment_of(DATA[:-1])]
    for segment in segments:
        bucket.write(segment.name, DATA[: segment.size])
    paths = make_local(bucket, segments)
    assert [path.read_bytes() for path in paths] == [DATA, DATA[:-1]]
    assert all(path.is_relative_to(node_folder()) for path in paths)
    assert node_folder().is_relative_to(tmp_path)
    bucket.delete(segments[0].name)  # no longer needed
    assert make_local(bucket, segments) == paths


def test_a_damaged_segment_leaves_no_copy(bucket: Store) -> None:
    segment = segment_of(DATA)
    bucket.write(segment.name, DATA[:-1] + b"X")
    with pytest.raises(IntegrityError, match=f"{segment.name}: gone or damaged"):
        make_local(bucket, [segment])
    assert not list(node_folder().rglob("*.arrow"))
    assert not list(node_folder().rglob("*.tmp"))
    bucket.delete(segment.name)
    with pytest.raises(IntegrityError, match=f"{segment.name}: gone or damaged"):
        make_local(bucket, [segment])


def test_a_network_mount_is_told_from_disks_below_and_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = (
        "/dev/sda / ext4 rw 0 0\n"
        f"server:/x {tmp_path} nfs4 rw 0 0\n"
        f"/dev/sdb {tmp_path}/scratch xfs rw 0 0\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda _: mounts)
    assert on_shared_disk(tmp_path / "runs")
    assert not on_shared_disk(tmp_path / "scratch" / "runs")
    assert not on_shared_disk(tmp_path.with_name(f"{tmp_path.name}-2"))
