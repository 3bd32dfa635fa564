"""The arguments of transformers' Trainer: those that count here, and those that carry no numbers of the optimizer."""

from typing import Any

# The arguments that are read, with the defaults of transformers 4.46 and 5.24.
READ: dict[str, Any] = {
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": None,
    "warmup_steps": 0,
    "warmup_ratio": 0.0,
    "max_steps": -1,
    "num_train_epochs": 3.0,
    "optim": "adamw_torch",
    "optim_args": None,
    "adafactor": False,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "gradient_accumulation_steps": 1,
    "fp16": False,
    "bf16": False,
    "label_smoothing_factor": 0.0,
    "neftune_noise_alpha": None,
    "accelerator_config": None,
    "deepspeed": None,
}

# Of both versions, what is about data, devices, evaluation, logging, saving and the hub.
_OTHERS = """
    _n_gpu activation_checkpointing activation_checkpointing_kwargs auto_find_batch_size
    average_tokens_across_devices batch_eval_metrics bf16_full_eval data_seed dataloader_drop_last dataloader_in_order
    dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory
    dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters
    ddp_static_graph ddp_timeout debug disable_tqdm dispatch_batches do_eval do_predict do_train enable_jit_checkpoint
    eval_accumulation_steps eval_delay eval_do_concat_batches eval_on_start eval_steps eval_strategy
    eval_use_gather_object evaluation_strategy fp16_backend fp16_full_eval fp16_opt_level fsdp fsdp_config
    fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap full_determinism generation_config generation_max_length
    generation_num_beams gradient_checkpointing gradient_checkpointing_kwargs greater_is_better group_by_length
    half_precision_backend hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy hub_token
    ignore_data_skip include_for_metrics include_inputs_for_metrics include_num_input_tokens_seen
    include_tokens_per_second jit_mode_eval label_names length_column_name liger_kernel_config load_best_model_at_end
    local_rank log_level log_level_replica log_on_each_node logging_dir logging_first_step logging_nan_inf_filter
    logging_steps logging_strategy metric_for_best_model mp_parameters no_cuda optim_target_modules output_dir
    overwrite_output_dir parallelism_config past_index per_device_eval_batch_size per_device_train_batch_size
    per_gpu_eval_batch_size per_gpu_train_batch_size predict_with_generate prediction_loss_only project push_to_hub
    push_to_hub_model_id push_to_hub_organization push_to_hub_token ray_scope remove_unused_columns report_to
    restore_callback_states_from_checkpoint resume_from_checkpoint run_name save_on_each_node save_only_model
    save_safetensors save_steps save_strategy save_total_limit seed skip_memory_metrics sortish_sampler split_batches
    tf32 torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps torchdynamo tpu_metrics_debug
    tpu_num_cores trackio_bucket_id trackio_space_id trackio_static_space_id train_sampling_strategy use_cache use_cpu
    use_ipex use_legacy_prediction_loop use_liger_kernel use_mps_device
"""
KNOWN = frozenset(READ) | frozenset(_OTHERS.split())

# What trains as torch.optim.AdamW does, but for the order of weight decay and the rest of a step in the second set.
DECAYS_AFTER = frozenset({"adamw_hf", "paged_adamw_32bit"})
_ADAMW_TORCH = frozenset({"adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused"})
ADAMW = frozenset({*_ADAMW_TORCH, "adamw_apex_fused"}) | DECAYS_AFTER

# Why the other names of `optim` are refused, by the part of the name that tells; the first that is found counts.
REFUSED_OPTIMIZERS = {
    "galore": "projects gradients onto a low rank, which nothing here does",
    "apollo": "projects gradients onto a low rank, which nothing here does",
    "8bit": "keeps its state in 8 bits, which nothing here does ('adamw_torch' is AdamW in float32)",
    "4bit": "keeps its state in 4 bits, which nothing here does ('adamw_torch' is AdamW in float32)",
    "bnb": "is bitsandbytes' RMSprop, which is not compared with any here: 'rmsprop' is PyTorch's",
    "anyprecision": "keeps its state in bfloat16 with compensated sums: 'adamw_torch' is AdamW in float32",
    "adafactor": "is transformers' Adafactor, whose arithmetic is not that of Optax's nor Keras's",
    "schedule_free": "averages parameters in a form of its own: in Optax it is optax.contrib.schedule_free",
    "ademamix": "has two first moments: in Optax it is optax.contrib.ademamix",
    "lomo": "steps during the backward pass, which nothing here does",
    "grokadamw": "amplifies slow gradients, which nothing here does",
    "stable_adamw": "clips each update by its own size, which nothing here does",
}
