import numpy as np
import pytest
import torch

from discl_ray.core.schema import BROKEN
from discl_ray.generate.delivery import Delivery
from discl_ray.generate.rows import Call, Row, Slot


class Decoder:
    """Paints a latent's value; what is above 200 is bad, unless it is decoded safely below 220."""

    device, size, scaling, latent_shape = torch.device("cpu"), (2, 2), 1.0, (1, 1, 1)

    def __init__(self):
        self.shapes = []

    def decode(self, latents, *, safe=False):
        self.shapes.append(tuple(latents.shape))
        values = latents.flatten()
        pixels = values.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 3)
        return pixels, values > (220 if safe else 200)


@pytest.fixture
def call():
    return Call([])


def finish(delivery, call, *values):
    for value in values:
        row = Row(
            gid=str(value),
            source_id="s",
            source=np.zeros((2, 2, 3), np.uint8),
            prompt="p",
            negative_prompt="",
            seed=0,
            num_steps=1,
        )
        slot = Slot(row, call, 0, torch.Generator())
        delivery.add(slot, torch.full((1, 1, 1), float(value)))


def delivered(call):
    return [call.results.get_nowait() for _ in range(call.results.qsize())]


def test_only_full_chunks_are_decoded_until_everything_is_asked_for(call):
    delivery = Delivery(Decoder(), 2)
    finish(delivery, call, 10, 20, 30)
    delivery.advance(everything=False, micro_batch=4)
    assert [made.gid for made in delivered(call)] == ["10", "20"]
    assert [slot.row.gid for slot in delivery.slots()] == ["30"]
    assert delivery
    delivery.advance(everything=True, micro_batch=4)
    (last,) = delivered(call)
    assert (last.pixels == 30).all()
    assert last.micro_batch == 4
    assert delivery.images == 3
    assert not delivery


def test_every_batch_has_the_decoders_one_shape_and_bad_images_are_decoded_again(call):
    decoder = Decoder()
    delivery = Delivery(decoder, 2)
    finish(delivery, call, 10, 210, 230)
    delivery.advance(everything=True, micro_batch=1)
    good, saved, lost = delivered(call)
    assert good.error is None
    assert (saved.pixels == 210).all()
    assert lost.pixels is None
    assert lost.error == BROKEN
    assert set(decoder.shapes) == {(2, 1, 1, 1)}
    assert len(decoder.shapes) == 4


def test_a_failed_decoding_loses_no_row(call):
    delivery = Delivery(Decoder(), 2)
    finish(delivery, call, 10, 20)
    delivery.model.decode = lambda latents, safe=False: 1 / 0
    with pytest.raises(ZeroDivisionError):
        delivery.advance(everything=True, micro_batch=1)
    assert [slot.row.gid for slot in delivery.slots()] == ["10", "20"]
    delivery.clear()
    assert not delivery
