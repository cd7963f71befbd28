"""What figures share."""

import io

from matplotlib import pyplot as plt
from PIL import Image

from discl_ray.report.figure import finish_epochs, hide_spines, png_of_figure, score_and_lam


def test_scores_and_lam_share_their_epochs():
    figure, top, bottom = score_and_lam(5)
    assert figure.axes == [top, bottom]
    bottom.plot([1, 2, 3], [0, 0.5, 1])
    finish_epochs(bottom, "λ taken")
    assert (bottom.get_xlabel(), bottom.get_ylabel()) == ("epoch", "λ taken")
    assert top.get_xlim() == bottom.get_xlim()
    assert all(tick == int(tick) for tick in bottom.get_xticks())
    plt.close(figure)


def test_sides_of_a_frame_are_hidden():
    figure, top, _ = score_and_lam(5)
    hide_spines((top,), "left")
    visible = {side: spine.get_visible() for side, spine in top.spines.items()}
    assert visible == {"left": False, "top": False, "right": False, "bottom": True}
    plt.close(figure)


def test_a_figure_is_closed_once_it_is_a_picture():
    figure, _, _ = score_and_lam(5)
    picture = Image.open(io.BytesIO(png_of_figure(figure, dpi=50)))
    assert picture.size == (350, 250)
    assert figure.number not in plt.get_fignums()
