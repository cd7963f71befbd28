"""Trains the embedded default: VAE, UNet with text encoder, scorer, judge, student.

    python tools/train_embedded.py                    everything, into discl_ray/embedded/weights
    python tools/train_embedded.py scorer judge       only these parts

About an hour on two cores. Killed and started again it resumes where it was (state in --work).
Users never need it: the weights are committed. What they are worth is measured by
`tools/check_embedded.py`.
"""

from discl_ray.process.stopping import listen

if __name__ == "__main__":
    listen()  # before the imports, which take their time

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from discl_ray.cli import finished
from discl_ray.embedded import GENERATOR, SCORER, STUDENT, WEIGHTS
from discl_ray.embedded.digits import web_images
from discl_ray.embedded.generator import save_generator, train_unet, train_vae
from discl_ray.embedded.judge import JUDGE, train_judge
from discl_ray.embedded.scorer import save_scorer, train_scorer
from discl_ray.embedded.tokenizer import train_tokenizer
from discl_ray.embedded.training_loop import Log, log_to

PARTS = ("generator", "scorer", "judge", "student")
SEEDS = {"generator": 0, "scorer": 1, "judge": 2, "student": 3}
"""What is added to --seed, so that every part sees web images of its own."""


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(PARTS)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"which parts to train: {names}")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/embedded"), help="where the state for resuming is"
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
        parser.error(f"unknown part {sorted(unknown)}; allowed: {names}")
    return args


def make_generator(args: argparse.Namespace, tokenizer: CLIPTokenizer, log: Log) -> None:
    """Trains and saves the VAE and the UNet with its text encoder."""
    seed: int = args.seed
    web = web_images(args.images, seed)
    vae = train_vae(web, steps=args.vae_steps, seed=seed, work=args.work, log=log, batch=32)
    model = train_unet(
        web, vae, tokenizer, steps=args.unet_steps, seed=seed, work=args.work, log=log
    )
    save_generator(vae, model, tokenizer, GENERATOR)


def make_scorer(
    args: argparse.Namespace, tokenizer: CLIPTokenizer, log: Log, name: str, folder: Path
) -> None:
    """Trains and saves a small CLIP."""
    seed: int = args.seed + SEEDS[name]
    web = web_images(args.images, seed)
    model = train_scorer(
        web, tokenizer, steps=args.scorer_steps, seed=seed, work=args.work, log=log, name=name
    )
    save_scorer(model, tokenizer, folder)


def make_judge(args: argparse.Namespace, log: Log) -> None:
    """Trains and saves the judge."""
    seed: int = args.seed + SEEDS["judge"]
    web = web_images(args.images, seed)
    judge = train_judge(web, steps=args.judge_steps, seed=seed, work=args.work, log=log)
    save_file(judge.state_dict(), JUDGE)


def main() -> None:
    """Trains the parts that were asked for, one after the other."""
    args = arguments()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    for part in args.parts:
        log = log_to(WEIGHTS / f"{part}.training.jsonl")
        log(
            {
                "part": part,
                "seed": args.seed,
                "images": args.images,
                "threads": args.threads,
                "torch": torch.__version__,
            }
        )
        if part == "generator":
            make_generator(args, tokenizer, log)
        elif part == "judge":
            make_judge(args, log)
        else:
            folder = SCORER if part == "scorer" else STUDENT
            make_scorer(args, tokenizer, log, part, folder)


if __name__ == "__main__":
    finished(main)
