"""A byte-pair tokenizer of a few hundred tokens, learnt from the captions; the generator and the scorer share it.

It is a transformers `CLIPTokenizer` with a smaller vocabulary: same normaliser, same splitting, same special tokens. The end
token has the highest id, which is where open_clip's text tower reads its summary.
"""

from __future__ import annotations

import json
from itertools import product

from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import CLIPTokenizer

from discl_ray.embedded.digits import CAPTIONS, NAMES, PALETTE

CONTEXT = 16
"""Tokens per caption, start and end included."""


def caption_corpus() -> list[str]:
    """Every caption the web can carry."""
    colours = list(PALETTE)
    return [
        template.format(name=name, ink=ink, ground=ground)
        for template, _ in CAPTIONS
        for name, ink, ground in product(NAMES, colours, colours)
    ]


def train_tokenizer(vocab_size: int = 384) -> CLIPTokenizer:
    """Learns merges on the captions and returns them as a CLIPTokenizer."""
    blank = CLIPTokenizer()
    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(caption_corpus(), trainer)
    learnt = json.loads(backend.to_str())["model"]
    tokens = [t for t, _ in sorted(learnt["vocab"].items(), key=lambda item: item[1])]
    ending = [
        f"{c}</w>" for c in letters if f"{c}</w>" not in learnt["vocab"]
    ]  # every character can end a word
    vocab = {
        token: i for i, token in enumerate([*tokens, *ending, "<|startoftext|>", "<|endoftext|>"])
    }
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT)  # pyright: ignore[reportArgumentType]
