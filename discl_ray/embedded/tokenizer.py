"""A byte-pair tokenizer of a few hundred tokens for the captions of generator and scorer.

It is a transformers `CLIPTokenizer` with a smaller vocabulary: same normaliser, same splitting,
same special tokens. The end token has the highest id, as open_clip's text tower reads its summary
at the highest id of a text.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import CLIPTokenizer

from discl_ray.embedded.digits import CAPTIONS, NAMES, PALETTE

CONTEXT = 16
"""Tokens per caption, start and end included."""


def caption_corpus() -> list[str]:
    """Every caption that a web image can have."""
    colours = list(PALETTE)
    captions: list[str] = []
    for (template, _), name, ink, ground in product(CAPTIONS, NAMES, colours, colours):
        text = template.format(name=name, ink=ink, ground=ground)
        captions.append(text)
    return captions


def train_tokenizer(vocab_size: int = 384) -> CLIPTokenizer:
    """Learns merges on the captions and returns them as a CLIPTokenizer."""
    blank = CLIPTokenizer()
    model = models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix="")
    backend = Tokenizer(model)
    lower = [normalizers.NFC(), normalizers.Lowercase()]
    backend.normalizer = normalizers.Sequence(lower)
    backend.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    first = ord("!")
    last = ord("~")
    letters = [chr(code) for code in range(first, last + 1)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(caption_corpus(), trainer)
    content = json.loads(backend.to_str())
    learnt = content["model"]
    numbers: dict[str, int] = learnt["vocab"]
    tokens = sorted(numbers, key=numbers.__getitem__)
    for letter in letters:
        ending = f"{letter}</w>"  # every character can end a word
        if ending not in numbers:
            tokens.append(ending)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(tokens)}
    merges: Any = [tuple(pair) for pair in learnt["merges"]]  # annotated as one text
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT)
