"""apply, remove, compressed and what they promise, on small random models of the real classes."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace

import pytest
import torch
from torch import nn

import bigain
from bigain.backbones import row_keys
from bigain.backbones.application import session_of
from bigain.backbones.families import find_model, layout
from bigain.backbones.hooks import NothingCompressedError
from bigain.methods import TokenDownsampling, parse
from bigain.operators.grid import Grid

METHODS = {
    "lgtm": bigain.LaplacianMerging(ratio=0.5),
    "abm": bigain.AdaptiveBlockMerging(ratio=0.5),
    "quadtree": bigain.QuadtreeMerging(ratio=0.5),
    "tome": bigain.ToMe(ratio=0.5),
    "tome-random": bigain.ToMe(ratio=0.5, destinations="random"),
    "sito": bigain.SiTo(ratio=0.5),
    "todo": bigain.ToDo(factor=2),
    "avgpool": bigain.AveragePooling(factor=2),
    "freqsel": bigain.FrequencySelection(factor=2, keep="low"),
    "iekvd": bigain.InterpolateExtrapolateKV(factor=2, alpha=bigain.Linear(0.8, 1.2)),
}


@pytest.fixture(params=sorted(METHODS))
def method(request):
    return METHODS[request.param]


def test_every_family_is_compressed_by_default_and_restored_bit_for_bit(family, method, forward):
    model, inputs = family.build(), family.inputs()
    plain = forward(model, inputs)
    handle = bigain.apply(model, method)
    changed = forward(model, inputs)
    assert changed.shape == plain.shape
    assert not torch.equal(changed, plain)
    assert torch.equal(changed, forward(model, inputs))  # the same call gives the same bits
    assert all(row.keys[1] < row.keys[0] for row in handle.summary())
    bigain.remove(model)
    assert torch.equal(forward(model, inputs), plain)


@pytest.mark.parametrize(
    "idle",
    [
        bigain.LaplacianMerging(ratio=0.0),
        bigain.AdaptiveBlockMerging(ratio=0.0),
        bigain.QuadtreeMerging(ratio=0.0),
        bigain.ToMe(ratio=0.0),
        bigain.SiTo(ratio=0.0),
        bigain.ToDo(factor=1),
        bigain.AveragePooling(factor=1),
        bigain.InterpolateExtrapolateKV(factor=1),
    ],
    ids=lambda method: method.name,
)
def test_ratio_0_and_factor_1_change_no_bit(family, idle, forward):
    model, inputs = family.build(), family.inputs()
    plain = forward(model, inputs)
    with bigain.compressed(model, idle):
        assert torch.equal(forward(model, inputs), plain)


def test_a_batch_agrees_with_its_rows(family, method, forward):
    model, inputs = family.build(), family.inputs(batch=4, timestep=torch.tensor([10, 300, 600, 990]))
    bigain.apply(model, method)
    together = forward(model, inputs)
    for row in range(4):
        alone = forward(model, _rows(inputs, slice(row, row + 1)))
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-5, rtol=1e-5)


def _rows(inputs, rows):
    def cut(value):
        if isinstance(value, dict):
            return {key: cut(inner) for key, inner in value.items()}
        return value[rows] if isinstance(value, torch.Tensor) else value

    return cut(inputs)


def test_positional_and_keyword_calls_agree(family, forward):
    model, inputs = family.build(), family.inputs()
    bigain.apply(model, "lgtm-0.5")
    names = list(__import__("inspect").signature(type(model).forward).parameters)[1:]
    ordered = [inputs[name] for name in names[: len(names)] if name in inputs]
    leading = [name for name in names if name in inputs]
    if names[: len(leading)] == leading:  # PixArt, SDXL: an optional argument stands between
        with torch.no_grad():
            assert torch.equal(model(*ordered, return_dict=False)[0], forward(model, inputs))
    first, rest = leading[0], {name: inputs[name] for name in leading[1:]}
    with torch.no_grad():
        assert torch.equal(model(inputs[first], **rest, return_dict=False)[0], forward(model, inputs))


@pytest.mark.parametrize("name", ["unet", "sdxl", "pixart"])
@pytest.mark.parametrize(("height", "width"), [(16, 24), (20, 12), (36, 28)])
def test_non_square_and_non_divisible_latents(families, name, height, width, method, forward):
    model, inputs = families[name].build(), families[name].inputs(height=height, width=width)
    with bigain.compressed(model, method):
        output = forward(model, inputs)
    assert output.shape[-2:] == (height, width)
    assert output.isfinite().all()


def test_bfloat16(family, method, forward):
    model = family.build().to(torch.bfloat16)

    def cast(value):
        if isinstance(value, dict):
            return {key: cast(inner) for key, inner in value.items()}
        return value.bfloat16() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    inputs = cast(family.inputs())
    with bigain.compressed(model, method):
        output = forward(model, inputs)
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()


def test_a_copy_of_a_compressed_model_refuses_to_run_the_weights_of_the_first(family, forward):
    model, inputs = family.build(), family.inputs()
    plain = forward(model, inputs)
    bigain.apply(model, "lgtm-0.5")
    compressed = forward(model, inputs)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    with pytest.raises(RuntimeError, match=r"is a copy of a compressed one.*remove\(\) on the copy"):
        forward(twin, inputs)
    bigain.remove(twin)
    own = forward(twin, inputs)
    assert not torch.allclose(own, plain)
    fresh = family.build()
    fresh.load_state_dict(twin.state_dict())
    assert torch.equal(own, forward(fresh, inputs))
    with bigain.compressed(twin, "lgtm-0.5"), bigain.compressed(fresh, "lgtm-0.5"):
        assert torch.equal(forward(twin, inputs), forward(fresh, inputs))
    assert torch.equal(forward(model, inputs), compressed), "the first is as it was"


def test_an_error_within_a_forward_leaves_nothing_behind(families, forward, monkeypatch):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    handle = bigain.apply(model, "lgtm-0.5")
    expected = forward(model, inputs)
    block = model.transformer_blocks[1]
    with monkeypatch.context() as broken:
        broken.setattr(block.norm3, "forward", lambda *_: (_ for _ in ()).throw(MemoryError("none left")))
        with pytest.raises(MemoryError):
            forward(model, inputs)
    assert session_of(model).forward is None
    assert torch.equal(forward(model, inputs), expected)
    assert len(handle.summary()) == 2


def test_two_threads_in_one_compressed_model_are_refused(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    bigain.apply(model, "lgtm-0.5")
    expected = forward(model, inputs)
    found = []

    def second(*_):
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()

    def attempt():
        try:
            forward(model, inputs)
        except RuntimeError as error:
            found.append(str(error))

    hook = model.transformer_blocks[0].register_forward_pre_hook(second)
    assert torch.equal(forward(model, inputs), expected), "the first goes on undisturbed"
    hook.remove()
    assert ["is in progress already" in text for text in found] == [True]


@pytest.mark.parametrize("casting", [False, True], ids=["alone", "beside hooks that leave nothing out"])
def test_layers_that_were_exchanged_after_apply_are_missed(families, forward, casting):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    if casting:
        model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    bigain.apply(model, "lgtm-0.5")
    model.transformer_blocks = families["dit"].build().transformer_blocks
    with pytest.raises(NothingCompressedError, match=r"layers of lgtm:ratio=0.5 must be in a forward .* but none was"):
        forward(model, inputs)


def test_gradient_checkpointing_is_named_where_it_fails(families):
    model, inputs = families["unet"].build(), families["unet"].inputs()
    model.enable_gradient_checkpointing()
    model.train()
    with bigain.compressed(model, "lgtm-0.5"):
        output = model(**inputs, return_dict=False)[0]
        with pytest.raises(RuntimeError, match="disable_gradient_checkpointing"):
            output.sum().backward()


def test_blocks_without_self_attention_are_refused_by_name(families):
    model = families["unet"].build(only_cross_attention=True)
    with pytest.raises(ValueError, match=r"down_blocks\.0\..*must have self-attention.*not only_cross_attention"):
        bigain.apply(model, "lgtm-0.5")


def test_sizes_that_nothing_would_weigh_are_refused(families):
    methods = [bigain.ToMe(size_aware=True), bigain.ToDo(factor=2)]
    with pytest.raises(ValueError, match=r"size_aware must be False where todo:factor=2 replaces.*not True in trans"):
        bigain.apply(families["dit"].build(), methods)


@pytest.mark.parametrize("name", ["lgtm-0.5", "tome-0.5", "abm-0.5", "sito-0.5", "quadtree-0.5", "freqsel-2"])
def test_autocast_does_not_decide_what_merges(families, name, monkeypatch):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    torch.manual_seed(0)
    tokens = torch.randn(1, 1, 16) + 0.1 * torch.randn(
        2, 64, 16
    )  # alike: bfloat16 cannot tell their similarities apart
    made = []
    method = parse(name)[0]
    stage = "pool" if isinstance(method, TokenDownsampling) else "assign"
    original = getattr(type(method), stage)

    def recorded(self, x, context):
        made.append(original(self, tokens, context))
        return original(self, x, context)

    monkeypatch.setattr(type(method), stage, recorded)
    with bigain.compressed(model, method), torch.no_grad():
        model(**inputs)
        plain = len(made)
        with torch.autocast("cpu", torch.bfloat16):
            model(**inputs)
    assert len(made) == 2 * plain > 0
    for ours, theirs in zip(made[:plain], made[plain:], strict=True):
        if stage == "assign":
            ours, theirs = ours.index, theirs.index
        assert torch.equal(ours, theirs)


def test_levels_count_from_the_finest_grid_with_attention(families):
    unet = layout(
        families["unet"].build(
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )
    )
    assert {layer.name.split(".")[0] + layer.name.split(".")[1]: layer.level for layer in unet.layers} == {
        "down_blocks0": 1,
        "down_blocks1": 2,
        "mid_blockattentions": 2,
        "up_blocks0": 2,
        "up_blocks1": 1,
    }
    sdxl = layout(families["sdxl"].build())
    assert min(layer.level for layer in sdxl.layers) == 1
    assert sdxl.layers[0].name.startswith("down_blocks.1")


def test_a_level_that_does_not_exist_is_refused(families):
    with pytest.raises(ValueError, match=r"levels must lie in 1 to 2.*not \[5\]"):
        bigain.apply(families["unet"].build(), bigain.ToDo(levels=(1, 5)))


def test_coarser_levels_alone_can_be_compressed(families, forward):
    model = families["sdxl"].build()
    handle = bigain.apply(model, bigain.ToDo(levels=(2,)))
    forward(model, families["sdxl"].inputs())
    assert {row.grid for row in handle.summary()} == {Grid(4, 4)}


def test_layers_that_are_not_named_stay_as_they_are(families, forward):
    model = families["dit"].build(num_layers=3)
    handle = bigain.apply(model, bigain.ToMe(ratio=0.5, layers=(0, 2)))
    forward(model, families["dit"].inputs())
    assert [row.layer for row in handle.summary()] == ["transformer_blocks.0", "transformer_blocks.2"]
    assert {row.keys for row in handle.summary()} == {(64, 32)}


def test_each_layer_may_have_its_own_ratio_and_its_own_method(families, forward):
    model, inputs = families["dit"].build(num_layers=4), families["dit"].inputs()
    each = ["tome:ratio=0.7,layers=0", "tome:ratio=0.25,layers=1", "todo:factor=2,layers=1/2"]
    handle = bigain.apply(model, "+".join(each))
    together = forward(model, inputs)
    # queries and keys: merged, merged and pooled, pooled; the last block has no hook
    assert [(row.queries[1], row.keys[1]) for row in handle.summary()] == [(20, 20), (48, 16), (64, 16)]
    handle.remove()
    with bigain.compressed(model, each[1]):
        assert not torch.equal(forward(model, inputs), together)


def test_cached_assignments_of_two_methods_do_not_mix(families, forward):
    model, inputs = families["dit"].build(num_layers=4), families["dit"].inputs()
    alike = "tome:ratio=0.5,cached=true,layers=0/2+tome:ratio=0.25,cached=true,layers=1/3"
    with bigain.compressed(model, alike) as handle:
        forward(model, inputs)
        assert [row.queries[1] for row in handle.summary()] == [32, 48, 32, 48]
        assert [row.matching > 0 for row in handle.summary()] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("todo:factor=2,layers=0/9", r"layers must lie in 0 to 1, the transformer blocks of this DiTTrans.*not \[9\]"),
        ("tome:ratio=0.5,layers=0/1+lgtm:ratio=0.5,layers=1", "must be at most one merging.*transformer_blocks.1"),
        ("tome:ratio=0.5,queries=full,layers=1+todo:factor=2,layers=1", "queries must be 'merged'.*not 'full'"),
    ],
)
def test_layers_that_cannot_be_are_named(families, text, words):
    model = families["dit"].build(num_layers=2)
    with pytest.raises(ValueError, match=words):
        bigain.apply(model, text)


def test_cross_attention_that_is_not_there_is_refused(families):
    model = families["dit"].build()
    with pytest.raises(
        ValueError, match="must do without 'cross_attention', which this DiTTransformer2DModel does not"
    ):
        bigain.apply(model, "tome:ratio=0.5,locations=self_attention/cross_attention")
    bigain.apply(model, "tome:ratio=0.5,locations=self_attention/mlp")


def test_unsupported_models_get_the_list(families):
    with pytest.raises(TypeError, match=r"must be one of UNet2DConditionModel.*DiT.*PixArt.*not a Linear"):
        bigain.apply(nn.Linear(1, 1), "lgtm-0.5")
    with pytest.raises(TypeError, match="not a str"):
        bigain.apply("a string", "lgtm-0.5")


def test_a_pipeline_stands_for_its_unet_or_transformer(families):
    class Pipe:
        unet = None
        transformer = families["dit"].build()

    assert find_model(Pipe()) is Pipe.transformer


def test_applying_twice_is_refused(families):
    model = families["dit"].build()
    bigain.apply(model, "lgtm-0.5")
    with pytest.raises(
        ValueError, match=r"replace must be True where a model is compressed already.*by lgtm:ratio=0\.5, not False"
    ):
        bigain.apply(model, "tome-0.5")


def test_methods_that_exclude_each_other_are_refused(families):
    model = families["dit"].build()
    with pytest.raises(ValueError, match="at most one merging"):
        bigain.apply(model, "lgtm-0.5+tome-0.5")
    with pytest.raises(ValueError, match="queries must be 'merged'"):
        bigain.apply(model, "lgtm:ratio=0.5,queries=full+todo-2")


@pytest.mark.parametrize("given", [None, 0.5, [0.5], ["lgtm-0.5"], b"lgtm-0.5", bigain.ToMe])
def test_what_is_no_method_is_refused_in_words(families, given):
    model = families["dit"].build()
    with pytest.raises(TypeError, match=r"^method must be a config such as .*'lgtm-0\.7'.*, not "):
        bigain.apply(model, given)
    with pytest.raises(TypeError, match=r"^method must be"), bigain.compressed(model, given):
        pass


def test_a_forward_in_which_nothing_was_compressed_raises(families, forward):
    model = families["unet"].build()
    bigain.apply(model, bigain.LaplacianMerging(ratio=0.001))  # ⌊0.001 · 256⌋ = 0 tokens
    with pytest.raises(NothingCompressedError, match="nothing was compressed"):
        forward(model, families["unet"].inputs())


@pytest.mark.parametrize(
    ("name", "text", "idle"),
    [
        ("unet", "lgtm:ratio=0.001+iekvd-2", "lgtm:ratio=0.001 must take tokens away"),
        ("dit", "abm:ratio=0.04+iekvd-2", "abm:ratio=0.04 must"),  # 2 tokens, but a block of 2x2 is 3
        ("pixart", "abm:ratio=0.1,cell=4x4,layers=0+tome:ratio=0.5,layers=1", "abm:ratio=0.1,cell=4x4,layers=0 must"),
    ],
)
def test_one_of_two_methods_that_takes_nothing_away_is_named(families, forward, name, text, idle):
    model, inputs = families[name].build(), families[name].inputs()
    bigain.apply(model, text)
    with pytest.raises(NothingCompressedError, match=idle):
        forward(model, inputs)


def test_one_of_two_methods_that_takes_nothing_away_is_refused_where_the_grid_is_known(families):
    model = families["dit"].build()
    with pytest.raises(ValueError, match=r"ratio must be at least 1/64 in lgtm:ratio=0\.01, .* not 0\.01"):
        bigain.apply(model, "lgtm:ratio=0.01+iekvd-2")
    assert session_of(model) is None


TOO_LARGE = [
    ("lgtm:ratio=0.8", r"ratio must be at most 0\.75 .*8x8.*not 0\.8"),
    ("lgtm:ratio=0.8>0.1", r"ratio must be at most 0\.75 .*8x8"),
    ("todo:factor=9", r"factor must be at most 8 .*8x8.*, not 9"),
    ("iekvd:factor=1000000", r"factor must be at most 8 .*8x8.*, not 1000000"),
    ("tome:ratio=0.5,cell=1000x1000", r"cell must .*8x8.*, not 1000x1000"),
    ("tome:ratio=0.5,cell=2x9", r"cell must .*8x8.*, not 2x9"),
]


@pytest.mark.parametrize(("text", "words"), TOO_LARGE)
def test_what_is_too_large_is_refused_by_apply_where_a_model_has_one_grid(families, forward, text, words):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    plain = forward(model, inputs)
    with pytest.raises(ValueError, match=words):
        bigain.apply(model, text)
    assert torch.equal(forward(model, inputs), plain)


@pytest.mark.parametrize(("text", "words"), TOO_LARGE)
def test_what_is_too_large_is_refused_by_the_first_forward_elsewhere(families, forward, text, words):
    model = families["pixart"].build()
    bigain.apply(model, text)
    with pytest.raises(ValueError, match=words):
        forward(model, families["pixart"].inputs())
    larger = families["pixart"].inputs(height=32, width=32)
    if "ratio=0.8" not in text and "1000" not in text:
        assert forward(model, larger).isfinite().all(), "a larger grid takes it"


def test_the_largest_that_a_grid_takes_runs(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    for text in ("lgtm:ratio=0.75", "todo:factor=8", "tome:ratio=0.9,cell=8x8"):
        with bigain.compressed(model, text):
            assert forward(model, inputs).isfinite().all()


def test_a_failed_forward_leaves_the_model_usable(families, forward):
    model, inputs = families["unet"].build(), families["unet"].inputs()
    plain = forward(model, inputs)
    bigain.apply(model, bigain.LaplacianMerging(ratio=0.8))
    with pytest.raises(ValueError, match="ratio must be at most"):
        forward(model, inputs)
    bigain.remove(model)
    assert torch.equal(forward(model, inputs), plain)


@pytest.mark.parametrize("dim", [0, 1])
def test_chunks_of_the_feed_forward_are_refused_where_it_merges(families, forward, dim):
    model, inputs = families["unet"].build(), families["unet"].inputs()
    for layer in layout(model).layers:
        layer.block.set_chunk_feed_forward(1, dim)
    plain = forward(model, inputs)
    words = r"\.ff must be given all rows and tokens at once.*set_chunk_feed_forward"
    bigain.apply(model, "tome:ratio=0.5,locations=self_attention/mlp")
    with pytest.raises(ValueError, match=words):
        forward(model, inputs)
    bigain.remove(model)
    with bigain.compressed(model, "tome-0.5"):
        assert not torch.equal(forward(model, inputs), plain), "elsewhere chunks do no harm"


def test_a_block_called_by_itself_says_what_is_missing(families):
    model = families["dit"].build()
    bigain.apply(model, "lgtm-0.5")
    with pytest.raises(RuntimeError, match="outside of the model's own forward"):
        model.transformer_blocks[0](torch.zeros(1, 64, 16))


def test_every_location_merges(families, forward):
    model, inputs = families["unet"].build(), families["unet"].inputs()
    outputs = []
    for locations in [
        ("self_attention",),
        ("self_attention", "cross_attention"),
        ("self_attention", "mlp"),
        ("self_attention", "cross_attention", "mlp"),
    ]:
        with bigain.compressed(model, bigain.ToMe(ratio=0.5, locations=locations)) as handle:
            outputs.append(forward(model, inputs))
            costs = handle.summary().flops
            assert costs[1] < costs[0]
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


def test_merging_and_downsampling_go_together(family, forward):
    model, inputs = family.build(), family.inputs()
    handle = bigain.apply(model, "lgtm-0.5+iekvd-2")
    assert forward(model, inputs).isfinite().all()
    row = handle.summary()[0]
    assert row.queries == (row.queries[0], row.queries[0] // 2)
    assert row.keys == (row.keys[0], row.keys[0] // 4)


def test_cached_assignment_is_made_once_per_level_and_forward(families, forward):
    model, inputs = families["dit"].build(num_layers=3), families["dit"].inputs()
    handle = bigain.apply(model, bigain.LaplacianMerging(ratio=0.5, cached=True))
    first = forward(model, inputs)
    assert [row.matching > 0 for row in handle.summary()] == [True, False, False]
    other = families["dit"].inputs() | {"hidden_states": inputs["hidden_states"].flip(-1)}
    forward(model, other)
    assert torch.equal(forward(model, inputs), first)  # nothing is carried over


@pytest.mark.parametrize("size_aware", [False, True])
@pytest.mark.parametrize("queries", ["merged", "full"])
def test_a_scheduled_ratio_acts_per_row(families, forward, size_aware, queries):
    model = families["dit"].build()
    timesteps = torch.tensor([999, 500, 0])
    inputs = families["dit"].inputs(batch=3, timestep=timesteps)
    method = bigain.LaplacianMerging(ratio=bigain.Linear(0.7, 0.0), size_aware=size_aware, queries=queries)
    with bigain.compressed(model, method):
        mixed = forward(model, inputs)
    for row, timestep in enumerate(timesteps.tolist()):
        ratio = 0.7 * timestep / 999
        with bigain.compressed(model, replace(method, ratio=ratio)):
            alone = forward(model, _rows(inputs, slice(row, row + 1)))
        torch.testing.assert_close(mixed[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_a_threshold_gives_rows_different_token_counts(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs(batch=3)
    inputs["hidden_states"][0] = 0.1  # one flat image, whose cells are all smooth
    method = bigain.AdaptiveBlockMerging(ratio=0.0, threshold=8.0)
    with bigain.compressed(model, method):
        together = forward(model, inputs)
        for row in range(3):
            alone = forward(model, _rows(inputs, slice(row, row + 1)))
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_random_destinations_follow_the_image_and_not_the_batch(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs(batch=4)
    inputs["hidden_states"][:] = inputs["hidden_states"][:1]
    inputs["class_labels"][:] = 3
    image, draw = torch.tensor([7, 7, 8, 7]), torch.tensor([0, 1, 2, 3])
    with bigain.compressed(model, bigain.ToMe(ratio=0.5, destinations="random")), row_keys(model, image, draw):
        fair = forward(model, inputs)
    assert torch.equal(fair[0], fair[1])
    assert torch.equal(fair[0], fair[3])
    assert not torch.equal(fair[0], fair[2])
    redrawn = bigain.ToMe(ratio=0.5, destinations="random", redraw="forward")
    with bigain.compressed(model, redrawn), row_keys(model, image, draw):
        unfair = forward(model, inputs)
        assert torch.equal(unfair, forward(model, inputs))
    assert not torch.equal(unfair[0], unfair[1])


def test_row_keys_repeat_for_guidance_and_refuse_other_lengths(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs(batch=4)
    with bigain.compressed(model, bigain.ToMe(ratio=0.5, destinations="random")):
        with row_keys(model, torch.tensor([1, 2])):
            forward(model, inputs)
        with row_keys(model, torch.tensor([1, 2, 3])), pytest.raises(ValueError, match=r"3 rows.*batch of 4"):
            forward(model, inputs)
        with pytest.raises(ValueError, match="one key per row"), row_keys(model, torch.tensor([[1]])):
            pass


def test_no_global_random_state_is_touched(family, method, forward):
    model, inputs = family.build(), family.inputs()
    before = torch.get_rng_state()
    with bigain.compressed(model, method):
        forward(model, inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_fused_projections_are_refused_where_k_and_v_come_from_elsewhere(families):
    model = families["unet"].build()
    model.fuse_qkv_projections()
    with pytest.raises(ValueError, match="unfuse_qkv_projections"):
        bigain.apply(model, "iekvd-2")


def test_images_have_no_frames_and_pool_before_their_projections(families):
    model = families["unet"].build()
    with pytest.raises(ValueError, match="must not act over time in a UNet2DConditionModel, which has no frames"):
        bigain.apply(model, "avgpool-2x2x2")
    with pytest.raises(ValueError, match=r"pool_at must be 'projection' in a UNet2DConditionModel.*not 'attention'"):
        bigain.apply(model, "avgpool:factor=2,pool_at=attention")
    with pytest.raises(
        ValueError, match=r"locations of .* must hold 'self_attention' in a UNet2D.*not only \('mlp',\)"
    ):
        bigain.apply(model, "tome:ratio=0.5,locations=mlp")
    bigain.apply(model, "avgpool:factor=2,pool_at=projection")


def test_a_mask_over_tokens_is_refused(families):
    model, inputs = families["pixart"].build(), families["pixart"].inputs()
    bigain.apply(model, "todo-2")
    with pytest.raises(ValueError, match="attention_mask"), torch.no_grad():
        model(**inputs, attention_mask=torch.ones(2, 64))


def test_a_schedule_needs_a_timestep(families):
    from bigain.methods.base import Context

    method = bigain.InterpolateExtrapolateKV(factor=2, alpha=bigain.Linear(0.8, 1.2))
    with pytest.raises(ValueError, match="alpha follows the timestep"):
        method.pool(torch.zeros(1, 16, 4), Context(Grid(4, 4)))
