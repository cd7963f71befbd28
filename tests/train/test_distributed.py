from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from discl_ray.train.distributed import average_buffers, from_rank_0, sum_gradients, sum_over
from discl_ray.train.learners.learner import ALONE, World


def exchanged(world: World) -> dict[str, object]:
    """What a worker has after all exchanges; rank r contributes r + 1."""
    own = world.rank + 1.0
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    model[1].running_mean.fill_(own)
    if world.rank == 0:  # another worker without images has no gradients at all
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, own)
    total = torch.tensor([own])
    sum_over(total, world)
    sum_gradients(model, world)
    average_buffers(model, world)
    return {
        "value": from_rank_0(f"rank {world.rank}", world),
        "total": total.item(),
        "gradients": [p.grad.unique().tolist() for p in model.parameters()],
        "mean": model[1].running_mean.item(),
        "batches": model[1].num_batches_tracked.item(),
    }


def worker(rank: int, root: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=2)
    torch.save(exchanged(World(rank, 2)), f"{root}/{rank}.pt")
    dist.destroy_process_group()


def test_alone_nothing_changes() -> None:
    assert exchanged(ALONE) == {
        "value": "rank 0",
        "total": 1.0,
        "gradients": [[1.0]] * 4,
        "mean": 1.0,
        "batches": 0,
    }


def test_two_workers_have_sums_means_and_the_first_ones_value(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    expected = {
        "value": "rank 0",
        "total": 3.0,
        "gradients": [[1.0]] * 4,
        "mean": 1.5,
        "batches": 0,
    }
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)] == [expected] * 2
