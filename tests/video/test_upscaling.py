"""`upscale` yields what the network makes when it is run by hand."""

from collections.abc import Callable
from fractions import Fraction
from itertools import cycle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import moving_frames
from stvsr.data.clip import to_8bit, to_float
from stvsr.data.degradation import bicubic
from stvsr.data.orientation import Orientation
from stvsr.data.scene_cuts import scene_starts
from stvsr.devices import is_out_of_memory
from stvsr.errors import InvalidInput, UserError
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.network import InputRequirements, Network, run_padded
from stvsr.video.colour import Colour
from stvsr.video.memory import grid_within
from stvsr.video.picture import Picture
from stvsr.video.tiles import MARGIN, Grid
from stvsr.video.upscaling import Upscaler, upscale
from stvsr.video.windows import Window, windows


def by_hand(network: Network, frames: Tensor) -> Tensor:
    """Windows 0-3, 3-6, …, the last moved back; each output frame comes from the first window that makes it."""
    count = len(frames)
    made: dict[int, Tensor] = {}
    for first in [*range(0, max(1, count - 3), 3), max(0, count - 4)]:
        given = frames[first : first + 4]
        if len(given) == 1:
            given = given.expand(2, -1, -1, -1)
        with torch.inference_mode():
            output = to_8bit(run_padded(network, to_float(given)[None])[0])
        for position, frame in enumerate(output):
            made.setdefault(2 * first + position, frame)
    return torch.stack([made[number] for number in range(2 * count - 1)])


@pytest.fixture
def far_sighted(small_network: Callable[..., Network]) -> Network:
    """A small (e) whose output frames depend visibly on the whole window; at its initial weights, 8 bits hide that."""
    network = small_network()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("propagation.") and parameter.ndim > 1 and "offset_mask" not in name:
                parameter.mul_(3)
    return network


def test_a_window_shows_in_each_frame_that_is_made_of_it(far_sighted: Network) -> None:
    """Otherwise the tests below would not notice a wrong window."""
    frames = moving_frames(4)
    whole, early, late = (by_hand(far_sighted, part) for part in (frames, frames[:2], frames[2:]))
    assert (whole[:2] != early[:2]).float().mean() > 0.1
    assert (whole[-2:] != late[-2:]).float().mean() > 0.1


@pytest.mark.parametrize("count", range(1, 14))
def test_1_to_13_frames_become_2n_minus_1_each_as_the_network_gives_it(far_sighted: Network, count: int) -> None:
    frames = moving_frames(count)
    made = list(upscale(frames, Upscaler(far_sighted)))
    expected = by_hand(far_sighted, frames)
    assert len(made) == 2 * count - 1
    for ours, theirs in zip(made, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_frames_may_be_given_in_one_tensor_that_is_refilled_and_written_to_afterwards(
    small_network: Callable[..., Network],
) -> None:
    network, frames = small_network(), moving_frames(6)
    buffer = torch.empty_like(frames[0])
    made = list(upscale((buffer.copy_(frame) for frame in frames), Upscaler(network)))
    for ours, theirs in zip(made, by_hand(network, frames), strict=True):
        assert torch.equal(ours, theirs)
    made[0][:, :2] = 0


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (np.zeros((3, 16, 16), np.uint8), "frame 1 is of type ndarray; expected torch.Tensor"),
        (torch.zeros(3, 16, 16), r"frame 1 is float32, \(3, 16, 16\); expected uint8, \(3, h, w\)"),
        (torch.zeros(16, 16, 3, dtype=torch.uint8), r"frame 1 is uint8, \(16, 16, 3\)"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), r"frame 1 is uint8, \(1, 3, 16, 16\)"),
        (torch.zeros(3, 0, 16, dtype=torch.uint8), r"frame 1 is uint8, \(3, 0, 16\)"),
        (torch.zeros(3, 16, 20, dtype=torch.uint8), "frame 1 is 20x16, frame 0 16x16; expected one size"),
    ],
    ids=str,
)
def test_frames_of_another_form_are_refused(stub: Callable[[], Network], frame: object, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        list(upscale([torch.zeros(3, 16, 16, dtype=torch.uint8), frame], Upscaler(stub())))  # type: ignore[list-item]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_makes_the_frames_of_a_cpu(small_network: Callable[..., Network]) -> None:
    """Within one grey level: a GPU's convolutions may use TF32."""
    frames = moving_frames(9, (40, 52))
    expected = by_hand(small_network(), frames)
    upscaler = Upscaler(small_network(), device="cuda")
    upscaler.grid = grid_within(2**33, upscaler.network, 40, 52, limited_by="-")
    for ours, theirs in zip(upscale(frames, upscaler), expected, strict=True):
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_a_scene_cut_is_not_interpolated_and_each_scene_is_made_by_itself(far_sighted: Network) -> None:
    dark = moving_frames(5, (32, 48)) // 4
    light = 255 - moving_frames(6, (32, 48), seed=1) // 4
    assert [number for number, (_, cut) in enumerate(scene_starts([*dark, *light])) if cut] == [5]
    made = list(upscale([*dark, *light], Upscaler(far_sighted)))
    first, second = by_hand(far_sighted, dark), by_hand(far_sighted, light)
    for ours, theirs in zip(made, [*first, first[-1], *second], strict=True):
        assert torch.equal(ours, theirs)


def test_without_interpolation_the_given_frames_are_left(small_network: Callable[..., Network]) -> None:
    network, frames = small_network(), moving_frames(8)
    made = list(upscale(frames, Upscaler(network, interpolate=False)))
    for ours, theirs in zip(made, by_hand(network, frames)[::2], strict=True):
        assert torch.equal(ours, theirs)


def test_scale_2_is_the_network_downsampled_properly(small_network: Callable[..., Network]) -> None:
    network, frames = small_network(), moving_frames(3)
    made = list(upscale(frames, Upscaler(network, scale=2)))
    with torch.inference_mode():
        large = run_padded(network, to_float(frames)[None])[0].clamp(0, 1)
    assert torch.equal(torch.stack(made), to_8bit(bicubic(large, factor=1 / 2)))


@pytest.mark.parametrize(("height", "width"), [(13, 17), (3, 5)])
def test_odd_sizes_are_reflected_and_cut_back(small_network: Callable[..., Network], height: int, width: int) -> None:
    network, frames = small_network(), moving_frames(4, (height, width))
    made = torch.stack(list(upscale(frames, Upscaler(network))))
    assert made.shape == (7, 3, 4 * height, 4 * width)
    assert torch.equal(made, by_hand(network, frames))
    half = torch.stack(list(upscale(frames, Upscaler(network, scale=2))))
    assert half.shape == (7, 3, 2 * height, 2 * width)


@pytest.mark.parametrize("width", [20, 21])
def test_preview_has_bicubic_at_the_left_and_the_network_at_the_right(
    small_network: Callable[..., Network], width: int
) -> None:
    network, frames = small_network(), moving_frames(4, (16, width))
    upscaler, told = Upscaler(network, preview=True), []
    (window,) = windows(scene_starts(frames))
    made = upscaler(window, lambda *tiles: told.append(tiles))
    assert told == [(1, 1)], "of the network alone, which takes the time"
    assert torch.equal(made[..., 4 * width :], by_hand(network, frames))
    left, expected = made[..., : 4 * width].float(), by_hand(BicubicBlend(), frames).float()
    # In a preview, bicubic gets frames padded for the network; its right border differs.
    assert (left - expected)[..., : 4 * width - 16].abs().max() == 0


@pytest.mark.parametrize("scale", [4, 2])
def test_tiles_of_a_network_that_looks_less_far_than_the_margin_leave_no_trace(
    small_network: Callable[..., Network], scale: int
) -> None:
    class Near(Network):
        """Sees three pixels far; equivariant only to shifts by multiples of 4."""

        requirements = InputRequirements(multiple_of=4, minimum_frames=2)

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 48, 7, padding=3)
            self.strided = nn.Conv2d(48, 48, 4, stride=4)

        def forward(self, lr: Tensor) -> Tensor:
            features = self.conv(lr[0])
            features = features + self.strided(features).repeat_interleave(4, -1).repeat_interleave(4, -2)
            large = nn.functional.pixel_shuffle(features, 4).sigmoid()
            return large.repeat_interleave(2, dim=0)[None, :-1]

    network, frames = Near().eval(), moving_frames(4, (4 * MARGIN + 2, 6 * MARGIN + 6))
    whole = torch.stack(list(upscale(frames, Upscaler(network, scale=scale))))
    tiled = torch.stack(list(upscale(frames, Upscaler(network, scale=scale, grid=Grid(2, 3)))))
    # Convolutions of another size round differently, by less than half a grey level.
    assert (whole.int() - tiled.int()).abs().max() <= 1
    assert (whole != tiled).float().mean() < 1e-3


class Greedy(Network):
    """Raises `errors` in turn for frames of more than `most` pixels."""

    requirements = InputRequirements(multiple_of=1, minimum_frames=1)

    def __init__(self, most: int, *errors: BaseException) -> None:
        super().__init__()
        self.most, self.errors, self.tried = most, cycle(errors), [(0, 0)]

    def forward(self, lr: Tensor) -> Tensor:
        self.tried.append((lr.shape[-2], lr.shape[-1]))
        if lr.shape[-1] * lr.shape[-2] > self.most:
            raise next(self.errors)
        return BicubicBlend()(lr)


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=["cuda", "cpu", "cudnn", "triton", "python"])
def test_what_is_raised_for_want_of_memory_is_told_by_its_kind_or_its_words(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: unknown error"), ValueError(), KeyboardInterrupt()])
def test_other_errors_are_not_taken_for_a_lack_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_out_of_memory_halves_the_tiles_until_they_fit() -> None:
    # Not all such errors are a RuntimeError.
    network = Greedy(180 * 180, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError())
    upscaler = Upscaler(network)
    frames = moving_frames(4, (200, 300))
    made = torch.stack(list(upscale(frames, upscaler)))
    assert upscaler.grid == Grid(2, 2)
    assert torch.equal(made, by_hand(BicubicBlend(), frames))
    assert network.tried[1:4] == [(200, 300), (200, 198), (148, 198)]
    list(upscale(frames, upscaler))
    assert network.tried.count((200, 300)) == 1, "what did not fit is not tried again"


def test_too_little_memory_for_the_smallest_tile_is_said() -> None:
    with pytest.raises(InvalidInput, match="not enough memory for a tile of"):
        list(upscale(moving_frames(4, (64, 64)), Upscaler(Greedy(10, NO_MEMORY[0]))))


def test_other_errors_of_a_network_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="oops"):
        list(upscale(moving_frames(4, (64, 64)), Upscaler(Greedy(10, RuntimeError("oops")))))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_an_answer_that_is_not_finite_is_refused(wrong: float) -> None:
    class Broken(Network):
        requirements = InputRequirements()

        def forward(self, lr: Tensor) -> Tensor:
            return BicubicBlend()(lr) + wrong

    with pytest.raises(InvalidInput, match="not finite"):
        list(upscale(moving_frames(4), Upscaler(Broken())))


def test_a_network_that_comes_from_a_training_is_no_longer_in_it() -> None:
    """Otherwise dropout and batch statistics would affect the frames."""

    class Dropping(BicubicBlend):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout()

        def forward(self, lr: Tensor) -> Tensor:
            made: Tensor = self.dropout(super().forward(lr))
            return made

    made = list(upscale(moving_frames(4), Upscaler(Dropping().train())))
    assert torch.equal(torch.stack(made), by_hand(BicubicBlend(), moving_frames(4)))


def test_another_scale_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"scale=3; expected 4 or 2"):
        Upscaler(BicubicBlend(), scale=3)


def test_another_precision_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"precision=bfloat16; expected auto, float32, bf16"):
        Upscaler(BicubicBlend(), precision="bfloat16")


def test_bf16_on_a_gpu_that_has_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error looks like a lack of memory, so tiles would become ever smaller."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr("stvsr.video.upscaling.chosen_device", torch.device)
    with pytest.raises(InvalidInput, match="precision=bf16 on a GPU without bfloat16; expected compute capability"):
        Upscaler(BicubicBlend(), device="cuda", precision="bf16")


class Rounding(BicubicBlend):
    """Off by `gain` / 30 under autocast to bfloat16."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, lr: Tensor) -> Tensor:
        return super().forward(lr) + self.gain / 30 * torch.is_autocast_enabled(lr.device.type)


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize(
    ("gain", "agrees"), [(0.0, True), (0.02, True), (0.04, False)], ids=["exact", "to 63 dB", "to 57 dB"]
)
def test_bf16_is_used_only_where_it_agrees_with_float32(
    gain: float, agrees: bool, preview: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first window decides, and is made as all others will be; a preview's bicubic half plays no part."""
    monkeypatch.setattr("stvsr.video.upscaling.has_bf16", lambda device: True)
    upscaler = Upscaler(Rounding(gain), precision="auto", preview=preview)
    first, *_ = windows(scene_starts(moving_frames(4)))
    expected = by_hand(BicubicBlend(), moving_frames(4))
    off = (upscaler(first)[..., -expected.shape[-1] :].int() - expected.int()).abs().max()
    assert off == 0 or (off == 1 and agrees), "rounded to 8 bits"
    assert upscaler.bf16 is agrees


def test_what_is_clamped_away_does_not_speak_against_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far outside [0, 1] bfloat16 is coarse, but clamping hides it."""
    monkeypatch.setattr("stvsr.video.upscaling.has_bf16", lambda device: True)

    class Beyond(Rounding):
        def forward(self, lr: Tensor) -> Tensor:
            made = super().forward(lr)
            # Every other pixel far below black, the others exact.
            made[..., ::2] = -3 - self.gain * torch.is_autocast_enabled(lr.device.type)
            made[..., 1::2] = BicubicBlend.forward(self, lr)[..., 1::2]
            return made

    upscaler = Upscaler(Beyond(1.0), precision="auto")
    first, *_ = windows(scene_starts(moving_frames(4)))
    upscaler(first)
    assert upscaler.bf16 is True


@pytest.mark.parametrize("colour", [(0, 0, 0), (20, 40, 160)], ids=["black", "blue"])
def test_plain_frames_decide_nothing_of_precision(
    colour: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many films begin with plain frames, which agree in any precision."""
    monkeypatch.setattr("stvsr.video.upscaling.has_bf16", lambda device: True)
    upscaler = Upscaler(Rounding(1.0), precision="auto")
    one_colour = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    (plain,) = windows(scene_starts([one_colour.expand_as(frame) for frame in moving_frames(4)]))
    upscaler(plain)
    assert upscaler.bf16 is None
    first, *_ = windows(scene_starts(moving_frames(4)))
    upscaler(first)
    assert upscaler.bf16 is False


@pytest.mark.parametrize(
    ("network", "fast"),
    [pytest.param(Rounding(0.0), False, id="slow"), pytest.param(BicubicBlend(), True, id="no weights")],
)
def test_bf16_is_not_tried_where_it_gains_nothing(
    network: Network, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stvsr.video.upscaling.has_bf16", lambda device: fast)
    upscaler = Upscaler(network, precision="auto")
    assert upscaler.bf16 is False


def test_bf16_on_request_stays_within_a_hundredth_of_a_decibel_of_a_33_db_result(
    small_network: Callable[..., Network],
) -> None:
    """An untrained network says little about trained ones; this only checks that autocast is on and harmless."""
    network = small_network()
    exact, rounded = (
        torch.stack(list(upscale(moving_frames(4), Upscaler(network, precision=precision)))).float()
        for precision in ("float32", "bf16")
    )
    assert not torch.equal(exact, rounded)
    error_of_33_db = 255**2 * 10**-3.3
    assert (exact - rounded).square().mean() < error_of_33_db * (10**0.001 - 1)


def test_an_upscaler_counts_the_frames_that_it_has_made(stub: Callable[[], Network]) -> None:
    stream = [(frame, number in (3, 4)) for number, frame in enumerate(moving_frames(9))]
    for interpolate in (True, False):
        upscaler = Upscaler(stub(), interpolate=interpolate)
        for window in windows(stream):
            assert len(upscaler(window)) == upscaler.count(window)


def test_what_is_turned_by_a_player_stays_and_what_is_turned_by_us_is_said_to_be_upright() -> None:
    matrix = (0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    lr = Picture(64, 48, Colour(), Fraction(4, 3), matrix)
    assert lr.orientation == Orientation(turns=3)
    kept = Upscaler(BicubicBlend()).picture(lr)
    assert (kept.width, kept.height, kept.pixel_aspect) == (256, 192, Fraction(4, 3))
    assert kept.display_matrix == (*matrix[:6], 4 * 48 << 16, 0, 1 << 30)
    turned = Upscaler(BicubicBlend(), orientation=lr.orientation).picture(lr)
    assert (turned.width, turned.height, turned.pixel_aspect) == (192, 256, Fraction(3, 4))
    assert (turned.display_matrix, turned.orientation) == (None, Orientation())


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="device=gpu: not usable here"):
        Upscaler(BicubicBlend(), device="gpu")


def test_a_factor_that_is_no_number_is_shown_as_it_is() -> None:
    with pytest.raises(InvalidInput, match="scale='2'; expected 4 or 2"):
        Upscaler(BicubicBlend(), scale="2")  # type: ignore[arg-type]


def test_a_gpu_that_fails_midway_is_told_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fail after the machine was suspended, say; finished work is kept if a user error ends the job."""

    class Failing(BicubicBlend):
        def forward(self, lr: Tensor) -> Tensor:
            raise RuntimeError("CUDA error: unknown error")

    def gone(device: torch.device) -> None:
        raise UserError("a kernel failed; start again")

    upscaler = Upscaler(Failing())
    window = Window([torch.zeros(3, 8, 8, dtype=torch.uint8)] * 4, range(7), hold=False)
    with pytest.raises(RuntimeError, match="unknown error"):
        upscaler(window)
    monkeypatch.setattr("stvsr.video.upscaling.check_answering", gone)
    with pytest.raises(UserError, match="a kernel failed"):
        upscaler(window)
