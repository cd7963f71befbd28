"""The judge reads digits it was not trained on."""

import numpy as np
import torch

from discl_ray.embedded.digits import SIDE, web_images
from discl_ray.embedded.judge import load_judge, new_judge, read, train_judge


def test_the_committed_judge_reads_new_web_images():
    web = web_images(600, seed=99)
    labels = read(load_judge(), web.images)
    assert labels.shape == (600,)
    assert (labels == web.labels).mean() > 0.95


def test_what_the_judge_reads_depends_on_no_other_image_and_on_no_brightness():
    judge, web = load_judge(), web_images(40, seed=98)
    alone = np.concatenate([read(judge, web.images[i : i + 1]) for i in range(40)])
    assert np.array_equal(read(judge, web.images), alone)
    darker = (web.images * 0.5).astype(np.uint8)
    assert (read(judge, darker) == alone).mean() > 0.9


def test_a_new_judge_takes_images_and_gives_ten_logits():
    judge = new_judge().eval()
    assert judge(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, 10)


def test_training_is_a_function_of_the_seed(tmp_path):
    web, states = web_images(32, seed=1), []
    for number, seed in enumerate((1, 1, 2)):
        work = tmp_path / str(number)
        work.mkdir()
        records = []
        judge = train_judge(web, steps=2, seed=seed, work=work, log=records.append, batch=8)
        assert records[-1]["part"] == "judge"
        states.append(judge.state_dict()["0.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
