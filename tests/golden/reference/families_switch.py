"""Switch Transformers (2101.03961): config.json and tensors -> EncoderDecoder."""
from .decoder import Norm
from .encoder_decoder import Attention, EncoderDecoder, Layer, RelativeBias, Stack
from .feed_forward import Moe, PlainMlp, Router, relu


def sparse_step(config, name, num_layers):
    """Layer l has experts where l % step is 1, or step is 1; none has if it is 0."""
    if f"{name}_sparse_step" in config:
        return config[f"{name}_sparse_step"]
    num_sparse = config[f"num_sparse_{name}_layers"]
    return num_layers // num_sparse if num_sparse else num_layers


def stack(config, tensors, name, num_layers, first_layer):
    hidden, width, heads = config["d_model"], config["d_ff"], config["num_heads"]
    attended = heads * config["d_kv"]
    step, is_decoder = sparse_step(config, name, num_layers), name == "decoder"

    def norm(prefix):
        return Norm(tensors(prefix + "layer_norm.weight", hidden), config["layer_norm_epsilon"])

    def attention(prefix):
        q, k, v = (tensors(f"{prefix}{part}.weight", attended, hidden) for part in "qkv")
        return Attention(heads, q, k, v, tensors(prefix + "o.weight", hidden, attended))

    def mlp(prefix):
        up, down = tensors(prefix + "wi.weight", width, hidden), tensors(prefix + "wo.weight", hidden, width)
        return PlainMlp(up, down, relu)

    def feed_forward(layer, prefix):
        if step != 1 and (step == 0 or layer % step != 1):
            return mlp(prefix)
        count, router = config["num_experts"], prefix + "router.classifier."
        bias = tensors(router + "bias", count) if config["router_bias"] else None
        return Moe(Router(tensors(router + "weight", count, hidden), 1, bias=bias),
                   [mlp(f"{prefix}experts.expert_{e}.") for e in range(count)], capacity=config["expert_capacity"])

    layers = []
    for i in range(num_layers):
        block = f"{name}.block.{i}.layer."
        last = f"{block}{2 if is_decoder else 1}."
        layer = Layer(norm(block + "0."), attention(block + "0.SelfAttention."), norm(last),
                      feed_forward(i, last + "mlp."))
        if is_decoder:
            layer.cross_norm, layer.cross_attention = norm(block + "1."), attention(block + "1.EncDecAttention.")
        layers.append(layer)
    table = tensors(f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                    config["relative_attention_num_buckets"], heads)
    bias = RelativeBias(table, config["relative_attention_max_distance"], bidirectional=not is_decoder)
    return Stack(layers, norm(f"{name}.final_"), bias, first_layer)


def switch(config, tensors, num_tokens):
    vocabulary, hidden, num_encoder_layers = config["vocab_size"], config["d_model"], config["num_layers"]
    embedding = tensors("shared.weight", vocabulary, hidden)
    encoder = stack(config, tensors, "encoder", num_encoder_layers, 0)
    decoder = stack(config, tensors, "decoder", config["num_decoder_layers"], num_encoder_layers)
    if config["tie_word_embeddings"]:
        return EncoderDecoder(embedding, encoder, decoder, embedding, hidden ** -0.5)
    return EncoderDecoder(embedding, encoder, decoder, tensors("lm_head.weight", vocabulary, hidden))
