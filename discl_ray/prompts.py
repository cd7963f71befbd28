"""Class name -> generation prompts and the filter prompt.

They are two things: an image may be made from a scene description, and is scored against the plain class ("a photo of X").
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from discl_ray.core.settings import Settings


class PromptConfig(Settings):
    """Templates; `{name}` is the class name."""

    generation: tuple[str, ...] = Field(default=("a photo of the digit {name}",), min_length=1)
    """Prompts for the generator; replicas take them in turn."""
    filter: str = "a photo of the digit {name}"
    """The prompt an image is scored against."""
    negative: str = ""
    """What classifier-free guidance leads away from."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        for template in (*self.generation, self.filter):
            try:
                template.format(name="x")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(f"'{template}': the only placeholder is {{name}}") from error
        return self


def generation_prompt(config: PromptConfig, class_name: str, replica: int) -> str:
    """The generator's prompt for one replica of a class."""
    return config.generation[replica % len(config.generation)].format(name=class_name)


def filter_prompt(config: PromptConfig, class_name: str) -> str:
    """The prompt the scorer compares with."""
    return config.filter.format(name=class_name)
