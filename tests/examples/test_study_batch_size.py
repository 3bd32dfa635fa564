"""The study of batch sizes: many runs in one program equal plain runs, and the page says what was measured."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from studies import batch_size, network, results
from studies.data import make_data

PAGE = Path(__file__).parents[2] / "docs" / "study_batch_size.md"
FOUND: Any = results.load(results.RESULTS / "batch_size.json")
QUICK = batch_size.Size(train=32, held_out=20, batch_sizes=(16,), epochs=2, trials=4, seeds=2)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("outputs") / "batch_size.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_size, "QUICK", QUICK)
        patch.setattr(batch_size, "OPTIMIZERS", {"lars": batch_size.OPTIMIZERS["lars"]})
        batch_size.main(["--quick", "--output", str(file)])
        patch.setattr(batch_size, "study_cell", None)
        batch_size.main(["--quick", "--output", str(file)])  # trains nothing again
    return json.loads(file.read_text())["cells"]["lars 16"]


def train_plainly(trial: int, seed: int) -> Any:
    """Train with plain numbers, one step after the other; return the parameters."""
    point = jax.tree.map(
        lambda numbers: numbers[trial].item(), batch_size.choose_points(batch_size.OPTIMIZERS["lars"], 4)
    )
    steps = QUICK.epochs * QUICK.train // 16
    warmup = max(1, round(batch_size.WARMUPS[point.warmup] * steps))
    decay = optax_ext.CosineDecay(point.learning_rate, decay_steps=steps - warmup, offset=warmup)
    schedule = optax_ext.LinearWarmup(decay, warmup_steps=warmup)
    mask = optax_ext.path_mask(include=["kernel"])
    tx = optax_ext.lars(
        lambda step: schedule(step + 1),
        weight_decay=point.weight_decay,
        trust_coefficient=point.other,
        weight_decay_mask=mask,
        trust_ratio_mask=mask,
    )
    train = make_data(QUICK.train, QUICK.held_out, QUICK.held_out).train
    init_key, shuffle_key = jax.random.split(jax.random.key(seed))
    params = network.init_params(init_key, batch_size.CHANNELS, batch_size.STRIDES)
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, signals: Any, labels: Any) -> Any:
        def loss_fn(params: Any) -> Any:
            return network.cross_entropy(network.apply(params, signals, batch_size.STRIDES), labels)

        updates, state = tx.update(jax.grad(loss_fn)(params), state, params)
        return optax.apply_updates(params, updates), state

    for epoch in range(QUICK.epochs):
        shuffled = jax.random.permutation(jax.random.fold_in(shuffle_key, epoch), QUICK.train)
        for chosen in shuffled.reshape(-1, 16):
            params, state = step(params, state, train.signals[chosen], train.labels[chosen])
    return params


def test_a_run_among_many_equals_a_plain_one(quick: Any) -> None:
    test = make_data(QUICK.train, QUICK.held_out, QUICK.held_out).test
    for place in range(QUICK.seeds):
        logits = network.apply(train_plainly(quick["best"], 1 + place), test.signals, batch_size.STRIDES)
        assert jnp.mean(logits.argmax(-1) == test.labels) == pytest.approx(quick["test"][place])
        assert network.cross_entropy(logits, test.labels) == pytest.approx(quick["test_loss"][place], rel=1e-4)


def test_the_sets_have_no_example_in_common() -> None:
    data, again = make_data(40, 20, 20), make_data(40, 20, 20)
    signals = np.concatenate([examples.signals for examples in data])
    assert len(np.unique(signals, axis=0)) == 80
    assert jax.tree.all(jax.tree.map(np.array_equal, data, again))


def test_every_optimizer_has_as_many_trials_in_its_space() -> None:
    for name, optimizer in batch_size.OPTIMIZERS.items():
        points = batch_size.choose_points(optimizer, batch_size.Size().trials)
        places = []
        for numbers, (low, high) in zip(points, optimizer[1:4], strict=False):
            places.append(np.log(numbers / low) / np.log(high / low))
            assert places[-1].min() < 0.1, name
            assert places[-1].max() > 0.9, name
        assert set(points.warmup) == {0, 1, 2}
        first = batch_size.choose_points(batch_size.OPTIMIZERS["sgd"], batch_size.Size().trials)
        np.testing.assert_array_equal(points.warmup, first.warmup)


def test_the_numbers_are_of_the_study_as_it_stands() -> None:
    size = batch_size.Size()
    assert json.loads(json.dumps(size._asdict())) == FOUND["size"]
    assert set(FOUND["cells"]) == {f"{name} {batch}" for name in batch_size.OPTIMIZERS for batch in size.batch_sizes}
    for cell, kept in FOUND["cells"].items():
        points = batch_size.choose_points(batch_size.OPTIMIZERS[cell.split()[0]], size.trials)
        for name, numbers in points._asdict().items():
            np.testing.assert_allclose(numbers, kept["points"][name], rtol=1e-6)
        assert kept["best"] == np.argmax(kept["validation"])
        assert (len(kept["validation"]), len(kept["test"])) == (size.trials, size.seeds)


def percent(name: str, batch: int) -> float:
    return 100 * results.mean_and_interval(FOUND["cells"][f"{name} {batch}"]["test"])[0]


def steps(batch: int) -> int:
    return FOUND["size"]["epochs"] * FOUND["size"]["train"] // batch


def test_the_page_says_what_was_measured() -> None:
    text, size, machine, cells = PAGE.read_text(), FOUND["size"], FOUND["machine"], FOUND["cells"]
    assert batch_size.make_table(FOUND) in text
    params = network.init_params(jax.random.key(0), batch_size.CHANNELS, batch_size.STRIDES)
    failed = {name: sum(value < 0.2 for value in cells[f"{name} 4096"]["validation"]) for name in batch_size.OPTIMIZERS}
    unlucky = cells["sgd 256"]
    for said in (
        f"{size['train']:,} for training, {size['held_out']:,} for validation, {size['held_out']:,} for the test",
        f"{sum(leaf.size for leaf in params.values()):,} parameters",
        f"{size['epochs']} epochs, whatever",
        f"{steps(64):,} steps at 64 and {steps(4096)} steps at 4,096",
        f"{size['trials']} trials, one seed each",
        f"{size['seeds']} other seeds",
        f"{percent('lars', 1024):.1f} % to {percent('sgd', 1024):.1f} % at 1,024",
        f"{percent('lars', 4096):.1f} % to {percent('sgd', 4096):.1f} % at 4,096",
        f"ahead of LARS at 4,096, with {percent('adamw', 4096):.1f} %",
        f"LAMB falls from {percent('lamb', 64):.1f} % to {percent('lamb', 4096):.1f} %",
        f"reached {100 * max(unlucky['validation']):.1f} % on the validation set",
        f"medians are {100 * np.median(cells['lars 256']['test']):.1f} % and {100 * np.median(unlucky['test']):.1f} %",
        f"and {100 * min(unlucky['test']):.1f} % on the test set",
        f"{failed['sgd']} of SGD, {failed['lars']} of LARS, {failed['adamw']} of AdamW and {failed['lamb']} of LAMB",
        f"Measured on {machine['date']}",
        machine["XLA_FLAGS"],
    ):
        assert said in text, said
    for optimizer in batch_size.OPTIMIZERS.values():
        for low, high in (optimizer.learning_rate, optimizer.other):
            assert f"{low:g} to {high:g}" in text
    assert failed["lars"] == failed["lars_separate_norms"]


def test_what_the_page_concludes_is_in_the_numbers() -> None:
    names = list(batch_size.OPTIMIZERS)
    at_64 = [percent(name, 64) for name in names]
    assert max(at_64) - min(at_64) < 1
    assert all(percent(name, 64) - percent(name, 256) < 2 for name in names if name != "sgd")
    for batch in FOUND["size"]["batch_sizes"]:
        assert max(names, key=lambda name: percent(name, batch)) == "lamb"
        best, *others = (results.mean_and_interval(FOUND["cells"][f"{name} {batch}"]["test"]) for name in names[::-1])
        assert max(mean + half_width for mean, half_width in others) > best[0] - best[1]
        cells = [FOUND["cells"][f"{name} {batch}"] for name in ("lars", "lars_separate_norms")]
        assert max(cell["points"]["weight_decay"][cell["best"]] for cell in cells) <= 9.05e-5
        (mean, half_width), (other, other_half_width) = (results.mean_and_interval(cell["test"]) for cell in cells)
        assert abs(mean - other) < min(half_width, other_half_width)
