import pytest
import torch
from torch import nn

from discl_ray.models.finite import SHOWN, check_finite


def test_finite_weights_integers_and_the_meta_device_pass():
    check_finite(nn.BatchNorm1d(3))  # counts its batches in an integer
    check_finite(nn.Linear(2, 2, device="meta"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_single_number_that_is_not_finite_is_found_and_named(value, dtype):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).to(dtype)
    with torch.no_grad():
        model[1].weight[2, 1] = value
    with pytest.raises(ValueError, match=r"1 of 4 weights hold NaN or infinity \(1\.weight\)"):
        check_finite(model)


def test_a_buffer_is_checked_too():
    model = nn.BatchNorm1d(3)
    model.running_mean[0] = float("nan")
    with pytest.raises(ValueError, match="running_mean"):
        check_finite(model)


def test_of_many_weights_the_first_are_named():
    model = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(SHOWN + 1)))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"4 of 4 .*\(0\.weight, 1\.weight, 2\.weight, …\)"):
        check_finite(model)
