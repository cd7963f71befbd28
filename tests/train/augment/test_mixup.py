import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from discl_ray.train.augment.mixup import Mix, blend, draw_mix

kinds = st.sampled_from(["mixup", "cutmix"])


@settings(max_examples=100)
@given(
    begin=st.integers(0, 10_000),
    count=st.integers(1, 64),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 500),
    kind=kinds,
    alpha=st.floats(0.1, 5),
    side=st.integers(1, 64),
)
def test_partners_are_a_permutation_and_the_box_is_the_share(
    begin: int, count: int, seed: int, epoch: int, kind: str, alpha: float, side: int
) -> None:
    places = np.arange(begin, begin + count)
    mix = draw_mix(places, seed=seed, epoch=epoch, kind=kind, alpha=alpha, side=side)
    again = draw_mix(places.copy(), seed=seed, epoch=epoch, kind=kind, alpha=alpha, side=side)
    assert sorted(mix.partner) == places.tolist()
    assert np.array_equal(mix.partner, again.partner)
    assert (mix.share, mix.box) == (again.share, again.box)
    assert 0 <= mix.share <= 1
    if kind == "cutmix":
        assert mix.box is not None
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= side
        assert 0 <= left <= right <= side
        assert mix.share == pytest.approx(1 - (bottom - top) * (right - left) / side**2)
        seen = blend(torch.zeros(1, 3, side, side), torch.ones(1, 3, side, side), mix)
        assert float(seen.mean()) == pytest.approx(1 - mix.share, abs=1e-6)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("size", [2, 3])
def test_workers_that_hold_some_places_make_the_images_of_one_that_holds_all(
    kind: str, size: int
) -> None:
    images = torch.from_numpy(
        np.random.default_rng(0).normal(size=(40, 3, 16, 16)).astype(np.float32)
    )
    places = np.arange(24, 40)
    mix = draw_mix(places, seed=1, epoch=2, kind=kind, alpha=1.0, side=16)
    whole = blend(images[places], images[mix.partner], mix)
    for rank in range(size):
        mine = slice(rank, None, size)
        assert torch.equal(blend(images[places[mine]], images[mix.partner[mine]], mix), whole[mine])


def test_another_batch_epoch_or_seed_is_another_mix_and_shares_follow_the_beta_distribution() -> (
    None
):
    draw = lambda begin, epoch, seed: draw_mix(  # noqa: E731
        np.arange(begin, begin + 8), seed=seed, epoch=epoch, kind="mixup", alpha=1.0, side=8
    )
    assert len({draw(b, e, s).share for b in (0, 8) for e in (1, 2) for s in (0, 1)}) == 8
    shares = [draw(8 * b, 1, 0).share for b in range(2000)]
    assert np.percentile(shares, [10, 50, 90]) == pytest.approx([0.1, 0.5, 0.9], abs=0.04)


def test_none_mixes_nothing() -> None:
    places, x = np.arange(5, 9), torch.randn(4, 3, 8, 8)
    mix = draw_mix(places, seed=0, epoch=1, kind="none", alpha=1.0, side=8)
    assert np.array_equal(mix.partner, places)
    assert mix.share == 1
    assert torch.equal(blend(x, x.flip(0), mix), x)


@settings(max_examples=20)
@given(
    share=st.floats(0, 1),
    top=st.integers(0, 8),
    left=st.integers(0, 8),
    height=st.integers(0, 8),
    width=st.integers(0, 8),
)
def test_blending_is_torchvisions(
    share: float, top: int, left: int, height: int, width: int
) -> None:
    x, labels = torch.randn(6, 3, 16, 16), torch.arange(6)
    partner = np.roll(np.arange(6), 1)
    reference = v2.MixUp(num_classes=6)
    expected = reference.transform(x, {"lam": share, "labels": labels, "batch_size": 6})
    torch.testing.assert_close(blend(x, x[partner], Mix(partner=partner, share=share)), expected)
    box = (top, top + height, left, left + width)
    theirs = (left, top, left + width, top + height)  # x1, y1, x2, y2
    area = 1 - height * width / 256
    expected = v2.CutMix(num_classes=6).transform(
        x, {"box": theirs, "lam_adjusted": area, "labels": labels, "batch_size": 6}
    )
    assert torch.equal(blend(x, x[partner], Mix(partner=partner, share=area, box=box)), expected)
