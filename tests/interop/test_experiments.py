"""Experiments of Model Garden: no part of the optimizer is dropped, and what is not the optimizer's is told."""

import json
import re
import warnings

import pytest

from optax_ext import config, interop

RATE = {"learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}}}
LAMB = {"optimizer": {"type": "lamb", "lamb": {"weight_decay_rate": 0.01}}, **RATE}
SGD = {"optimizer": {"type": "sgd"}, **RATE}
LOADED = config.LAMB(0.1, weight_decay_rate=0.01)


def problems(source, base=None):
    with pytest.raises(config.ConfigError) as caught:
        interop.from_model_garden(source, base)
    return list(map(str, caught.value.problems))


# ---------------------------------------------------------------------------------------------------------
# What names a part of the optimizer is read, or refused.

MISPLACED = [
    ({"runtime": {}, "optimizer": LAMB["optimizer"]}, "optimizer", "move it to trainer.optimizer_config.optimizer"),
    ({"runtime": {}, **RATE}, "learning_rate", "move it to trainer.optimizer_config.learning_rate"),
    ({"task": {}, "optimizer_config": LAMB}, "optimizer_config", "move it to trainer.optimizer_config"),
    ({"runtime": {}, "optimizer": LAMB}, "optimizer", "move what is under it to trainer.optimizer_config"),
    ({"trainer": LAMB}, "trainer.optimizer", "move it to trainer.optimizer_config.optimizer"),
    ({"trainer": {"optimizer_config": {}, "ema": {}}}, "trainer.ema", "move it to trainer.optimizer_config.ema"),
    ({"trainer": {}, "runtime": {"warmup": {}}}, "runtime.warmup", "move it to trainer.optimizer_config.warmup"),
    ({"optimizer_config": {}, "optimizer": LAMB["optimizer"]}, "optimizer", "move it to trainer.optimizer_config.opt"),
]


@pytest.mark.parametrize("base", [None, SGD], ids=["alone", "with a base"])
@pytest.mark.parametrize(("source", "place", "advice"), MISPLACED, ids=lambda value: str(value)[:40])
def test_a_part_of_the_optimizer_that_nobody_reads_is_refused(source, place, advice, base):
    (found,) = [text for text in problems(source, base) if text.startswith(f"{place}: is not read ")]
    assert advice in found


@pytest.mark.parametrize("part", ["task", "trainer", "runtime"])
def test_all_that_is_wrong_in_a_misplaced_part_is_told_at_once(part):
    wrong = {part: {}, "optimizer": {"type": "lamb", "lamb": {"bogus": 1}}, "warmup": {"type": "linear"}}
    found = problems(wrong)
    assert [text.partition(":")[0] for text in found] == [
        "optimizer",
        "warmup",
        "optimizer.lamb.bogus",
        "learning_rate.type",
        "warmup.linear.warmup_steps",
        "base",
    ]


@pytest.mark.parametrize(
    ("source", "place", "meant"),
    [
        ({"trainr": {"optimizer_config": LAMB}}, "trainr", "trainer"),
        ({"trainer": {"optimizer_config": SGD}, "runtme": {"mixed_precision_dtype": "float16"}}, "runtme", "runtime"),
        ({"trainer": {"optimizer_config": SGD}, "optimiser": {}}, "optimiser", "optimizer"),
        ({"optimizer_confg": LAMB}, "optimizer_confg", "optimizer_config"),
        ({"optimizer_config": SGD, "runtme": {}}, "runtme", "runtime"),
        ({"trainer": {"optimizer_cfg": LAMB}}, "trainer.optimizer_cfg", "optimizer_config"),
        ({"trainer": {"optimizer_config": SGD, "train_stpes": 9}}, "trainer.train_stpes", "train_steps"),
        ({"trainer": {"optimizer_config": SGD, "warm_up": {}}}, "trainer.warm_up", "warmup"),
        ({"runtime": {"loss_scaling": 128}}, "runtime.loss_scaling", "loss_scale"),
        ({"runtime": {"mixed_precision": "float16"}}, "runtime.mixed_precision", "mixed_precision_dtype"),
        ({"runtime": {"num_gpu": 8}}, "runtime.num_gpu", "num_gpus"),
    ],
    ids=str,
)
def test_misspelled_names_are_refused_with_what_was_meant(source, place, meant):
    base = SGD if "optimizer_config" not in json.dumps(source) else None
    found = [text for text in problems(source, base) if text.startswith(f"{place}: unknown ")]
    assert len(found) == 1
    assert f"(did you mean {meant!r}?)" in found[0]


def test_an_optimizer_in_a_part_that_only_a_project_knows_is_refused():
    source = {"trainer": {"optimizer_config": SGD}, "student": {"train": {"optimizer": LAMB["optimizer"]}}}
    (found,) = problems(source)
    assert found == (
        "student: holds an optimizer at student.train.optimizer, which is not read: give the optimizer in"
        " trainer.optimizer_config"
    )


def test_what_only_a_project_knows_is_noted():
    source = {"trainer": {"optimizer_config": SGD, "use_orbit": True, "callbacks": {}}, "nas": {"steps": 9}}
    notes = [str(note) for note in interop.translate(source).notes if not note.surprising]
    assert notes == [
        "'nas' is not a field of Model Garden's own and not read",
        "trainer: 'use_orbit', 'callbacks' are not fields of Model Garden's own and not read",
    ]


# The fields of TrainerConfig, with those of multitask trainers, and of RuntimeConfig in Model Garden 2.20.
FIELDS = {
    "trainer": """
        optimizer_config train_tf_while_loop train_tf_function eval_tf_function eval_tf_while_loop
        allow_tpu_summary steps_per_loop summary_interval checkpoint_interval max_to_keep
        continuous_eval_timeout train_steps validation_steps validation_interval best_checkpoint_export_subdir
        best_checkpoint_eval_metric best_checkpoint_metric_comp loss_upper_bound recovery_begin_steps
        recovery_max_trials validation_summary_subdir preemption_on_demand_checkpoint trainer_type
        task_sampler
    """,
    "runtime": """
        distribution_strategy enable_xla gpu_thread_mode dataset_num_private_threads per_gpu_thread_count tpu
        num_gpus worker_hosts task_index all_reduce_alg num_packs mixed_precision_dtype loss_scale run_eagerly
        batchnorm_spatial_persistent tpu_enable_xla_dynamic_padder num_cores_per_replica default_shard_dim
        use_tpu_mp_strategy
    """,
}


def test_no_field_of_model_garden_is_taken_for_a_misspelled_one():
    parts = {name: dict.fromkeys(fields.split()) for name, fields in FIELDS.items()}
    parts["trainer"]["optimizer_config"] = SGD
    assert interop.translate(parts).notes == ()
    # the fields that projects of release 2.20 add to their trainers, and some of other projects
    others = ["use_orbit", "enable_metrics_in_training", "time_history", "callbacks", "validation_epochs", "eval_steps"]
    parts["trainer"] |= dict.fromkeys([*others, "pipeline_sparse_and_dense_execution", "steps_per_epoch"])
    (note,) = interop.translate(parts).notes
    assert note.path == "trainer"


# ---------------------------------------------------------------------------------------------------------
# What is not the optimizer's.


def notes_of(**parts):
    source = {"trainer": {"optimizer_config": SGD}, **parts}
    return {note.path: (note.text, note.surprising) for note in interop.translate(source).notes}


def test_the_length_of_a_run():
    notes = notes_of(trainer={"optimizer_config": SGD, "train_steps": "62400", "train_epochs": 20, "max_to_keep": 5})
    assert notes.keys() == {"trainer.train_steps", "trainer.train_epochs"}
    assert "optax-ext describe --steps 62400" in notes["trainer.train_steps"][0]
    assert notes_of(trainer={"optimizer_config": SGD, "train_steps": 0}) == {}


@pytest.mark.parametrize(
    ("task", "place"),
    [
        ({"losses": {"l2_weight_decay": "1e-4"}}, "task.losses.l2_weight_decay"),
        ({"weight_decay": 1e-4}, "task.weight_decay"),
        (
            {"task_routines": {"a": {"losses": {"l2_weight_decay": 1e-4}}}},
            "task.task_routines.a.losses.l2_weight_decay",
        ),
    ],
)
def test_weight_decay_in_the_loss_is_warned_about(task, place):
    text, surprising = notes_of(task=task)[place]
    assert "add it to the loss, as Model Garden does: 0.0001 / 2 * sum(kernel**2) over the kernels" in text
    assert surprising
    source = {"task": task, "trainer": {"optimizer_config": SGD}}
    with pytest.warns(interop.TranslationWarning, match=f"{re.escape(place)}: is not the optimizer's"):
        interop.from_model_garden(source)


def test_a_file_overrides_what_the_task_of_its_base_says():
    base = {"task": {"losses": {"l2_weight_decay": 1e-4}}, "trainer": {"optimizer_config": SGD, "train_steps": 9}}
    over = {"task": {"losses": {"l2_weight_decay": 0.0}}, "trainer": {"train_steps": 7}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interop.from_model_garden(over, base)
    assert "7 is the length of the run" in str(interop.translate(over, base).notes[0])
    assert "l2_weight_decay" in str(interop.translate({"trainer": {}}, base).notes)


def test_the_size_of_batches_and_the_precision_of_the_model():
    notes = notes_of(task={"train_data": {"global_batch_size": 4096}}, runtime={"mixed_precision_dtype": "bfloat16"})
    assert "4096 is the size of the batches" in notes["task.train_data.global_batch_size"][0]
    assert "dtype=jnp.bfloat16 and param_dtype=jnp.float32" in notes["runtime.mixed_precision_dtype"][0]
    assert not any(surprising for _, surprising in notes.values())


def test_what_changes_gradients_and_cannot_be_carried_over_is_refused():
    source = {"task": {"differential_privacy_config": {"clipping_norm": 1.0}}, "trainer": {"optimizer_config": SGD}}
    (found,) = problems(source)
    assert found.startswith("task.differential_privacy_config: clips gradients and adds noise to them")
    source["task"]["differential_privacy_config"] = None
    assert interop.from_model_garden(source).optimizer == config.SGD(0.1)
