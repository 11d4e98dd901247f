// What the calls of the frontend share: the model they serve, whether the server admits, and the helpers around them.
#ifndef SWITCHYARD_SERVER_FRONTEND_FRONTEND_PARTS_H_
#define SWITCHYARD_SERVER_FRONTEND_FRONTEND_PARTS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "engine/chat/chat_template.h"
#include "engine/engine.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/frontend/request_validation.h"
#include "server/frontend/stream_writer.h"
#include "server/frontend/text_worker.h"
#include "server/metrics/serving_metrics.h"
#include "server/scheduler/request_queue.h"
#include "server/scheduler/scheduler.h"

namespace switchyard {

class OpenCalls;

// The loaded model and the way to it. Fixed from the moment it is published; all pointers outlive the frontend.
struct ServedModel {
  ModelFacts facts;
  RequestLimits limits;
  SchedulerOptions scheduler;
  const Tokenizer* tokenizer = nullptr;  // null: an image classifier
  RequestQueue* queue = nullptr;
  const ChatTemplate* chat_template = nullptr;  // null: none
};

// A phase is never followed by an earlier one.
enum class ServingPhase : uint8_t { kStarting, kServing, kDraining, kEngineFailed };

struct FrontendLimits {
  double max_request_seconds = 600.0;
  int64_t stream_buffer_bytes = int64_t{1} << 20;
  int64_t max_message_bytes = int64_t{8} << 20;
  int32_t max_open_calls = 4096;
  int64_t max_num_queued_reqs = 256;  // of the request queue; so the most choices of one call, too
  int64_t max_num_queued_tokens = 262'144;
  std::string version;
};

// Thread-safe.
struct FrontendParts {
  FrontendLimits limits;
  TimePoint start = std::chrono::steady_clock::now();
  ServingMetrics* metrics = nullptr;
  StreamWriter* writer = nullptr;
  TextWorker* text_worker = nullptr;
  OpenCalls* open_calls = nullptr;
  // Published with release before the phase becomes kServing; null while starting.
  std::atomic<const ServedModel*> model{nullptr};
  std::atomic<ServingPhase> phase{ServingPhase::kStarting};
  std::atomic<uint64_t> next_request_id{1};

  // The model, or UNAVAILABLE: STARTING, DRAINING, ENGINE_FAILED.
  absl::StatusOr<const ServedModel*> AdmittingModel() const;
  // The model for calls that need no engine: also while draining. UNAVAILABLE: STARTING.
  absl::StatusOr<const ServedModel*> LoadedModel() const;
  // Why the loop ends requests that could have gone on.
  absl::Status EndedByServer() const;
  // Why the text worker took no job: RESOURCE_EXHAUSTED TOKENIZER_BUSY, or UNAVAILABLE when the server admits no more.
  absl::Status TextWorkerRefused() const;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_FRONTEND_PARTS_H_
