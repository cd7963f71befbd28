import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from discl_ray.core.lam import num_denoising_steps
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.diffusion import load_model
from discl_ray.generate.engine import Engine
from discl_ray.generate.model_checks import check_generator
from discl_ray.generate.model_settings import scheduler_config, stored_scheduler
from discl_ray.generate.rows import Row
from discl_ray.generate.samplers import SAMPLERS
from tests.generate.families import FAMILIES, STOCK, make_folder, stock_pipeline

T, SCALE = 10, 4.0
LEVELS = (0, 30, 50, 90)
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.set_num_threads(1)
    return {family: make_folder(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def rows_of(size, *, negative="a blue four"):
    sources = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    return [
        Row(
            gid=f"{i}-{lam_pct}",
            source_id=str(i),
            source=sources[i],
            prompt=f"a photo of the digit {'three' if i else 'seven'}",
            negative_prompt=negative if i else "",
            seed=7 + i,
            num_steps=num_denoising_steps(lam_pct, T),
        )
        for i in range(2)
        for lam_pct in LEVELS
    ]


def our_latents(folder, settings, rows, **config):
    """Final scaled latents by gid, all rows in one mixed batch."""
    config = GeneratorConfig(model=str(folder), cfg_scale=SCALE, **config)
    model = load_model(folder, config, torch.device("cpu"))
    table = SAMPLERS[config.sampler](settings, T)
    seen = []
    model.decode = lambda latents, safe=False: (
        seen.append(latents.clone())
        or (torch.zeros(1, *model.size, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.bool))
    )
    engine = Engine(model, table, cfg_scale=SCALE, micro_batch=3, decode_batch=1)
    gids = [made.gid for made in engine.run(rows)]
    engine.close()
    return {gid: latents[0] for gid, latents in zip(gids, seen, strict=True)}


def stock_latents(pipe, row):
    with torch.no_grad():
        return pipe(
            prompt=row.prompt,
            negative_prompt=row.negative_prompt or None,
            image=torch.from_numpy(row.source.copy()).permute(2, 0, 1)[None].float() / 255,
            strength=min(1.0, (row.num_steps + 0.5) / T),
            num_inference_steps=T,
            guidance_scale=SCALE,
            generator=torch.Generator().manual_seed(row.seed),
            output_type="latent",
        ).images[0]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("family", FAMILIES)
def test_one_mixed_batch_ends_where_the_stock_pipeline_ends(folders, family, sampler, prediction):
    folder = folders[family]
    settings = {**scheduler_config(folder), "prediction_type": prediction}
    pipe = stock_pipeline(folder)
    cls, extra = STOCK[sampler]
    pipe.scheduler = cls.from_config({**settings, **extra, "clip_sample": False})
    rows = rows_of((32, 32))
    ours = our_latents(folder, settings, rows, sampler=sampler)
    for row in rows:
        theirs = stock_latents(pipe, row)
        assert theirs.abs().max() < 100
        assert float((ours[row.gid] - theirs).abs().max()) <= 1e-4, row.gid


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_zero_terminal_snr_ends_where_the_stock_pipeline_ends(folders, family, sampler):
    """λ = 0 begins with noise alone: its image is the text's, whatever the source."""
    folder = folders[family]
    settings = {**scheduler_config(folder), "prediction_type": "v_prediction", "clip_sample": False}
    settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipe = stock_pipeline(folder)
    cls, extra = STOCK[sampler]
    pipe.scheduler = cls.from_config({**settings, **extra})
    rows = [row for row in rows_of((32, 32)) if row.num_steps in (T, T // 2)]
    ours = our_latents(folder, settings, rows, sampler=sampler)
    for row in rows:
        theirs = stock_latents(pipe, row)
        assert theirs.abs().max() < 100
        assert float((ours[row.gid] - theirs).abs().max()) <= 1e-4, row.gid
    black = [dataclasses.replace(row, source=np.zeros_like(row.source)) for row in rows[:2]]
    of_black = our_latents(folder, settings, black, sampler=sampler)
    change = [float((ours[row.gid] - of_black[row.gid]).abs().max()) for row in black]
    assert change[0] < 0.02 < change[1]


@pytest.mark.parametrize("offset", [None, 0, 5])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_an_older_scheduler_file_is_repaired_where_diffusers_repairs_it(
    folders, tmp_path, family, offset
):
    """steps_offset becomes 1 for Stable Diffusion, and stays for XL."""
    folder = shutil.copytree(folders[family], tmp_path / "copy")
    file = folder / "scheduler" / "scheduler_config.json"
    settings = {k: v for k, v in json.loads(file.read_text()).items() if k != "steps_offset"}
    settings |= {
        "_class_name": "DDIMScheduler",
        "clip_sample": family == "sd1",
    }  # which Stable Diffusion's repair turns off
    settings |= {} if offset is None else {"steps_offset": offset}
    file.write_text(json.dumps(settings))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps({**index, "scheduler": ["diffusers", "DDIMScheduler"]})
    )
    pipe, row = stock_pipeline(folder), rows_of((32, 32))[2]
    assert type(pipe.scheduler) is DDIMScheduler
    ours = our_latents(folder, scheduler_config(folder), [row])[row.gid]
    assert float((ours - stock_latents(pipe, row)).abs().max()) <= 1e-4
    unrepaired = our_latents(folder, stored_scheduler(folder), [row])[row.gid]
    assert (float((ours - unrepaired).abs().max()) > 1e-3) == (family == "sd1")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_notices_what_a_family_is_told(folders, family):
    folder, settings = folders[family], scheduler_config(folders[family])
    rows = rows_of((32, 32))
    ours = our_latents(folder, settings, rows, sampler="euler")
    other = our_latents(
        folder,
        settings,
        [dataclasses.replace(r, negative_prompt="red") for r in rows],
        sampler="euler",
    )
    assert all(float((ours[g] - other[g]).abs().max()) > 1e-4 for g in ours)
    if family == "sdxl-refiner":
        ugly = our_latents(folder, settings, rows, sampler="euler", aesthetic_score=1.0)
        assert all(float((ours[g] - ugly[g]).abs().max()) > 1e-4 for g in ours)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sdxl-refiner"])
def test_another_size_that_is_no_square_agrees_too(folders, family):
    """Height and width reach SDXL's time ids in the right order.

    Latents of odd sides go through the UNet.
    """
    folder, settings = folders[family], scheduler_config(folders[family])
    rows = rows_of((28, 40))
    ours = our_latents(folder, settings, rows, sampler="euler", size=(28, 40))
    pipe = stock_pipeline(folder)
    for row in rows:
        assert float((ours[row.gid] - stock_latents(pipe, row)).abs().max()) <= 1e-4


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_pure_noise_is_the_text_to_image_pipeline(folders, sampler):
    from diffusers import StableDiffusionPipeline

    folder, settings = folders["sd1"], scheduler_config(folders["sd1"])
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    cls, extra = STOCK[sampler]
    pipe.scheduler = cls.from_config({**settings, **extra, "clip_sample": False})
    row = dataclasses.replace(rows_of((32, 32))[0], pure=True)
    generator = torch.Generator().manual_seed(row.seed)
    torch.randn(
        (1, 4, 8, 8), generator=generator
    )  # the posterior's draw, which text-to-image does not make
    noise = torch.randn((1, 4, 8, 8), generator=generator)
    theirs = pipe(
        prompt=row.prompt,
        num_inference_steps=T,
        guidance_scale=SCALE,
        latents=noise,
        generator=generator,
        output_type="latent",
    ).images[0]
    ours = our_latents(folder, settings, [row], sampler=sampler)[row.gid]
    assert float((ours - theirs).abs().max()) <= 1e-4
    assert (
        float(
            (
                ours
                - our_latents(
                    folder, settings, [dataclasses.replace(row, pure=False)], sampler=sampler
                )[row.gid]
            )
            .abs()
            .max()
        )
        > 1e-3
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_s_folder_is_accepted(folders, family):
    check_generator(GeneratorConfig(model=str(folders[family])), T)


def test_without_guidance_the_unet_works_on_half_the_rows(folders):
    folder = folders["sd1"]
    model = load_model(folder, GeneratorConfig(model=str(folder)), torch.device("cpu"))
    seen, denoise = [], model.denoise
    model.denoise = lambda x, t, c: seen.append(len(x)) or denoise(x, t, c)
    engine = Engine(
        model, SAMPLERS["ddim"](model.scheduler, T), cfg_scale=1.0, micro_batch=3, decode_batch=2
    )
    rows = rows_of((32, 32))[:2]
    assert len(list(engine.run(rows))) == 2
    assert set(seen) == {3}
    pipe = stock_pipeline(folder)
    pipe.scheduler = DDIMScheduler.from_config({**model.scheduler, "clip_sample": False})
    theirs = pipe(
        prompt=rows[0].prompt,
        image=torch.from_numpy(rows[0].source.copy()).permute(2, 0, 1)[None].float() / 255,
        strength=1.0,
        num_inference_steps=T,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(rows[0].seed),
        output_type="np",
    ).images[0]
    ours = next(
        m.pixels
        for m in Engine(
            model,
            SAMPLERS["ddim"](model.scheduler, T),
            cfg_scale=1.0,
            micro_batch=3,
            decode_batch=2,
        ).run(rows[:1])
    )
    assert np.abs(ours.astype(int) - (theirs * 255).round()).max() <= 1


def test_a_scheduler_the_sampler_cannot_follow_is_refused_before_loading(folders, tmp_path):
    from discl_ray.errors import ModelError

    folder = shutil.copytree(folders["sd1"], tmp_path / "copy")
    file = folder / "scheduler" / "scheduler_config.json"
    settings = json.loads(file.read_text())
    del settings["beta_end"]
    file.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="'beta_end' is missing"):
        check_generator(GeneratorConfig(model=str(folder)), T)
