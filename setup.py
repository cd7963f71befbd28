"""Puts conf/ into the package as discl_ray/conf: one copy, at the top of the tree.

All else is in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["discl_ray*"]), "discl_ray.conf"],
    # `package_data` says it all; without this each folder of weights is warned of
    include_package_data=False,
    package_dir={"discl_ray.conf": "conf"},
    package_data={
        "discl_ray": ["py.typed", "embedded/weights/**/*"],
        "discl_ray.conf": ["*.yaml", "prompts/*.yaml"],
    },
)
