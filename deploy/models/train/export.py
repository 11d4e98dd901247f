#!/usr/bin/env python3
"""Writes a checkpoint of train.py as a Hugging Face folder and checks it against transformers.

    python export.py --cache CACHE --out ../switchyard-demo

The check: transformers' MixtralForCausalLM, loaded from the written folder, must give the logits of model.py with the
same (bf16-rounded) weights.  Both run in f32 there, so only the order of additions differs.
"""

import argparse
import pathlib

import torch
import transformers

import model as own

END_OF_TEXT = "<|endoftext|>"


def make_config(shape):
    return transformers.MixtralConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers, num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads, head_dim=shape.head_dim,
        max_position_embeddings=shape.max_position_embeddings, rms_norm_eps=shape.rms_norm_eps,
        rope_theta=shape.rope_theta, num_local_experts=shape.num_experts, num_experts_per_tok=shape.top_k,
        router_aux_loss_coef=0.01, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        sliding_window=None, dtype="bfloat16")


def write_folder(model, tokenizer_file, out):
    theirs = transformers.MixtralForCausalLM(make_config(model.shape)).to(torch.bfloat16)
    missing, unexpected = theirs.load_state_dict(model.export_tensors(), strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    theirs.tie_weights()
    theirs.generation_config = transformers.GenerationConfig(
        bos_token_id=0, eos_token_id=0, pad_token_id=0, do_sample=True, temperature=0.8, top_p=0.95)
    theirs.save_pretrained(out)
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT,
        model_max_length=model.shape.max_position_embeddings, clean_up_tokenization_spaces=False).save_pretrained(out)


@torch.no_grad()
def check_logits(model, out, length=300):
    """Largest difference of the logits over a real and a random sequence, relative to the largest logit."""
    theirs = transformers.MixtralForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    text = tokenizer("And the LORD spake unto Moses, saying, the read() system call returns the number of bytes.")
    random = torch.randint(0, model.shape.vocab_size, (length,), generator=torch.Generator().manual_seed(7)).tolist()
    model = own.in_float(model)
    worst = 0.0
    for ids in (text.input_ids, random):
        ids = torch.tensor([ids])
        expected = theirs(ids).logits
        actual = model.hidden(ids)[0] @ model.embed.t()
        worst = max(worst, ((actual - expected).abs().max() / expected.abs().max()).item())
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, required=True)
    parser.add_argument("--name", default="checkpoint")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()

    torch.set_num_threads(2)
    torch.compiler.set_stance("force_eager")  # not worth compiling for three forward passes
    saved = torch.load(options.cache / f"{options.name}.pt", map_location="cpu")
    model = own.Model(own.Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    write_folder(model, options.cache / "data" / "tokenizer.json", options.out)
    difference = check_logits(model, options.out)
    print(f"step {saved['step']}: largest difference from transformers {difference:.2e} of the largest logit")
    assert difference < 1e-4
    for path in sorted(options.out.iterdir()):
        print(f"{path.stat().st_size:10d}  {path.name}")


if __name__ == "__main__":
    main()
