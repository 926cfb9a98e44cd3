import torch

from decoder.training.muon import Muon, orthogonalised


def test_as_torch_s_muon_up_to_its_bfloat16() -> None:
    torch.manual_seed(0)
    for shape in [(16, 48), (48, 16), (16, 16)]:
        ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
        optimizers = Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0)
        for _ in range(3):
            ours.grad = torch.randn(shape)
            theirs.grad = ours.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
        # Entries moved by about 0.1 / sqrt(16) a step; bfloat16 has 8 bits.
        torch.testing.assert_close(ours, theirs, atol=4e-3, rtol=0)


def test_singular_values_near_one() -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(20, 60)))
    assert values.min() > 0.5
    assert values.max() < 1.3
