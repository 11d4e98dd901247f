"""The further checkpoints of Switch Transformers, in the manner of configurations.py. A case has two prompts: `tokens`
of the encoder's and `decoder_tokens` of the decoder's."""

USUAL_SWITCH = {"vocab_size": 61, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 2,
                "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_heads": 4, "num_experts": 4,
                "expert_capacity": 64, "router_bias": False, "router_dtype": "float32", "router_jitter_noise": 0.01,
                "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "layer_norm_epsilon": 1e-6,
                "dense_act_fn": "relu", "is_encoder_decoder": True, "tie_word_embeddings": False, "pad_token_id": 0,
                "eos_token_id": 1, "decoder_start_token_id": 0, "torch_dtype": "float32"}

SWITCH_CASES = [
    ("unlike_stacks", {"num_layers": 4, "num_decoder_layers": 3, "num_sparse_encoder_layers": 2,
                       "num_sparse_decoder_layers": 3, "tie_word_embeddings": True}, {"extras": ("tied_head",)}),
    ("given_steps", {"num_layers": 3, "num_decoder_layers": 5, "encoder_sparse_step": 1, "decoder_sparse_step": 3,
                     "num_experts": 3}, {"shards": 3}),
    # The class makes layer 1 sparse where none shall be.
    ("none_sparse_asked", {"num_layers": 3, "num_sparse_encoder_layers": 0}, {"extras": ("embedding_copies",)}),
    ("dense_encoder", {"encoder_sparse_step": 0, "num_decoder_layers": 1}, {}),
    ("odd_widths", {"num_heads": 3, "d_kv": 10, "d_ff": 21, "num_experts": 7, "tie_word_embeddings": True}, {}),
    # Scores are not scaled: like T5's own initialisation, smaller queries make up for the width of the heads.
    ("wide_heads", {"d_model": 48, "num_heads": 2, "d_kv": 36, "d_ff": 33, "layer_norm_epsilon": 1e-3,
                    "torch_dtype": "float16"}, {"decoder_tokens": 9, "amplify": {"Attention.q.": 0.4}}),
    ("beyond_the_buckets", {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 20},
     {"tokens": 46, "decoder_tokens": 33}),
    ("fewest_buckets", {"relative_attention_num_buckets": 4, "relative_attention_max_distance": 3, "num_heads": 8,
                        "d_kv": 4, "tie_word_embeddings": True}, {"tokens": 7, "decoder_tokens": 25}),
    # Distance 10 is at the edge of two of the encoder's buckets.
    ("bucket_by_rounding", {"relative_attention_num_buckets": 20, "relative_attention_max_distance": 160},
     {"tokens": 28}),
    ("router_bias", {"router_bias": True, "num_experts": 16, "d_ff": 8}, {}),
    ("capacity_one", {"expert_capacity": 1, "num_experts": 5, "num_layers": 3, "num_sparse_encoder_layers": 3}, {}),
    ("capacity_of_some", {"expert_capacity": 4, "num_experts": 3, "num_decoder_layers": 4, "router_bias": True,
                          "num_sparse_decoder_layers": 2, "tie_word_embeddings": True}, {"shards": 2}),
    ("capacity_bf16", {"expert_capacity": 6, "num_experts": 2, "torch_dtype": "bfloat16"},
     {"tokens": 31, "decoder_tokens": 20, "extras": ("embedding_copies",)}),
]
