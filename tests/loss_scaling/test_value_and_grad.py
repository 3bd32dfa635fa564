"""The loss, scaled on the way to the gradients and not in what is reported."""

import functools
import inspect
import threading

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_ext

PARAMS = {"loss_scale": jnp.array([3.0, 4.0])}  # a parameter may be called that
TX = optax_ext.dynamic_loss_scaling(optax.sgd(0.1))


def square(params):
    return jnp.sum(params["loss_scale"] ** 2)


def state_with(*scales):
    return optax.chain(*(optax_ext.fixed_loss_scaling(optax.sgd(0.1), scale) for scale in scales)).init(PARAMS)


def test_the_loss_is_as_it_is_and_its_gradients_are_scaled():
    loss, grads = optax_ext.value_and_grad(square, state_with(8.0))(PARAMS)
    assert loss == 25.0
    chex.assert_trees_all_equal(grads, {"loss_scale": jnp.array([48.0, 64.0])})


def test_aux_and_arguments_pass_through():
    def fun(x, y, *, z):
        """Multiply."""
        return x * y * z, {"aux": y}

    function = optax_ext.value_and_grad(fun, state_with(8.0), argnums=(0, 1), has_aux=True)
    (loss, aux), grads = function(2.0, 3.0, z=4.0)
    assert (loss, aux, grads) == (24.0, {"aux": 3.0}, (96.0, 64.0))
    assert optax_ext.value_and_grad(fun, state_with(8.0), 1, True)(2.0, 3.0, z=4.0)[1] == 64.0
    assert optax_ext.value_and_grad(fun, state_with(8.0), -1, True)(2.0, 3.0, z=4.0)[1] == 64.0
    assert (function.__name__, function.__doc__) == ("fun", "Multiply.")
    assert inspect.signature(function) == inspect.signature(fun)


def test_without_a_scaler_gradients_are_those_of_jax():
    state = optax.adam(0.1).init(PARAMS)
    grads = optax_ext.value_and_grad(square, state, missing_ok=True)(PARAMS)[1]
    chex.assert_trees_all_equal(grads, jax.grad(square)(PARAMS))


class Regressor(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(2, momentum=0.5, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(self.dense(x))


def make_mlp():
    return eqx.nn.MLP(2, 1, 3, 2, key=jax.random.key(0))


def test_a_float16_loss_is_multiplied_in_float32():
    state = state_with(2.0**16)
    scaled = optax_ext.scale_loss(jnp.float16(4.0), state)
    assert scaled.dtype == jnp.float32
    assert scaled == 2.0**18

    def loss_fn(params):
        return square(params).astype(jnp.float16)

    loss, grads = optax_ext.value_and_grad(loss_fn, state)(PARAMS)
    assert loss == 25.0
    assert loss.dtype == jnp.float16
    assert not jnp.isfinite(grads["loss_scale"]).any()  # 2**16 enters the float16 loss as inf, and the step is skipped


def test_unscale_leaves_what_has_no_scale():
    tree = {"a": jnp.float16([16.0]), "b": jnp.array([3]), "c": None, "d": optax.MaskedNode()}
    result = optax_ext.unscale(tree, state_with(8.0))
    chex.assert_trees_all_equal(result, {**tree, "a": jnp.float32([2.0])})


def test_gradients_go_through_unscaled_to_the_same_step_as_without_scaling():
    plain, scaled = optax_ext.lars(0.5), optax_ext.dynamic_loss_scaling(optax_ext.lars(0.5))
    state = scaled.init(PARAMS)
    updates, _ = scaled.update(optax_ext.value_and_grad(square, state)(PARAMS)[1], state, PARAMS)
    expected, _ = plain.update(jax.grad(square)(PARAMS), plain.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates, expected)


class TestWhatTheFunctionReturns:
    @pytest.mark.parametrize(
        ("out", "message"),
        [
            (lambda loss: (loss, {}), r"what fun returns must be .* got tuple of 2 \(array, dict\): pass has_aux=True"),
            (lambda loss: [loss], r"got list of 1 \(array\): pass has_aux=True"),
            (lambda loss: {"loss": loss}, "what fun returns must be the loss, a scalar array, got dict"),
            (lambda loss: None, "what fun returns must be the loss, a scalar array, got None"),
        ],
    )
    def test_a_forgotten_has_aux(self, out, message):
        function = optax_ext.value_and_grad(lambda params: out(square(params)), state_with(8.0))
        for call in (function, jax.jit(function)):
            with pytest.raises(TypeError, match=message):
                call(PARAMS)

    @pytest.mark.parametrize(
        ("out", "message"),
        [
            (lambda loss: loss, r"with has_aux=True, fun must return a pair \(loss, aux\), got array"),
            (lambda loss: (loss, 1, "a"), r"got tuple of 3 \(array, int, str\)"),
            (lambda loss: ({"loss": loss}, 1), "the first item of the pair .* must be the loss, .* got dict"),
            (lambda loss: ((loss, 1), 2), r"the first item of the pair .* got tuple of 2 \(array, int\)(?!:)"),
        ],
    )
    def test_no_pair(self, out, message):
        function = optax_ext.value_and_grad(lambda params: out(square(params)), state_with(8.0), has_aux=True)
        with pytest.raises(TypeError, match=message):
            function(PARAMS)

    @pytest.mark.parametrize("fun", [lambda p: p["loss_scale"], lambda p: 3, lambda p: jnp.int32(3), lambda p: True])
    def test_no_scalar_float_is_what_jax_says(self, fun):
        with pytest.raises(TypeError) as expected:
            jax.value_and_grad(fun)(PARAMS)
        with pytest.raises(TypeError) as found:
            optax_ext.value_and_grad(fun, state_with(8.0))(PARAMS)
        assert str(found.value) == str(expected.value)


class TestUnderTransforms:
    def test_jit_and_vmap(self):
        state = state_with(8.0)
        points = jnp.arange(6.0).reshape(3, 2)

        @jax.jit
        def step(state, points):
            return jax.vmap(lambda x: optax_ext.value_and_grad(square, state)({"loss_scale": x}))(points)

        losses, grads = step(state, points)
        chex.assert_trees_all_equal(losses, jnp.sum(points**2, axis=1))
        chex.assert_trees_all_equal(grads, {"loss_scale": 16 * points})

    def test_a_state_for_each_of_several_models(self):
        states = jax.vmap(lambda scale: optax_ext.fixed_loss_scaling(optax.sgd(0.1), scale).init(1.0))(
            jnp.arange(1.0, 4)
        )
        _, grads = jax.vmap(lambda state, x: optax_ext.value_and_grad(jnp.sin, state)(x))(states, jnp.zeros(3))
        chex.assert_trees_all_equal(grads, jnp.arange(1.0, 4))

    def test_gradient_of_a_gradient(self):
        state = state_with(8.0)

        def norm_of_the_gradient(x):
            return optax_ext.value_and_grad(lambda x: x**3, state)(x)[1]

        assert jax.grad(norm_of_the_gradient)(2.0) == 8 * 6 * 2
        assert optax_ext.value_and_grad(norm_of_the_gradient, state)(2.0)[1] == 8 * 8 * 6 * 2

    def test_holomorphic(self):
        transform = functools.partial(jax.value_and_grad, holomorphic=True)
        function = optax_ext.value_and_grad(lambda z: z**2, state_with(8.0), transform=transform)
        loss, grads = function(jnp.complex64(1 + 2j))
        assert (loss, grads) == (-3 + 4j, 16 + 32j)

    def test_integers_with_the_partial_of_the_caller(self):
        transform = functools.partial(jax.value_and_grad, allow_int=True, argnums=1)
        function = optax_ext.value_and_grad(lambda x, params: square(params), state_with(8.0), transform=transform)
        grads = function(None, {**PARAMS, "table": jnp.arange(3)})[1]
        assert grads["table"].dtype == jax.dtypes.float0
        assert (grads["loss_scale"] == jnp.array([48.0, 64.0])).all()


class TestScaledTwice:
    MESSAGE = "in a loss that value_and_grad scales with the same opt_state"

    def test_it_is_refused_however_the_state_comes_in(self):
        state = state_with(8.0)

        def closed_over(state):
            return optax_ext.value_and_grad(lambda p: optax_ext.scale_loss(square(p), state), state)(PARAMS)

        def an_argument(state):
            function = optax_ext.value_and_grad(lambda p, s: optax_ext.scale_loss(square(p), s), state)
            return function(PARAMS, state)

        def rematerialized(state):
            loss = jax.checkpoint(lambda p: optax_ext.scale_loss(square(p), state))
            return optax_ext.value_and_grad(loss, state)(PARAMS)

        def put_together_again(state):
            copy = jax.tree.map(lambda leaf: leaf, state)
            return optax_ext.value_and_grad(lambda p: optax_ext.scale_loss(square(p), copy), state)(PARAMS)

        for step in (closed_over, an_argument, rematerialized, put_together_again):
            for call in (step, jax.jit(step)):
                with pytest.raises(ValueError, match=self.MESSAGE):
                    call(state)

    def test_with_a_scale_set_by_hand(self):
        state = state_with(8.0)[0]._replace(loss_scale=16.0)
        with pytest.raises(ValueError, match=self.MESSAGE):
            optax_ext.value_and_grad(lambda p: optax_ext.scale_loss(square(p), state), state)(PARAMS)

    def test_with_nnx_and_equinox(self):
        model, optimizer = make_optimizer()

        @nnx.jit
        def step(model, optimizer):
            def loss_fn(model):
                return optax_ext.scale_loss(jnp.mean(model(INPUTS) ** 2), optimizer.opt_state)

            return optax_ext.value_and_grad(loss_fn, optimizer.opt_state, transform=nnx.value_and_grad)(model)

        with pytest.raises(ValueError, match=self.MESSAGE):
            step(model, optimizer)
        mlp = make_mlp()
        state = TX.init(eqx.filter(mlp, eqx.is_array))
        with pytest.raises(ValueError, match=self.MESSAGE):
            optax_ext.value_and_grad(
                lambda m: optax_ext.scale_loss(jnp.sum(m(INPUTS[0])), state), state, transform=eqx.filter_value_and_grad
            )(mlp)

    def test_two_scalers_with_equal_scales_are_two(self):
        first, second = state_with(8.0), state_with(8.0)

        @jax.jit
        def step(first, second):
            def outer(params):
                inner = jax.grad(lambda p: optax_ext.scale_loss(square(p), second))(params)
                return jnp.sum(optax_ext.unscale(inner, second)["loss_scale"])

            return optax_ext.value_and_grad(outer, first)(PARAMS)

        for call in (step, step.__wrapped__):
            loss, grads = call(first, second)
            assert loss == 14.0
            chex.assert_trees_all_equal(grads["loss_scale"], jnp.full(2, 16.0))

    def test_a_gradient_penalty_has_a_value_and_grad_of_its_own(self):
        state = state_with(8.0)

        def penalized(params):
            loss, grads = optax_ext.value_and_grad(square, state)(params)
            return loss + jnp.sum(optax_ext.unscale(grads, state)["loss_scale"] ** 2)

        loss, grads = optax_ext.value_and_grad(penalized, state)(PARAMS)
        assert loss == 25.0 + 100.0
        chex.assert_trees_all_equal(grads["loss_scale"], 8 * (2 + 8) * PARAMS["loss_scale"])

    def test_a_loss_that_raises_and_another_thread_leave_nothing_behind(self):
        state = state_with(8.0)
        found = []

        def raise_after_a_thread(params):
            thread = threading.Thread(target=lambda: found.append(optax_ext.scale_loss(jnp.float32(1.0), state)))
            thread.start()
            thread.join()
            raise KeyError(params)

        with pytest.raises(KeyError):
            optax_ext.value_and_grad(raise_after_a_thread, state)(PARAMS)
        assert found == [8.0]
        assert optax_ext.scale_loss(jnp.float32(1.0), state) == 8.0


INPUTS = jnp.arange(8.0).reshape(4, 2)


def make_optimizer(tx=TX, **options):
    model = Regressor()
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param, **options)


def mean_square(model, inputs=INPUTS):
    return jnp.mean((model(inputs) - 1) ** 2)


def arrays(tree):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(tree, nnx.Param)))


as_pure = nnx.as_pure if hasattr(nnx, "as_pure") else nnx.pure  # older Flax calls it so
takes_graph = pytest.mark.skipif(
    "graph" not in inspect.signature(nnx.Optimizer.__init__).parameters, reason="this Flax has no such option"
)


class TestFlaxNNX:
    @pytest.mark.parametrize("options", [{}, pytest.param({"graph": False}, marks=takes_graph)])
    def test_the_scaler_is_found_in_boxes(self, options):
        _, optimizer = make_optimizer(optax.chain(optax.clip(1.0), TX), **options)
        for state in (optimizer.opt_state, optimizer, as_pure(optimizer.opt_state)):
            assert optax_ext.scale_loss(jnp.float32(2.0), state) == 2.0**16
        assert optax_ext.unscale(jnp.float32(2.0**16), optimizer.opt_state) == 2.0
        _, plain = make_optimizer(optax.adam(0.1))
        with pytest.raises(ValueError, match="a state without one"):
            optax_ext.scale_loss(jnp.float32(2.0), plain.opt_state)
        assert optax_ext.scale_loss(jnp.float32(2.0), plain.opt_state, missing_ok=True) == 2.0

    def test_groups_are_seen_in_boxes(self):
        def label(params):
            return jax.tree.map(lambda p: "first" if p.ndim == 2 else "second", params)

        groups = {"first": TX, "second": optax.sgd(0.1)}
        _, optimizer = make_optimizer(optax.partition(groups, label))
        with pytest.raises(ValueError, match="Put the scaler outermost"):
            optax_ext.scale_loss(jnp.float32(2.0), optimizer.opt_state)
        _, frozen = make_optimizer(optax.partition(groups | {"second": optax.set_to_zero()}, label))
        assert optax_ext.scale_loss(jnp.float32(2.0), frozen.opt_state) == 2.0**16

    def test_a_step_is_that_of_nnx(self):
        model, optimizer = make_optimizer()
        expected_model, expected_optimizer = make_optimizer(optax.sgd(0.1))

        @nnx.jit
        def step(model, optimizer):
            value_and_grad = optax_ext.value_and_grad(
                mean_square, optimizer.opt_state, transform=nnx.value_and_grad, missing_ok=True
            )
            loss, grads = value_and_grad(model)
            optimizer.update(model, grads)
            return loss

        @nnx.jit
        def expected_step(model, optimizer):
            loss, grads = nnx.value_and_grad(mean_square)(model)
            optimizer.update(model, grads)
            return loss

        for _ in range(3):
            assert step(model, optimizer) == pytest.approx(float(expected_step(expected_model, expected_optimizer)))
        chex.assert_trees_all_close(arrays(model), arrays(expected_model), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(model.norm.mean[...], expected_model.norm.mean[...], rtol=1e-5)
        assert np.abs(model.norm.mean[...]).max() > 1

    @pytest.mark.parametrize("way", ["argnums", "partial"])
    def test_a_chosen_part_is_differentiated(self, way):
        model, optimizer = make_optimizer()
        chosen = nnx.DiffState(0, nnx.All(nnx.Param, nnx.PathContains("kernel")))
        if way == "argnums":
            options = {"argnums": chosen, "transform": nnx.value_and_grad}
        else:
            options = {"transform": functools.partial(nnx.value_and_grad, argnums=chosen)}
        _, grads = optax_ext.value_and_grad(mean_square, optimizer.opt_state, **options)(model)
        assert [path for path, _ in nnx.to_flat_state(grads)] == [("dense", "kernel")]

    def test_aux(self):
        model, optimizer = make_optimizer()
        function = optax_ext.value_and_grad(
            lambda m, x: (mean_square(m, x), x + 1), optimizer.opt_state, has_aux=True, transform=nnx.value_and_grad
        )
        (loss, aux), _ = function(model, INPUTS)
        assert loss == pytest.approx(float(mean_square(Regressor())))
        chex.assert_trees_all_equal(aux, INPUTS + 1)

    @pytest.mark.parametrize(
        ("options", "arguments", "argnum"),
        [
            ({}, lambda model: (model,), 0),
            ({}, lambda model: ({"generator": [model]},), 0),
            ({"argnums": 1}, lambda model: (INPUTS, model), 1),
            ({"argnums": (0, -1)}, lambda model: (INPUTS, model), -1),
            ({"transform": functools.partial(jax.value_and_grad, argnums=1)}, lambda model: (INPUTS, model), 1),
        ],
    )
    def test_a_module_that_jax_would_train_wrongly_is_named(self, options, arguments, argnum):
        model, optimizer = make_optimizer()
        function = optax_ext.value_and_grad(lambda *_: 0.0, optimizer.opt_state, **options)
        message = rf"argument {argnum} is a Flax NNX module, Regressor: .* Pass transform=nnx\.value_and_grad"
        with pytest.raises(TypeError, match=message):
            function(*arguments(model))

    def test_what_jax_trains_rightly_is_not_refused(self):
        model, optimizer = make_optimizer()
        model.eval()
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss_fn(params, teacher):
            return mean_square(nnx.merge(graph, params, rest)) + 0 * mean_square(teacher)

        teacher = Regressor()
        teacher.eval()
        _, grads = optax_ext.value_and_grad(loss_fn, optimizer.opt_state)(params, teacher)
        expected = jax.grad(loss_fn)(params, teacher)
        chex.assert_trees_all_close(arrays(grads), jax.tree.map(lambda g: 2.0**15 * g, arrays(expected)), rtol=1e-5)
        own = optax_ext.value_and_grad(
            mean_square, optimizer.opt_state, transform=lambda fun, **options: jax.value_and_grad(fun, **options)
        )
        own(model)  # a transform of the caller's is trusted


class TestEquinox:
    def test_its_transform(self):
        mlp = make_mlp()
        tx = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 8.0)
        state = tx.init(eqx.filter(mlp, eqx.is_inexact_array))

        def loss_fn(mlp, x):
            return jnp.sum(jax.vmap(mlp)(x) ** 2)

        @eqx.filter_jit
        def step(mlp, state):
            function = optax_ext.value_and_grad(loss_fn, state, transform=eqx.filter_value_and_grad)
            loss, grads = function(mlp, INPUTS)
            updates, state = tx.update(grads, state, eqx.filter(mlp, eqx.is_inexact_array))
            return loss, grads, eqx.apply_updates(mlp, updates)

        loss, grads, _ = step(mlp, state)
        expected_loss, expected = eqx.filter_value_and_grad(loss_fn)(mlp, INPUTS)
        assert loss == pytest.approx(float(expected_loss))
        chex.assert_trees_all_close(jax.tree.leaves(grads), [8 * leaf for leaf in jax.tree.leaves(expected)], rtol=1e-5)

    def test_the_default_takes_modules_of_arrays_alone(self):
        function = optax_ext.value_and_grad(lambda m: jnp.sum(m(INPUTS[0])), state_with(8.0))
        message = "argument 0 is an Equinox module, MLP, and holds .* Pass transform=eqx.filter_value_and_grad"
        with pytest.raises(TypeError, match=message):
            function(make_mlp())
        linear = eqx.nn.Linear(2, 1, key=jax.random.key(0))
        chex.assert_trees_all_equal(function(linear)[1].bias, jnp.array([8.0]))
