"""The serving dashboard: what callers get, and what it costs."""

from dashboard import buckets, curves, dashboard, gauge, mean, number, percentiles, process, rate

FAULTS = 'grpc_code=~"UNKNOWN|INTERNAL|DATA_LOSS|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED"'


def serving():
    prefix_hits = f"{rate('switchyard_prefix_cache_hits_total')} / {rate('switchyard_prefix_cache_queries_total')}"
    return dashboard(
        "switchyard-serving",
        "Switchyard: serving",
        "What callers get, and what it costs.",
        [
            (
                "Now",
                [
                    number("Replicas that take requests", gauge("switchyard_ready")),
                    number("Calls per second", rate("switchyard_request_status_total"), "reqps"),
                    number("Generated tokens per second", rate("switchyard_generation_tokens_total")),
                    number(
                        "Failed calls",
                        f"{rate('switchyard_request_status_total', labels=FAULTS)}"
                        f" / {rate('switchyard_request_status_total')}",
                        "percentunit",
                        ((0.01, "orange"), (0.05, "red")),
                        about="By the server's fault or its limits.",
                    ),
                    number(
                        "KV cache in use",
                        gauge("switchyard_kv_cache_usage_ratio", "max"),
                        "percentunit",
                        ((0.8, "orange"), (0.9, "red")),
                        about="Of the fullest replica.",
                    ),
                    number(
                        "Requests waiting",
                        gauge("switchyard_num_requests_waiting"),
                        "short",
                        ((8, "orange"), (64, "red")),
                    ),
                ],
            ),
            (
                "Latency",
                [
                    curves("Time to first token", percentiles("switchyard_time_to_first_token_seconds"), "s"),
                    curves("Between two tokens", percentiles("switchyard_inter_token_latency_seconds"), "s"),
                    curves("Whole request", percentiles("switchyard_e2e_request_latency_seconds"), "s"),
                    curves(
                        "Where the time goes, mean per request",
                        {
                            phase: mean(f"switchyard_request_{phase}_time_seconds")
                            for phase in ("queue", "prefill", "decode")
                        },
                        "s",
                        stacked=True,
                    ),
                    curves("Time per output token", percentiles("switchyard_time_per_output_token_seconds"), "s"),
                    buckets("Time to first token", "switchyard_time_to_first_token_seconds"),
                ],
            ),
            (
                "Traffic",
                [
                    curves(
                        "Calls by gRPC code",
                        {"{{grpc_code}}": rate("switchyard_request_status_total", "grpc_code")},
                        "reqps",
                    ),
                    curves(
                        "Requests by how they ended",
                        {"{{finish_reason}}": rate("switchyard_request_success_total", "finish_reason")},
                        "reqps",
                    ),
                    curves(
                        "Refused, cancelled, too late",
                        {
                            "refused: {{reason}}": rate("switchyard_rejected_total", "reason"),
                            "cancelled: {{phase}}": rate("switchyard_cancelled_total", "phase"),
                            "deadline: {{phase}}": rate("switchyard_deadline_total", "phase"),
                        },
                        "reqps",
                    ),
                    curves(
                        "Tokens per second",
                        {
                            "prompt": rate("switchyard_prompt_tokens_total"),
                            "generated": rate("switchyard_generation_tokens_total"),
                        },
                    ),
                    curves(
                        "Tokens per request, mean",
                        {
                            "prompt": mean("switchyard_request_prompt_tokens"),
                            "generated": mean("switchyard_request_generation_tokens"),
                        },
                    ),
                    curves("Prefix cache: tokens found", {"share of the tokens looked up": prefix_hits}, "percentunit"),
                ],
            ),
            (
                "Queue and KV cache",
                [
                    curves(
                        "Requests",
                        {
                            "running": gauge("switchyard_num_requests_running"),
                            "waiting": gauge("switchyard_num_requests_waiting"),
                            "open calls": gauge("switchyard_open_calls"),
                        },
                    ),
                    curves(
                        "Longest wait",
                        {"{{instance}}": gauge("switchyard_oldest_waiting_seconds", "max", "instance")},
                        "s",
                    ),
                    curves("Tokens that wait", {"{{instance}}": gauge("switchyard_waiting_tokens", "sum", "instance")}),
                    curves(
                        "KV blocks",
                        {
                            "in use": gauge("switchyard_kv_blocks_used"),
                            "free, content kept": gauge("switchyard_kv_blocks_cached"),
                            "all": gauge("switchyard_kv_blocks"),
                        },
                    ),
                    curves(
                        "KV cache in use",
                        {"{{instance}}": gauge("switchyard_kv_cache_usage_ratio", "max", "instance")},
                        "percentunit",
                    ),
                    curves(
                        "Preemptions",
                        {
                            "requests per second": rate("switchyard_preemptions_total"),
                            "tokens run again per second": rate("switchyard_recomputed_tokens_total"),
                            "preemptions per request, mean": mean("switchyard_request_preemptions"),
                        },
                    ),
                ],
            ),
            (
                "Engine",
                [
                    curves("Time of a step", percentiles("switchyard_step_seconds"), "s"),
                    curves(
                        "In a step, mean",
                        {
                            "tokens": mean("switchyard_step_tokens"),
                            "requests": mean("switchyard_step_sequences"),
                        },
                    ),
                    curves(
                        "Tokens through the model per second",
                        {"{{kind}}": rate("switchyard_engine_tokens_total", "kind")},
                    ),
                    curves("Steps per second", {"{{instance}}": rate("switchyard_steps_total", "instance")}),
                ],
            ),
            (
                "Process",
                [
                    curves(
                        "CPU cores", {"{{instance}}": f"rate({process('process_cpu_seconds_total')}[$__rate_interval])"}
                    ),
                    curves("Resident memory", {"{{instance}}": process("process_resident_memory_bytes")}, "bytes"),
                    curves(
                        "File descriptors and threads",
                        {
                            "descriptors {{instance}}": process("process_open_fds"),
                            "limit {{instance}}": process("process_max_fds"),
                            "threads {{instance}}": process("process_threads"),
                        },
                    ),
                    curves("Up for", {"{{instance}}": f"time() - {process('process_start_time_seconds')}"}, "s"),
                    curves(
                        "Time to start",
                        {"{{phase}} {{instance}}": gauge("switchyard_start_seconds", "max", "phase, instance")},
                        "s",
                    ),
                    curves(
                        "What must stay 0",
                        {
                            "internal errors": gauge("switchyard_internal_errors_total"),
                            "log lines dropped": gauge("switchyard_log_dropped_total"),
                            "weights that are not finite": gauge("switchyard_weights_nonfinite"),
                        },
                    ),
                ],
            ),
        ],
    )
