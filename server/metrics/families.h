// Every metric family of the server in one table: name, type, help, edges.
//
// Prefix `switchyard_`, base units, label `model_name` on everything but process_*. Further labels are listed per
// family and come from fixed sets (finish reasons, gRPC codes, layers, experts), never from a client. Every series
// exists from the moment its label values are known, with value 0.
#ifndef SWITCHYARD_SERVER_METRICS_FAMILIES_H_
#define SWITCHYARD_SERVER_METRICS_FAMILIES_H_

#include <array>
#include <span>

#include <prometheus/metric_type.h>

namespace switchyard {

enum class Family : int {
  // What the Kubernetes inference gateway reads.
  kRequestsWaiting,
  kRequestsRunning,
  kKvCacheUsage,
  kCacheConfig,
  // Now.
  kReady,
  kOpenCalls,
  kWaitingTokens,
  kOldestWaiting,
  kKvBlocks,
  kKvBlocksUsed,
  kKvBlocksCached,
  // Since the start.
  kRequestSuccess,
  kRequestStatus,
  kRejected,
  kCancelled,
  kDeadline,
  kPromptTokens,
  kGenerationTokens,
  kPrefixCacheQueries,
  kPrefixCacheHits,
  kRecomputedTokens,
  kPreemptions,
  kSteps,
  kStepTokens,
  kInternalErrors,
  kLogDropped,
  kConnectionsRefused,
  kCredentialReloads,
  kCertificateExpiry,
  // Per request.
  kTimeToFirstToken,
  kInterTokenLatency,
  kTimePerOutputToken,
  kE2eLatency,
  kQueueTime,
  kPrefillTime,
  kDecodeTime,
  kRequestPromptTokens,
  kRequestGenerationTokens,
  kRequestPreemptions,
  // Per step.
  kStepSeconds,
  kStepTokensHistogram,
  kStepSequences,
  kExpertGemmLayers,
  // Experts.
  kExpertTokens,
  kExpertBatchSeconds,
  kExpertBatchRows,
  kLayerSeconds,
  kLayerImbalance,
  kLayerActiveExperts,
  kLayerMaxShare,
  kLayerEntropy,
  kLayerLoadBalanceLoss,
  kLayerZLoss,
  kLayerDroppedTokens,
  kTopkExpert,
  kTopkShare,
  // The process.
  kStartSeconds,
  kWeightsNonfinite,
  kBuildInfo,
  kProcessCpu,
  kProcessResident,
  kProcessStartTime,
  kProcessOpenFds,
  kProcessMaxFds,
  kProcessThreads,
  kNumFamilies
};

struct FamilyInfo {
  Family family;
  const char* name;
  prometheus::MetricType type;
  const char* help;
  std::span<const double> edges;  // histograms only: upper bounds without +Inf
};

// The row of `family`; rows stand in the order of the enum.
const FamilyInfo& InfoOf(Family family);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_FAMILIES_H_
