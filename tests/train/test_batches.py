import numpy as np
import pytest
import torch

from discl_ray.curriculum.epoch_order import EpochOrder
from discl_ray.curriculum.strategies import AS_IS
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.train.augment.augment import draw_parameters
from discl_ray.train.batches import Batches, Pass
from discl_ray.train.images.table import ImageTable
from discl_ray.train.learners.learner import ALONE, TrainJob, World
from tests.train.tiny import COUNTS, in_memory, make_job


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    return in_memory(tmp_path_factory.mktemp("table"))


def batches(
    table: ImageTable,
    job: TrainJob,
    *,
    rows: np.ndarray | None = None,
    world: World = ALONE,
    before: int = 0,
    whole: bool = False,
) -> Batches:
    rows = np.flatnonzero(table.role == "train")[::-1] if rows is None else rows
    order = EpochOrder(rows=rows, hard=0, nonhard=len(rows))
    stage = Pass(epoch=2, choice=AS_IS, order=order, before=before, total=before + len(rows))
    strength = np.array([3, 0, 1, 2])
    return Batches(job, table, stage, strength=strength, world=world, whole=whole)


def test_batches_cover_an_order_and_workers_share_them(table: ImageTable) -> None:
    job = make_job()
    alone = batches(table, job)
    rows = alone.part.order.rows
    assert alone.images == len(rows) == sum(len(alone.share(i).labels) for i in range(len(alone)))
    shares = [batches(table, job, world=World(rank, 2)) for rank in (0, 1)]
    for number in range(len(alone)):
        batch = alone.share(number)
        even, odd = (share.share(number) for share in shares)
        assert np.array_equal(batch.images[::2], even.images)
        assert np.array_equal(batch.parameters[1::2], odd.parameters)
        assert even.size == odd.size == len(batch.labels)
        assert batch.strength.tolist() == [[3, 0, 1, 2][label] for label in batch.labels]


def test_a_batch_of_one_has_no_share_for_the_second_worker(table: ImageTable) -> None:
    rows = np.flatnonzero(table.role == "train")[:9]
    second = batches(table, make_job(batch=8), rows=rows, world=World(1, 2))
    assert second.share(0) is not None
    assert second.share(1) is None
    assert len(batches(table, make_job(batch=8), rows=rows, whole=True)) == 1


def test_random_numbers_go_on_where_the_first_part_of_an_epoch_ended(table: ImageTable) -> None:
    later = batches(table, make_job(batch=8), before=16).share(0)
    assert np.array_equal(later.parameters, draw_parameters(24, seed=1, epoch=2)[16:])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_partners_are_of_the_same_global_batch(table: ImageTable, kind: str) -> None:
    job = make_job(augment={"mix": kind})
    whole = batches(table, job, before=8).share(1)
    assert sorted(whole.partner.parameters[:, 0]) == sorted(whole.parameters[:, 0])
    half = batches(table, job, before=8, world=World(1, 2)).share(1)
    assert np.array_equal(half.partner.images, whole.partner.images[1::2])
    assert half.mix.share == whole.mix.share


def test_the_prior_is_the_stages_own_or_the_data_sets(table: ImageTable) -> None:
    rows = np.flatnonzero((table.role == "train") & (table.label == 1))
    effective = batches(table, make_job(), rows=rows).share(0).counts
    assert torch.equal(effective, torch.tensor([1.0, len(rows), 1, 1]))
    original = batches(table, make_job(prior="original"), rows=rows).share(0).counts
    assert torch.equal(original, torch.tensor(COUNTS, dtype=torch.float32))


def test_what_is_not_for_training_is_refused(table: ImageTable) -> None:
    with pytest.raises(IntegrityError, match="role is not train"):
        batches(table, make_job(), rows=np.flatnonzero(table.role == "probe"))
    few = np.flatnonzero(table.role == "train")[:7]
    with pytest.raises(DisclError, match=r"train\.batch = 8 is more than the 7 images"):
        batches(table, make_job(batch=8), rows=few, whole=True)


def test_a_loss_that_is_not_finite_names_its_images(table: ImageTable) -> None:
    error = str(batches(table, make_job()).not_finite(1, float("nan")))
    assert error.startswith("epoch 2, step 2 of ")
    assert "stage λ 1: the loss is nan" in error
    assert error.count("train-") == 8
