// One request to classify images, from the checked request to its one status. Knows no gRPC types.
//
//   Start -> one Request per image, queued together -> serving loop -> ImageSink -> StreamWriter -> transport
//
// The loop batches images of all requests; an image's logits do not depend on the others.
//
// Threads: all methods, any thread. The transport is called without the lock.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_CLASSIFICATION_CALL_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_CLASSIFICATION_CALL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/mutex.h"
#include "server/frontend/frontend_parts.h"
#include "server/frontend/kserve/image_request.h"
#include "server/frontend/open_calls.h"

namespace switchyard::kserve {

// The client's side of a call: told once, by Respond (with status OK) or Finish.
class ClassificationTransport {
 public:
  virtual ~ClassificationTransport() = default;
  virtual void Respond(const std::string& request_id, const Classification& classification) = 0;
  virtual void Finish(const absl::Status& status) = 0;
  // Breaks off a call whose client does not read. No-op after the end.
  virtual void Break() = 0;
};

class ClassificationCall final : public OpenCall,
                                 public StreamWriter::Stream,
                                 public std::enable_shared_from_this<ClassificationCall> {
 public:
  // `client_deadline`: TimePoint::max() for none. `parts` outlives the call.
  ClassificationCall(FrontendParts* parts, TimePoint client_deadline);

  // `metadata_id`: the caller's x-request-id, or "". Call once; may end before it returns.
  void Start(std::shared_ptr<ClassificationTransport> transport, ImageRequest request, const std::string& metadata_id);
  // Instead of Start, for what is no request.
  void Refuse(std::shared_ptr<ClassificationTransport> transport, const absl::Status& status);

  void OnWriteDone(bool) override {}
  void OnCancel() override;
  void OnDone() override;
  void Abort() override;
  void EndUnavailable() override;
  void BreakIfStalled(TimePoint now, std::chrono::seconds stalled_for) override;

  void WritePending() override;  // all images have ended

 private:
  class ImageSink;

  absl::Status Enqueue(const ServedModel& model, ImageRequest request);
  void OnImage(size_t index, const std::vector<float>& logits);
  void OnImageEnded(TerminalStatus status);
  void CancelRequests();
  void Fail(const absl::Status& status);
  void End(const absl::Status& status);

  FrontendParts* const parts_;
  const TimePoint arrival_;
  const TimePoint deadline_;
  std::string request_id_;  // set in Start, before anybody else sees the call

  Mutex mutex_;
  std::shared_ptr<ClassificationTransport> transport_ ABSL_GUARDED_BY(mutex_);
  RequestQueue* queue_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::vector<uint64_t> queued_ids_ ABSL_GUARDED_BY(mutex_);
  Classification classification_ ABSL_GUARDED_BY(mutex_);
  size_t num_running_ ABSL_GUARDED_BY(mutex_) = 0;                                // images that have not ended
  TerminalStatus terminal_status_ ABSL_GUARDED_BY(mutex_) = TerminalStatus::kOk;  // the first that is not kOk
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;                                    // the transport was told
  TimePoint ended_at_ ABSL_GUARDED_BY(mutex_) = TimePoint::max();
};

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_CLASSIFICATION_CALL_H_
