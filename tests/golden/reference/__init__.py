"""The MoE families in NumPy, float64: what the golden logits come from. See ../README.md."""
