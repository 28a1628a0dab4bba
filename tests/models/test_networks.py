"""The two networks are those of the paper, to the parameter and to the pixel."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ksdd_lib.models import fourier_conv
from ksdd_lib.models.fourier_conv import FourierConv2d, convolve, shared_spectra, weight_spectrum
from ksdd_lib.models.two_stage import (
    FEATURES,
    DecisionNet,
    FeatureNorm,
    MaxPool,
    SegmentationNet,
    TwoStageNet,
    expect_defects,
    initialize,
    require_size,
    segmentation_like,
)


@pytest.fixture(scope="module")
def model() -> TwoStageNet:
    """Both networks with weights of full strength, so that no difference hides in an epsilon."""
    model = TwoStageNet()
    initialize(model, "kaiming", seed=0)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 1, 128, 144, generator=torch.Generator().manual_seed(0))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def layers(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def test_the_parameter_counts_are_the_published_ones(model: TwoStageNet) -> None:
    assert parameters(model.segmentation) == 15_441_698
    assert parameters(model.decision) == 221_179
    assert parameters(model) == 15_662_877


def test_the_segmentation_network_has_11_convolutions_and_3_pools(model: TwoStageNet) -> None:
    convolutions = layers(model.segmentation, nn.Conv2d)
    widths = [(c.out_channels, c.kernel_size[0]) for c in convolutions]
    assert widths == [(32, 5)] * 2 + [(64, 5)] * 7 + [(1024, 15), (1, 1)]
    assert len(layers(model.segmentation, nn.MaxPool2d)) == 3
    assert all(c.bias is None and c.stride == (1, 1) for c in convolutions)


def test_the_decision_network_is_as_published(model: TwoStageNet) -> None:
    widths = [(c.in_channels, c.out_channels) for c in layers(model.decision, nn.Conv2d)]
    assert widths == [(1025, 8), (8, 16), (16, 32)]
    assert model.decision.score.in_features == 66


def test_there_is_no_dropout_and_there_are_no_running_statistics(model: TwoStageNet) -> None:
    assert not layers(model, nn.Dropout) and not layers(model, nn.Dropout2d)
    assert not list(model.buffers())


@pytest.mark.parametrize("size", [(16, 24), (5, 7)])
def test_max_pooling_without_gradients_is_max_pooling(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(MaxPool()(x), nn.MaxPool2d(2)(x))
    assert MaxPool()(x.requires_grad_()).requires_grad


def test_the_outputs_have_the_promised_shapes(model: TwoStageNet, images: torch.Tensor) -> None:
    features, mask_logits = model.segmentation(images[:2])
    assert features.shape == (2, FEATURES, 16, 18)
    assert mask_logits.shape == (2, 1, 16, 18)
    assert model.decision(features, mask_logits).shape == (2, 1)
    mask_logits, score = model(images[:1])
    assert mask_logits.shape == (1, 1, 16, 18) and score.shape == (1, 1)


def test_a_mask_pixel_sees_a_square_of_216_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatureNorm, "forward", lambda self, x: x)  # it looks at the whole image
    network = SegmentationNet().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            parameter.fill_(1 / parameter[0].numel())  # an average: nothing grows or dies
    for index, layer in enumerate(network.features):
        if isinstance(layer, nn.MaxPool2d):  # its gradient goes to one of four pixels only
            network.features[index] = nn.AvgPool2d(2)
    image = torch.ones(1, 1, 256, 256, requires_grad=True)
    _, mask_logits = network(image)
    (gradient,) = torch.autograd.grad(mask_logits[0, 0, 16, 16], image)
    rows, columns = (gradient[0, 0].abs().sum(side).nonzero().flatten() for side in (1, 0))
    assert len(rows) == len(columns) == 216
    assert (rows[0], rows[-1]) == (columns[0], columns[-1]) == (24, 239)


@pytest.mark.parametrize("batch", [1, 2])
def test_feature_normalisation_gives_zero_mean_and_nearly_unit_variance(batch: int) -> None:
    x = 5 + 0.1 * torch.randn(batch, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    y = FeatureNorm(3)(x)
    variance = x.var((2, 3), correction=0)
    assert torch.allclose(y.mean((2, 3)), torch.zeros(batch, 3), atol=1e-5)
    assert torch.allclose(y.var((2, 3), correction=0), variance / (variance + 1e-3), atol=1e-4)


def test_feature_normalisation_scales_and_shifts_each_channel() -> None:
    norm, plain = FeatureNorm(2), FeatureNorm(2)
    nn.init.constant_(norm.scale, 3.0)
    nn.init.constant_(norm.shift, -1.0)
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(norm(x), 3 * plain(x) - 1, atol=1e-5)
    assert torch.allclose(norm(x[:1]), 3 * plain(x[:1]) - 1, atol=1e-5)


def test_an_image_alone_gets_what_it_gets_in_a_batch(
    model: TwoStageNet, images: torch.Tensor
) -> None:
    masks, scores = model(images)
    for row in range(len(images)):
        mask, score = model(images[row : row + 1])
        assert torch.allclose(mask[0], masks[row], atol=1e-3)
        assert torch.allclose(score[0], scores[row], atol=1e-3)


def test_batch_mates_do_not_change_an_image(model: TwoStageNet, images: torch.Tensor) -> None:
    mask, score = model(images[:2])
    other_mask, other_score = model(torch.cat([images[:1], 3 * images[2:]]))
    assert torch.allclose(mask[0], other_mask[0], atol=1e-4)
    assert torch.allclose(score[0], other_score[0], atol=1e-4)
    assert not torch.allclose(mask[1], other_mask[1], atol=0.1)


def test_training_and_evaluation_give_the_same(model: TwoStageNet, images: torch.Tensor) -> None:
    outputs = []
    for mode in (True, False):
        model.train(mode)
        for _ in range(2):  # a second look must not change it either
            outputs.append(torch.cat([part.flatten() for part in model(images[:1])]))
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_the_score_does_not_teach_the_segmentation_network(images: torch.Tensor) -> None:
    model = TwoStageNet()
    mask_logits, score = model(images[:1])
    score.sum().backward(retain_graph=True)
    assert all(p.grad is None for p in model.segmentation.parameters())
    assert all(p.grad is not None for p in model.decision.parameters())
    mask_logits.square().sum().backward()
    assert all(p.grad is not None for p in model.segmentation.parameters())


def test_the_global_pools_see_the_mask_after_relu() -> None:
    mask = torch.tensor([[-4.0, 2.0], [6.0, -8.0]]).repeat(8, 8)[None, None]
    _, pools = DecisionNet.pool(torch.zeros(1, FEATURES, 16, 16), mask)
    assert pools.tolist() == [[2.0, 6.0]]


@pytest.mark.parametrize(
    ("size", "suggestion"),
    [((130, 128), "128x128"), ((128, 120), "128x128"), ((704, 250), "704x256"), ((64, 512), "128")],
)
def test_a_size_that_does_not_fit_is_refused_with_one_that_does(
    size: tuple[int, int], suggestion: str
) -> None:
    with pytest.raises(ValueError, match=f"try {suggestion}"):
        require_size(*size)
    with pytest.raises(ValueError, match=f"try {suggestion}"):
        TwoStageNet()(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("size", [(1408, 512), (704, 256), (128, 128)])
def test_the_studied_sizes_and_the_smallest_one_fit(size: tuple[int, int]) -> None:
    require_size(*size)


def test_first_weights_follow_the_seed() -> None:
    drawn = []
    for seed in (1, 1, 2):
        decision = DecisionNet()
        initialize(decision, "normal", seed)
        drawn.append(decision.features[0][0].weight)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_the_published_first_weights_are_normal_with_deviation_a_hundredth() -> None:
    decision = DecisionNet()
    initialize(decision, "normal", 0)
    weight = decision.features[0][0].weight
    assert abs(weight.std().item() - 0.01) < 1e-4 and abs(weight.mean().item()) < 1e-4
    assert decision.score.bias.item() == 0
    initialize(decision, "kaiming", 0)
    assert abs(decision.features[0][0].weight.std().item() / (2 / (1025 * 25)) ** 0.5 - 1) < 0.02


def test_an_expected_share_is_what_the_untrained_mask_says(images: torch.Tensor) -> None:
    network = SegmentationNet()
    initialize(network, "kaiming", 0)
    expect_defects(network, 0.01)
    with torch.no_grad():
        _, mask_logits = network(images[:1])
    assert torch.sigmoid(mask_logits.mean()).item() == pytest.approx(0.01, rel=1e-3)
    expect_defects(network, 0.5)
    assert network.mask_norm.shift.item() == 0


@pytest.mark.parametrize("classes", [1, 3])
def test_a_mask_without_normalisation_says_it_too_and_has_a_bias(
    classes: int, images: torch.Tensor
) -> None:
    network = SegmentationNet(classes, mask_norm=False)
    initialize(network, "kaiming", 0)
    expect_defects(network, 0.01)
    with torch.no_grad():
        features, mask_logits = network(images[:1])
        network.mask.weight.zero_()
        _, flat = network(images[:1])
    assert torch.sigmoid(flat).flatten().tolist() == pytest.approx([0.01] * flat.numel(), rel=1e-3)
    assert not any("mask_norm" in name for name in network.state_dict())
    spread = mask_logits.std((2, 3))  # normalised, each would be one
    assert ((spread > 0.2) & (spread < 5)).all() and (abs(spread - 1) > 1e-3).all()


@pytest.mark.fault(83)
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("mask_norm", [True, False])
@pytest.mark.parametrize("prefix", ["", "segmentation."])
def test_weights_tell_the_shape_of_their_network(
    classes: int, mask_norm: bool, prefix: str
) -> None:
    network = SegmentationNet(classes, mask_norm)
    weights = {prefix + name: value for name, value in network.state_dict().items()}
    found = segmentation_like(weights, prefix)
    found.load_state_dict(network.state_dict())
    assert TwoStageNet(found).decision.score.out_features == classes


def test_weights_of_something_else_get_the_network_of_the_paper() -> None:
    for weights in ({}, {"mask.weight": torch.zeros(3)}, {"mask.weight": torch.zeros(0, 1, 1, 1)}):
        assert (
            SegmentationNet().state_dict().keys() == segmentation_like(weights).state_dict().keys()
        )


@pytest.mark.slow
def test_the_networks_export_to_a_handful_of_kinds_of_onnx_nodes(
    model: TwoStageNet, tmp_path: Path
) -> None:
    """At a size where the 15x15 layer takes the frequency domain outside an exported graph."""
    image = torch.rand(1, 1, 384, 256, generator=torch.Generator().manual_seed(3))
    path = tmp_path / "model.onnx"
    torch.onnx.export(model.eval(), (image,), path, dynamo=True, verbose=False)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    norm = {"ReduceMean", "Sub", "Mul", "BatchNormalization", "InstanceNormalization"}
    assert "Conv" in kinds
    assert kinds - norm <= {"Conv", "Relu", "MaxPool", "Concat", "ReduceMax", "Gemm"}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    mask, score = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    here = model(image)
    assert torch.allclose(torch.from_numpy(mask), here[0], atol=1e-3)
    assert torch.allclose(torch.from_numpy(score), here[1], atol=1e-3)


@pytest.fixture
def layer(monkeypatch):
    """A small layer that takes the frequency domain at any size."""
    monkeypatch.setattr(fourier_conv, "SMALL", 0)
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
    fourier_conv.transforms.cache_clear()
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert layer.weight.grad is not None and layer._kept is None


def test_images_of_a_batch_share_the_spectrum_and_add_their_gradients(layer, monkeypatch):
    calls = []
    real = fourier_conv.weight_spectrum
    monkeypatch.setattr(fourier_conv, "weight_spectrum", lambda w: calls.append(1) or real(w))
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
