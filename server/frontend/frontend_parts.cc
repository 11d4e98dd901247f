#include "server/frontend/frontend_parts.h"

#include "server/frontend/errors.h"

namespace switchyard {

absl::StatusOr<const ServedModel*> FrontendParts::LoadedModel() const {
  const ServedModel* loaded = model.load(std::memory_order_acquire);
  if (loaded == nullptr)
    return Unavailable("the server is starting; retry when its health check says SERVING", "STARTING");
  return loaded;
}

absl::StatusOr<const ServedModel*> FrontendParts::AdmittingModel() const {
  const ServingPhase now = phase.load(std::memory_order_acquire);
  if (now == ServingPhase::kDraining || now == ServingPhase::kEngineFailed) return EndedByServer();
  if (now == ServingPhase::kStarting) {
    return Unavailable("the server is starting; retry when its health check says SERVING", "STARTING");
  }
  return LoadedModel();
}

absl::Status FrontendParts::EndedByServer() const {
  if (phase.load(std::memory_order_acquire) == ServingPhase::kDraining) {
    return Unavailable("the server is shutting down; retry on another replica", "DRAINING");
  }
  return Unavailable("the engine failed; retry on another replica", "ENGINE_FAILED");
}

absl::Status FrontendParts::TextWorkerRefused() const {
  const auto admitting = AdmittingModel();
  if (!admitting.ok()) return admitting.status();
  return Overloaded("too many long texts wait to be tokenized", "TOKENIZER_BUSY", 0.5);
}

}  // namespace switchyard
