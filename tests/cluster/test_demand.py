"""Every preset and every number of GPUs, decided; each refusal names values that are accepted."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.cluster import inventory as cluster
from discl_ray.cluster.demand import Cluster, Node, Stage, Workers, demand, workers
from discl_ray.config import load_config
from discl_ray.errors import ConfigError, SetupError
from discl_ray.synthesize import checks as making
from discl_ray.train import workers as learning

CONF = Path(__file__).resolve().parents[2] / "conf"
PRESETS = (None, "sd15", "sdxl", "sdxl-refiner")
DATA = sorted(
    p.stem for p in CONF.glob("*.yaml") if p.stem not in PRESETS and not p.stem.startswith("tune")
)


def on(gpus, **more):
    return Cluster((Node(cpus=4, gpus=gpus, memory=16e9, **more),))


def stages(generator="auto", scorer="auto", generators="auto", scorers="auto"):
    return (
        Stage(name="generator", actors=generators, num_gpus=generator, share=0.8, memory=1e9),
        Stage(name="scorer", actors=scorers, num_gpus=scorer, share=0.2, memory=1e9),
    )


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_data_set_with_every_preset_takes_all_the_gpus_and_the_doctor_says_so(
    gpus, preset, monkeypatch
):
    monkeypatch.setattr(making, "present", lambda run: on(gpus))
    monkeypatch.setattr(learning, "present", lambda run: on(gpus))
    monkeypatch.setattr(making, "find_model", lambda *_: None)
    monkeypatch.setattr(making, "weight_bytes", lambda *_: 0)
    for name in DATA:
        files = [CONF / f"{name}.yaml"] + ([CONF / f"{preset}.yaml"] if preset else [])
        config = load_config(files, [] if name.startswith("digits") else ["data.root=/nowhere"])
        found = making.crew(config)
        assert found.gpus == ((1, 1),) * gpus
        assert making.check_crew(config) == found.words("generator", "scorer")
        assert learning.training(config.train, config.run) == Workers(gpus, gpu=True)


def test_without_a_gpu_there_are_as_many_generators_as_cores_and_a_preset_is_refused_with_advice():
    found = demand(stages(), Cluster((Node(cpus=4, memory=16e9),)))
    assert [part.actors for part in found.parts] == [2, 1]
    assert demand(stages(), Cluster((Node(cpus=64, memory=5e9),))).parts[0].actors == 5  # memory
    with pytest.raises(SetupError, match=r"no GPU.*generator\.num_gpus=0 scorer\.num_gpus=0"):
        demand(stages(0.8, 0.2), Cluster((Node(cpus=4),)))


def test_a_gpu_that_may_be_started_counts():
    soon = cluster.to_come(
        [cluster.NodeType("gpu", {"CPU": 8, "GPU": 1}, 3), cluster.NodeType("cpu", {"CPU": 8}, 4)],
        {"gpu": 1},
    )
    assert [(node.gpus, node.count) for node in soon] == [(1, 2), (0, 4)]
    found = demand(stages(), Cluster((Node(cpus=2), *soon)))
    assert found.gpus == ((1, 1),) * 2
    assert workers("auto", "auto", 32, Cluster((Node(cpus=2), *soon))) == Workers(2, gpu=True)


def test_a_whole_gpu_for_the_generator_leaves_an_open_scorer_to_the_cpu():
    assert [(p.actors, p.num_gpus) for p in demand(stages(1), on(1)).parts] == [(1, 1), (1, 0)]
    with pytest.raises(SetupError, match=r"generator\.num_gpus=0\.8 would"):
        demand(stages(1, 0.2), on(1))
    with pytest.raises(SetupError, match=r"on 1 GPU; generator\.actors=1 scorer\.actors=1"):
        demand(stages(0.8, 0.2, generators=2), on(1))


@given(
    gpus=st.integers(1, 9),
    generator=st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.8, 1]),
    scorer=st.sampled_from([0, 0.1, 0.2, 0.5]),
)
def test_no_gpu_is_given_out_twice_and_none_is_left_idle(gpus, generator, scorer):
    if generator + scorer > gpus:
        return
    found = demand(stages(generator, scorer), on(gpus))
    assert len(found.gpus) == gpus
    assert all(n * generator + m * scorer < 1.0001 for n, m in found.gpus)
    assert sum(n for n, _ in found.gpus) == found.parts[0].actors
    assert sum(m for _, m in found.gpus) == (found.parts[1].actors if scorer else 0)
    assert found.parts[1].actors >= 1


def test_a_run_goes_on_with_the_workers_it_was_begun_with_where_they_fit():
    assert workers("auto", "auto", 32, on(0)) == Workers(1, gpu=False)
    assert [workers("auto", "auto", 30, on(n)).number for n in (1, 2, 4, 8)] == [1, 2, 3, 6]
    assert workers("auto", "auto", 32, on(8), Workers(4, gpu=True)) == Workers(4, gpu=True)
    assert workers("auto", "auto", 32, on(2), Workers(4, gpu=True)) == Workers(2, gpu=True)
    with pytest.raises(SetupError, match=r"train\.workers=2, or auto"):
        workers(4, True, 32, on(2))
    with pytest.raises(SetupError, match="no GPU"):
        workers("auto", True, 32, on(0))


def test_counts_and_shares_are_auto_or_numbers_in_range():
    with pytest.raises(ConfigError) as caught:
        load_config(
            CONF / "digits_lt.yaml",
            ["generator.actors=0", "generator.num_gpus=2", "train.use_gpu=maybe"],
        )
    for part in (
        "generator.actors = 0: auto",
        "generator.num_gpus = 2: auto",
        "train.use_gpu = 'maybe': auto",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("gpus", [0, 1, 3])
@pytest.mark.parametrize("generator", [0, 0.3, 1])
@pytest.mark.parametrize("memory", [0, 1e9, 5e9, 64e9])
def test_nobody_waits_for_memory_that_a_cpu_or_gpu_has_room_for(gpus, generator, memory):
    """However the node's rooms are filled, what is reserved fits it; enough memory is not cut."""
    if generator and not gpus:
        return
    node = Node(cpus=6, gpus=gpus, memory=memory)
    kinds = [
        Stage(name="generator", num_gpus=generator, memory=1e9),
        Stage(name="scorer", num_gpus=0, memory=5e8),
    ]
    parts = demand(kinds, Cluster((node,))).parts
    rooms = [int(gpus / part.num_gpus) if part.num_gpus else 6 for part in parts]
    largest = dict.fromkeys(("cpu", "gpu"), 0.0)
    for part, room in zip(parts, rooms, strict=True):
        kind = "gpu" if part.num_gpus else "cpu"
        largest[kind] = max(largest[kind], room * part.memory)
    assert sum(largest.values()) <= memory
    if memory == 64e9:
        assert [part.memory for part in parts] == [1e9, 5e8]
    if not memory:
        assert [part.memory for part in parts] == [0, 0]
