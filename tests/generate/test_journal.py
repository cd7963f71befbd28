import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.storage import Store
from discl_ray.generate.journal import DEATHS, FOLDER, Journal

GIDS = tuple(f"g{i}" for i in range(10))


def live(run, poison, batch, gids=GIDS):
    """What one process does with a shard; returns (died, rows made, rows given up)."""
    journal = Journal.open(run, "s", gids)
    made = []
    for part in journal.parts(batch):
        journal.enter(part)
        if set(part) & poison:
            return True, made, journal.crashed
        made += part
    journal.close()
    return False, made, journal.crashed


def until_done(run, poison, batch, gids=GIDS):
    for deaths in range(100):
        died, made, crashed = live(run, poison, batch, gids)
        if not died:
            return deaths, made, crashed
    raise AssertionError("never ends")


@pytest.mark.parametrize("batch", [1, 2, 3, 10, 64])
@pytest.mark.parametrize("bad", ["g0", "g4", "g9"])
def test_a_row_that_kills_its_process_is_given_up_at_the_third_death_and_the_rest_is_made(tmp_path, batch, bad):
    run = Store.at(tmp_path)
    deaths, made, crashed = until_done(run, {bad}, batch)
    assert deaths == DEATHS
    assert crashed == {bad}
    assert sorted(made) == sorted(set(GIDS) - {bad})
    assert run.list(FOLDER) == []


@given(poison=st.sets(st.sampled_from(GIDS)), batch=st.integers(1, 12))
def test_whatever_kills_exactly_that_is_given_up(tmp_path_factory, poison, batch):
    run = Store.at(tmp_path_factory.mktemp("j"))
    deaths, made, crashed = until_done(run, poison, batch)
    assert crashed == poison
    assert sorted(made) == sorted(set(GIDS) - poison)
    assert deaths <= 2 * DEATHS * len(poison)


def test_deaths_that_no_row_caused_cost_no_row(tmp_path):
    run = Store.at(tmp_path)
    for _ in range(2):
        journal = Journal.open(run, "s", GIDS)
        journal.enter(journal.parts(4)[0])  # and the power fails
    died, made, crashed = live(run, set(), 4)
    assert (died, sorted(made), crashed) == (False, list(GIDS), set())


def test_an_undisturbed_shard_is_one_part_and_needs_no_process_of_its_own(tmp_path):
    journal = Journal.open(Store.at(tmp_path), "s", GIDS)
    assert not journal.suspicious
    assert journal.parts(2) == [GIDS]
    journal.enter(GIDS)
    again = Journal.open(Store.at(tmp_path), "s", GIDS)
    assert again.suspicious
    assert [len(p) for p in again.parts(4)] == [4, 4, 2]
