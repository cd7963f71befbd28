import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.storage import Store
from discl_ray.generate.crash_journal import DEATHS, FOLDER, CrashJournal, Origin

GIDS = tuple(f"g{i}" for i in range(10))
ORIGIN = Origin(session="one", node="here")


def live(run, poison, batch, gids=GIDS, origin=ORIGIN):
    """What one process does with a shard; returns (died, rows made, rows given up)."""
    journal = CrashJournal.open(run, "s", gids, origin)
    made = []
    for part in journal.parts(batch):
        journal.begin(part)
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
def test_a_row_that_kills_its_process_is_given_up_at_the_third_death_and_the_rest_is_made(
    tmp_path, batch, bad
):
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
        journal = CrashJournal.open(run, "s", GIDS, ORIGIN)
        journal.begin(journal.parts(4)[0])  # and the power fails
    died, made, crashed = live(run, set(), 4)
    assert (died, sorted(made), crashed) == (False, list(GIDS), set())


def test_an_undisturbed_shard_is_one_part_and_needs_no_process_of_its_own(tmp_path):
    journal = CrashJournal.open(Store.at(tmp_path), "s", GIDS, ORIGIN)
    assert not journal.has_suspects
    assert journal.parts(2) == [GIDS]
    journal.begin(GIDS)
    again = CrashJournal.open(Store.at(tmp_path), "s", GIDS, ORIGIN)
    assert again.has_suspects
    assert [len(p) for p in again.parts(4)] == [4, 4, 2]


def dies_with_its_driver(run, part=-1, origin=ORIGIN):
    """A process comes so far as to enter a part, and is killed from outside.

    Returns the parts it would have made.
    """
    journal = CrashJournal.open(run, "s", GIDS, origin)
    parts = journal.parts(4)
    journal.begin(parts[part])
    return parts


@pytest.mark.parametrize("rows", [GIDS, GIDS[:1]])
def test_drivers_and_machines_that_die_any_number_of_times_cost_no_row_its_place_in_a_full_batch(
    tmp_path, rows
):
    run = Store.at(tmp_path)
    for number in range(10):
        session = Origin(session=f"{number}", node="here")
        journal = CrashJournal.open(run, "s", rows, session)
        assert (journal.parts(4), journal.has_suspects, journal.crashed) == ([rows], False, set())
        journal.begin(rows)
    alive = {"here"}
    for number in range(10):  # machines that are lost one after the other while their driver lives
        alive.add(f"node {number}")
        journal = CrashJournal.open(
            run,
            "s",
            rows,
            Origin(session="last", node=f"node {number}", is_node_alive=alive.__contains__),
        )
        assert (journal.parts(4), journal.has_suspects, journal.crashed) == ([rows], False, set())
        journal.begin(rows)
        alive.remove(f"node {number}")


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-1, 0)), max_size=8),
    st.sampled_from(GIDS),
    st.integers(1, 12),
)
def test_a_bad_row_is_given_up_at_its_third_death_however_many_drivers_die_in_between(
    tmp_path_factory, kills, bad, batch
):
    run = Store.at(tmp_path_factory.mktemp("j"))
    deaths, session, made, crashed, died = 0, 0, [], set(), True
    for by_driver, part in kills:
        if by_driver:
            dies_with_its_driver(run, part, Origin(session=str(session), node="here"))
            session += 1
        elif died:
            died, made, crashed = live(
                run, {bad}, batch, origin=Origin(session=str(session), node="here")
            )
            deaths += died
    while died:
        died, made, crashed = live(
            run, {bad}, batch, origin=Origin(session=str(session), node="here")
        )
        deaths += died
    assert deaths == DEATHS
    assert crashed == {bad}
    assert sorted(made) == sorted(set(GIDS) - {bad})


def test_a_worker_that_dies_on_another_machine_that_still_lives_counts(tmp_path):
    run = Store.at(tmp_path)
    CrashJournal.open(run, "s", GIDS, Origin(session="one", node="there")).begin(GIDS)
    assert CrashJournal.open(
        run, "s", GIDS, Origin(session="one", node="here", is_node_alive={"there"}.__contains__)
    ).has_suspects


@pytest.mark.parametrize(
    "left",
    [
        # before sessions: it counted drivers' deaths, too
        b'{"deaths": 2, "running": ["g4"], "crashed": ["g5"]}',
        b'{"deaths": 2, "runn',
        b"",
        b"[]",
        b'{"session": "s", "node": "n", "deaths": "2", '
        b'"suspects": [], "running": ["g4"], "crashed": []}',
        b'{"session": "s", "node": "n", "deaths": 2, '
        b'"suspects": ["no row"], "running": ["g4"], "crashed": []}',
        b'{"session": "s", "node": "n", "deaths": 2, '
        b'"suspects": 5, "running": ["g4"], "crashed": []}',
    ],
)
def test_a_record_that_does_not_say_who_left_it_holds_nothing_against_a_row(tmp_path, left):
    run = Store.at(tmp_path)
    run.write(f"{FOLDER}/s.json", left)
    assert until_done(run, set(), 4) == (0, list(GIDS), set())
