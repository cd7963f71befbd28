"""Diffusion Curriculum on Ray: from hard real images to a spectrum of synthetic ones, and training on it with a curriculum.

The path of the data: data -> hard -> plan -> generate -> score -> spectrum -> curriculum -> train -> evaluate -> report.
"""
