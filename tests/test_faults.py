"""Faults injected into real jobs.

Each runs in a process of its own, with a patched generator stage.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import discl_ray
from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.embedded import SCORER
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.read import open_spectrum
from discl_ray.synthesize.planned import read_planned
from tests.support.runs import ROOT, TINY, tiny_config
from tests.support.spectra import check_whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

JOB = """
import os, runpy, sys, threading, time
from discl_ray.synthesize import graph as module
Real = module.GenerateStage
{patch}
sys.argv = ["jobs/generate.py", *sys.argv[1:]]
runpy.run_path("jobs/generate.py", run_name="__main__")
"""

POISON = """
class Poisoned(Real):
    def __init__(self, *args):
        Real.__init__(self, *args)
        run = self.actor.engine.run
        def poisoned(rows):
            if any(row.gid == "{victim}" for row in rows):
                os._exit(1)
            return run(rows)
        self.actor.engine.run = poisoned
module.GenerateStage = Poisoned
"""

HUNG = """
class Hung(Real):
    def __init__(self, *args):
        Real.__init__(self, *args)
        denoise, calls = self.actor.engine.model.denoise, []
        def slow(*a):
            calls.append(1)
            if len(calls) == 1:
                time.sleep(6)     # as a long compile would
            if len(calls) == 3:
                import torch
                raise torch.OutOfMemoryError("injected")
            if len(calls) == 14:
                time.sleep(600)   # as a device that hangs would
            return denoise(*a)
        self.actor.engine.model.denoise = slow
module.GenerateStage = Hung
"""

UNLOADABLE = """
Scorer = module.ScoreStage
class Unloadable(Scorer):
    def __init__(self, config, *args):
        # whole when the job looked
        os.truncate(config.model + "/open_clip_model.safetensors", 1000)
        Scorer.__init__(self, config, *args)
module.ScoreStage = Unloadable
"""

CLUSTER = """
from ray.cluster_utils import Cluster
from pathlib import Path
import ray
head = {{"num_cpus": 2, "object_store_memory": 150 * 2**20}}
# a lost node is noticed after a second and a half; by default it takes fifteen
head["_system_config"] = {{"health_check_period_ms": 500, "health_check_failure_threshold": 3}}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = [cluster.add_node(num_cpus=2, object_store_memory=150 * 2**20) for _ in range(2)]
os.environ["RAY_ADDRESS"] = cluster.address
def kill_one():
    while not list(Path("{root}").glob("digits_lt/generate-*/commits/*.json")):
        time.sleep(0.05)
    cluster.remove_node(nodes[0], allow_graceful=False)
    print("killed a node", flush=True)
threading.Thread(target=kill_one, daemon=True).start()
"""


def run(patch, root, *overrides, code=0):
    command = [
        sys.executable,
        "-c",
        JOB.format(patch=patch),
        f"run.root={root}",
        *TINY,
        "plan.replicas=2",
        *overrides,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1000)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_of(root) -> Store:
    (folder,) = Path(root).glob("digits_lt/generate-*")
    return Store.at(folder)


def rows_of(root):
    table = open_spectrum(run_of(root), FilterConfig(), columns=["image", "micro_batch"])
    return {row["gid"]: row for row in table.to_pylist()}


def bytes_of(root):
    return {
        gid: sha256(row["image"]["bytes"])
        for gid, row in rows_of(root).items()
        if row["status"] == "ok"
    }


@pytest.fixture(scope="module")
def undisturbed(ray_local, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    discl_ray.make_spectrum(tiny_config(root, "plan.replicas=2"))
    return root


def test_a_row_that_kills_its_process_three_times_ends_as_crashed_and_the_rest_is_the_same(
    undisturbed, tmp_path
):
    whole_rows = rows_of(undisturbed)
    victim = min(r["sample_id"] for r in whole_rows.values() if r["role"] == "train")
    (gid,) = (
        gid
        for gid, row in whole_rows.items()
        if (row["sample_id"], row["replica"], row["lam_pct"]) == (victim, 1, 50)
    )
    output = run(POISON.format(victim=gid), tmp_path)
    rows = rows_of(tmp_path)
    crashed = [r for r in rows.values() if r["status"] != "ok"]
    assert [(r["sample_id"], r["replica"], r["lam_pct"]) for r in crashed] == [(victim, 1, 50)]
    assert {
        (r["status"], r["error"], r["image"]["bytes"], r["text_sim"], r["kept"]) for r in crashed
    } == {("crashed", "crashed", None, None, False)}
    whole = bytes_of(undisturbed)
    assert bytes_of(tmp_path) == {
        gid: data for gid, data in whole.items() if gid != crashed[0]["gid"]
    }
    assert "crashed 1" in output
    store = run_of(tmp_path)
    check_whole(store, read_planned(store).gids())
    assert store.list("underway") == []
    assert list(tmp_path.rglob("*.tmp")) == []  # nor what a process was writing when it died


def test_a_hung_generator_is_named_and_given_up_but_a_slow_first_step_is_not_and_low_memory_is_said(
    tmp_path,
):
    output = run(HUNG, tmp_path, "run.stall_warning_s=3", "run.stall_limit_s=30", code=2)
    assert "compiling or taking its first step" in output
    assert "out of memory: some images were made at generator.micro_batch=16" in output
    assert "may hang: working" in output
    assert "gave up after 30 s without progress, waiting for generator " in output
    before, _, _ = output.partition("may hang")
    assert "first step" in before
    store = run_of(tmp_path)
    assert not store.exists("MANIFEST.json")


def test_a_node_lost_midway_costs_no_image_and_changes_no_byte(undisturbed, tmp_path):
    output = run(
        CLUSTER.format(root=tmp_path), tmp_path, "generator.actors=2", "plan.shard_steps=12"
    )
    assert "killed a node" in output
    assert bytes_of(tmp_path) == bytes_of(undisturbed)
    store = run_of(tmp_path)
    check_whole(store, read_planned(store).gids())


def test_a_scorer_that_cannot_be_loaded_ends_the_job_with_one_sentence(tmp_path):
    folder = shutil.copytree(SCORER, tmp_path / "scorer")
    output = run(UNLOADABLE, tmp_path, f"scorer.model={folder}", code=2)
    assert f"error: scorer.model = '{folder}'" in output
    assert "Traceback" not in output
    # now it is seen before anything is started
    output = run("", tmp_path / "again", f"scorer.model={folder}", code=2)
    assert "open_clip_model.safetensors: damaged or cut short" in output
    assert "Traceback" not in output
