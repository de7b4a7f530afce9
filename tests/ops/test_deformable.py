"""The back ends of the deformable convolution compute the same function; how one is chosen."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch._subclasses.fake_tensor import FakeTensorMode

from stvsr.errors import InvalidInput
from stvsr.evaluate import evaluate
from stvsr.ops import deformable, deformable_cpu
from stvsr.ops.deformable import (
    AUTO,
    BACKENDS,
    Operator,
    Sizes,
    backend_on,
    computed_in,
    deform_conv2d,
    torchvision_deform_conv2d,
    use_backend,
)
from stvsr.ops.deformable_cpu import blocked_deform_conv2d
from stvsr.train import train

SMALL = Sizes(channels=8, groups=2, outputs=8)

SHAPES = [(2, 16, 32, 32, 8), (1, 8, 27, 45, 8), (3, 4, 5, 3, 1), (1, 8, 2, 2, 4), (1, 2, 1, 7, 2)]


def arguments(shape: tuple[int, ...], reach: float, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    b, c, h, w, groups = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=dtype).requires_grad_()

    offset = (draw(b, groups * 18, h, w) * reach).detach().requires_grad_()
    return [draw(b, c, h, w), offset, draw(b, groups * 9, h, w), draw(c + 1, c, 3, 3), draw(c + 1)]


def test_torchvisions_operator_refuses_to_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It launches on the default stream and escapes a recording: replays would use whatever lies in memory."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(deformable, "is_fake", lambda tensor: False)
    with FakeTensorMode():
        on_a_gpu = [torch.empty(argument.shape, device="cuda") for argument in arguments(SHAPES[1], 0)]
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        torchvision_deform_conv2d(*on_a_gpu)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [0.0, 0.3, 3.0, 100.0], ids=lambda r: f"offsets{r}")
@pytest.mark.parametrize("block", [1, 200, 4096])
def test_blocks_of_any_size_agree_with_torchvision_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], reach: float, block: int
) -> None:
    """At offset 0, where training starts, positions are whole: the gradient depends on the side it is taken from."""
    monkeypatch.setattr(deformable_cpu, "BLOCK", block)
    values, gradients = [], []
    for operator in (torchvision_deform_conv2d, blocked_deform_conv2d):
        inputs = arguments(shape, reach)
        output = operator(*inputs)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
        values.append(output)
        gradients.append(torch.autograd.grad((output * weights).sum(), inputs))
    torch.testing.assert_close(*values, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_back_ends_agree_in_float32_to_its_precision() -> None:
    inputs = arguments((2, 16, 32, 32, 8), 3.0, torch.float32)
    ours, theirs = (operator(*inputs) for operator in (blocked_deform_conv2d, torchvision_deform_conv2d))
    assert (ours - theirs).abs().max() < 2e-5 * theirs.std()


def test_without_offsets_and_with_full_mask_it_is_a_convolution() -> None:
    features, offset, mask, weight, bias = arguments((2, 8, 12, 16, 4), 0.0)
    output = deform_conv2d(features, offset, torch.ones_like(mask), weight, bias)
    torch.testing.assert_close(output, torch.nn.functional.conv2d(features, weight, bias, padding=1))


def test_offsets_are_y_then_x() -> None:
    features = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    features[0, 0, 6, 4] = 1.0
    offset = torch.zeros(1, 18, 9, 9, dtype=torch.float64)
    offset[:, 0::2] = 2.0  # two rows down
    centre = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    centre[..., 1, 1] = 1.0
    output = deform_conv2d(features, offset, torch.ones(1, 9, 9, 9, dtype=torch.float64), centre, centre.new_zeros(1))
    assert output[0, 0, 4, 4] == 1.0


@pytest.mark.parametrize("features", [torch.zeros(4, 8, 8), torch.zeros(1, 4, 8, 8, dtype=torch.int32)], ids=str)
def test_features_of_whole_numbers_or_without_a_batch_are_refused(features: torch.Tensor) -> None:
    with pytest.raises(InvalidInput, match="expected floating point, four dimensions each"):
        deform_conv2d(
            features,
            torch.zeros(1, 18, 8, 8),
            torch.zeros(1, 9, 8, 8),
            torch.zeros(4, 4, 3, 3),
            torch.zeros(4),
        )


@pytest.mark.parametrize(("offset_channels", "mask_channels"), [(18, 10), (17, 9), (18 * 3, 9 * 3), (0, 0)])
def test_shapes_that_do_not_belong_together_are_refused(offset_channels: int, mask_channels: int) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        deform_conv2d(
            torch.zeros(1, 4, 8, 8),
            torch.zeros(1, offset_channels, 8, 8),
            torch.zeros(1, mask_channels, 8, 8),
            torch.zeros(4, 4, 3, 3),
            torch.zeros(4),
        )


@pytest.mark.parametrize("backend", ["torchvision", "blocked"])
@pytest.mark.parametrize(
    ("place", "wrong"), [(3, (4, 3, 3, 3)), (4, (5,)), (4, (1,))], ids=["weight", "bias", "one bias"]
)
def test_a_weight_or_bias_of_another_shape_is_refused_by_every_back_end(
    monkeypatch: pytest.MonkeyPatch, backend: str, place: int, wrong: tuple[int, ...]
) -> None:
    monkeypatch.setattr(deformable, "_chosen", backend)
    inputs = arguments((1, 4, 8, 8, 1), 0.0)
    inputs[3:] = [torch.zeros(4, 4, 3, 3), torch.zeros(4)]
    inputs[place] = torch.zeros(wrong)
    with pytest.raises(InvalidInput, match=r"bias \(c_out,\)"):
        deform_conv2d(*inputs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_gpu_gives_what_the_cpu_gives() -> None:
    inputs = arguments((2, 16, 32, 32, 8), 3.0)
    on_gpu = deform_conv2d(*(tensor.cuda() for tensor in inputs)).cpu()
    torch.testing.assert_close(on_gpu, deform_conv2d(*inputs), rtol=1e-9, atol=1e-9)


def test_float64_which_the_triton_kernel_does_not_take_is_torchvisions_where_triton_was_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = arguments((2, 8, 6, 5, 4), 3.0)
    expected = deform_conv2d(*inputs)
    monkeypatch.setattr(deformable, "_triton_agrees", lambda gpu, dtype, *sizes: True)
    monkeypatch.setattr(deformable, "backend_on", lambda device, dtype, sizes: backend_on("cuda", dtype, sizes))
    assert deformable.backend_on("cpu", torch.float32, SMALL) == "triton"
    torch.testing.assert_close(deform_conv2d(*inputs), expected)
    monkeypatch.setattr(deformable, "_chosen", "triton")
    with pytest.raises(InvalidInput, match="float64"):
        deform_conv2d(*inputs)


def test_channels_last_features_give_the_same() -> None:
    features, *others = arguments((2, 16, 16, 32, 8), 1.0)
    torch.testing.assert_close(
        deform_conv2d(features.contiguous(memory_format=torch.channels_last), *others),
        deform_conv2d(features, *others),
    )


def test_reduced_precision_does_not_round_positions() -> None:
    """bfloat16 has 8 bits: beyond pixel 256 it cannot even tell neighbours apart."""
    features, offset, mask, weight, bias = (t.detach() for t in arguments((1, 8, 4, 300, 4), 1.0, torch.float32))
    expected = deform_conv2d(features, offset, mask, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        actual = deform_conv2d(features.bfloat16(), offset, mask, weight, bias)
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).abs().max() < 0.03 * expected.abs().max()


def test_training_keeps_nothing_but_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept samples would take nine times the memory of the features."""
    kept: list[int] = []
    inputs = arguments((2, 16, 32, 32, 8), 1.0)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        deform_conv2d(*inputs)
    assert sum(kept) <= sum(tensor.numel() for tensor in inputs)


@pytest.mark.parametrize("name", [AUTO, "torchvision", "blocked"])
def test_the_back_end_is_the_chosen_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(deformable, "_chosen", AUTO)
    called = []
    monkeypatch.setitem(BACKENDS, "torchvision", lambda *a: called.append("torchvision") or a[0])
    monkeypatch.setitem(BACKENDS, "blocked", lambda *a: called.append("blocked") or a[0])
    use_backend(name)
    deform_conv2d(*arguments((1, 4, 4, 4, 2), 1.0))
    assert called == ["blocked" if name == AUTO else name]


def test_the_config_chooses_the_back_end_of_training_and_scoring(
    small_run: Callable[..., DictConfig],
    configure: Callable[..., DictConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    called: set[str] = set()

    def watched(name: str, operator: Operator) -> Operator:
        return lambda *inputs: (called.add(name), operator(*inputs))[1]

    monkeypatch.setitem(BACKENDS, "torchvision", watched("torchvision", torchvision_deform_conv2d))
    monkeypatch.setitem(BACKENDS, "blocked", watched("blocked", blocked_deform_conv2d))
    monkeypatch.setattr(deformable, "_chosen", AUTO)
    train(small_run("ablation=b", "deformable=torchvision", "trainer.max_steps=1", "trainer.val_check_interval=1"))
    assert called == {"torchvision"}

    called.clear()
    monkeypatch.setattr(deformable, "_chosen", AUTO)
    small = [f"data.test_source.source.{size}" for size in ("clips=1", "height=32", "width=48")]
    small += ["logger=csv", "workers=0", "pictures=0", f"checkpoint='{tmp_path}/run/checkpoints/last.ckpt'"]
    evaluate(configure("evaluate", "deformable=torchvision", *small, f"output_dir='{tmp_path}/scored'"))
    # Counting costs calls torchvision's in any case (`dry_run`).
    assert called == {"torchvision"}


@pytest.mark.parametrize(("name", "says"), [("cudnn", "expected auto, torchvision"), ("triton", "use deformable=auto")])
def test_a_back_end_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, says: str) -> None:
    monkeypatch.setattr(deformable.deformable_triton, "available", lambda: False)
    with pytest.raises(InvalidInput, match=says):
        use_backend(name)


class Scaled(torch.autograd.Function):
    """The identity, with a gradient that is a little too large."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return 1.1 * gradient


def another_value(*inputs: torch.Tensor) -> torch.Tensor:
    return torchvision_deform_conv2d(*inputs) + 0.1


def another_gradient(features: torch.Tensor, offset: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    return torchvision_deform_conv2d(features, Scaled.apply(offset), *others)


def no_room_for_many_channels(features: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    if features.shape[1] > 8:
        raise NotARuntimeError("out of resource: shared memory")
    return torchvision_deform_conv2d(features, *others)


class NotARuntimeError(Exception):
    """Like Triton's own errors."""


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs the trial, but on the CPU."""
    agree = deformable._agree
    monkeypatch.setattr(deformable, "_agree", lambda sizes, dtype, device: agree(sizes, dtype, torch.device("cpu")))
    monkeypatch.setattr(deformable.torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(deformable.deformable_triton, "available", lambda gpu: True)
    deformable._try_triton.cache_clear()
    yield
    deformable._try_triton.cache_clear()


def test_deterministic_algorithms_do_not_keep_the_fused_kernels_from_inference(
    as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the kernels' gradients are nondeterministic: the trial asks for them, inference does not."""

    def refused_if_asked(*inputs: torch.Tensor) -> torch.Tensor:
        assert not torch.are_deterministic_algorithms_enabled()
        return torchvision_deform_conv2d(*inputs)

    monkeypatch.setattr(deformable, "triton_deform_conv2d", refused_if_asked)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert backend_on("cuda", torch.float32, Sizes(8, 1, 8)) == "triton"
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("fused", [another_value, another_gradient], ids=lambda operator: operator.__name__)
def test_the_fused_kernels_are_not_used_where_they_differ(
    as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch, fused: Operator
) -> None:
    monkeypatch.setattr(deformable, "triton_deform_conv2d", fused)
    with pytest.warns(UserWarning, match="differ on this GPU; torchvision's is used"):
        assert backend_on("cuda", torch.float32, SMALL) == "torchvision"


def test_the_fused_kernels_are_used_for_the_sizes_they_run_with(
    as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deformable, "triton_deform_conv2d", no_room_for_many_channels)
    assert backend_on("cuda", torch.float32, SMALL) == "triton"
    with pytest.warns(UserWarning, match="does not run here .out of resource"):
        assert backend_on("cuda", torch.float32, SMALL._replace(channels=16)) == "torchvision"


def test_the_trial_is_made_once_and_its_answer_compiled_in(as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.compile` once passed on `Sizes` without content: torchvision's was used, with a false warning."""
    tried = []

    def fused(*inputs: torch.Tensor) -> torch.Tensor:
        tried.append(inputs[0].shape[1])
        return torchvision_deform_conv2d(*inputs)

    def one_more_with_triton(features: torch.Tensor) -> torch.Tensor:
        sizes = Sizes(channels=8, groups=2, outputs=8)
        return features + 1 if backend_on("cuda", torch.float32, sizes) == "triton" else features

    monkeypatch.setattr(deformable, "triton_deform_conv2d", fused)
    compiled = torch.compile(one_more_with_triton, fullgraph=True, backend="eager")
    for length in (3, 4):
        assert torch.equal(compiled(torch.zeros(length)), torch.ones(length))
    assert tried == [8]


def wrong_in_bfloat16(features: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    exact = torchvision_deform_conv2d(*(tensor.float() for tensor in (features, *others)))
    return (exact * (1.1 if features.dtype == torch.bfloat16 else 1)).to(features.dtype)


def test_each_type_of_numbers_is_tried_by_itself(as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler generates different instructions for each."""
    monkeypatch.setattr(deformable, "triton_deform_conv2d", wrong_in_bfloat16)
    assert backend_on("cuda", torch.float32, SMALL) == "triton"
    assert backend_on("cuda", torch.float16, SMALL) == "triton"
    with pytest.warns(UserWarning, match="differ on this GPU"):
        assert backend_on("cuda", torch.bfloat16, SMALL) == "torchvision"


def test_each_gpu_is_tried_by_itself(as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deformable, "triton_deform_conv2d", torchvision_deform_conv2d)
    monkeypatch.setattr(deformable.deformable_triton, "available", lambda gpu: gpu == 1)
    assert backend_on("cuda:0", torch.float32, SMALL) == "torchvision"
    assert backend_on("cuda:1", torch.float32, SMALL) == "triton"


def test_features_are_computed_in_what_autocast_makes_of_them() -> None:
    features = torch.zeros(1)
    assert computed_in(features) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert computed_in(features) == torch.bfloat16


@pytest.mark.parametrize("name", ["torchvision", "blocked"])
def test_offsets_that_are_no_number_give_no_number_instead_of_the_end_of_the_process(name: str) -> None:
    """So that the guard sees a diverging training run. In a process of its own, which might crash."""
    program = (
        "import torch; from stvsr.ops.deformable import BACKENDS; torch.manual_seed(0)\n"
        "b, c, h, w, groups = 1, 8, 16, 16, 2\n"
        "features, offset, mask = (torch.rand(b, n, h, w) for n in (c, 18 * groups, 9 * groups))\n"
        "offset[0, 3, 5, 6] = torch.nan\n"
        f"output = BACKENDS['{name}'](features, offset, mask, torch.rand(4, c, 3, 3), torch.rand(4))\n"
        "assert output[0, :, 5, 6].isnan().all() and output.isnan().sum() == 4, output\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("chosen", ["torchvision", AUTO])
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_the_choice_of_a_back_end_compiles_in_one_graph(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, chosen: str
) -> None:
    monkeypatch.setattr(deformable, "_chosen", chosen)
    inputs = arguments((1, 8, 5, 6, 2), 1.0, torch.float32)
    compiled = torch.compile(deform_conv2d, fullgraph=True, backend="eager")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        torch.testing.assert_close(compiled(*inputs), torchvision_deform_conv2d(*inputs), atol=0, rtol=0)


@pytest.mark.parametrize("within", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_trial_knows_nothing_of_where_it_is_made(
    as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch, within: Callable[[], AbstractContextManager[object]]
) -> None:
    """Hooks on saved tensors do not see it either: those of activation checkpointing would count its tensors."""

    def fused(*inputs: torch.Tensor) -> torch.Tensor:
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        return torchvision_deform_conv2d(*inputs)

    kept: list[torch.Tensor] = []
    monkeypatch.setattr(deformable, "triton_deform_conv2d", fused)
    with within(), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        assert backend_on("cuda", torch.float32, SMALL) == "triton"
    assert not kept


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_autocast_does_not_decide_which_back_end_runs_on_a_gpu() -> None:
    """Seen on an H100: tried first under bfloat16 autocast, a kernel that agrees in float32 was rejected."""
    found = []
    for bf16 in (False, True):
        deformable._try_triton.cache_clear()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            found.append(deformable.backend_on("cuda", torch.float32, SMALL))
    assert found[0] == found[1]


def test_a_kernel_of_a_gpu_is_not_given_tensors_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deformable, "_chosen", "triton")
    with pytest.raises(InvalidInput, match="deformable=triton on a CPU: use deformable=auto"):
        deform_conv2d(*arguments((1, 8, 4, 4, 4), 1.0, torch.float32))


def test_a_trial_that_ends_the_gpu_is_not_taken_for_a_kernel_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("illegal access")

    def dead(device: Any) -> None:
        raise InvalidInput("the GPU does not answer")

    monkeypatch.setattr(deformable.deformable_triton, "available", lambda gpu=None: True)
    monkeypatch.setattr(deformable, "_agree", fail)
    monkeypatch.setattr(deformable, "check_answering", dead)
    with pytest.raises(InvalidInput, match="does not answer"):
        deformable._try_triton.__wrapped__(Sizes(8, 1, 8), torch.float32, 0)
