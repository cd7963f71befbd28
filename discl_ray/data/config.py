# pyright: reportIncompatibleVariableOverride=false
# (a data set's `name` is one word, where the base says only that it is text; configs are frozen)
"""Which data set, where it lies, how it is split, and which of its classes count as many, medium
and few.

One class a data set: `data.name` chooses it, and a key that another data set has is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from discl_ray.core.images import LARGEST
from discl_ray.core.settings import Location, Settings, added, execution

NEUTRAL = "a photo of a {name}"
DIGIT = "a photo of the digit {name}"

NEUTRAL_CAPTIONS = (NEUTRAL, "a {name}", "a picture of a {name}")
DIGIT_CAPTIONS = (DIGIT, "the digit {name}", "a handwritten {name}")


class LongTail(Settings):
    """Subsampling of the training split: n_i = n_0 * imbalance^(-i / (C - 1)), rounded down; i
    counts classes by falling size."""

    imbalance: float = Field(default=100, ge=1)
    """Images of the commonest class for each of the rarest."""
    head: int | None = Field(default=None, ge=1)
    """n_0, images of the commonest class; default: as many as it has."""


class AnyDataConfig(Settings):
    """What holds for every data set."""

    template: ClassVar[str] = NEUTRAL
    """What a prompt says of a class, where the configuration names none; `{name}` is the class."""
    captions: ClassVar[tuple[str, ...]] = NEUTRAL_CAPTIONS
    """Captions that a CLIP is trained on, where the configuration names none."""
    embedded: ClassVar[bool] = False
    """Whether it comes with the package, which has models that know it."""

    name: str = ""
    """The data set's reader."""
    few_below: int = Field(default=20, ge=1)
    """Classes with fewer training images than this are `few`."""
    many_above: int = Field(default=100, ge=1)
    """Classes with more training images than this are `many`; the rest are `medium`."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.few_below > self.many_above + 1:
            raise ValueError(
                f"few_below = {self.few_below} overlaps many_above = {self.many_above}"
            )
        return self


class DigitsLTConfig(AnyDataConfig):
    """The embedded long-tailed task: ten handwritten digits, split by writer."""

    template: ClassVar[str] = DIGIT
    captions: ClassVar[tuple[str, ...]] = DIGIT_CAPTIONS
    embedded: ClassVar[bool] = True
    name: Literal["digits_lt"] = "digits_lt"
    look: Literal["ochre", "sepia", "web"] = "ochre"
    """How the task's digits look: `sepia` narrows the gap to what the generator has seen, `web`
    closes it."""
    head: int = Field(default=36, ge=2, le=36)
    """Training images of the largest class (three blocks of writers hold at least 36 of each)."""
    tail: int = Field(default=2, ge=1)
    """Training images of the smallest class."""
    few_below: int = Field(default=6, ge=1)
    many_above: int = Field(default=15, ge=1)

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if self.tail > self.head:
            raise ValueError(f"tail = {self.tail} exceeds head = {self.head}")
        return self


class DigitsWildConfig(AnyDataConfig):
    """The embedded low-quality task: digits in the places of camera traps, and empty places."""

    template: ClassVar[str] = DIGIT
    captions: ClassVar[tuple[str, ...]] = DIGIT_CAPTIONS
    embedded: ClassVar[bool] = True
    name: Literal["digits_wild"] = "digits_wild"
    per_place: int = Field(default=32, ge=4, le=100)
    """Training images of a place on average; there are 24 places."""
    few_below: int = Field(default=40, ge=1)
    many_above: int = Field(default=80, ge=1)


class FilesConfig(AnyDataConfig):
    """What holds for every data set that lies on a disk or in an object store."""

    root: Location = execution(min_length=1)
    """Folder or URI of the data set; nothing outside it is read. Moving it changes nothing."""
    names: Location | None = execution(None)
    """File of class names for prompts and tables: CSV (`class,name`), JSON ({class: name}), or text
    (`class name`, a line each)."""
    val_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of each class that becomes val where the data set has no val split."""
    test_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Share of each class that becomes test where the data set has no test split."""
    long_tail: LongTail | None = None
    """Makes the training split long-tailed; null takes all of it."""
    cross_split_duplicates: Literal["exclude", "keep"] = "exclude"
    """Files with the same bytes in two splits: only the first of test, val and train keeps them, or
    all do."""
    conflicts: Literal["drop", "refuse"] = added("drop", before="drop")
    """Files with the same bytes under two classes, so that nobody knows which: all of them are left
    out, or the job ends."""
    max_bad_fraction: float = execution(0.05, ge=0, le=1)
    """The job ends if more than this share of the images cannot be read."""
    max_megapixels: int = execution(50, ge=1, le=LARGEST // 10**6)
    """Largest image of those that have to be decoded whole: all but ordinary JPEG, which is read at
    a fraction. Reading one takes up to 20 bytes a pixel."""
    allow_links_outside: bool = execution(False)
    """Follow symbolic links that lead out of `root`."""

    @model_validator(mode="after")
    def _something_left(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction = {self.val_fraction} and test_fraction = {self.test_fraction} "
                "leave nothing to train on"
            )
        return self


class ImageFolderConfig(FilesConfig):
    """`root/<class>/<image>`, or `root/{train,val,test}/<class>/<image>`."""

    name: Literal["imagefolder"] = "imagefolder"


def _check_columns(columns: dict[str, str], ours: tuple[str, ...]) -> dict[str, str]:
    """Whether only columns of ours are renamed; raises ValueError."""
    for name, theirs in columns.items():
        if name not in ours:
            near = difflib.get_close_matches(name, ours, n=1) or [ours[0]]
            raise ValueError(
                f"'{name}' is none of our columns, which are {', '.join(ours)}; "
                f"to rename one: data.columns.{near[0]}=THEIR_NAME"
            )
        if not theirs:
            raise ValueError(f"the column for '{name}' has no name")
    return columns


class ManifestConfig(FilesConfig):
    """A CSV or JSONL file with a row an image."""

    name: Literal["manifest"] = "manifest"
    file: Location = "manifest.csv"
    """The manifest, under `root`; *.csv, *.tsv or *.jsonl."""
    columns: dict[str, str] = Field(default_factory=dict)
    """What the manifest calls our columns, where that differs: path, label, split, sample_id,
    domain, group."""

    @field_validator("file")
    @classmethod
    def _known_kind(cls, file: str) -> str:
        if not file.lower().endswith((".csv", ".tsv", ".jsonl")):
            raise ValueError("is neither *.csv, *.tsv nor *.jsonl")
        return file

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        return _check_columns(columns, ("path", "label", "split", "sample_id", "domain", "group"))


class ParquetConfig(FilesConfig):
    """Parquet files under `root` with images as bytes, as {bytes, path}, or as paths."""

    name: Literal["parquet"] = "parquet"
    columns: dict[str, str] = Field(default_factory=dict)
    """What the files call our columns, where that differs: image, label, split, sample_id, domain,
    group."""

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        return _check_columns(columns, ("image", "label", "split", "sample_id", "domain", "group"))


class HuggingFaceConfig(FilesConfig):
    """A data set folder of Hugging Face's `datasets`: saved by `save_to_disk`, or a repository's
    Parquet files."""

    name: Literal["huggingface"] = "huggingface"
    image: str | None = None
    """Image column; default: the only one."""
    label: str | None = None
    """Label column; default: the only ClassLabel, else `label`."""
    group: str | None = None
    """Column of what may not be divided between splits."""


class ImageNetLTConfig(FilesConfig):
    """ImageNet-LT: ImageNet's folders and the lists `ImageNet_LT_{train,val,test}.txt`."""

    name: Literal["imagenet_lt"] = "imagenet_lt"
    lists: Location = "."
    """Folder of the three lists, under `root`."""


class Cifar100LTConfig(FilesConfig):
    """CIFAR-100-LT: torchvision's `cifar-100-python/`, made long-tailed by the standard exponential
    profile."""

    name: Literal["cifar100_lt"] = "cifar100_lt"
    long_tail: LongTail | None = LongTail()
    val_per_class: int = Field(default=20, ge=0)
    """Val images of a class, of those that the long tail leaves out."""


class INaturalistConfig(FilesConfig):
    """iNaturalist 2018: `train2018.json`, `val2018.json` and the images they name; its val split is
    the test split, as is usual."""

    name: Literal["inaturalist"] = "inaturalist"
    val_fraction: float = Field(default=0.05, ge=0, lt=1)


class IWildCamConfig(FilesConfig):
    """iWildCam as WILDS distributes it: `metadata.csv`, `categories.csv` and `train/`."""

    name: Literal["iwildcam"] = "iwildcam"


class OutsideConfig(FilesConfig):
    """A reader of your own: `data.name=module:function`, or the name of an entry point."""

    name: str = ""
    root: Location = execution(".", min_length=1)
    """Folder or URI for the reader; what it lists is not read outside of it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Values for the reader; they decide what it lists."""


OUTSIDE = "outside"
"""Tag of a reader of one's own in the union of data sets."""


def tag_of(data: Any) -> str:
    """Which config a `data` section is."""
    name = data.get("name") if isinstance(data, Mapping) else getattr(data, "name", None)
    return name if name in BUILTIN else OUTSIDE


DataConfig = Annotated[
    Annotated[DigitsLTConfig, Tag("digits_lt")]
    | Annotated[DigitsWildConfig, Tag("digits_wild")]
    | Annotated[ImageFolderConfig, Tag("imagefolder")]
    | Annotated[ManifestConfig, Tag("manifest")]
    | Annotated[ParquetConfig, Tag("parquet")]
    | Annotated[HuggingFaceConfig, Tag("huggingface")]
    | Annotated[ImageNetLTConfig, Tag("imagenet_lt")]
    | Annotated[Cifar100LTConfig, Tag("cifar100_lt")]
    | Annotated[INaturalistConfig, Tag("inaturalist")]
    | Annotated[IWildCamConfig, Tag("iwildcam")]
    | Annotated[OutsideConfig, Tag(OUTSIDE)],
    Discriminator(tag_of),
]
"""The `data` section; the last is for every other name."""

DATA_SETS: dict[str, type[AnyDataConfig]] = {
    str(kind.model_fields["name"].default): kind
    for kind in (
        DigitsLTConfig,
        DigitsWildConfig,
        ImageFolderConfig,
        ManifestConfig,
        ParquetConfig,
        HuggingFaceConfig,
        ImageNetLTConfig,
        Cifar100LTConfig,
        INaturalistConfig,
        IWildCamConfig,
    )
}
"""The package's data sets by name."""

BUILTIN = tuple(DATA_SETS)
