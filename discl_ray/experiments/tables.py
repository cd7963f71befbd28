"""The published tables: rows, their baselines, and the contrast that was fixed beforehand.

See SCIENCE §1, §5 and §9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from discl_ray.config import Config
from discl_ray.data.config import DigitsLTConfig
from discl_ray.experiments.rows import CE, RowSpec, row


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows and contrasts."""

    rows: tuple[RowSpec, ...]
    baselines: Mapping[str, str]
    """Row -> what it is compared with, paired by seed; the primary contrast first."""
    columns: tuple[tuple[str, str], ...]
    """(metric, group or domain)."""


BS = row("Balanced Softmax", "real_only", "balanced_softmax")
DUPLICATED = row("CE, duplicated tail", "duplicated")
POST_HOC = row("CE, logit adjustment afterwards", "real_only", read="post_hoc")
ADJUSTED = row("Logit adjustment, τ = 1.5", "real_only", "logit_adjusted", train__tau=1.5)
STRONG = row("CE, strong colour and texture", "real_only", train__augment__kind="strong")
MIXUP = row("CE, MixUp", "real_only", train__augment__mix="mixup")
CUTMIX = row("CE, CutMix", "real_only", train__augment__mix="cutmix")
CUDA = row("CE, CUDA", "real_only", train__augment__kind="cuda")
WEB = row("CE + web images, retrieved", "all_level", curriculum__levels=(0.0,), web="retrieved")
PRETRAINED = row("CE, pretrained on web images", "real_only", web="pretrained")
ZERO_SHOT_SCORER = row(
    "zero-shot, the scorer",
    "real_only",
    train__model="clip",
    train__clip="embedded-scorer",
    train__captions=(DigitsLTConfig.template,),  # the data set that the scorer knows
    train__start_steps=0,
    read="untrained",
)
TEXT_ONLY = row("CE + Text-only", "text_only")
FIXED = row("CE + Fixed λ = 0.5", "fixed", curriculum__fixed_lam=0.5)
ALL_LEVEL = row("CE + All-Level", "all_level")
D2S = row("CE + Diverse-to-Specific", "diverse_to_specific")
S2D = row("CE + Specific-to-Diverse", "specific_to_diverse")
EASY = row("CE + Easy-to-Hard", "easy_to_hard")
RANDOM = row("CE + Random", "random")
ADAPTIVE = row("CE + Adaptive", "adaptive", curriculum__rule="strict")
BS_ALL = row("BS + All-Level", "all_level", "balanced_softmax")
BS_D2S = row("BS + Diverse-to-Specific", "diverse_to_specific", "balanced_softmax")
BS_ORIGINAL = row(
    "Balanced Softmax, original prior", "real_only", "balanced_softmax", train__prior="original"
)
BS_D2S_ORIGINAL = row(
    "BS + Diverse-to-Specific, original prior",
    "diverse_to_specific",
    "balanced_softmax",
    train__prior="original",
)

LONG_TAIL = Table(
    rows=(
        ZERO_SHOT_SCORER,
        *(CE, DUPLICATED, STRONG, MIXUP, CUTMIX, CUDA, POST_HOC, BS, ADJUSTED, WEB, PRETRAINED),
        *(TEXT_ONLY, FIXED, ALL_LEVEL, D2S, S2D, EASY, RANDOM, ADAPTIVE),
        *(BS_ALL, BS_D2S, BS_ORIGINAL, BS_D2S_ORIGINAL),
    ),
    baselines={BS_D2S.label: BS.label}
    | {BS_ALL.label: BS.label, BS_D2S_ORIGINAL.label: BS_ORIGINAL.label, ADJUSTED.label: BS.label}
    | {
        r.label: CE.label
        for r in (DUPLICATED, STRONG, MIXUP, CUTMIX, CUDA, POST_HOC, BS, WEB, PRETRAINED)
    }
    | {r.label: CE.label for r in (TEXT_ONLY, FIXED, ALL_LEVEL, D2S, S2D, EASY, RANDOM, ADAPTIVE)},
    columns=(("top1", "many"), ("top1", "medium"), ("top1", "few"), ("top1", "overall")),
)
"""Long tail: the primary contrast is BS + Diverse-to-Specific against BS, with the prior of the
configuration, like all rows that name none. Adaptive's steps on D are part of the epoch."""


def _flyp(label: str, strategy: str, **more: object) -> RowSpec:
    """Algorithm 2's steps on D come on top of the epoch; every row's budget includes as many."""
    return row(f"FLYP{label}", strategy, curriculum__explore_extra=True, **more)


ZERO_SHOT = row("zero-shot", "real_only", read="untrained")
FLYP = _flyp("", "real_only")
FLYP_WE = _flyp(" + WE", "real_only", read="ensemble")
FLYP_DUPLICATED = _flyp(", duplicated hard images", "duplicated")
FLYP_TEXT = _flyp(" + Text-only", "text_only")
FLYP_FIXED = _flyp(" + Fixed λ = 0.9", "fixed", curriculum__fixed_lam=0.9)
FLYP_ALL = _flyp(" + All-Level", "all_level")
FLYP_EASY = _flyp(" + Easy-to-Hard", "easy_to_hard")
FLYP_RANDOM = _flyp(" + Random", "random")
FLYP_ADAPTIVE = _flyp(" + Adaptive", "adaptive", curriculum__rule="strict")
FLYP_MARGIN = _flyp(" + Adaptive (margin)", "adaptive", curriculum__rule="margin")
FLYP_ADAPTIVE_WE = _flyp(" + Adaptive + WE", "adaptive", curriculum__rule="strict", read="ensemble")

LOW_QUALITY = Table(
    rows=(
        ZERO_SHOT,
        *(FLYP, FLYP_WE, FLYP_DUPLICATED, FLYP_TEXT, FLYP_FIXED, FLYP_ALL, FLYP_EASY, FLYP_RANDOM),
        *(FLYP_ADAPTIVE, FLYP_MARGIN, FLYP_ADAPTIVE_WE),
    ),
    baselines={FLYP_ADAPTIVE.label: FLYP.label, FLYP_ADAPTIVE_WE.label: FLYP_WE.label}
    | {
        r.label: FLYP.label
        for r in (
            FLYP_WE,
            FLYP_DUPLICATED,
            FLYP_TEXT,
            FLYP_FIXED,
            FLYP_ALL,
            FLYP_EASY,
            FLYP_RANDOM,
            FLYP_MARGIN,
        )
    },
    columns=(("macro_f1", "ood"), ("macro_f1", "id"), ("top1", "ood"), ("top1", "id")),
)
"""Low quality: the primary contrast is FLYP + Adaptive (Algorithm 2) against FLYP."""

GAP = Table(
    rows=(CE, BS, TEXT_ONLY, ALL_LEVEL, D2S, S2D, BS_D2S),
    baselines={BS_D2S.label: BS.label}
    | {r.label: CE.label for r in (BS, TEXT_ONLY, ALL_LEVEL, D2S, S2D)},
    columns=LONG_TAIL.columns,
)
"""How a gain depends on the gap between what the generator was trained on and the task."""

SHORT = Table(
    rows=(CE, BS, ALL_LEVEL, D2S, BS_D2S),
    baselines={BS_D2S.label: BS.label} | {r.label: CE.label for r in (BS, ALL_LEVEL, D2S)},
    columns=LONG_TAIL.columns,
)
"""The main rows."""

TABLES: dict[str, Table] = {
    "long_tail": LONG_TAIL,
    "low_quality": LOW_QUALITY,
    "gap": GAP,
    "short": SHORT,
}
"""Tables by the name that `make compare` knows them by."""


def table_for(config: Config) -> str:
    """The table that belongs to a task."""
    return "low_quality" if config.train.model == "clip" else "long_tail"
