"""The reference against the Hugging Face classes, on the checkpoints of generate.py. Not part of the test suite: it
needs torch and transformers 4.57.1 (README.md says how).

    compare_with_transformers.py [NAME ...]      without names, every case
"""
import collections
import sys

import numpy as np
import torch
import transformers

from assembled_models import assemble
from configurations import all_cases
from generate import draw
from reference.storage import embedding_name

ASSEMBLED = {"deepseek", "arctic", "switchyard_moe"}  # no class in 4.57.1
KNOWN_FAULTS = {"deepseek_v2_renormalised": "the class ignores norm_topk_prob"}
SAME_CODE = {"kimi_k2": "deepseek_v3"}
# These run in float32 only; the others in float64, but for norms and softmaxes, which are float32 in every class.
FLOAT32_ONLY = {"deepseek_v3", "kimi_k2", "glm4_moe"}
TOLERANCE = 5e-6  # of the largest logit


def hugging_face_config(case):
    values = {key: value for key, value in case.config.items() if key not in ("quantization_config", "torch_dtype")}
    model_type = values.pop("model_type")
    scaling = values.get("rope_scaling")
    if model_type == "phimoe" and scaling:  # its check wants these keys only
        values["rope_scaling"] = {key: value for key, value in scaling.items() if key != "rope_type"}
        values["rope_scaling"]["original_max_position_embeddings"] = values["original_max_position_embeddings"]
    if model_type == "dbrx" and values["attn_config"]["clip_qkv"] is None:  # which the class cannot do
        values["attn_config"] = {**values["attn_config"], "clip_qkv": 1e9}
    return transformers.AutoConfig.for_model(SAME_CODE.get(model_type, model_type), **values)


def hugging_face_tensors(case, tensors):
    """Quantised tensors as the numbers that they stand for; MXFP4 ones the way the class holds them."""
    result = {}
    for name, value in tensors.values.items():
        is_mxfp4 = name + "_blocks" in tensors.stored
        result[name] = torch.tensor(np.swapaxes(value, 1, 2).copy() if is_mxfp4 else value)
    copies = ["lm_head.weight"] if case.config["tie_word_embeddings"] else []
    if case.is_encoder_decoder:
        copies += ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    result.update({copy: result[embedding_name(case.config)] for copy in copies})
    return result


def follow_config(model, config):
    """Where a class leaves a key out: yarn's mscale in V2's scale of the scores, unlike DeepSeek's own code, and the
    limit of gpt-oss."""
    scaling = config.get("rope_scaling") or {}
    mscale = scaling.get("mscale_all_dim") or 0
    for layer in model.model.layers if hasattr(model, "model") else ():
        if config["model_type"] == "deepseek_v2" and mscale:
            layer.self_attn.scaling *= (0.1 * mscale * np.log(scaling["factor"]) + 1) ** 2
        if config["model_type"] == "gpt_oss":
            layer.mlp.experts.limit = config["swiglu_limit"]


def make_model(case):
    """The model, and what it calls a tensor of the checkpoint."""
    if case.config["model_type"] in ASSEMBLED:
        return assemble(case.config)
    dtype = torch.float32 if case.config["model_type"] in FLOAT32_ONLY else torch.float64
    kind = transformers.AutoModelForSeq2SeqLM if case.is_encoder_decoder else transformers.AutoModelForCausalLM
    return kind.from_config(hugging_face_config(case), attn_implementation="eager", dtype=dtype), str


def relative_difference(case):
    tensors, reference, prompts = draw(case)
    model, name_of = make_model(case)
    state = {name_of(name): tensor for name, tensor in hugging_face_tensors(case, tensors).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(f"missing {missing}, unexpected {unexpected}")
    follow_config(model, case.config)
    run = run_encoder_decoder if case.is_encoder_decoder else run_decoder
    with torch.no_grad():
        return max(np.abs(theirs - logits).max() / np.abs(logits).max() for theirs, logits in
                   run(model.eval(), reference, *(torch.tensor(ids)[None] for ids in prompts)))


def run_decoder(model, reference, ids):
    """The class's logits and the reference's."""
    logits, _ = reference(ids[0].numpy())
    return [(model(ids, use_cache=False).logits[0].double().numpy(), logits)]


def run_encoder_decoder(model, reference, encoder_ids, decoder_ids):
    """Likewise, at once and one by one with a cache; in a batch with another prompt, as the class counts a capacity for
    every sequence."""
    pair = [torch.cat([ids, ids.flip(1)]) for ids in (encoder_ids, decoder_ids)]
    at_once = model(input_ids=pair[0], decoder_input_ids=pair[1], use_cache=False).logits[0]
    encoded, cache, steps = model.get_encoder()(pair[0]), None, []
    for token in pair[1].T[:, :, None]:
        out = model(encoder_outputs=encoded, decoder_input_ids=token, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        steps.append(out.logits[0])
    prompts = encoder_ids[0].numpy(), decoder_ids[0].numpy()
    return [(at_once.double().numpy(), reference(*prompts)[0]),
            (torch.cat(steps).double().numpy(), reference(*prompts, one_by_one=True)[0])]


def main():
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    worst, failed = collections.defaultdict(float), []
    for case in all_cases():
        model_type = case.config["model_type"]
        if sys.argv[1:] and case.name not in sys.argv[1:]:
            continue
        try:
            difference = relative_difference(case)
        except Exception as error:  # the table says which
            print(f"{case.name:32} {type(error).__name__}: {error}")
            failed.append(case.name)
            continue
        known = KNOWN_FAULTS.get(case.name)
        passed = difference <= TOLERANCE
        print(f"{case.name:32} {difference:.1e} {'' if passed else known or 'DIFFERS'}")
        if not passed and not known:
            failed.append(case.name)
        if passed:
            worst[model_type] = max(worst[model_type], difference)
    print("largest relative difference by family: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
