import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import discl_ray
from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.records import committed
from discl_ray.synthesize.planned import read_planned
from tests.support.spectra import check_whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KILLS = 2
"""Of the driver, each at a later shard."""
OVERRIDES = (
    "plan.replicas=1",
    "plan.num_steps=20",
    "plan.lams=[0,0.3]",
    "plan.shard_steps=60",
    "hard.probe_sources=1",
    "hard.below=4",
    "data.head=8",
    "data.tail=2",
    "generator.actors=1",
    "generator.micro_batch=8",
)


@pytest.fixture(scope="module")
def start(pytestconfig):
    def start(root, *overrides, hash_seed="0"):
        command = [sys.executable, "jobs/generate.py", f"run.root={root}", *OVERRIDES, *overrides]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.Popen(command, cwd=pytestconfig.rootpath, env=environment, **options)

    return start


@pytest.fixture(scope="module")
def finish(start):
    def finish(root, *overrides, code=0, **more):
        process = start(root, *overrides, **more)
        try:
            output, _ = process.communicate(timeout=600)
        finally:
            process.kill()
        assert process.returncode == code, output
        return output

    return finish


def run_of(root) -> Store:
    (folder,) = Path(root).glob("digits_lt/generate-*")
    return Store.at(folder)


def hashes(root):
    rows = open_spectrum(run_of(root), FilterConfig(), columns=["image"]).to_pylist()
    return {row["gid"]: sha256(row["image"]["bytes"]) for row in rows}


def dates(store):
    """Of the committed shards' own files."""
    names = [f"commits/{s}.json" for s in committed(store)] + [
        file.name for record in committed(store).values() for file in record.files
    ]
    return {name: Path(store.path(name)).stat().st_mtime_ns for name in names}


def make(root, pytestconfig, *overrides):
    """The spectrum, made in this process."""
    preset = pytestconfig.rootpath / "conf" / "digits_lt.yaml"
    values = [f"run.root={root}", *OVERRIDES, *overrides]
    discl_ray.make_spectrum(discl_ray.load_config(preset, values))


@pytest.fixture(scope="module")
def undisturbed(ray_local, tmp_path_factory, pytestconfig):
    root = tmp_path_factory.mktemp("undisturbed")
    make(root, pytestconfig)
    return root


def kill_after(start, root, commits):
    """Starts a run and kills its driver outright once there are `commits` commits.

    Returns how many there were in the end.
    """
    process = start(root)
    try:
        for _ in range(30_000):
            found = len(list(Path(root).glob("digits_lt/generate-*/commits/*.json")))
            if found >= commits:
                break
            assert process.poll() is None, f"ended with {found} commits"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    time.sleep(3)  # Ray's processes follow their driver
    return len(committed(run_of(root)))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory, start, finish):
    """A run that was killed KILLS times and then left alone.

    With the dates of what was committed at each kill.
    """
    root = tmp_path_factory.mktemp("disturbed")
    seen, found = [], 0
    for _ in range(KILLS):
        found = kill_after(start, root, found + 1)
        seen.append(dates(run_of(root)))
    return root, seen, finish(root)


def test_the_kills_came_in_the_middle(disturbed):
    root, seen, output = disturbed
    total = len(committed(run_of(root)))
    assert [len(s) for s in seen] == sorted({len(s) for s in seen})
    assert all(0 < sum(name.startswith("commits/") for name in s) < total for s in seen)
    assert "resuming: " in output


def test_a_run_killed_again_and_again_makes_the_images_of_an_undisturbed_one(
    disturbed, undisturbed
):
    assert hashes(disturbed[0]) == hashes(undisturbed)
    store = run_of(disturbed[0])
    check_whole(store, read_planned(store).gids())
    assert store.exists("MANIFEST.json")


def test_what_was_committed_before_a_kill_was_not_written_again(disturbed):
    root, seen, _ = disturbed
    end = dates(run_of(root))
    for before in seen:
        assert before.items() <= end.items()


def test_a_finished_run_makes_nothing(undisturbed, finish):
    before = dates(run_of(undisturbed))
    output = finish(
        undisturbed, "run.num_cpus=1"
    )  # too few for the actors: would be refused if Ray were started
    assert dates(run_of(undisturbed)) == before
    assert "resuming" not in output
    assert "images/s" not in output


def test_a_lower_micro_batch_goes_on_in_the_same_directory(
    undisturbed, tmp_path, caplog, pytestconfig
):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    store = run_of(tmp_path)
    (tmp_path / Path(store.base).relative_to(tmp_path) / "MANIFEST.json").unlink()
    lost = sorted(committed(store))[:2]
    for shard in lost:
        Path(store.path(f"commits/{shard}.json")).unlink()
    before = dates(store)
    make(tmp_path, pytestconfig, "generator.micro_batch=3")
    assert "resuming: " in caplog.text
    assert run_of(tmp_path).base == store.base
    assert before.items() <= dates(store).items()
    rows = open_spectrum(store, FilterConfig(), columns=["micro_batch", "shard_id"]).to_pylist()
    assert {(r["shard_id"] in lost, r["micro_batch"]) for r in rows} == {(True, 3), (False, 8)}
    assert hashes(tmp_path).keys() == hashes(undisturbed).keys()


def test_one_micro_batch_gives_one_set_of_bytes_whoever_makes_them_when_and_beside_whom(
    undisturbed, disturbed, finish, tmp_path
):
    """The matrix.

    Actors, order, neighbours, shards in flight, kills and resumes, Python's hash seed.
    """
    expected = hashes(undisturbed)
    assert hashes(disturbed[0]) == expected
    other = ("generator.actors=2", "plan.shard_steps=25", "generator.shards_in_flight=1")
    finish(tmp_path / "other", *other, hash_seed="1")
    assert hashes(tmp_path / "other") == expected
    shards = [len(committed(run_of(root))) for root in (undisturbed, tmp_path / "other")]
    assert shards[1] > shards[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan.replica=3"], "did you mean 'replicas'"),
        (["--config", "conf/nowhere.yaml"], "no such file"),
        (["plan.lams=[0,1.5]"], "allowed are 0 to 1"),
        (["generator.model=/no/such/model"], "'/no/such/model': no such folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(finish, tmp_path, arguments, words):
    root = tmp_path / "root"
    output = finish(root, *arguments, code=2)
    assert words in output
    assert "Traceback" not in output
    assert not root.exists()
