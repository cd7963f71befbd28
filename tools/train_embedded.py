"""Trains the embedded default: VAE, UNet with text encoder, scorer, judge, student. About an hour on two cores; resumable.

    python tools/train_embedded.py                    everything, into discl_ray/embedded/weights
    python tools/train_embedded.py scorer judge       only these parts

Killed and started again it goes on where it was (state in --work). Users never need it: the weights are committed. What they
are worth is measured by `tools/check_embedded.py`.
"""

from discl_ray.process.stopping import listen

if __name__ == "__main__":
    listen()  # before the imports, which take their time

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from discl_ray.cli import finished
from discl_ray.embedded import GENERATOR, SCORER, STUDENT, WEIGHTS
from discl_ray.embedded.digits import web_images
from discl_ray.embedded.generator import save_generator, train_unet, train_vae
from discl_ray.embedded.judge import JUDGE, train_judge
from discl_ray.embedded.scorer import save_scorer, train_scorer
from discl_ray.embedded.tokenizer import train_tokenizer
from discl_ray.embedded.training_loop import log_to

PARTS = ("generator", "scorer", "judge", "student")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", default=PARTS, help=f"which parts to train: {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/embedded"), help="where the state for resuming lies"
    )
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument(
        "--images", type=int, default=20_000, help="web images each part learns from"
    )
    parser.add_argument("--vae-steps", type=int, default=2500)
    parser.add_argument("--unet-steps", type=int, default=5500)
    parser.add_argument("--scorer-steps", type=int, default=4000)
    parser.add_argument("--judge-steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"unknown part {sorted(unknown)}; allowed: {', '.join(PARTS)}")
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    tokenizer, seed = train_tokenizer(), args.seed
    for part in args.parts:
        log = log_to(WEIGHTS / f"{part}.training.jsonl")
        log(
            {
                "part": part,
                "seed": seed,
                "images": args.images,
                "threads": args.threads,
                "torch": torch.__version__,
            }
        )
        if part == "generator":
            web = web_images(args.images, seed)
            vae = train_vae(web, steps=args.vae_steps, seed=seed, work=args.work, log=log, batch=32)
            model = train_unet(
                web, vae, tokenizer, steps=args.unet_steps, seed=seed, work=args.work, log=log
            )
            save_generator(vae, model, tokenizer, GENERATOR)
        elif part == "scorer":
            web = web_images(args.images, seed + 1)
            model = train_scorer(
                web, tokenizer, steps=args.scorer_steps, seed=seed + 1, work=args.work, log=log
            )
            save_scorer(model, tokenizer, SCORER)
        elif part == "student":
            web = web_images(args.images, seed + 3)
            model = train_scorer(
                web,
                tokenizer,
                steps=args.scorer_steps,
                seed=seed + 3,
                work=args.work,
                log=log,
                name="student",
            )
            save_scorer(model, tokenizer, STUDENT)
        else:
            web = web_images(args.images, seed + 2)
            judge = train_judge(web, steps=args.judge_steps, seed=seed + 2, work=args.work, log=log)
            save_file(judge.state_dict(), JUDGE)


if __name__ == "__main__":
    finished(main)
