"""Maps at all depths: against each network called by hand, whatever the grid, size and device."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.models.backbones import create_backbone
from resight.models.depths import MOST, Depth, Maps, Part, depths_of, parts_of, usual_depths
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.iresnet import IResNet
from resight.models.pooling import AveragePool, GeM, grid_average

SIZE = (64, 32)
NETWORKS = ("test_resnet", "test_vit", "test_efficientnet", "test_convnext", "swin")


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "swin":  # maps of its own order of axes, cut into windows
        small = {"embed_dim": 16, "depths": (1, 1, 2), "num_heads": (1, 2, 4), "window_size": 4}
        return timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=SIZE, num_classes=0, **small
        ).eval()
    return create_backbone(name, SIZE, 2)[0].eval()


def images(count: int = 2, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def by_hooks(model: nn.Module, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The outputs of the layers that the depths stand for, (B, C, H, W) each, and the features."""
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple, out: torch.Tensor) -> None:
        kept.append(out)

    if hasattr(model, "conv_stem"):  # an EfficientNet
        layers = [model.bn1, *(block for stage in model.blocks for block in stage[-1:])]
    elif hasattr(model, "layer1"):
        layers = [model.act1, model.layer1, model.layer2, model.layer3, model.layer4]
    elif hasattr(model, "blocks"):
        layers = list(model.blocks)
    elif hasattr(model, "stages"):
        layers = list(model.stages)
    else:
        layers = list(model.layers)
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    with torch.no_grad():
        last = model.forward_features(x)
    for hook in hooks:
        hook.remove()
    return kept, last


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=1, keepdim=True)


def cells_of(x: torch.Tensor, n: int) -> torch.Tensor:
    """The mean of each cell, one by one: from the floor of its begin to the ceiling of its end."""
    height, width = x.shape[2:]
    rows = [
        x[
            :,
            :,
            i * height // n : -(-(i + 1) * height // n),
            j * width // n : -(-(j + 1) * width // n),
        ].mean((2, 3))
        for i in range(n)
        for j in range(n)
    ]
    return torch.stack(rows, 2).flatten(1)


def oracle(
    model: nn.Module,
    x: torch.Tensor,
    parts: list[tuple[int, int]],
    least: dict[int, int] | None = None,
) -> torch.Tensor:
    """Every wanted map pooled, brought to unit length and joined, in plain steps.

    `least`: cells a side of maps at the size that the parts were made for, where it isn't x's.
    """
    kept, last = by_hooks(model, x)
    token: dict[int, torch.Tensor] = {}
    maps = []
    for number, out in enumerate(kept):
        if out.ndim == 3:  # a transformer's tokens, of which the first is the class token
            token[number] = out[:, 0]
            height, width = x.shape[2] // 16, x.shape[3] // 16
            out = out[:, 1:].transpose(1, 2).unflatten(2, (height, width))
        elif type(model).__name__ == "SwinTransformer":
            out = out.permute(0, 3, 1, 2)
        maps.append(out)
    if last.ndim == 4 and last.shape[1] not in (maps[-1].shape[1], maps[-1].shape[2]):
        maps.append(last)
    vectors = []
    for number, grid in parts:
        one = maps[number]
        if grid > 1 and (least or {}).get(number, min(one.shape[2:])) >= grid:
            vectors.append(unit(cells_of(one, grid)))
            continue
        vectors.append(unit(one.mean((2, 3))))
        if number in token:
            vectors[-1] = unit(torch.cat([vectors[-1], unit(token[number])], 1))
    return unit(torch.cat(vectors, 1))


def maps_of(name: str, parts: list[tuple[int, int]]) -> Maps:
    found = depths_of(network(name), SIZE)
    return Maps(parts_of(found, [d for d, _ in parts], [g for _, g in parts], name))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_depth_is_described_as_its_map_is(name):
    model = network(name)
    found = depths_of(model, SIZE)
    kept, last = by_hooks(model, images(1))
    assert [depth.number for depth in found] == list(range(len(found)))
    assert [depth.own for depth in found[:-1]] == [False] * (len(found) - 1)
    assert len(found) == len(kept) + found[-1].own
    assert found[-1].own == (name == "test_efficientnet")
    assert all(depth.token == (name == "test_vit") for depth in found)
    for depth in found:
        height, width = depth.cells
        assert depth.stride == SIZE[0] // height == SIZE[1] // width
        if not depth.own:
            assert kept[depth.number].numel() == (depth.channels * (height * width + depth.token))
    if found[-1].own:
        assert found[-1].channels == last.shape[1] == model.num_features


@pytest.mark.parametrize("grid", [1, 2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_joined_vector_is_every_map_pooled_at_unit_length(name, grid):
    """A grid of 2 and 3 meets maps with fewer cells than that: these are averaged whole."""
    model = network(name)
    found = depths_of(model, SIZE)
    for parts in (
        [(depth.number, grid) for depth in found],  # with the last features
        [(depth.number, grid) for depth in found[1:-1]],  # stopped early
        [(2, grid), (0, 1), (1, 2)],  # in the order asked for
        [(len(found) - 1, grid)],  # alone: of an EfficientNet no map in between is needed
    ):
        maps = maps_of(name, parts)
        with torch.no_grad():
            out = maps(model, AveragePool(), images())
        expected = oracle(model, images(), parts)
        assert out.shape[1] == sum(part.width for part in maps.parts)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_a_depth_may_come_with_several_grids():
    parts = [(1, 1), (1, 2), (3, 1), (1, 4)]
    with torch.no_grad():
        out = maps_of("test_resnet", parts)(network("test_resnet"), AveragePool(), images())
    torch.testing.assert_close(out, oracle(network("test_resnet"), images(), parts))
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))
    widths = [part.width for part in maps_of("test_resnet", parts).parts]
    torch.testing.assert_close(
        torch.stack([part.norm(dim=1) for part in out.split(widths, 1)]), torch.full((4, 2), 0.5)
    )


def test_parts_without_a_grid_go_through_the_pool_given():
    maps = maps_of("test_resnet", [(3, 1), (2, 2)])
    pool = GeM(3.0)
    kept, _ = by_hooks(network("test_resnet"), images())
    with torch.no_grad():
        out = maps(network("test_resnet"), pool, images())
        expected = torch.cat([unit(pool(kept[3])), unit(cells_of(kept[2], 2))], 1) / 2**0.5
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (2, 3), (1, 1)])
def test_a_grid_averages_its_cells_and_repeats_them_where_there_are_too_few(height, width):
    x = torch.randn(2, 3, height, width)
    for n in (1, 2, 3):
        torch.testing.assert_close(grid_average(x, n), cells_of(x, n))


def test_widths_of_parts():
    plain, token = Depth(0, 10, (4, 2), 16), Depth(1, 10, (4, 2), 16, token=True)
    assert [Part(plain, grid).width for grid in (1, 2, 3)] == [10, 40, 10]
    assert [Part(token, grid).width for grid in (1, 2, 3)] == [20, 40, 20]


def test_other_scales_are_pooled_on_the_same_parts():
    """The grid of a part holds at every scale, though the map has other cells there."""
    for name, grids in (("test_resnet", (1, 2, 2)), ("test_vit", (1, 2, 1))):
        config = EmbedderConfig(
            backbone=name,
            last_stride=2,
            depths=(1, 2, 3),
            grids=grids,
            pooling="average",
            bn_neck=False,
            preprocess=Preprocess(size=SIZE),
        )
        embedder = Embedder(config).eval()
        x = images()
        half = F.interpolate(
            x, scale_factor=0.5, mode="bilinear", align_corners=False, antialias=True
        )
        pairs = list(zip(config.depths, grids, strict=True))
        small = oracle(embedder.backbone, half, pairs, least=dict.fromkeys((1, 2, 3), 2))
        expected = oracle(embedder.backbone, x, pairs) + small
        found = embedder.embed_tensor(x, scales=(1, 0.5))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_computed_beyond_the_deepest_map_asked_for(name):
    model = copy.deepcopy(network(name))
    later = {
        "test_resnet": lambda: model.layer3,
        "test_vit": lambda: model.blocks[2],
        "test_efficientnet": lambda: model.blocks[2],
        "test_convnext": lambda: model.stages[2],
        "swin": lambda: model.layers[2],
    }[name]()
    ran: list[bool] = []
    later.register_forward_hook(lambda *_: ran.append(True))
    maps_of(name, [(1, 1)])(model, AveragePool(), images())
    assert not ran
    maps_of(name, [(3 if name in ("test_resnet", "test_efficientnet") else 2, 1)])(
        model, AveragePool(), images()
    )
    assert ran


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_gradients_reach_the_projection_and_every_layer_up_to_the_deepest_map(name):
    config = EmbedderConfig(
        backbone=name,
        depths=(1, 2),
        grids=(1, 2),
        projection=5,
        bn_neck=False,
        preprocess=Preprocess(size=SIZE),
    )
    embedder = Embedder(config).train()
    assert embedder.training and embedder.backbone.training
    embedder(images(3))[1].square().sum().backward()
    assert embedder.projection.weight.grad is not None
    assert embedder.projection.weight.grad.abs().sum() > 0
    first = next(iter(embedder.backbone.parameters()))
    assert first.grad is not None and first.grad.abs().sum() > 0
    last = list(embedder.backbone.parameters())[-1]
    assert last.grad is None  # it takes no part


def test_the_usual_depths_are_all_but_the_finest_and_the_last_quarter():
    def at(strides: list[int]) -> list[Depth]:
        return [Depth(k, 8, (4, 4), stride) for k, stride in enumerate(strides)]

    found = at([2, 2, 4, 8, 16, 16, 32, 32, 32])
    assert usual_depths(found) == (2, 3, 4, 5, 6)  # the last quarter of seven is two
    assert usual_depths(found, leave_out=1) == (2, 3, 4, 5, 6, 7)
    assert usual_depths(found, leave_out=0) == (2, 3, 4, 5, 6, 7, 8)
    assert usual_depths(found, leave_out=99) == (2,)
    assert usual_depths(at([2, 2])) == (1,)  # only fine maps: the last of them
    many = usual_depths(at([16] * 24))
    assert len(many) == MOST and many[0] == 0 and many[-1] == 17  # of 24 the last six are left out
    assert list(many) == sorted(set(many))
    steps = {b - a for a, b in pairwise(many)}
    assert max(steps) - min(steps) <= 1


def test_depths_are_found_where_the_network_is():
    """On the meta device, which computes nothing, as on a GPU: the input must be there too."""
    model = create_backbone("test_resnet", SIZE, 2)[0]
    expected = depths_of(model, SIZE)
    assert depths_of(model.to("meta"), SIZE) == expected


def test_mistakes_are_one_clear_line():
    found = depths_of(network("test_resnet"), SIZE)
    for wanted in ((0, 5), (-1,), (99,)):
        with pytest.raises(UserError, match="backbone test_resnet has the depths 0 to 4"):
            parts_of(found, wanted, (), "test_resnet")
    preprocess = Preprocess(size=SIZE)
    with pytest.raises(UserError, match=r"depths 2, 7: backbone test_resnet has the depths 0 to 4"):
        Embedder(EmbedderConfig(backbone="test_resnet", depths=(2, 7), preprocess=preprocess))
    with pytest.raises(UserError, match="no intermediate maps in timm; leave depths empty"):
        depths_of(nn.Conv2d(3, 4, 1), SIZE)
    with pytest.raises(UserError, match="IResNet has no intermediate maps"):
        depths_of(IResNet((1, 1, 1, 1), (32, 32)), (32, 32))
    with pytest.raises(UserError, match="pooling model"):
        Embedder(EmbedderConfig(backbone="test_vit", depths=(1,), pooling="model"))
    for wrong in (
        {"depths": (1, 2), "grids": (1,)},
        {"depths": (1, 1)},
        {"depths": (1, 1), "grids": (2, 2)},
        {"grids": (1,)},
    ):
        with pytest.raises(ValueError, match=r"grids|twice"):
            EmbedderConfig(backbone="test_resnet", **wrong)
    assert EmbedderConfig(depths=(1, 1), grids=(1, 2)).grids == (1, 2)


def test_a_frozen_description_is_its_values():
    depth = Depth(1, 8, (4, 4), 8)
    assert replace(depth, channels=8) == depth and len({Part(depth), Part(depth, 1)}) == 1
