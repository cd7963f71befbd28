"""Whole jobs with `run.root` and `data.root` on an object store, killed, resumed and disturbed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest

import discl_ray
from discl_ray.core.images import encode_image
from discl_ray.core.run_directory import MANIFEST, locked
from discl_ray.core.storage import Store
from discl_ray.spectrum.files import committed_files
from discl_ray.spectrum.folded import newest_fold
from discl_ray.spectrum.records import committed_ids
from tests.support.runs import ROOT
from tests.support.s3_server import READER, Proxy, environment, proxy_before

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TINY = (
    "plan.replicas=1",
    "plan.num_steps=10",
    "plan.lams=[0,0.5]",
    "plan.shard_steps=15",
    "hard.probe_sources=1",
    "hard.below=4",
    "generator.actors=1",
    "train.width=4",
    "train.epochs=2",
    "curriculum.epochs=1",
    "train.start_steps=0",
    "train.eval_every=1",
    "train.batch=16",
)
PRESET = "conf/imagefolder.yaml"
OWN = ("generator.allow_embedded=true", "hard.below=11", "filter.rank=3")
PHOTOS = ("--config", PRESET, *OWN)
CLASSES = {"red fox": 18, "snow owl": 18, "pine marten": 14}


def start(name: str, root: str, *more: str, **variables: str) -> "subprocess.Popen[str]":
    command = [sys.executable, f"jobs/{name}.py", f"run.root={root}", *TINY, *more]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(name: str, root: str, *more: str, code: int = 0, **variables: str) -> str:
    process = start(name, root, *more, **variables)
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == code, output
    return output


def generate_folder(root: str) -> Store:
    """The one folder of a spectrum below a root."""
    runs = Store.at(root)
    (name,) = runs.folders()
    (folder,) = [one for one in runs.folders(name) if one.startswith("generate-")]
    return runs.within(f"{name}/{folder}")


def commits(root: str) -> int:
    try:
        return len(generate_folder(root).list("commits"))
    except ValueError:  # no folder yet
        return 0


def wait_for(process: Any, done: Callable[[], bool]) -> None:
    for _ in range(6000):
        if done():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("it takes too long")


def files(root: str) -> dict[str, bytes]:
    """What must be the same wherever a run lies: images, records, weights, metrics."""
    store = Store.at(root)
    selector = pafs.FileSelector(store.base, recursive=True)
    infos = store.filesystem.get_file_info(selector)
    names = [info.path.removeprefix(f"{store.base}/") for info in infos if info.is_file]
    kept = ("spectrum/", "commits/", "plan", "model.safetensors", "metrics.jsonl", MANIFEST)
    # Samples are named by where their images lie; Ray Train's files hold times.
    others = ("/samples-", "/ray_train/")
    same = [name for name in names if any(part in name for part in kept)]
    same = [name for name in same if not any(part in name for part in others)]
    return {name: store.read(name) for name in sorted(same)}


@pytest.fixture(scope="module")
def photos() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    made: dict[str, bytes] = {}
    for name, count in CLASSES.items():
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            made[f"{name}/{i:02}.png"] = encode_image(pixels, "png")
    return made


@pytest.fixture(scope="module")
def on_disk(
    ray_local: None, tmp_path_factory: pytest.TempPathFactory, photos: dict[str, bytes]
) -> str:
    """The root of a spectrum and of training on it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("disk")
    for name, data in photos.items():
        Store.at(folder / "photos").write(name, data)
    root = str(folder / "runs")
    values = [f"run.root={root}", *TINY, *OWN, f"data.root={folder}/photos"]
    config = discl_ray.load_config(ROOT / PRESET, values)
    discl_ray.make_spectrum(config)
    discl_ray.train_classifier(config)
    return root


@pytest.fixture
def proxy(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_before(s3_endpoint) as proxy:
        for name, value in environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        yield proxy


def test_killed_refused_resumed_and_trained_on_a_server_that_fails_gives_the_bytes_of_a_disk(
    on_disk: str, photos: dict[str, bytes], s3_root: str, proxy: Proxy
) -> None:
    kinds = ("SlowDown", "reset", "InternalError", "lost")

    def one_in_twenty(number: int, *_: str) -> str:
        return "" if number % 20 else kinds[number // 20 % 4]

    proxy.fault = one_in_twenty
    data = Store.at(f"{s3_root}/data/photos")
    for name, image in photos.items():
        data.write(name, image)
    root = f"{s3_root}/runs"
    own = (*PHOTOS, f"data.root={s3_root}/data/photos")
    process = start("generate", root, *own)
    wait_for(process, lambda: commits(root) >= 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = files(root)
    with locked(generate_folder(root)):
        assert f"in use by process {os.getpid()} on " in finish("generate", root, *own, code=2)
    found = commits(root)
    process = start("generate", root, *own)
    wait_for(process, lambda: commits(root) > found)
    proxy.fault = lambda *_: "ExpiredToken"
    output, _ = process.communicate(timeout=300)
    proxy.fault = one_in_twenty
    assert process.returncode == 1, output
    assert "the credentials have expired" in output
    assert "Traceback" not in output
    assert not generate_folder(root).exists(MANIFEST)
    output = finish("generate", root, *own)
    assert "resuming: " in output
    finish("train", root, *own)
    after = files(root)
    assert before.items() <= after.items(), "what was committed is not written again"
    assert after == files(on_disk)
    folder = generate_folder(root)
    assert folder.list("spectrum") == committed_files(folder)
    fold = newest_fold(folder)
    assert set(fold.files["shard_id"].to_pylist()) == committed_ids(folder)
    assert folder.exists(fold.table)
    assert proxy.failed > 20


@pytest.mark.parametrize("name", ["generate", "train"])
def test_a_wrong_bucket_and_missing_rights_are_said_before_work_begins(
    name: str, s3_root: str
) -> None:
    output = finish(name, "s3://nowhere-at-all", code=2)
    assert "run.root = 's3://nowhere-at-all'" in output
    assert "there is no such bucket" in output
    rights = {"AWS_ACCESS_KEY_ID": READER[0], "AWS_SECRET_ACCESS_KEY": READER[1]}
    output = finish(name, s3_root, code=2, **rights)
    assert f"run.root = '{s3_root}'" in output
    assert "these credentials are not allowed to" in output
    assert "Traceback" not in output
