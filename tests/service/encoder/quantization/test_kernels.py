"""Both int8 products against the same sums in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from service.encoder.quantization.kernels import Fbgemm, OneDnn, Parts, best_kernel


@pytest.fixture(params=[Fbgemm, OneDnn])
def kernel(request):
    if not request.param.is_available():
        pytest.skip(f"this PyTorch has no {request.param.__name__}")
    return request.param


def parts(rows=40, columns=72, zero_point=90, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    fields = {
        "weight": torch.randint(-64, 65, (rows, columns), generator=generator, dtype=torch.int8),
        "scale": torch.rand(rows, generator=generator) / 1000 + 1e-4,
        "bias": torch.randn(rows, generator=generator),
        "multiplier": 30 * torch.rand(columns, generator=generator) + 10,
        "zero_point": torch.tensor([zero_point], dtype=torch.int32),
    }
    return Parts(**fields | changes)


def expected(layer, states):
    levels = ((states * layer.multiplier).round().double() + layer.zero_point).clamp(0, 255)
    return (levels - layer.zero_point) @ layer.weight.double().T * layer.scale.double() + layer.bias.double()


@pytest.mark.parametrize("shape", [(1, 72), (5, 72), (3, 7, 72), (2, 1, 4, 72), (600, 72)])
def test_equals_the_definition(kernel, shape):
    layer = parts()
    states = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = kernel(layer)(states)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected(layer, states), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("zero_point", [0, 255])
@pytest.mark.parametrize("weight", [-64, 64])
def test_the_largest_sums_do_not_saturate(kernel, weight, zero_point):
    layer = parts(
        columns=512,
        zero_point=zero_point,
        weight=torch.full((40, 512), weight, dtype=torch.int8),
        multiplier=torch.ones(512),
    )
    for extreme in (-1e6, 1e6):
        states = torch.full((9, 512), extreme)
        torch.testing.assert_close(kernel(layer)(states).double(), expected(layer, states), rtol=1e-5, atol=1e-3)


def test_a_row_does_not_depend_on_the_rows_beside_it(kernel):
    run = kernel(parts())
    states = torch.randn(64, 72, generator=torch.Generator().manual_seed(2))
    together = run(states)
    for row in (0, 17, 63):
        torch.testing.assert_close(run(states[row : row + 1])[0], together[row], rtol=0, atol=0)


def test_many_threads_share_one(kernel):
    run = kernel(parts())
    inputs = [torch.randn(rows, 72, generator=torch.Generator().manual_seed(rows)) for rows in range(1, 200, 7)]
    alone = [run(states) for states in inputs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for found, wanted in zip(pool.map(run, inputs), alone, strict=True):
                torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_states_that_are_no_contiguous_memory(kernel):
    layer = parts()
    states = torch.randn(6, 72, 4, generator=torch.Generator().manual_seed(3)).transpose(1, 2)
    torch.testing.assert_close(kernel(layer)(states).double(), expected(layer, states), rtol=1e-4, atol=1e-4)


def test_the_setting_of_the_process_stays():
    engine = torch.backends.quantized.engine
    best_kernel()(parts())
    assert torch.backends.quantized.engine == engine


def test_no_deprecation_reaches_the_user(kernel, recwarn):
    kernel(parts())
    assert not recwarn.list
