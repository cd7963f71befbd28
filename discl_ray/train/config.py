"""The classifier and its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from discl_ray.core.settings import Count, Location, Settings, Switch, execution, identity, implied
from discl_ray.data.config import DIGIT_CAPTIONS
from discl_ray.train.augment.config import AugmentConfig

OF_START = (
    "model",
    "width",
    "stem",
    "norm",
    "clip",
    "captions",
    "image_size",
    "batch",
    "optimizer",
    "weight_decay",
    "warmup",
    "precision",
    "compile",
    "start_steps",
    "start_learning_rate",
)
"""Fields that decide the start of a run, and so are equal in all runs with the same start."""

AUGMENT_OF_START = ("shift", "jitter", "flip", "crop")

FLYP_CROP = 0.9
"""`augment.crop` of a CLIP that names none: FLYP trains on RandomResizedCrop(0.9, 1)."""


class TrainConfig(Settings):
    """One training run.

    Every row of a table starts from the same weights and takes the same number of steps.
    """

    model: Literal["resnet10", "resnet34", "clip"] = "resnet10"
    """A ResNet of basic blocks, from scratch; or a CLIP, fine-tuned by its own loss on captions
    (FLYP)."""
    width: int = Field(default=24, ge=1)
    """ResNet: channels of the first stage; doubled at each of the four stages."""
    stem: Literal["small", "imagenet"] = "small"
    """ResNet: a 3x3 convolution without pooling, or torchvision's 7x7 with stride 2 and pooling for
    large images."""
    norm: Literal["batch", "group"] = "batch"
    """ResNet: batch normalisation, or group normalisation, with which an image does not depend on
    its batch."""
    clip: Location = Field(default="embedded", min_length=1)
    """CLIP: an open_clip folder with safetensors; `embedded` is the student, which is not the CLIP
    that scores (`embedded-scorer`)."""
    captions: tuple[str, ...] | None = implied(before=list(DIGIT_CAPTIONS), min_length=1)
    """CLIP: captions of the images, one drawn for each image and epoch, and the prompts of the
    head; `{name}` is the class name. Default: the data set's own."""
    image_size: int = Field(default=32, ge=8)
    """Side of the classifier's images, in pixels; larger ones are cropped to a square and resized.
    """
    loss: Literal["ce", "balanced_softmax", "logit_adjusted"] = "ce"
    """ResNet's; CLIP has its own."""
    tau: float = Field(default=1.0, ge=0)
    """logit_adjusted: weight of the classes' log prior; at 1 it is Balanced Softmax."""
    prior: Literal["original", "effective"] = "effective"
    """Prior of the adjusted losses: `effective` is that of a stage's images; `original`, the data
    set's class frequencies, leaves log(oversampling / undersampling) of a stage on every
    logit at test."""
    start_steps: int = Field(default=400, ge=0)
    """ResNet: optimizer steps of the CE run on real images that all runs start from; 0 starts from
    random weights."""
    start_learning_rate: float = Field(default=1e-3, gt=0)
    """Highest learning rate of that run, so that runs of other learning rates may start from the
    same weights."""
    epochs: int = Field(default=35, ge=1)
    """E: epochs after the start, curriculum included."""
    batch: int = Field(default=32, ge=1)
    """Images per optimizer step over all workers."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """`adam` adds the weight decay to the gradient; `adamw` decays the weights themselves, but not
    gains and biases."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest learning rate; it falls to zero on a cosine."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Strength of the decay of weights."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly."""
    augment: AugmentConfig = AugmentConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward passes under autocast; weights and optimizer stay in fp32."""
    compile: bool = False
    """torch.compile the model; changes last bits."""
    keep: Literal["last", "best"] = "last"
    """Weights of the last epoch, or of the one that was best on val; among equals the first."""
    eval_every: int = Field(default=5, ge=1)
    """Epochs between evaluations on val, each of which ends in a checkpoint."""
    workers: Count = execution("auto")
    """Ray Train workers; the batch is divided between them. `auto`: one on the CPU; on GPUs the
    most that divide the batch, or as many as the run began with when it goes on elsewhere."""
    accumulate: int = execution(1, ge=1)
    """Parts a worker cuts its share of a batch into, one after the other, to need less memory."""
    threads: int = execution(2, ge=1)
    """CPU threads of each worker."""
    use_gpu: Switch = execution("auto")
    """Whether each worker has a GPU; `auto`: if the cluster has one or may start one."""
    max_failures: int = execution(2, ge=0)
    """How often a run whose worker died is resumed from its last checkpoint."""
    max_decoded_gb: float = execution(64.0, gt=0)
    """Images are stored decoded up to this size; larger sets stay encoded and are decoded batch by
    batch."""

    @property
    def alone(self) -> bool:
        """Whether the number of workers is 1 or `auto`."""
        return self.workers in ("auto", 1)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is asked for, and not left to `auto`."""
        return self.use_gpu is True

    def with_captions(self, captions: tuple[str, ...]) -> Self:
        """This configuration with a data set's own captions where a CLIP has none.

        A ResNet reads no captions: the data set's own are left out again, so that its runs are
        named alike whatever model the configuration had before.
        """
        if self.model != "clip" and self.captions == captions:
            return self.model_copy(update={"captions": None})
        if self.model == "clip" and self.captions is None:
            return self.model_copy(update={"captions": captions})
        return self

    def start(self) -> TrainConfig:
        """The configuration of the run that this one starts from: plain cross-entropy.

        Equal for all runs that differ only in fields that are not OF_START.
        """
        later = set(identity(self)) - {*OF_START, "learning_rate", "augment"}
        fields = type(self).model_fields
        changed: dict[str, Any] = {name: fields[name].get_default() for name in later}
        # cross-entropy has no prior; this is the value that starts are named by
        changed["prior"] = "original"
        changed["learning_rate"] = self.start_learning_rate
        kept = {name: getattr(self.augment, name) for name in AUGMENT_OF_START}
        changed["augment"] = AugmentConfig(**kept)
        return self.model_copy(update=changed)

    @model_validator(mode="before")
    @classmethod
    def _flyp_crops(cls, values: Any) -> Any:
        """Where no crop is named, a CLIP's images are cropped as FLYP crops them."""
        if not isinstance(values, Mapping) or values.get("model") != "clip":
            return values
        augment = values.get("augment", {})
        if not isinstance(augment, Mapping) or "crop" in augment:
            return values
        return {**values, "augment": {**augment, "crop": FLYP_CROP}}

    @field_validator("captions")
    @classmethod
    def _with_a_gap(cls, captions: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Raises ValueError for a caption that does not name the class."""
        for caption in captions or ():
            try:
                named = caption.format(name="")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(f"'{caption}': only {{name}} is filled in") from error
            if named == caption:
                raise ValueError(f"'{caption}' has no {{name}}, so it says the same of every class")
        return captions

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Raises ValueError for values that do not go together."""
        if self.workers != "auto" and self.batch % self.workers:
            raise ValueError(
                f"batch = {self.batch} cannot be divided between workers = {self.workers}"
            )
        if self.model == "clip":
            self._fits_a_clip()
        return self

    def _fits_a_clip(self) -> None:
        """Raises ValueError for what FLYP does not have."""
        needed = {"loss": "ce", "start_steps": 0, "accumulate": 1}
        for name, value in needed.items():
            given = getattr(self, name)
            if given != value:
                allowed = ", ".join(f"{key}={one}" for key, one in needed.items())
                raise ValueError(
                    f"{name} = {given}: a CLIP is trained from its own weights, by its own loss, "
                    f"a batch at once: {allowed}"
                )
        if self.augment.kind != "standard" or self.augment.mix != "none":
            raise ValueError(
                "augment: a CLIP's images are cropped and no more; "
                "leave augment.kind=standard, augment.mix=none"
            )
