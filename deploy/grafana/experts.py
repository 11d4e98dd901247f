"""The experts dashboard: whom the router chooses, how even the load is, and what it costs."""

from dashboard import (
    bars,
    buckets,
    curves,
    dashboard,
    gauge,
    history,
    matrix,
    mean,
    percentiles,
    quantile,
    rate,
    SELECT,
    variable,
)


def load_ratio(window, labels=""):
    """Load of each expert over the mean of its layer."""
    each = rate("switchyard_moe_expert_tokens_total", "layer, expert", labels, window)
    return f"{each} / ignoring (expert) group_left avg by (layer) ({each})"


def experts():
    by_layer = "layer {{layer}}"
    chosen = 'layer=~"$layer"'
    layers = {
        metric: {by_layer: gauge(f"switchyard_moe_layer_{metric}", "avg", "layer")}
        for metric in (
            "imbalance_ratio",
            "entropy",
            "active_experts",
            "max_share",
            "load_balance_loss",
            "router_z_loss",
        )
    }
    layer_variable = variable(
        "layer", "Layer", f"label_values(switchyard_moe_layer_imbalance_ratio{{{SELECT}}}, layer)"
    )
    even = "1 is an even share; experts / experts per token is the most there can be. "
    window = "Over windows of 512 to 1,024 tokens. "
    return dashboard(
        "switchyard-experts",
        "Switchyard: experts",
        "Which experts the router chooses, how even their load is, and what it costs.",
        [
            (
                "Load",
                [
                    matrix(
                        "Load of each expert over the mean of its layer",
                        load_ratio("$__range"),
                        "layer",
                        "expert",
                        3,
                        width=24,
                        height=10,
                        about=even + "Over the whole time range. Needs --metrics-expert-detail full.",
                    ),
                    history(
                        "Load over time, layers $layer",
                        load_ratio("$__rate_interval", chosen),
                        "{{layer}}/{{expert}}",
                        3,
                        width=24,
                        height=10,
                        about=even + "Choose a layer above.",
                    ),
                    bars(
                        "Hottest experts",
                        f"topk(10, {load_ratio('$__range')})",
                        "layer {{layer}} expert {{expert}}",
                        about=even,
                    ),
                    bars(
                        "Deadest experts",
                        f"bottomk(10, {load_ratio('$__range')})",
                        "layer {{layer}} expert {{expert}}",
                        about=even,
                    ),
                    bars(
                        "Busiest expert of each layer: its share",
                        gauge("switchyard_moe_layer_top_share", "max", "layer", 'rank="1"'),
                        by_layer,
                        "percentunit",
                        about=window,
                    ),
                    curves(
                        "Number of the busiest expert",
                        {
                            "layer {{layer}} {{instance}}": gauge(
                                "switchyard_moe_layer_top_expert", "max", "layer, instance", f'rank="1", {chosen}'
                            )
                        },
                        about=window + "It jumps where the load " "moves from expert to expert.",
                    ),
                    curves(
                        "Rows per second, layers $layer",
                        {"{{layer}}/{{expert}}": rate("switchyard_moe_expert_tokens_total", "layer, expert", chosen)},
                        stacked=True,
                        width=16,
                    ),
                ],
            ),
            (
                "Balance",
                [
                    curves("Imbalance: largest / mean rows per expert", layers["imbalance_ratio"], about=even + window),
                    history(
                        "Imbalance by layer", layers["imbalance_ratio"][by_layer], by_layer, 4, about=even + window
                    ),
                    curves(
                        "Routing entropy",
                        layers["entropy"],
                        "percentunit",
                        about="1 is even, 0 one expert only. " + window,
                    ),
                    curves("Experts with at least one row", layers["active_experts"], about=window),
                    curves("Largest share of an expert", layers["max_share"], "percentunit", about=window),
                    curves(
                        "Choices dropped per second",
                        {by_layer: rate("switchyard_moe_layer_dropped_tokens_total", "layer")},
                        about="Choices whose expert had no room.",
                    ),
                    curves(
                        "Load-balance loss",
                        layers["load_balance_loss"],
                        about="Switch Transformer, eq. 4; 1 is even. " + window,
                    ),
                    curves(
                        "Router z-loss",
                        layers["router_z_loss"],
                        about="ST-MoE, eq. 5; it grows with the logits. " + window,
                    ),
                ],
            ),
            (
                "Latency",
                [
                    curves(
                        "Time of an expert's batch, mean",
                        {"expert {{expert}}": mean("switchyard_moe_expert_batch_seconds", "expert")},
                        "s",
                    ),
                    curves(
                        "Time of an expert's batch, p99",
                        {"expert {{expert}}": quantile(0.99, "switchyard_moe_expert_batch_seconds", "expert")},
                        "s",
                    ),
                    buckets("Time of an expert's batch", "switchyard_moe_expert_batch_seconds"),
                    curves("Rows of an expert's batch", percentiles("switchyard_moe_expert_batch_rows")),
                    curves(
                        "Time of a MoE layer, mean per step",
                        {by_layer: mean("switchyard_moe_layer_seconds", "layer")},
                        "s",
                    ),
                    curves(
                        "MoE layers, share of the step",
                        {
                            "share": f"{rate('switchyard_moe_layer_seconds_sum')}"
                            f" / {rate('switchyard_step_seconds_sum')}"
                        },
                        "percentunit",
                    ),
                ],
            ),
        ],
        [layer_variable],
    )
