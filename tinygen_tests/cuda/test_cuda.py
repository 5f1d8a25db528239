"""What tg.cuda says where there is no GPU (and where there is one)."""

import pytest

import tinygen as tg


def test_the_answers_agree_with_each_other():
    assert tg.cuda.is_available() == (tg.cuda.device_count() > 0)


@pytest.mark.skipif(tg.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_asking_for_one_says_what_to_do():
    with pytest.raises(tg.DeviceError, match="CuPy"):
        tg.zeros(2, device="cuda")
    with pytest.raises(tg.DeviceError, match="CuPy"):
        tg.tensor([1.0]).to("cuda")
    with pytest.raises(tg.DeviceError, match="CuPy"):
        tg.cuda.synchronize()
    with pytest.raises(tg.DeviceError, match="CuPy"):
        tg.Generator(0, device="cuda")
