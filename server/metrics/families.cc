#include "server/metrics/families.h"

#include <cstddef>

namespace switchyard {
namespace {

using prometheus::MetricType;

// The edges of vLLM, so that dashboards carry over, with finer ones below where small models live.
constexpr double kTtftEdges[] = {.001, .005, .01, .02, .04, .06, .08, .1,  .25, .5,  .75,
                                 1,    2.5,  5,   7.5, 10,  20,  40,  80,  160, 640, 2560};
constexpr double kTokenLatencyEdges[] = {.0005, .001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3,
                                         .4,    .5,   .75,   1,    2.5, 5,    7.5, 10,   20, 40,  80};
constexpr double kRequestSecondsEdges[] = {.001, .005, .01, .025, .05, .1, .2, .3,  .5,  .8,  1,   1.5,  2,   2.5,
                                           5,    10,   15,  20,   30,  40, 50, 60,  120, 240, 480, 960, 1920, 7680};
constexpr double kTokenCountEdges[] = {1,    2,    5,     10,    20,    50,    100,    200,    500,   1000,
                                       2000, 5000, 10000, 20000, 50000, 1e5};
constexpr double kPreemptionEdges[] = {0, 1, 2, 3};
constexpr double kStepSecondsEdges[] = {.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5};
constexpr double kPerStepEdges[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
constexpr double kSequencesEdges[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
constexpr double kExpertSecondsEdges[] = {1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1};
constexpr double kExpertRowsEdges[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

#define SWITCHYARD_WINDOW "Over the latest 512 to 1024 tokens of the layer (fewer just after the start)."

constexpr FamilyInfo kFamilies[] = {
    {Family::kRequestsWaiting, "switchyard_num_requests_waiting", MetricType::Gauge,
     "Requests that wait for their first step, or to be resumed after a preemption.", {}},
    {Family::kRequestsRunning, "switchyard_num_requests_running", MetricType::Gauge, "Requests in the running batch.", {}},
    {Family::kKvCacheUsage, "switchyard_kv_cache_usage_ratio", MetricType::Gauge,
     "Share of the KV blocks that running requests hold, 0 to 1.", {}},
    {Family::kCacheConfig, "switchyard_cache_config_info", MetricType::Gauge,
     "Always 1; labels block_size and num_gpu_blocks tell the size of the KV pool, on any device.", {}},

    {Family::kReady, "switchyard_ready", MetricType::Gauge, "1 while the server takes new requests, else 0.", {}},
    {Family::kOpenCalls, "switchyard_open_calls", MetricType::Gauge, "Calls of Generate and GenerateStream that are open.", {}},
    {Family::kWaitingTokens, "switchyard_waiting_tokens", MetricType::Gauge,
     "Tokens that waiting requests have to run before their next output.", {}},
    {Family::kOldestWaiting, "switchyard_oldest_waiting_seconds", MetricType::Gauge,
     "How long the oldest waiting request has waited.", {}},
    {Family::kKvBlocks, "switchyard_kv_blocks", MetricType::Gauge, "KV blocks in the pool.", {}},
    {Family::kKvBlocksUsed, "switchyard_kv_blocks_used", MetricType::Gauge, "KV blocks that running requests hold.", {}},
    {Family::kKvBlocksCached, "switchyard_kv_blocks_cached", MetricType::Gauge,
     "KV blocks that nobody holds but whose content can be reused.", {}},

    {Family::kRequestSuccess, "switchyard_request_success_total", MetricType::Counter,
     "Requests (choices) that ran to an end, by finish_reason; cancelled, deadline and error are failures.", {}},
    {Family::kRequestStatus, "switchyard_request_status_total", MetricType::Counter,
     "Calls of InferenceService and ExpertService that were answered, by grpc_code.", {}},
    {Family::kRejected, "switchyard_rejected_total", MetricType::Counter,
     "Generating calls that were refused before they were queued, by reason.", {}},
    {Family::kCancelled, "switchyard_cancelled_total", MetricType::Counter,
     "Requests whose client went away or that were aborted, by the phase they were in.", {}},
    {Family::kDeadline, "switchyard_deadline_total", MetricType::Counter,
     "Requests whose deadline passed, by the phase they were in.", {}},
    {Family::kPromptTokens, "switchyard_prompt_tokens_total", MetricType::Counter,
     "Prompt tokens of requests that started to run, reused ones included.", {}},
    {Family::kGenerationTokens, "switchyard_generation_tokens_total", MetricType::Counter, "Generated tokens.", {}},
    {Family::kPrefixCacheQueries, "switchyard_prefix_cache_queries_total", MetricType::Counter,
     "Prompt tokens that were looked up in the prefix cache.", {}},
    {Family::kPrefixCacheHits, "switchyard_prefix_cache_hits_total", MetricType::Counter,
     "Prompt tokens that were found in the prefix cache.", {}},
    {Family::kRecomputedTokens, "switchyard_recomputed_tokens_total", MetricType::Counter,
     "Tokens that ran again because of a preemption.", {}},
    {Family::kPreemptions, "switchyard_preemptions_total", MetricType::Counter,
     "Times a running request gave its KV blocks to others.", {}},
    {Family::kSteps, "switchyard_steps_total", MetricType::Counter, "Engine steps.", {}},
    {Family::kStepTokens, "switchyard_engine_tokens_total", MetricType::Counter,
     "Tokens that ran through the model, by kind (prefill, decode). Times experts per token and MoE layers, it is the "
     "sum of switchyard_moe_expert_tokens_total.", {}},
    {Family::kInternalErrors, "switchyard_internal_errors_total", MetricType::Counter,
     "Answers with INTERNAL or UNKNOWN: bugs of this server.", {}},
    {Family::kLogDropped, "switchyard_log_dropped_total", MetricType::Counter,
     "Log lines that were dropped because stderr did not take them.", {}},

    {Family::kTimeToFirstToken, "switchyard_time_to_first_token_seconds", MetricType::Histogram,
     "From admission to the first token.", kTtftEdges},
    {Family::kInterTokenLatency, "switchyard_inter_token_latency_seconds", MetricType::Histogram,
     "Between two tokens of a request.", kTokenLatencyEdges},
    {Family::kTimePerOutputToken, "switchyard_time_per_output_token_seconds", MetricType::Histogram,
     "Mean time per token after the first, per request.", kTokenLatencyEdges},
    {Family::kE2eLatency, "switchyard_e2e_request_latency_seconds", MetricType::Histogram,
     "From admission to the end of a request.", kRequestSecondsEdges},
    {Family::kQueueTime, "switchyard_request_queue_time_seconds", MetricType::Histogram,
     "From admission to the first step.", kRequestSecondsEdges},
    {Family::kPrefillTime, "switchyard_request_prefill_time_seconds", MetricType::Histogram,
     "From the first step to the first token.", kRequestSecondsEdges},
    {Family::kDecodeTime, "switchyard_request_decode_time_seconds", MetricType::Histogram,
     "From the first token to the end.", kRequestSecondsEdges},
    {Family::kRequestPromptTokens, "switchyard_request_prompt_tokens", MetricType::Histogram,
     "Prompt tokens per request.", kTokenCountEdges},
    {Family::kRequestGenerationTokens, "switchyard_request_generation_tokens", MetricType::Histogram,
     "Generated tokens per request.", kTokenCountEdges},
    {Family::kRequestPreemptions, "switchyard_request_preemptions", MetricType::Histogram,
     "Preemptions per request.", kPreemptionEdges},

    {Family::kStepSeconds, "switchyard_step_seconds", MetricType::Histogram, "Wall time of an engine step.",
     kStepSecondsEdges},
    {Family::kStepTokensHistogram, "switchyard_step_tokens", MetricType::Histogram, "Tokens per engine step.",
     kPerStepEdges},
    {Family::kStepSequences, "switchyard_step_sequences", MetricType::Histogram, "Requests per engine step.",
     kSequencesEdges},

    {Family::kExpertTokens, "switchyard_moe_expert_tokens_total", MetricType::Counter,
     "Rows that the expert computed, by layer and expert; padding and warm-up never count.", {}},
    {Family::kExpertBatchSeconds, "switchyard_moe_expert_batch_seconds", MetricType::Histogram,
     "Wall time of one expert's batch in one layer of one step, by expert, over all layers.", kExpertSecondsEdges},
    {Family::kExpertBatchRows, "switchyard_moe_expert_batch_rows", MetricType::Histogram,
     "Rows of one expert's batch in one layer of one step; experts without rows do not count.", kExpertRowsEdges},
    {Family::kLayerSeconds, "switchyard_moe_layer_seconds", MetricType::Histogram,
     "Wall time of a whole MoE layer in one step: routing, experts, combine, shared experts.", kExpertSecondsEdges},
    {Family::kLayerImbalance, "switchyard_moe_layer_imbalance_ratio", MetricType::Gauge,
     "Largest / mean rows per expert of the layer; 1 = even. " SWITCHYARD_WINDOW, {}},
    {Family::kLayerActiveExperts, "switchyard_moe_layer_active_experts", MetricType::Gauge,
     "Experts of the layer with at least one row. " SWITCHYARD_WINDOW, {}},
    {Family::kLayerMaxShare, "switchyard_moe_layer_max_share", MetricType::Gauge,
     "Largest share of the layer's rows that one expert got, 0 to 1. " SWITCHYARD_WINDOW, {}},
    {Family::kLayerEntropy, "switchyard_moe_layer_entropy", MetricType::Gauge,
     "Entropy of the experts' shares / ln(experts); 1 = even. " SWITCHYARD_WINDOW, {}},
    {Family::kLayerLoadBalanceLoss, "switchyard_moe_layer_load_balance_loss", MetricType::Gauge,
     "Experts * sum of share * mean router probability (Switch Transformer, eq. 4); 1 = even. " SWITCHYARD_WINDOW, {}},
    {Family::kLayerZLoss, "switchyard_moe_layer_router_z_loss", MetricType::Gauge,
     "Mean of logsumexp(router logits)^2 (ST-MoE, eq. 5). " SWITCHYARD_WINDOW, {}},
    {Family::kLayerDroppedTokens, "switchyard_moe_layer_dropped_tokens_total", MetricType::Counter,
     "Rows of the layer that no expert computed. This server drops none.", {}},
    {Family::kTopkExpert, "switchyard_moe_layer_top_expert", MetricType::Gauge,
     "Which expert has the rank-th most rows of the layer, rank 1 to 4. " SWITCHYARD_WINDOW, {}},
    {Family::kTopkShare, "switchyard_moe_layer_top_share", MetricType::Gauge,
     "Share of the layer's rows of the rank-th busiest expert, rank 1 to 4. " SWITCHYARD_WINDOW, {}},

    {Family::kStartSeconds, "switchyard_start_seconds", MetricType::Gauge, "Time that starting took, by phase.", {}},
    {Family::kBuildInfo, "switchyard_build_info", MetricType::Gauge,
     "Always 1; labels version and backend tell what runs.", {}},
    {Family::kProcessCpu, "process_cpu_seconds_total", MetricType::Counter, "User and system CPU time.", {}},
    {Family::kProcessResident, "process_resident_memory_bytes", MetricType::Gauge, "Resident memory.", {}},
    {Family::kProcessStartTime, "process_start_time_seconds", MetricType::Gauge, "Start time since the Unix epoch.", {}},
    {Family::kProcessOpenFds, "process_open_fds", MetricType::Gauge, "Open file descriptors.", {}},
    {Family::kProcessMaxFds, "process_max_fds", MetricType::Gauge, "Limit of open file descriptors.", {}},
    {Family::kProcessThreads, "process_threads", MetricType::Gauge, "Threads.", {}},
};

#undef SWITCHYARD_WINDOW

constexpr bool InEnumOrder() {
  for (size_t i = 0; i < std::size(kFamilies); ++i) {
    if (static_cast<size_t>(kFamilies[i].family) != i) return false;
  }
  return std::size(kFamilies) == static_cast<size_t>(Family::kNumFamilies);
}
static_assert(InEnumOrder());

}  // namespace

const FamilyInfo& InfoOf(Family family) { return kFamilies[static_cast<size_t>(family)]; }

}  // namespace switchyard
