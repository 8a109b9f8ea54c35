"""The JSON files of a model folder, for given sizes."""

from .networks import Sizes, vision_deepstack


def model_index(sizes: Sizes, is_distilled: bool) -> dict:
    """`model_index.json`: which checkpoint it is, and the layers that the encoder is tapped at."""
    return {
        "_class_name": "Krea2Pipeline",
        "is_distilled": is_distilled,
        "patch_size": 2,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3VLModel"],
        "text_encoder_select_layers": [2 + 3 * index for index in range(sizes.taps)],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "Krea2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
    }


def scheduler() -> dict:
    """`scheduler/scheduler_config.json`, as released."""
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 6400,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "time_shift_type": "exponential",
        "use_dynamic_shifting": True,
    }


def text_encoder(sizes: Sizes) -> dict:
    """`text_encoder/config.json`, as Qwen3-VL's own repository spells it."""
    pairs = sizes.text_head_size // 2
    share = pairs * 5 // 16
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": {
            "attention_bias": False,
            "head_dim": sizes.text_head_size,
            "hidden_act": "silu",
            "hidden_size": sizes.text_width,
            "intermediate_size": sizes.text_mlp_width,
            "model_type": "qwen3_vl_text",
            "num_attention_heads": sizes.text_heads,
            "num_hidden_layers": sizes.text_layers,
            "num_key_value_heads": sizes.text_key_value_heads,
            "rms_norm_eps": 1e-6,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [pairs - 2 * share, share, share],
                "rope_type": "default",
            },
            "rope_theta": 5_000_000,
            "vocab_size": sizes.vocabulary,
        },
        "tie_word_embeddings": True,
        "vision_config": {
            "deepstack_visual_indexes": vision_deepstack(sizes),
            "depth": sizes.vision_depth,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": sizes.vision_width,
            "in_channels": 3,
            "intermediate_size": sizes.vision_mlp_width,
            "model_type": "qwen3_vl",
            "num_heads": sizes.vision_heads,
            "num_position_embeddings": sizes.vision_positions,
            "out_hidden_size": sizes.text_width,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def autoencoder(sizes: Sizes) -> dict:
    """`vae/config.json`, with the statistics of the released autoencoder."""
    means = (
        "-0.7571 -0.7089 -0.9113 0.1075 -0.1745 0.9653 -0.1517 1.5508 "
        "0.4134 -0.0715 0.5517 -0.3632 -0.1922 -0.9497 0.2503 -0.2921"
    )
    deviations = (
        "2.8184 1.4541 2.3275 2.6558 1.2196 1.7708 2.6052 2.0743 "
        "3.2687 2.1526 2.8652 1.5579 1.6382 1.1253 2.8251 1.9160"
    )
    return {
        "_class_name": "AutoencoderKLQwenImage",
        "attn_scales": [],
        "base_dim": sizes.autoencoder_width,
        "dim_mult": [1, 2, 4, 4],
        "dropout": 0.0,
        "latents_mean": [float(mean) for mean in means.split()],
        "latents_std": [float(deviation) for deviation in deviations.split()],
        "num_res_blocks": 2,
        "temperal_downsample": [False, True, True],
        "z_dim": 16,
    }
