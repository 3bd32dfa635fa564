"""The arguments of timm's ``train.py``: those that count here, and those that carry no numbers of the optimizer."""

from typing import Any

# The arguments that are read, with the defaults of timm 1.0.31.
READ: dict[str, Any] = {
    "opt": "sgd",
    "opt_eps": None,
    "opt_betas": None,
    "momentum": 0.9,
    "weight_decay": 2e-5,
    "clip_grad": None,
    "clip_mode": "norm",
    "layer_decay": None,
    "opt_kwargs": {},
    "sched": "cosine",
    "sched_on_updates": False,
    "lr": None,
    "lr_base": 0.1,
    "lr_base_size": 256,
    "lr_base_scale": "",
    "lr_noise": None,
    "lr_cycle_mul": 1.0,
    "lr_cycle_decay": 0.5,
    "lr_cycle_limit": 1,
    "lr_k_decay": 1.0,
    "lr_decay_fn": None,
    "lr_stable_timescale": None,
    "warmup_lr": 1e-5,
    "min_lr": 0.0,
    "epochs": 300,
    "decay_milestones": [90, 180, 270],
    "decay_epochs": 90.0,
    "warmup_epochs": 5,
    "warmup_prefix": False,
    "cooldown_epochs": 0,
    "decay_rate": 0.1,
    "batch_size": 128,
    "grad_accum_steps": 1,
    "world_size": None,
    "smoothing": 0.1,
    "model_ema": False,
    "model_ema_decay": 0.9998,
    "model_ema_warmup": False,
    "amp": False,
    "native_amp": False,
    "apex_amp": False,
    "amp_dtype": "float16",
}

# What is about data, augmentation, the model, devices, evaluation, logging and saving.
_OTHERS = """
    aa amp_impl aot_autograd attn_pool aug_repeats aug_splits bce_loss bce_pos_weight bce_sum bce_target_thresh bn_eps
    bn_momentum channels_last checkpoint_hist class_map color_jitter color_jitter_prob config crop_pct cutmix
    cutmix_minmax data data_dir dataset dataset_download dataset_trust_remote_code device device_modules dist_bn
    distill_loss_weight drop drop_block drop_connect drop_path epoch_repeats eval_metric experiment fast_norm
    force_distributed fuser gaussian_blur_prob gp grad_checkpointing grayscale_prob head_init_bias head_init_scale hflip
    img_size in_chans initial_checkpoint input_img_mode input_key input_size interpolation jsd_loss
    kd_distill_type kd_loss_type kd_model_kwargs kd_model_name kd_student_feature_dim kd_teacher_feature_dim
    kd_temperature kd_token_distill_type layer_decay_min_scale layer_decay_no_opt_scale local_rank log_interval
    log_wandb lr_noise_pct lr_noise_std mean mixup mixup_mode mixup_off_epoch mixup_prob mixup_switch_prob model
    model_dtype model_ema_force_cpu model_kwargs naflex_loader naflex_loss_scale naflex_max_seq_len
    naflex_patch_size_probs naflex_patch_sizes naflex_patchify_channels_first naflex_train_seq_lens no_aug
    no_ddp_bb no_prefetcher no_resume_opt num_classes output patience_epochs pin_mem pretrained pretrained_path ratio
    recount recovery_interval remode reparam reprob resplit resume save_images scale seed split_bn start_epoch
    std sync_bn synchronize_step target_key task_loss_weight torchcompile torchcompile_mode torchscript
    train_batch_sizes train_batches_per_epoch train_crop_mode train_img_sizes train_interpolation train_num_samples
    train_size_probs train_size_random_mix train_size_schedule train_size_schedule_spread train_split tta
    use_multi_epochs_loader val_interval val_num_samples val_split validation_batch_size variable_batch_loss_scale vflip
    wandb_project wandb_resume_id wandb_tags worker_seeding workers
"""
KNOWN = frozenset(READ) | frozenset(_OTHERS.split())
