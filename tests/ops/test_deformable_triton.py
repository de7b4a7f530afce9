"""In Triton's interpreter, the fused kernels give what torchvision's operator gives; and they compile for a GPU.

The interpreter has to be chosen before Triton is imported, which torchvision does. So all kernels run in a process of
their own, and no other test sees the choice.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stvsr.errors import InvalidInput
from stvsr.ops import deformable, deformable_triton
from stvsr.ops.deformable import Sizes, torchvision_deform_conv2d
from stvsr.ops.deformable_triton import triton_deform_conv2d

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

Inputs = list[Tensor]
Interpreter = Callable[..., Any]
NAMES = ("output", "features", "offset", "mask", "weight", "bias")

# b, c, h, w, groups, c_out
SHAPES = [(1, 4, 1, 1, 1, 4), (2, 12, 5, 7, 2, 20), (1, 24, 9, 4, 8, 5), (1, 16, 4, 9, 8, 16)]


def draw(shape: tuple[int, ...], reach: float = 2.0, dtype: torch.dtype = torch.float32) -> Inputs:
    """Arguments of the operator with offsets of about `reach` pixels."""
    b, c, h, w, groups, c_out = shape
    generator = torch.Generator().manual_seed(0)
    sizes = ((b, c, h, w), (b, groups * 18, h, w), (b, groups * 9, h, w), (c_out, c, 3, 3), (c_out,))
    features, offset, mask, weight, bias = (torch.randn(size, generator=generator) for size in sizes)
    # So that float32 holds positions exactly: else a few in millions fall into the next cell, where gradients jump.
    offset = (offset * reach * 1024).round() / 1024
    return [features.to(dtype), offset, mask, weight.to(dtype), bias.to(dtype)]


def output_and_gradients(operator: Callable[..., Tensor], inputs: Inputs) -> Inputs:
    """The output, and the gradients of all inputs for one fixed gradient of the output."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = operator(*leaves)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]


def fused(inputs: Inputs) -> Inputs:
    return output_and_gradients(triton_deform_conv2d, inputs)


def exact(inputs: Inputs) -> Inputs:
    """torchvision's output and gradients in float64."""
    return output_and_gradients(torchvision_deform_conv2d, [tensor.double() for tensor in inputs])


def assert_close(actual: Inputs, expected: Inputs, tolerance: float) -> None:
    """Asserts differences of at most `tolerance` of the largest value."""
    for name, ours, theirs in zip(NAMES, actual, expected, strict=True):
        difference = (ours.double() - theirs.double()).abs().max().item()
        assert difference <= tolerance * theirs.abs().max().item(), name


def mend_the_interpreter() -> None:
    """Makes `tl.dot` convert bfloat16, which Triton's interpreter (3.9) holds and multiplies as 16-bit integers."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    dot = InterpreterBuilder.create_dot

    def widened(operand: Any) -> Any:
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        return TensorHandle((operand.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        return dot(self, widened(a), widened(b), *others)

    InterpreterBuilder.create_dot = create_dot


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    """Calls a function of this module in a process that interprets kernels."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=mend_the_interpreter) as pool:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("TRITON_INTERPRET", "1")
            pool.submit(int).result()  # The process starts with its first task.
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


# float32's epsilon is 1.2e-7; in sums of 9*24 products, each rounded by about half of it, errors grow to some 15 times
# that. torchvision's own operator is off by up to 6e-7 of the largest value here, and so are the kernels.
FLOAT32 = 2e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reach", [0.0, 2.0], ids=lambda r: f"offsets{r}")
def test_values_and_gradients_are_those_of_torchvision(
    interpreter: Interpreter, shape: tuple[int, ...], reach: float
) -> None:
    inputs = draw(shape, reach)
    actual = interpreter(fused, inputs)
    assert_close(actual, exact(inputs), FLOAT32)
    assert_close(actual, output_and_gradients(torchvision_deform_conv2d, inputs), FLOAT32)


def test_borders_are_those_of_torchvision(interpreter: Interpreter) -> None:
    """At whole and half positions on both sides of every border, where a different rule would show."""
    h, w, groups = 5, 7, 2
    features, offset, mask, weight, bias = draw((1, 4, h, w, groups, 4))
    generator = torch.Generator().manual_seed(2)
    offset = offset.view(groups, 9, 2, h, w)
    for axis, side in enumerate((h, w)):
        places = torch.tensor([-1.5, -1.0, -0.5, 0.0, side - 1.0, side - 0.5, side, side + 0.5])
        choice = places[torch.randint(len(places), (groups, 9, h, w), generator=generator)]
        tap = torch.arange(9).view(9, 1, 1)
        home = (torch.arange(h).view(h, 1) + tap // 3, torch.arange(w) + tap % 3)[axis] - 1
        offset[:, :, axis] = choice - home
    inputs = [features, offset.view(1, -1, h, w), mask, weight, bias]
    assert_close(interpreter(fused, inputs), exact(inputs), FLOAT32)


@pytest.mark.parametrize("distance", [300.0, -300.0, 1e30, float("inf")])
def test_far_outside_there_is_only_the_bias(interpreter: Interpreter, distance: float) -> None:
    features, offset, mask, weight, bias = draw((1, 4, 3, 5, 2, 4))
    output, *gradients = interpreter(fused, [features, torch.full_like(offset, distance), mask, weight, bias])
    torch.testing.assert_close(output, bias.view(1, -1, 1, 1).expand_as(output), rtol=0, atol=0)
    assert all(not gradient.any() for gradient in gradients[:4])


def test_an_offset_that_is_no_number_is_not_hidden(interpreter: Interpreter) -> None:
    features, offset, mask, weight, bias = draw((1, 4, 3, 5, 2, 4))
    offset[0, 8, 1, 2] = float("nan")  # the centre tap of the first group
    output = interpreter(fused, [features, offset, mask, weight, bias])[0]
    assert output.isnan().nonzero()[:, 2:].unique(dim=0).tolist() == [[1, 2]]


def test_a_mask_of_zero_leaves_the_bias_and_keeps_its_own_gradient(interpreter: Interpreter) -> None:
    features, offset, mask, weight, bias = draw((2, 4, 3, 5, 2, 4))
    inputs = [features, offset, torch.zeros_like(mask), weight, bias]
    actual = interpreter(fused, inputs)
    assert actual[NAMES.index("mask")].any()
    assert_close(actual, exact(inputs), FLOAT32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1.5e-2), (torch.float16, 1.5e-3)], ids=str)
def test_reduced_precision_rounds_samples_not_positions(
    interpreter: Interpreter, dtype: torch.dtype, tolerance: float
) -> None:
    """Samples and the result are rounded: float16 has 11 bits, 5e-4 a rounding; bfloat16 has 8.

    The interpreter truncates to bfloat16, 4e-3 each time and always towards zero; a GPU rounds to nearest. Beyond pixel
    32, rounding positions, to 1/4 (bfloat16) or 1/32 (float16) of a pixel, would give ten times the error.
    """
    inputs = draw((1, 16, 1, 45, 4, 12), 2.0, dtype)
    actual = interpreter(fused, inputs)
    assert [tensor.dtype for tensor in actual] == [dtype, dtype, torch.float32, torch.float32, dtype, dtype]
    assert_close(actual, exact(inputs), tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_offset_and_mask_may_have_reduced_precision(interpreter: Interpreter, dtype: torch.dtype) -> None:
    """Their gradients then have the same dtype, and are exact to its last place."""
    features, offset, mask, weight, bias = draw((1, 4, 3, 5, 2, 4))
    inputs = [features, offset.to(dtype), mask.to(dtype), weight, bias]
    actual, expected = interpreter(fused, inputs), exact(inputs)
    assert actual[2].dtype == actual[3].dtype == dtype
    assert_close(actual, expected, torch.finfo(dtype).eps)
    torch.testing.assert_close(actual[0].double(), expected[0], rtol=0, atol=FLOAT32 * expected[0].abs().max().item())


def fused_layouts(inputs: Inputs) -> tuple[Inputs, Inputs, bool, bool]:
    features, offset, mask, weight, bias = inputs
    features = features.contiguous(memory_format=torch.channels_last)
    both = torch.cat([offset, mask], dim=1)  # Slices of one tensor, as the offset head gives them.
    offset, mask = both[:, : offset.shape[1]], both[:, offset.shape[1] :]
    actual = fused([features, offset, mask, weight, bias])
    plain = fused(inputs)
    last = all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in actual[:2])
    return actual, plain, last, plain[0].is_contiguous() and plain[1].is_contiguous()


def test_memory_format_is_kept_and_changes_nothing(interpreter: Interpreter) -> None:
    actual, plain, channels_last, contiguous = interpreter(fused_layouts, draw((2, 8, 3, 5, 2, 4)))
    assert channels_last
    assert contiguous
    for ours, theirs in zip(actual, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def gradients_of(inputs: Inputs, needed: list[bool]) -> Inputs:
    features, offset, mask, weight, _ = inputs
    gradient = torch.ones(features.shape[0], weight.shape[0], *features.shape[2:])
    found: Inputs = torch.ops.stvsr.deform_conv2d_backward(gradient, features, offset, mask, weight, needed)
    return found


def deterministically(inputs: Inputs, warn_only: bool) -> Inputs:
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        return fused(inputs)
    finally:
        torch.use_deterministic_algorithms(False)


def test_gradients_in_changing_order_are_refused_where_order_must_not_change(interpreter: Interpreter) -> None:
    with pytest.raises(InvalidInput, match="summed in no fixed order; deterministic algorithms are not supported"):
        interpreter(deterministically, draw((1, 4, 3, 5, 2, 4)), False)
    assert interpreter(deterministically, draw((1, 4, 3, 5, 2, 4)), True)


def test_each_gradient_is_the_same_asked_for_alone(interpreter: Interpreter) -> None:
    inputs = draw((1, 4, 3, 5, 2, 4))
    together = interpreter(gradients_of, inputs, [True] * 4)
    for index, expected in enumerate(together):
        alone = interpreter(gradients_of, inputs, [index == other for other in range(4)])
        assert len(alone) == 1
        torch.testing.assert_close(alone[0], expected, rtol=0, atol=0)


def check_operators() -> None:
    features, offset, mask, weight, bias = draw((1, 2, 1, 2, 1, 3))
    leaves = [tensor.clone().requires_grad_() for tensor in (features, offset, mask, weight, bias)]
    torch.library.opcheck(torch.ops.stvsr.deform_conv2d.default, leaves)

    backward, gradient = torch.ops.stvsr.deform_conv2d_backward.default, torch.ones(1, 3, 1, 2)
    torch.library.opcheck(backward, (gradient, features, offset, mask, weight, [False, True, False, True]))

    # Shapes and strides as the compiler sees them, in the other memory format.
    features = features.contiguous(memory_format=torch.channels_last)
    told = "test_faketensor"
    torch.library.opcheck(
        torch.ops.stvsr.deform_conv2d.default, (features, offset, mask, weight, bias), test_utils=told
    )
    torch.library.opcheck(backward, (gradient, features, offset, mask, weight, [True] * 4), test_utils=told)


def test_operators_keep_the_rules_of_torch_library(interpreter: Interpreter) -> None:
    interpreter(check_operators)


def fused_compiled(inputs: Inputs) -> tuple[Inputs, Inputs]:
    compiled = torch.compile(triton_deform_conv2d, fullgraph=True, backend="aot_eager")
    return fused(inputs), output_and_gradients(compiled, inputs)


def test_compiles_in_one_graph_with_its_gradient(interpreter: Interpreter) -> None:
    eager, compiled = interpreter(fused_compiled, draw((2, 4, 3, 5, 2, 4)))
    for ours, theirs in zip(compiled, eager, strict=True):
        torch.testing.assert_close(ours, theirs)


class Module(torch.nn.Module):
    def forward(self, features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return triton_deform_conv2d(features, offset, mask, weight, bias)


def exported(inputs: Inputs, other: Inputs) -> tuple[Tensor, Tensor, list[str]]:
    """Exports for any batch, height and width; returns the output for other sizes, the eager one and the operators."""
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    sizes = {0: batch, 2: height, 3: width}
    program = torch.export.export(Module(), tuple(inputs), dynamic_shapes=(sizes, sizes, sizes, None, None))
    operators = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    return program.module()(*other), triton_deform_conv2d(*other), operators


def test_exports_as_one_operator_for_any_size(interpreter: Interpreter) -> None:
    actual, expected, operators = interpreter(exported, draw((2, 4, 3, 5, 2, 4)), draw((3, 4, 6, 4, 2, 4)))
    assert operators == ["stvsr.deform_conv2d.default"]
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def fused_in_autocast(inputs: Inputs, compiled: bool) -> Inputs:
    operator = torch.compile(Module(), fullgraph=True, backend="aot_eager") if compiled else Module()

    def within(*arguments: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            output: Tensor = operator(*arguments)
            return output

    return output_and_gradients(within, inputs)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_autocast_casts_all_but_offset_and_mask(interpreter: Interpreter, compiled: bool) -> None:
    """As if features, weight and bias had been cast by hand; the gradients come back in float32."""
    features, offset, mask, weight, bias = draw((1, 4, 1, 40, 2, 4))
    by_hand = interpreter(fused, [features.bfloat16(), offset, mask, weight.bfloat16(), bias.bfloat16()])
    actual = interpreter(fused_in_autocast, [features, offset, mask, weight, bias], compiled)
    assert actual[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in actual[1:])
    for ours, theirs in zip(actual, by_hand, strict=True):
        torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (1, torch.zeros(1, 18, 3, 5)),
        (2, torch.zeros(1, 18, 3, 4)),
        (3, torch.zeros(4, 8, 3, 3)),
        (4, torch.zeros(5)),
        (3, torch.zeros(4, 4, 3, 3, dtype=torch.float64)),
        (2, torch.zeros(1, 18, 3, 5, device="meta")),
    ],
    ids=["offset", "mask", "weight", "bias", "dtype", "device"],
)
def test_arguments_that_do_not_belong_together_are_refused(place: int, wrong: Tensor) -> None:
    inputs = draw((1, 4, 3, 5, 2, 4))
    inputs[place] = wrong
    with pytest.raises(InvalidInput, match="expected"):
        deformable_triton._check(*inputs)


def test_without_triton_the_module_can_be_imported_and_says_so() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from stvsr.ops.deformable_triton import available; assert not available()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


H100, RTX_30 = (90, 232_448), (86, 101_376)
"""Compute capability, and bytes of shared memory that a block may have."""


def compiled_for(
    gpu: tuple[int, int], kernel: str, shape: tuple[int, int, int], dtype: torch.dtype, **constants: str
) -> Any:
    """Compiles a kernel as the operator launches it, which needs no GPU; `shape` is channels, groups, outputs."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    (capability, shared), (channels, groups, outputs) = gpu, shape
    with torch.device("meta"):
        features, mask = torch.empty(1, channels, 4, 4, dtype=dtype), torch.empty(1, groups * 9, 4, 4)
        sizes = deformable_triton._sizes(features, mask, torch.empty(outputs, channels, 3, 3, dtype=dtype))
    function = getattr(deformable_triton, kernel)
    num_stages = deformable_triton._pipeline_stages(sizes, dtype.itemsize, shared)
    launch = {**deformable_triton.LAUNCH, "num_stages": num_stages}
    known = {**sizes, "pixels": launch.pop("pixels"), **constants}
    floats = ("offset", "mask", "grad_features", "grad_offset", "grad_mask", "grad_weight")
    pointers = {f"{name}_ptr": "*fp32" for name in floats}
    element = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}[dtype]
    signature = {
        name: "constexpr" if name in known else pointers.get(name, element) if name.endswith("_ptr") else "i32"
        for name in function.arg_names
    }
    used = {name: value for name, value in known.items() if name in function.arg_names}
    source = ASTSource(function, signature, used)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch)


KERNELS = ["forward_kernel", "input_gradients_kernel", "weight_gradient_kernel"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("gpu", "shape", "dtype", "precision"),
    [
        # Sizes that are not powers of two; few channels at once; the paper's sizes; one tap at a time.
        pytest.param(H100, (12, 2, 20), torch.bfloat16, "ieee", id="h100-12-bfloat16"),
        pytest.param(H100, (64, 8, 64), torch.bfloat16, "ieee", id="h100-64-bfloat16"),
        pytest.param(H100, (64, 8, 64), torch.float16, "ieee", id="h100-64-float16"),
        pytest.param(H100, (64, 8, 64), torch.float32, "tf32", id="h100-64-tf32"),
        pytest.param(RTX_30, (128, 8, 128), torch.float32, "ieee", id="rtx30-128-float32"),
        *(
            pytest.param(gpu, shape, dtype, "ieee", id=f"{name}-{shape[0]}-{dtype}", marks=pytest.mark.slow)
            for gpu, name, shape, dtype in (
                (H100, "h100", (12, 2, 20), torch.float32),
                (H100, "h100", (64, 8, 64), torch.float32),
                (H100, "h100", (128, 8, 128), torch.float32),
                (H100, "h100", (128, 8, 128), torch.bfloat16),
                (RTX_30, "rtx30", (64, 8, 64), torch.float32),
                (RTX_30, "rtx30", (64, 8, 64), torch.bfloat16),
                (RTX_30, "rtx30", (128, 8, 128), torch.bfloat16),
            )
        ),
    ],
)
def test_kernels_compile_fit_into_shared_memory_and_have_no_instructions_that_compilers_get_wrong(
    kernel: str, gpu: tuple[int, int], shape: tuple[int, int, int], dtype: torch.dtype, precision: str
) -> None:
    """The interpreter accepts what the compiler refuses.

    Triton 3.6 is reported to get Hopper's warp-group instructions (WGMMA) wrong, which one kernel had.
    """
    compiled = compiled_for(gpu, kernel, shape, dtype, precision=precision)
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= gpu[1]
    assert "wgmma" not in compiled.asm["ptx"]
    exact = dtype == torch.float32 and precision == "ieee"
    assert ("mma.sync" in compiled.asm["ptx"]) is not exact


def agrees(sizes: Sizes, dtype: torch.dtype) -> bool:
    # Two blocks of pixels, the last partial; more take longer and are compared with torchvision above.
    return deformable._agree(sizes, dtype, torch.device("cpu"), extent=(1, 5, 9))


# With 64 channels and rounded products, one kernel takes only some of the channels at a time.
@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(16, torch.float32), (16, torch.bfloat16), (64, torch.bfloat16), (64, torch.float16)],
    ids=lambda value: str(value),
)
def test_the_triton_kernels_pass_the_trial_that_decides_on_their_use(
    interpreter: Interpreter, channels: int, dtype: torch.dtype
) -> None:
    assert interpreter(agrees, Sizes(channels=channels, groups=2, outputs=8), dtype)


@pytest.mark.gpu
@pytest.mark.skipif(not deformable_triton.available(), reason="no CUDA device that Triton supports here")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.bfloat16, 1e-2), (torch.float16, 1.5e-3)], ids=str
)
@pytest.mark.parametrize("shape", [*SHAPES, (24, 64, 32, 32, 8, 64)], ids=str)
def test_gpu_gives_what_torchvision_gives(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, memory_format: torch.memory_format
) -> None:
    features, *others = (tensor.cuda() for tensor in draw(shape, 2.0, dtype))
    inputs = [features.contiguous(memory_format=memory_format), *others]
    actual = fused(inputs)
    # Rounding errors grow with sums over all pixels of the large shape.
    assert_close([t.cpu() for t in actual], [t.cpu() for t in exact(inputs)], 4 * tolerance)
    with torch.autocast("cuda", torch.bfloat16):
        assert triton_deform_conv2d(*inputs).dtype == torch.bfloat16


@pytest.mark.parametrize(("capability", "runs"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_kernels_run_on_gpus_from_compute_capability_8_0_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    monkeypatch.setattr(deformable_triton, "forward_kernel", object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu=None: capability)
    assert deformable_triton.available() is runs
