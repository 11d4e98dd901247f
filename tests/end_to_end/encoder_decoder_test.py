#!/usr/bin/env python3
"""A Switch Transformers model behind the real server: an encoder that reads the prompt, a decoder that writes.

    python3 tests/end_to_end/encoder_decoder_test.py --server-binary build/server/switchyard-server --model FOLDER

FOLDER is a fixture of tests/golden; the Unigram tokenizer is made here.
"""

import argparse
import concurrent.futures
import pathlib
import shutil
import sys
import tempfile

import grpc
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

import serving
from serving import check, code_of, pb

MOE_LAYERS = [1, 3, 5, 7]  # four layers of each stack, every other one sparse
ENCODER_LAYERS = 4
START, EOS = 0, 1


def write_tokenizer(folder):
    """As transformers writes T5's, with as many tokens as the model has rows."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [("▁", -2.0), ("▁the", -2.5), ("er", -3.0), ("ing", -3.5)]
    vocabulary += [(letter, -5.0 - i / 100) for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz.,!?'")]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(97 - len(vocabulary)))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text, _ in vocabulary
                                  if text.startswith("<")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", EOS)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def request(ids, **fields):
    fields = {"max_tokens": 12, "temperature": 0, "ignore_eos": True, **fields}
    return pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids), **fields)


def tokens_of(server, ids, **fields):
    return list(server.inference.Generate(request(ids, **fields)).choices[0].token_ids)


def check_model(server):
    model = server.inference.GetModel(pb.GetModelRequest())
    check(model.bos_token_id == -1, "nothing stands before a prompt")
    check(model.architecture == "switch_transformers", "GetModel names the architecture")
    check((model.num_layers, model.num_encoder_layers) == (8, ENCODER_LAYERS), "and says which layers are the encoder's")
    check(list(model.moe_layers) == MOE_LAYERS, "MoE layers are numbered through both stacks")
    check(model.decoder_start_token_id == START, "and what the decoder begins with")
    features = server.inference.GetServer(pb.GetServerRequest()).features
    check(not features.prefix_caching, "prefixes are not reused")


def check_answers(server, tokenizer):
    text = "the quick brown fox, running!"
    ids = tokenizer.encode(text).ids
    check(ids[-1] == EOS and list(server.inference.Tokenize(pb.TokenizeRequest(text=text)).token_ids) == ids,
          "Unigram tokens are those of the reference, with the end of the text")
    by_text = server.inference.Generate(pb.GenerateRequest(text=text, max_tokens=12, temperature=0, ignore_eos=True))
    check(by_text.prompt.prompt_tokens == len(ids) + 1, "the decoder's start token counts as one of the prompt")
    alone = tokens_of(server, ids)
    check(list(by_text.choices[0].token_ids) == alone and len(alone) == 12, "text and its tokens have the same answer")
    streamed = [id for message in server.inference.GenerateStream(request(ids)) for choice in message.choices
                for id in choice.token_ids]
    check(streamed == alone, "so does a stream")

    prompts = [[(7 * i + 3 * j) % 95 + 2 for j in range(5 + 9 * i)] for i in range(8)]
    expected = [tokens_of(server, prompt) for prompt in prompts]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda i: tokens_of(server, prompts[i % 8]), range(32)))
    check(together == [expected[i % 8] for i in range(32)], "answers are the same alone and among others")


def check_explanation(server):
    answer = server.inference.Generate(request([5, 6, 7, EOS], explain=pb.Explain(enabled=True)))
    layers = {routing.layer for detail in answer.choices[0].details for routing in detail.routing}
    check(layers == {5, 7}, "an answer's tokens are explained by the decoder's layers")
    of_encoder = pb.Explain(enabled=True, layers=[1])
    code, text = code_of(lambda: server.inference.Generate(request([5], explain=of_encoder)))
    check(code == grpc.StatusCode.INVALID_ARGUMENT and "layer 1" in text, "not by the encoder's")


def check_metrics(server, drops):
    def rows(layer):
        return server.metric("switchyard_moe_expert_tokens_total", layer=str(layer))

    def dropped(layer):
        return server.metric("switchyard_moe_layer_dropped_tokens_total", layer=str(layer))

    server.wait_until_idle()
    before = {layer: rows(layer) + dropped(layer) for layer in MOE_LAYERS}
    dropped_before = {layer: dropped(layer) for layer in MOE_LAYERS}
    tokens_of(server, [9] * 10 + list(range(10, 40)), max_tokens=7)
    server.wait_until_idle()
    grown = {layer: rows(layer) + dropped(layer) - before[layer] for layer in MOE_LAYERS}
    check(grown == {1: 40, 3: 40, 5: 7, 7: 7}, f"encoder layers count the prompt, decoder layers the answer: {grown}")
    new_drops = {layer: dropped(layer) - dropped_before[layer] for layer in MOE_LAYERS}
    check((new_drops[1] >= 40 - 4 * 3 and new_drops[3] >= 40 - 4 * 3) if drops else sum(new_drops.values()) == 0,
          f"dropped: {new_drops}")
    check(new_drops[5] == new_drops[7] == 0, "generated tokens are never dropped")


def check_limits(server):
    code, text = code_of(lambda: server.inference.Generate(request([5] * 126)))
    check(code == grpc.StatusCode.INVALID_ARGUMENT and "reads it in one step, which has room for 125" in text,
          "a prompt that no step can hold is refused, with the room there is")
    check(len(tokens_of(server, [5] * 125, max_tokens=2)) == 2, "the longest that one can hold is answered")


def main():
    args = serving.arguments(__doc__)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-encoder-"))
    for name in ("config.json", "model.safetensors"):
        shutil.copy(pathlib.Path(args.model) / name, folder / name)
    tokenizer = write_tokenizer(folder)
    args = argparse.Namespace(**{**vars(args), "model": str(folder)})
    flags = ["--max-num-batched-tokens=128", "--max-num-seqs=4", "--max-model-len=256", "--device=cpu"]
    for capacity in ("none", "config"):
        with serving.Server(args, *flags, f"--expert-capacity={capacity}") as server:
            check_model(server)
            check_answers(server, tokenizer)
            check_explanation(server)
            check_metrics(server, drops=capacity == "config")
            check_limits(server)
            server.terminate()
            check(server.wait() == 0, f"with --expert-capacity {capacity} it ends well")
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
