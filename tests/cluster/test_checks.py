"""Checks before a job starts; `doctor` shows each of them."""

from pathlib import Path

import pytest

from discl_ray.cluster import checks
from discl_ray.cluster.demand import Cluster, Node
from discl_ray.config import load_config
from discl_ray.errors import ConfigError, SetupError

CONF = Path(__file__).resolve().parents[2] / "conf"


def loaded(*words, preset="sd15"):
    return load_config([CONF / "digits_lt.yaml", CONF / f"{preset}.yaml"], words)


@pytest.fixture
def on(monkeypatch):
    """Makes the cluster one of nodes with these GPUs."""

    def set_cards(*cards):
        cluster = Cluster(tuple(Node(gpus=1, card=card) for card in cards))
        monkeypatch.setattr(checks, "present", lambda run: cluster)

    return set_cards


def test_cards_without_bfloat16_get_float16(on):
    on("T4")
    changed, (sentence,) = checks.settled(loaded())
    assert (changed.generator.dtype, changed.generator.vae_dtype) == ("float16", "float32")
    assert "T4 does not support bfloat16" in sentence
    assert "generator.dtype=float16 generator.vae_dtype=float32" in sentence


def test_a_mixture_of_cards_with_and_without_bfloat16_is_rejected_with_what_all_support(on):
    on("T4", "A100")
    with pytest.raises(SetupError, match=r"set generator\.dtype=float16 .*which all support"):
        checks.settled(loaded())


def test_nothing_changes_on_cards_with_bfloat16_without_cards_or_without_bfloat16(on):
    on("A100")
    assert checks.settled(loaded()) == (loaded(), [])
    on()
    assert checks.settled(loaded()) == (loaded(), [])
    on("T4")
    plain = loaded("generator.dtype=float32", "generator.vae_dtype=float32")
    assert checks.settled(plain) == (plain, [])


def test_training_in_bfloat16_is_rejected_on_cards_without_it(on):
    on("V100")
    with pytest.raises(SetupError, match=r"V100 does not .*set train\.precision=fp32"):
        checks.settled(loaded("train.precision=bf16"))
    checks.settled(loaded("train.precision=bf16", "train.use_gpu=false"))


def test_the_memory_of_known_cards_is_told(on):
    on("T4", "H100", "Unheard-of")
    assert checks.cards_of(loaded()) == {"T4": 16, "H100": 80}


def test_a_run_root_is_checked_and_named(tmp_path):
    assert checks.check_run_root(loaded(f"run.root={tmp_path}")) == f"{tmp_path}: can be written"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(SetupError, match="file"):
        checks.check_run_root(loaded(f"run.root={file}/below"))


def test_a_filter_and_a_strategy_from_outside_are_imported_before_anything_else(
    tmp_path, monkeypatch
):
    (tmp_path / "checked_early.py").write_text("def choose(at): ...\nnumber = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert checks.check_functions(loaded()) == "the package's own"
    own = loaded("curriculum.strategy=checked_early:choose", "filter.mode=checked_early:choose")
    assert checks.check_functions(own) == (
        "curriculum.strategy = checked_early:choose, filter.mode = checked_early:choose"
    )
    for word, why in (
        ("filter.mode=no_such_module:f", r"^filter\.mode = 'no_such_module:f': .* be imported"),
        ("curriculum.strategy=checked_early:nope", "module 'checked_early' has no 'nope'$"),
        ("filter.mode=checked_early:number", "is a int, not a function$"),
    ):
        with pytest.raises(ConfigError, match=why):
            checks.check_functions(loaded(word))


def test_ray_is_checked_without_being_started(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "started by each job, with its files in " in checks.check_ray(loaded())
    monkeypatch.setenv("RAY_ADDRESS", "http://localhost:8265")
    with pytest.raises(SetupError, match="RAY_ADDRESS"):
        checks.check_ray(loaded())


def test_the_first_check_that_fails_ends_the_checking():
    config, ran = loaded(), []

    def passes(given):
        ran.append(given)
        return "fine"

    def fails(_):
        raise SetupError("no room")

    with pytest.raises(SetupError, match="no room"):
        checks.refuse(config, [("a", passes), ("b", fails), ("c", passes)])
    assert ran == [config]
