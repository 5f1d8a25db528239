"""GIFs: frames, durations, exact grey levels, bad input."""

import numpy as np
import pytest

from tinygen import viz
from tinygen.tensor import Tensor

pytest.importorskip("matplotlib", reason="captions use matplotlib's font")
image_module = pytest.importorskip("PIL.Image", reason="GIFs are written with Pillow")


def frames_of(path):
    with image_module.open(path) as gif:
        frames, durations = [], []
        for i in range(gif.n_frames):
            gif.seek(i)
            frames.append(np.asarray(gif.convert("RGB")))
            durations.append(gif.info["duration"])
        return np.stack(frames), durations, gif.info.get("loop")


def test_grey_frames_come_back_exactly(tmp_path):
    x = np.random.default_rng(0).permuted(np.tile(np.arange(256, dtype=np.uint8), (4, 1)), axis=1)
    x = x.reshape(4, 1, 8, 32)  # every level in every frame
    frames, durations, loop = frames_of(viz.save_gif(tmp_path / "a.gif", Tensor(x), 50, scale=3, hold_last=500))
    assert frames.shape == (4, 24, 96, 3)
    assert (frames == x.transpose(0, 2, 3, 1).repeat(3, 1).repeat(3, 2)).all()
    assert durations == [50, 50, 50, 550] and loop == 0


def test_coloured_frames_come_back_closely(tmp_path):
    ramp = np.linspace(0, 1, 16)
    x = np.stack(
        [np.stack([np.add.outer(ramp, ramp) / 2, np.full((16, 16), t), np.outer(ramp, ramp)]) for t in (0, 0.5, 1)]
    )
    frames, _, _ = frames_of(viz.save_gif(tmp_path / "a.gif", x, scale=1))
    assert np.abs(frames - 255 * x.transpose(0, 2, 3, 1)).max() < 24


def test_durations_are_rounded_to_hundredths_of_a_second(tmp_path):
    x = np.random.default_rng(0).random((3, 1, 4, 4))
    _, durations, _ = frames_of(viz.save_gif(tmp_path / "a.gif", x, 83, hold_last=0))
    assert durations == [80, 80, 80]


def test_captions_of_different_widths_share_one_sheet(tmp_path):
    x = np.random.default_rng(0).random((3, 1, 8, 8))
    path = viz.save_gif(tmp_path / "a.gif", x, captions=["1", "a much longer caption", "step 3"])
    frames, _, _ = frames_of(path)
    bare, _, _ = frames_of(viz.save_gif(tmp_path / "b.gif", x))
    assert frames.shape[1] > bare.shape[1] and frames.shape[2] > bare.shape[2]
    assert (frames[:, [0, -1]] == 255).all() and (frames[:, :, [0, -1]] == 255).all()


def test_one_frame_is_a_picture(tmp_path):
    frames, _, _ = frames_of_one(viz.save_gif(tmp_path / "a.gif", np.eye(4)[None, None], scale=1))
    assert (frames[0, :, :, 0] == 255 * np.eye(4)).all()


def frames_of_one(path):
    with image_module.open(path) as gif:
        return np.asarray(gif.convert("RGB"))[None], None, None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"duration_ms": 10}, "duration_ms=10"),
        ({"hold_last": -1}, "hold_last=-1"),
        ({"loop": -1}, "loop=-1"),
        ({"scale": 0}, "scale: expected at least 1"),
        ({"captions": ["a"]}, "captions: expected 2 texts.*got 1"),
        ({"frames": np.zeros((2, 4, 4))}, r"frames: expected shape \(N, C, H, W\)"),
    ],
)
def test_animations_that_cannot_be_drawn_are_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        viz.save_gif(tmp_path / "a.gif", **{"frames": np.zeros((2, 1, 4, 4)), **arguments})
    with pytest.raises(ValueError, match=r"ends in \.gif"):
        viz.save_gif(tmp_path / "a.png", np.zeros((2, 1, 4, 4)))
    assert list(tmp_path.iterdir()) == []
