"""Micro-batches add up to the loss and the gradients of the whole batch, whatever the objective."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig
from torch import Tensor, nn

from stvsr.config import CONFIG_DIR
from stvsr.data.clip import Batch
from stvsr.data.degradation import downsample
from stvsr.models.zooming_slow_mo import ZoomingSlowMo
from stvsr.train import train
from stvsr.training import micro_batches
from stvsr.training.losses import charbonnier
from stvsr.training.micro_batches import loss_in_micro_batches
from stvsr.training.objectives import Objective, SpaceTime

ONE_STAGE = ("space_time", "feature_interpolation", "flow_guided_offsets", "feature_reconstruction")
"""Objectives of one-stage networks."""


def make_batch(clips: int, *, h: int = 8, w: int = 12) -> Batch:
    hr = torch.randint(0, 256, (clips, 7, 3, 4 * h, 4 * w), generator=torch.Generator().manual_seed(0)) / 255
    names = [str(clip) for clip in range(clips)]
    return Batch(lr=downsample(hr[:, ::2]), hr=hr, names=names, motions=["all"] * clips)


def of_one_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "PIXELS_AT_ONCE", 1)


def gradients(loss: Tensor, network: nn.Module) -> dict[str, Tensor]:
    network.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def assert_adds_up(
    objective: Objective, network: nn.Module, batch: Batch, *, rtol: float = 1e-6, atol: float = 1e-9
) -> None:
    """`rtol` is relative to each gradient's maximum."""
    loss_of = partial(objective, network)
    whole, parts = loss_of(batch), loss_in_micro_batches(loss_of, batch, network)
    torch.testing.assert_close(parts, whole.detach(), rtol=rtol, atol=atol)
    expected, found = gradients(whole, network), gradients(parts, network)
    assert found.keys() == expected.keys()
    assert any(gradient.any() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=rtol * gradient.abs().max().item() + atol)


@pytest.mark.parametrize("objective", sorted(path.stem for path in (CONFIG_DIR / "objective").glob("*.yaml")))
def test_every_objective_adds_up(
    configure: Callable[..., DictConfig],
    small_network: Callable[..., ZoomingSlowMo],
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
) -> None:
    """Without VGG-16 for SuperSloMo: its weights need a download."""
    model = "zooming_slow_mo" if objective in ONE_STAGE else "two_stage"
    of_one_clip(monkeypatch)
    if model == "two_stage":
        torch.manual_seed(0)
        stages = ["frame_interpolator=superslomo", "frame_upscaler=rcan"]
        sizes = ["+frame_interpolator.channels=[4,4,4,4,4,4]"]
        sizes += ["+frame_upscaler.channels=16", "+frame_upscaler.groups=1"]
        network = instantiate(configure("train", "~ablation", "model=two_stage", *stages, *sizes).model)
    else:
        network = small_network()
    # In float64: the losses are steep near 0, where the order of summation may decide the sign.
    batch = make_batch(3)
    batch.lr, batch.hr = batch.lr.double(), batch.hr.double()
    learned = configure("train", "~ablation", f"objective={objective}", f"model={model}").objective
    if objective.endswith("superslomo"):
        learned.loss.perceptual = 0
    assert_adds_up(instantiate(learned), network.double().train(), batch)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_clips_go_through_the_network_a_few_at_a_time_and_what_they_kept_is_gone_before_the_next(
    small_network: Callable[..., ZoomingSlowMo], monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    network, batch = small_network("e", 0, f"model.checkpointing={str(checkpointing).lower()}"), make_batch(4)
    monkeypatch.setattr(micro_batches, "PIXELS_AT_ONCE", 2 * 4 * 8 * 12)
    kept = most = 0
    seen = []

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal kept, most
            self.tensor = tensor
            kept += 1
            most = max(most, kept)

        def __del__(self) -> None:
            nonlocal kept
            kept -= 1

    def loss_of(part: Batch) -> Tensor:
        seen.append(part.names)
        return charbonnier(network(part.lr), part.hr)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda saved: saved.tensor):
        loss_of(batch).backward()
        together, most = most, 0
        loss_in_micro_batches(loss_of, batch, network).backward()
    assert seen == [["0", "1", "2", "3"], ["0", "1"], ["2", "3"]]
    assert kept == 0
    assert most <= together


def test_gradients_add_up_under_autocast(
    small_network: Callable[..., ZoomingSlowMo], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autocast caches the weights it has cast, across all micro-batches."""
    of_one_clip(monkeypatch)
    network, batch = small_network(), make_batch(3)

    def squared(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction.float() - target).square().sum()

    with torch.autocast("cpu", torch.bfloat16):
        # bfloat16 has 8 significant bits, and kernels may depend on the batch size.
        assert_adds_up(SpaceTime(squared), network.train(), batch, rtol=0.05)


def test_parameters_without_a_share_in_the_loss_get_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several processes, DDP finds unused parameters by the graph."""
    of_one_clip(monkeypatch)
    network = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)])
    network[2].requires_grad_(False)
    batch = make_batch(2)
    loss = loss_in_micro_batches(lambda part: network[2](network[0](part.hr.flatten(0, 1))).sum(), batch, network)
    assert gradients(loss, network).keys() == {"0.weight", "0.bias"}
    assert len([function for function, _ in loss.grad_fn.next_functions if function is not None]) == 2


def test_parameters_that_share_a_gradient_get_it_each(monkeypatch: pytest.MonkeyPatch) -> None:
    of_one_clip(monkeypatch)
    network, batch = nn.ParameterList([torch.ones(3), torch.ones(3)]), make_batch(3)
    loss = loss_in_micro_batches(lambda part: len(part) * (network[0] + network[1]).sum(), batch, network)
    for gradient in gradients(2 * loss, network).values():
        assert gradient.tolist() == [6, 6, 6]


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalisation_sees_the_whole_batch(monkeypatch: pytest.MonkeyPatch, training: bool) -> None:
    of_one_clip(monkeypatch)
    network, seen = nn.BatchNorm2d(3).train(training), []

    def loss_of(part: Batch) -> Tensor:
        seen.append(len(part))
        return network(part.lr.flatten(0, 1)).square().sum()

    loss_in_micro_batches(loss_of, make_batch(3), network)
    assert seen == ([3] if training else [1, 1, 1])


@given(clips=st.integers(1, 40), h=st.integers(1, 4), w=st.integers(1, 4), at_once=st.integers(1, 2000))
def test_micro_batches_are_few_alike_and_hold_each_clip_once(clips: int, h: int, w: int, at_once: int) -> None:
    lr = torch.arange(clips).reshape(-1, 1, 1, 1, 1).expand(clips, 4, 3, 4 * h, 4 * w)
    hr = torch.arange(clips).reshape(-1, 1, 1, 1, 1)
    names, motions = ([f"{what}{clip}" for clip in range(clips)] for what in ("name", "motion"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(micro_batches, "PIXELS_AT_ONCE", at_once)
        parts = micro_batches.micro_batches(Batch(lr, hr, names, motions))
    assert torch.equal(torch.cat([part.lr for part in parts]), lr)
    assert torch.equal(torch.cat([part.hr for part in parts]), hr)
    assert [name for part in parts for name in part.names] == names
    assert [motion for part in parts for motion in part.motions] == motions
    sizes = [len(part) for part in parts]
    assert all(len(part.names) == len(part.lr) for part in parts)
    assert max(sizes) - min(sizes) <= 1
    most = max(1, at_once // (4 * 16 * h * w))
    assert max(sizes) <= most
    assert len(parts) == -(-clips // most)


def test_clips_of_the_papers_size_go_through_two_at_a_time() -> None:
    """More at once would take more memory."""
    lr = torch.empty(24, 4, 3, 32, 32, device="meta")
    parts = micro_batches.micro_batches(Batch(lr, lr, ["clip"] * 24, ["all"] * 24))
    assert [len(part) for part in parts] == [2] * 12


def test_training_on_a_cpu_takes_micro_batches_with_the_result_of_whole_batches(
    small_run: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen, losses = ZoomingSlowMo.forward, [], []

    def watched(self: ZoomingSlowMo, lr: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(len(lr))
        return forward(self, lr)

    monkeypatch.setattr(ZoomingSlowMo, "forward", watched)
    for folder, at_once in (("whole", micro_batches.PIXELS_AT_ONCE), ("parts", 2 * 4 * 8 * 8)):
        monkeypatch.setattr(micro_batches, "PIXELS_AT_ONCE", at_once)
        metrics = train(
            small_run("loader.batch_size=5", "trainer.max_steps=2", "trainer.val_check_interval=2", folder=folder)
        )
        losses.append(metrics["train/loss"])
    assert seen == [5, 5, 1, 2, 2, 1, 2, 2]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
