import pytest
import torch
from torch import nn

from discl_ray.train.learners.resnet import resnet


@pytest.mark.parametrize(
    ("name", "blocks"), [("resnet10", [1, 1, 1, 1]), ("resnet34", [3, 4, 6, 3])]
)
def test_resnets_are_torchvisions_and_are_initialised_from_their_seed_alone(name, blocks) -> None:
    from torchvision.models.resnet import BasicBlock, ResNet

    reference = ResNet(BasicBlock, blocks, num_classes=10)
    ours = resnet(name, num_classes=10, width=64, seed=0, stem="imagenet")
    with torch.no_grad():  # the same layers in the same order: the same function
        for mine, theirs in zip(
            ours.state_dict().values(), reference.state_dict().values(), strict=True
        ):
            mine.copy_(theirs)
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(ours.eval()(x), reference.eval()(x), atol=1e-5)
    torch.manual_seed(99)
    again = resnet(name, num_classes=10, width=8, seed=0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            again.state_dict().values(),
            resnet(name, num_classes=10, width=8, seed=0).state_dict().values(),
            strict=True,
        )
    )


def test_with_group_normalisation_an_image_does_not_depend_on_its_batch() -> None:
    model, x = (
        resnet("resnet10", num_classes=3, width=12, seed=0, norm="group").train(),
        torch.randn(4, 3, 16, 16),
    )
    assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-5)
    assert not list(model.buffers())


def test_a_group_normalisation_has_the_most_groups_that_divide_its_channels() -> None:
    model = resnet("resnet10", num_classes=2, width=12, seed=0, norm="group")
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_channels: norm.num_groups for norm in norms} == {12: 6, 24: 8, 48: 8, 96: 8}
