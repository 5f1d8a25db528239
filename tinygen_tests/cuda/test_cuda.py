"""What tg.cuda says where there is no GPU (and where there is one)."""

import sys
from types import SimpleNamespace

import pytest

import tinygen as tg
from tinygen import backend, device_memory


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


@pytest.mark.cpu_only("brings the stand-in itself")
def test_what_is_asked_about_a_gpu():
    with tg.testing.strict_cupy():
        assert tg.cuda.is_available() and tg.cuda.device_count() == 1 and tg.cuda.current_device() == 0
        assert tg.cuda.get_device_name("cuda:0") == tg.cuda.get_device_name(0) == tg.cuda.get_device_name()
        free, total = tg.cuda.mem_get_info()
        assert 0 < free <= total
        assert tg.cuda.memory_allocated() <= tg.cuda.memory_reserved()
        tg.cuda.reset_peak_memory_stats()
        assert tg.cuda.max_memory_allocated() >= 0
        tg.cuda.empty_cache()
        lines = tg.cuda.memory_summary().splitlines()
        assert lines[0] == "cuda:0   strict stand-in" and lines[1].startswith("memory   8 GiB free of 8 GiB")


def test_without_a_gpu_every_question_names_itself():
    if tg.cuda.is_available():
        pytest.skip("there is a GPU here")
    for name in ("mem_get_info", "memory_summary", "max_memory_allocated", "current_device", "get_device_name"):
        with pytest.raises(tg.DeviceError, match=f"cuda.{'mem_get_info' if name == 'memory_summary' else name}: "):
            getattr(tg.cuda, name)()


class Pool:
    """A pool of 100 bytes."""

    def __init__(self):
        self.used = 0

    def malloc(self, size):
        if self.used + size > 100:
            raise MemoryError("Out of memory allocating")
        self.used += size
        return size


def test_running_out_of_memory_says_what_was_asked_for_and_what_is_free():
    pool = Pool()
    xp = SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(memGetInfo=lambda: (3 << 20, 80 << 30))))
    watched = device_memory.Watched(xp, pool.malloc, lambda: pool.used)
    assert watched(60) == 60 and watched(30) == 30
    pool.used -= 30
    watched(10)
    assert watched.peak == 90
    with pytest.raises(tg.cuda.OutOfMemoryError, match=r"2 KiB were asked for; of the GPU's 80 GiB 3 MiB are free, and "
                       r"arrays hold 70 bytes\. Use a smaller batch"):  # fmt: skip
        watched(2048)
    assert issubclass(tg.cuda.OutOfMemoryError, MemoryError)
    watched.reset()
    assert watched.peak == 70
    told = [device_memory.amount(n) for n in (0, 1023, 1536, 5 << 40)]
    assert told == ["0 bytes", "1023 bytes", "1.5 KiB", "5120 GiB"]


def test_an_old_cupy_and_a_missing_driver_say_what_to_do(monkeypatch):
    def fails():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")

    monkeypatch.setattr(backend, "_gpu_library", lambda: None)
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())
    runtime = SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=fails)))
    for version, says in [("13.6.0", "CuPy 13.6.0 is installed, and tinygen needs 14"), ("14.2.0", "nvidia-smi")]:
        runtime.__version__ = version
        monkeypatch.setitem(sys.modules, "cupy", runtime)
        assert says in backend.cupy_problem()
