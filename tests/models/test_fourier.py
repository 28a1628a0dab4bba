"""The convolution in the frequency domain is the direct one."""

import pytest
import torch
import torch.nn.functional as F

from ksdd_lib.models import fourier
from ksdd_lib.models.fourier import FourierConv2d, convolve, shared_spectra, weight_spectrum


@pytest.fixture
def layer(monkeypatch):
    """A small layer that takes the frequency domain at any size."""
    monkeypatch.setattr(fourier, "SMALL", 0)
    torch.manual_seed(0)
    return FourierConv2d(3, 5, 7)


@pytest.mark.parametrize("kernel", [3, 7, 15])
@pytest.mark.parametrize("size", [(16, 16), (17, 40), (5, 33)])
def test_equals_the_direct_convolution(kernel, size):
    torch.manual_seed(1)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    weight = torch.randn(4, 3, kernel, kernel, dtype=torch.float64)
    expected = F.conv2d(x, weight, padding=kernel // 2)
    found = convolve(x, weight_spectrum(weight), kernel)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_gradients_equal_those_of_the_direct_convolution(layer):
    x = torch.randn(1, 3, 20, 33, requires_grad=True)
    sign = torch.randn(1, 5, 20, 33)
    found = torch.autograd.grad((layer(x) * sign).sum(), [x, layer.weight])
    direct = F.conv2d(x, layer.weight, padding=3)
    expected = torch.autograd.grad((direct * sign).sum(), [x, layer.weight])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_as_exact_as_its_type(layer):
    x = torch.randn(1, 3, 40, 40).relu()
    exact = F.conv2d(x, layer.weight, padding=3)
    with torch.no_grad():
        found = layer(x.bfloat16()).float()
    assert 0 < (found - exact).norm() / exact.norm() < 0.012


def test_the_kept_spectrum_follows_the_weights(layer):
    x = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        layer(x)
        kept = layer._kept[1]
        layer(x)
        assert layer._kept[1] is kept
    with torch.no_grad():
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, padding=3))
    layer.load_state_dict({"weight": torch.ones_like(layer.weight)})
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, padding=3))


def test_training_after_scoring_uses_no_kept_spectrum(layer):
    x = torch.randn(1, 3, 16, 16)
    fourier.transforms.cache_clear()
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert layer.weight.grad is not None and layer._kept is None


def test_images_of_a_batch_share_the_spectrum_and_add_their_gradients(layer, monkeypatch):
    calls = []
    real = fourier.weight_spectrum
    monkeypatch.setattr(fourier, "weight_spectrum", lambda w: calls.append(1) or real(w))
    images = torch.randn(3, 1, 3, 20, 33)
    with shared_spectra(layer):
        for x in images:
            layer(x).square().sum().backward()
        assert layer.weight.grad is None
    assert len(calls) == 1
    loss = sum(F.conv2d(x, layer.weight, padding=3).square().sum() for x in images)
    (expected,) = torch.autograd.grad(loss, [layer.weight])
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-4, atol=1e-3)


def test_a_failure_within_a_batch_leaves_no_shared_spectrum(layer):
    x = torch.randn(1, 3, 20, 33)
    with pytest.raises(KeyError), shared_spectra(layer):
        layer(x).sum().backward()
        raise KeyError
    assert layer._shared is None and layer.weight.grad is None
    with shared_spectra(layer):  # a batch that never reaches the layer has nothing to hand on
        pass
    layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_the_kept_spectrum_is_in_no_checkpoint(layer):
    with torch.inference_mode():
        layer(torch.randn(1, 3, 16, 16))
    assert list(layer.state_dict()) == ["weight"]


def test_small_maps_take_the_direct_sum():
    layer = FourierConv2d(3, 5, 7)
    with torch.no_grad():
        layer(torch.randn(1, 3, 32, 32))
        assert layer._kept is None
        layer(torch.randn(1, 3, 32, 33))
        assert layer._kept is not None
