"""The presets' own command where Ray has one GPU.

It gets past every check, up to the GPU itself, which is only Ray's word for it.
"""

import os
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.generate.families import make_folder
from tests.support.runs import ROOT

RAY = """
import ray, sys
ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False,
         object_store_memory=100 * 2**20, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
SNAPSHOT = "hub/models--timm--vit_base_patch32_clip_224.openai/snapshots/" + "0" * 40


@pytest.fixture
def one_gpu():
    """The address of a Ray with one GPU that it was told of."""
    process = subprocess.Popen(
        [sys.executable, "-c", RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate("", timeout=60)


@pytest.fixture
def places(tmp_path):
    """Random weights of the real classes where the preset looks for them.

    And twelve photographs.
    """
    torch.manual_seed(0)
    model = make_folder("sd1", tmp_path / "model")
    for file in model.glob("*/*.safetensors"):
        save_file(
            {name: value.half() for name, value in load_file(file).items()},
            file.with_suffix(".fp16.safetensors"),
        )
        file.unlink()
    snapshot = tmp_path / "hf" / SNAPSHOT
    snapshot.mkdir(parents=True)
    weights = open_clip.create_model("ViT-B-32-quickgelu").state_dict()
    save_file(
        {name: value.half().contiguous() for name, value in weights.items()},
        snapshot / "open_clip_model.safetensors",
    )
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(snapshot.name)
    for i in range(12):
        place = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)).save(
            place
        )
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_own_images_with_a_preset_pass_every_check_on_one_gpu_and_end_where_it_is_not_there(
    one_gpu, places
):
    words = (
        "--config",
        "conf/imagefolder.yaml",
        "--config",
        "conf/sd15.yaml",
        f"data.root={places}/photos",
    )
    words += (
        f"run.root={places}/runs",
        f"generator.model={places}/model",
        "generator.size=64",
        "generator.compile=none",
    )
    environment = {**os.environ, "RAY_ADDRESS": one_gpu, "HF_HOME": str(places / "hf")}

    def start(job):
        command = [sys.executable, f"jobs/{job}.py", *words]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    doctor, generate = start("doctor"), start("generate")
    report, complained = doctor.communicate(timeout=300)
    assert (doctor.returncode, complained) == (0, ""), report
    assert "1 generator and 1 scorer on 1 GPU" in report
    assert "1 worker on 1 GPU" in report
    assert "PROBLEM" not in report
    said, complained = generate.communicate(timeout=300)
    assert generate.returncode == 2, said + complained
    assert complained.startswith("error: a GPU is reserved, and CUDA is not available ")
    assert "generator.num_gpus=0 scorer.num_gpus=0" in complained
    assert complained.count("\n") == 1
    assert "1 generator and 1 scorer on 1 GPU" in said
    assert "Traceback" not in said
