"""Training steps as CUDA graphs: the same gradients, refused where there is no GPU."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch

from stvsr.errors import InvalidInput
from stvsr.models.blocks import conv3x3
from stvsr.training import graphs
from stvsr.training.graphs import recorded


def test_a_cpu_is_refused_in_one_line() -> None:
    with pytest.raises(InvalidInput, match="cuda_graphs=true on a CPU"):
        recorded(conv3x3(3, 3), torch.rand(1, 3, 8, 8))


def test_a_deformable_convolution_that_escapes_the_recording_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision launches on the default stream. Seen on an H100: offsets stayed zero, synthesised frames dark."""
    monkeypatch.setattr(graphs, "backend_on", lambda device: "torchvision")
    on_gpu = cast(torch.Tensor, SimpleNamespace(is_cuda=True))
    with pytest.raises(InvalidInput, match="cannot be recorded"):
        recorded(conv3x3(3, 3), on_gpu)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("letter", "abcde")
def test_replayed_gradients_are_those_of_the_network(bf16: bool, letter: str) -> None:
    """Of new inputs and of changed weights, for every ablation; sums over pixels have no fixed order on a GPU."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from stvsr.cli import CONFIG_DIR

    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        small = ["model.channels=32", "model.feature_blocks=1", "model.reconstruction_blocks=2"]
        network = instantiate(compose("train", [f"ablation={letter}", *small]).model).cuda()
    network.to(memory_format=torch.channels_last)
    inputs = [torch.rand(2, 4, 3, 16, 16, device="cuda") for _ in range(3)]
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        replay = recorded(network, inputs[0])
        for lr in inputs[1:]:
            gradients = []
            for run in (network, replay):
                network.zero_grad()
                run(lr).float().square().sum().backward()
                gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
            for plain, replayed in zip(*gradients, strict=True):
                assert (plain - replayed).norm() <= (0.05 if bf16 else 1e-3) * plain.norm() + 1e-6
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(0.01 * torch.randn_like(parameter))
                    torch.clear_autocast_cache()
