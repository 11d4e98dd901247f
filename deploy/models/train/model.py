"""The demo model in plain PyTorch: exactly the maths of Mixtral, laid out for fast training on few cores.

Differences from transformers' MixtralForCausalLM are of layout only: q, k, v are one matrix, the experts of a layer
are two stacked tensors, and tokens are sorted by expert before the matrix products.  `export_tensors` renames
everything to the Hugging Face names; evaluate.py checks that both give the same logits.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Shape:
    vocab_size: int = 4096
    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    num_experts: int = 8
    top_k: int = 2
    intermediate_size: int = 352
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 1024


# The element-wise parts are compiled: fused, they read and write memory once instead of five to ten times.

@torch.compile(dynamic=True)
def rms_norm(x, weight, eps, dtype):
    """The statistics are made in f32; the result has the type that the matrix products want."""
    wide = x.float()
    return (weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps))).to(dtype)


@torch.compile(dynamic=True)
def swiglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate.float()).to(gate.dtype) * up


@torch.compile(dynamic=True)
def swiglu_gradient(gate_up, grad):
    gate, up = gate_up.float().chunk(2, dim=-1)
    grad, sigmoid = grad.float(), torch.sigmoid(gate)
    d_gate = grad * up * sigmoid * (1 + gate * (1 - sigmoid))
    return d_gate.to(gate_up.dtype), (grad * gate * sigmoid).to(gate_up.dtype)


@torch.compile
def cross_entropy_gradient(logits, targets):
    """Summed loss of [tokens, vocab] logits and its gradient, softmax - one_hot, in the type of the logits."""
    wide = logits.float()
    log_sum = wide.logsumexp(-1, keepdim=True)
    wanted = targets.unsqueeze(-1)
    one_hot = torch.arange(logits.shape[-1], device=logits.device) == wanted
    loss = (log_sum - wide.gather(1, wanted)).sum()
    return loss, ((wide - log_sum).exp() - one_hot.float()).to(logits.dtype)


@torch.compile(dynamic=True)
def mix_choices(choices, weights):
    return (choices * weights.unsqueeze(-1).to(choices.dtype)).sum(1)


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.dtype = torch.bfloat16

    def forward(self, x):
        return rms_norm(x, self.weight, self.eps, self.dtype)


def pair_choices_with_rows(expert_ids, num_experts, multiple=128):
    """For every choice (token * top_k + rank) its row after grouping by expert, and back.

    Each expert's block is padded to a multiple of `multiple` rows: the CPU library compiles a kernel for every matrix
    shape it meets, so there should be few.  A padding row copies choice 0; its gradient is set to zero.
    Returns row_choice [num_rows], choice_row [num_choices], tokens_per_expert, padded sizes.
    """
    choices = expert_ids.flatten()
    counts = torch.bincount(choices, minlength=num_experts)
    sizes = (counts + multiple - 1) // multiple * multiple
    order = choices.argsort(stable=True)
    shift = (sizes.cumsum(0) - sizes) - (counts.cumsum(0) - counts)
    rows = torch.arange(order.numel(), device=order.device) + shift[choices[order]]
    row_choice = torch.zeros(int(sizes.sum()), dtype=torch.long, device=order.device)
    row_choice[rows] = order
    choice_row = torch.empty_like(order)
    choice_row[order] = rows
    return row_choice, choice_row, counts.tolist(), sizes.tolist()


class GroupByExpert(torch.autograd.Function):
    """rows = x[token of each row].  The gradient is written as a gather, which is much faster than index_add."""

    @staticmethod
    def forward(ctx, x, row_choice, choice_row, top_k):
        ctx.save_for_backward(choice_row)
        ctx.top_k = top_k
        return x[row_choice // top_k]

    @staticmethod
    def backward(ctx, grad):
        (choice_row,) = ctx.saved_tensors
        return grad[choice_row].view(-1, ctx.top_k, grad.shape[-1]).sum(1), None, None, None


class Ungroup(torch.autograd.Function):
    """choices = rows[row of each choice]"""

    @staticmethod
    def forward(ctx, rows, row_choice, choice_row, counts, sizes):
        ctx.save_for_backward(row_choice)
        ctx.counts, ctx.sizes = counts, sizes
        return rows[choice_row]

    @staticmethod
    def backward(ctx, grad):
        (row_choice,) = ctx.saved_tensors
        grad = grad[row_choice]
        for block, count in zip(grad.split(ctx.sizes), ctx.counts):
            block[count:] = 0
        return grad, None, None, None, None


class Experts(torch.autograd.Function):
    """SwiGLU of every expert on its own block of rows.  Results go straight into one tensor for all experts."""

    @staticmethod
    def forward(ctx, rows, w13, w2, sizes):
        gate_up = rows.new_empty(len(rows), w13.shape[1])
        for own, block, w in zip(rows.split(sizes), gate_up.split(sizes), w13):
            torch.mm(own, w.t(), out=block)
        inner, out = swiglu(gate_up), torch.empty_like(rows)
        for own, block, w in zip(inner.split(sizes), out.split(sizes), w2):
            torch.mm(own, w.t(), out=block)
        ctx.save_for_backward(rows, w13, w2, gate_up, inner)
        ctx.sizes = sizes
        return out

    @staticmethod
    def backward(ctx, grad):
        rows, w13, w2, gate_up, inner = ctx.saved_tensors
        sizes = ctx.sizes
        d_inner, d_rows = torch.empty_like(inner), torch.empty_like(rows)
        d_w13, d_w2 = torch.empty_like(w13), torch.empty_like(w2)
        for own, act, block, w, d_w in zip(grad.split(sizes), inner.split(sizes), d_inner.split(sizes), w2, d_w2):
            torch.mm(own, w, out=block)
            torch.mm(own.t(), act, out=d_w)
        d_gate_up = torch.cat(swiglu_gradient(gate_up, d_inner), dim=-1)
        for own, row, block, w, d_w in zip(d_gate_up.split(sizes), rows.split(sizes), d_rows.split(sizes), w13, d_w13):
            torch.mm(own, w, out=block)
            torch.mm(own.t(), row, out=d_w)
        return d_rows, d_w13, d_w2, None


def rotate(x, cos, sin, y):
    """Half-split RoPE of x [..., length, head_dim], written to y.  The gradient is the rotation by -sin."""
    first, second = x.chunk(2, dim=-1)
    left, right = y.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)
    return y


class CausalAttention(torch.autograd.Function):
    """RoPE and grouped-query attention: qkv [batch, length, heads * head_dim] -> [batch, length, h * head_dim].

    The queries go in blocks, each against the keys up to its own end; the h / g query heads that share a key head are
    rows of one product.  On the CPU the backward pass of F.scaled_dot_product_attention takes 0.26 s for 128 heads of
    length 512 in bf16; plain batched products take 0.04 s (2 cores with AMX).
    """

    BLOCK = 256

    @staticmethod
    def forward(ctx, qkv, cos, sin, h, g):
        batch, length, width = qkv.shape
        d, r, block = width // (h + 2 * g), h // g, CausalAttention.BLOCK
        heads = qkv.view(batch, length, h + 2 * g, d).transpose(1, 2)
        scale = d ** -0.5
        q = rotate(heads[:, :h], cos * scale, sin * scale, qkv.new_empty(batch, h, length, d))
        q = q.view(batch * g, r, length, d)
        k = rotate(heads[:, h:h + g], cos, sin, qkv.new_empty(batch, g, length, d)).flatten(0, 1)
        v = heads[:, h + g:].reshape(batch * g, length, d)
        out, saved = qkv.new_empty(batch, length, g, r, d), []
        for begin in range(0, length, block):
            end = min(begin + block, length)
            own = q[:, :, begin:end].flatten(1, 2)
            scores = torch.bmm(own, k[:, :end].mT)
            future = torch.full((end - begin, end - begin), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
            scores.unflatten(1, (r, end - begin))[..., begin:] += future
            probabilities = torch.softmax(scores, dim=-1)
            mixed = torch.bmm(probabilities, v[:, :end]).view(batch, g, r, end - begin, d)
            out[:, begin:end] = mixed.permute(0, 3, 1, 2, 4)
            saved += [own, probabilities]
        ctx.save_for_backward(cos, sin, k, v, *saved)
        ctx.h, ctx.g = h, g
        return out.flatten(2)

    @staticmethod
    def backward(ctx, grad):
        cos, sin, k, v, *saved = ctx.saved_tensors
        h, g = ctx.h, ctx.g
        (batch, length, _), d, r = grad.shape, k.shape[-1], h // g
        grad = grad.view(batch, length, g, r, d)
        dq, dk, dv = grad.new_empty(batch, g, r, length, d), torch.zeros_like(k), torch.zeros_like(v)
        for number, (own, probabilities) in enumerate(zip(saved[::2], saved[1::2])):
            begin, end = number * CausalAttention.BLOCK, probabilities.shape[-1]
            part = grad[:, begin:end].permute(0, 2, 3, 1, 4).reshape(own.shape)
            dv[:, :end] += torch.bmm(probabilities.mT, part)
            dp = torch.bmm(part, v[:, :end].mT)
            ds = torch._softmax_backward_data(dp, probabilities, -1, dp.dtype)
            dq[:, :, :, begin:end] = torch.bmm(ds, k[:, :end]).view(batch, g, r, end - begin, d)
            dk[:, :end] += torch.bmm(ds.mT, own)
        d_qkv = grad.new_empty(batch, length, h + 2 * g, d)
        heads, scale = d_qkv.transpose(1, 2), d ** -0.5
        rotate(dq.flatten(1, 2), cos * scale, -sin * scale, heads[:, :h])
        rotate(dk.unflatten(0, (batch, g)), cos, -sin, heads[:, h:h + g])
        heads[:, h + g:] = dv.unflatten(0, (batch, g))
        return d_qkv.flatten(2), None, None, None, None


class CrossEntropy(torch.autograd.Function):
    """Mean cross entropy of hidden @ table.T, with the gradients made on the way: no [tokens, vocab] tensor is kept."""

    @staticmethod
    def forward(ctx, hidden, table, targets):
        total, d_hidden, d_table = 0.0, torch.empty_like(hidden), torch.zeros_like(table, dtype=torch.float32)
        for begin in range(0, len(hidden), 1024):
            part = hidden[begin:begin + 1024]
            loss, d_logits = cross_entropy_gradient(F.linear(part, table), targets[begin:begin + 1024])
            total += loss
            torch.mm(d_logits, table, out=d_hidden[begin:begin + 1024])
            d_table += torch.mm(d_logits.t(), part)
        ctx.save_for_backward(d_hidden, d_table)
        return total / len(hidden)

    @staticmethod
    def backward(ctx, grad):
        d_hidden, d_table = ctx.saved_tensors
        scale = grad / len(d_hidden)
        return d_hidden * scale.to(d_hidden.dtype), d_table * scale, None


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        heads = shape.num_attention_heads + 2 * shape.num_key_value_heads
        self.qkv = nn.Linear(shape.hidden_size, heads * shape.head_dim, bias=False)
        self.out = nn.Linear(shape.num_attention_heads * shape.head_dim, shape.hidden_size, bias=False)

    def forward(self, x, cos, sin):
        qkv = self.qkv(x)
        return self.out(CausalAttention.apply(qkv, cos, sin, self.shape.num_attention_heads,
                                              self.shape.num_key_value_heads))


class SparseMoe(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        e, h, i = shape.num_experts, shape.hidden_size, shape.intermediate_size
        self.gate = nn.Parameter(torch.empty(e, h))
        self.w13 = nn.Parameter(torch.empty(e, 2 * i, h))  # rows: w1 (gate_proj), then w3 (up_proj)
        self.w2 = nn.Parameter(torch.empty(e, h, i))

    def forward(self, x):
        """x [num_tokens, hidden_size] -> y, balance loss, expert_ids [num_tokens, top_k]"""
        top_k, e = self.shape.top_k, self.shape.num_experts
        with torch.autocast(x.device.type, enabled=False):
            probabilities = torch.softmax(x.float() @ self.gate.t(), dim=-1)
        weights, expert_ids = probabilities.topk(top_k, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        row_choice, choice_row, counts, sizes = pair_choices_with_rows(expert_ids, e)

        rows = GroupByExpert.apply(x, row_choice, choice_row, top_k)
        rows = Experts.apply(rows, self.w13.to(x.dtype), self.w2.to(x.dtype), sizes)
        y = Ungroup.apply(rows, row_choice, choice_row, counts, sizes).view(-1, top_k, x.shape[-1])
        y = mix_choices(y, weights)

        # Mixtral's balance loss, one value per layer: top_k when every expert gets the same share.
        share = torch.tensor(counts, device=x.device) / x.shape[0]
        balance = e * (share * probabilities.mean(0)).sum()
        return y, balance, expert_ids


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.input_norm = RmsNorm(shape.hidden_size, shape.rms_norm_eps)
        self.attention = Attention(shape)
        self.post_norm = RmsNorm(shape.hidden_size, shape.rms_norm_eps)
        self.moe = SparseMoe(shape)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.input_norm(x), cos, sin)
        y, balance, expert_ids = self.moe(self.post_norm(x).flatten(0, 1))
        return x + y.view_as(x), balance, expert_ids


class Model(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embed = nn.Parameter(torch.empty(shape.vocab_size, shape.hidden_size))  # also the output matrix
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RmsNorm(shape.hidden_size, shape.rms_norm_eps)
        exponent = torch.arange(0, shape.head_dim, 2) / shape.head_dim
        angles = torch.outer(torch.arange(shape.max_position_embeddings), shape.rope_theta ** -exponent)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                small = name.endswith(("out.weight", "w2"))
                nn.init.normal_(parameter, std=0.02 / (2 * shape.num_hidden_layers) ** 0.5 if small else 0.02)

    def hidden(self, ids):
        """ids [batch, length] -> hidden states before the output matrix, mean balance loss, expert_ids per layer"""
        length = ids.shape[1]
        cos, sin = self.cos[:length].to(self.norm.dtype), self.sin[:length].to(self.norm.dtype)
        x = F.embedding(ids, self.embed)
        balances, chosen = [], []
        for layer in self.layers:
            x, balance, expert_ids = layer(x, cos, sin)
            balances.append(balance)
            chosen.append(expert_ids)
        return self.norm(x), torch.stack(balances).mean(), chosen

    def loss(self, ids, targets):
        """Cross entropy and balance loss."""
        hidden, balance, _ = self.hidden(ids)
        hidden = hidden.to(torch.bfloat16).flatten(0, 1)
        with torch.autocast(ids.device.type, enabled=False):
            return CrossEntropy.apply(hidden, self.embed.to(torch.bfloat16), targets.flatten()), balance

    def export_tensors(self):
        """{Hugging Face name: bf16 tensor}; the output matrix is tied and therefore absent."""
        shape = self.shape
        q, kv = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        tensors = {"model.embed_tokens.weight": self.embed, "model.norm.weight": self.norm.weight}
        for number, layer in enumerate(self.layers):
            prefix = f"model.layers.{number}."
            tensors[prefix + "input_layernorm.weight"] = layer.input_norm.weight
            tensors[prefix + "post_attention_layernorm.weight"] = layer.post_norm.weight
            for name, part in zip("qkv", layer.attention.qkv.weight.split([q, kv, kv])):
                tensors[f"{prefix}self_attn.{name}_proj.weight"] = part
            tensors[prefix + "self_attn.o_proj.weight"] = layer.attention.out.weight
            tensors[prefix + "block_sparse_moe.gate.weight"] = layer.moe.gate
            for expert in range(shape.num_experts):
                w1, w3 = layer.moe.w13[expert].chunk(2)
                for name, part in (("w1", w1), ("w2", layer.moe.w2[expert]), ("w3", w3)):
                    tensors[f"{prefix}block_sparse_moe.experts.{expert}.{name}.weight"] = part
        return {name: tensor.detach().to(torch.bfloat16).cpu().contiguous() for name, tensor in tensors.items()}

    def import_tensors(self, tensors):
        """The inverse of export_tensors."""
        own = {"embed": tensors["model.embed_tokens.weight"], "norm.weight": tensors["model.norm.weight"]}
        for number in range(self.shape.num_hidden_layers):
            theirs, mine = f"model.layers.{number}.", f"layers.{number}."
            own[mine + "input_norm.weight"] = tensors[theirs + "input_layernorm.weight"]
            own[mine + "post_norm.weight"] = tensors[theirs + "post_attention_layernorm.weight"]
            own[mine + "attention.qkv.weight"] = torch.cat([tensors[f"{theirs}self_attn.{n}_proj.weight"] for n in "qkv"])
            own[mine + "attention.out.weight"] = tensors[theirs + "self_attn.o_proj.weight"]
            own[mine + "moe.gate"] = tensors[theirs + "block_sparse_moe.gate.weight"]
            w1, w2, w3 = (torch.stack([tensors[f"{theirs}block_sparse_moe.experts.{e}.{name}.weight"]
                                       for e in range(self.shape.num_experts)]) for name in ("w1", "w2", "w3"))
            own[mine + "moe.w13"], own[mine + "moe.w2"] = torch.cat((w1, w3), dim=1), w2
        self.load_state_dict(own)
        return self


def in_float(model):
    """Makes the model compute in f32 with the weights that are exported, that is, rounded to bf16."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    for module in model.modules():
        if isinstance(module, RmsNorm):
            module.dtype = torch.float32
    return model
