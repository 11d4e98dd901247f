// One call of ModelStreamInfer: many requests whose answers share one stream. Knows no gRPC types.
//
//   message -> OnRequest -> GenerationCall or ClassificationCall --Item, its transport--> queue of messages -> write
//
// At most kMaxRequests run at a time: the next message is read when one has ended, so that a client which sends faster
// is held up by its own flow control. A call has one message under way, so the queue is as short. A request
// that fails ends with an error message, the others go on.
//
// Threads: all methods, any thread. Calls and transport are called without the lock.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_INFER_STREAM_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_INFER_STREAM_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/mutex.h"
#include "inference/grpc_service.pb.h"
#include "server/frontend/frontend_parts.h"
#include "server/frontend/kserve/image_request.h"
#include "server/frontend/kserve/text_request.h"

namespace switchyard::kserve {

class InferStream final : public std::enable_shared_from_this<InferStream> {
 public:
  static constexpr size_t kMaxRequests = 64;

  // The client's side. One Read and one Write at a time; nothing after Finish.
  class Transport {
   public:
    virtual ~Transport() = default;
    virtual void Read() = 0;  // answered by OnRequest or OnRequestsEnd
    virtual void Write(const inference::ModelStreamInferResponse& message) = 0;  // answered by OnWriteDone
    virtual void Finish(const absl::Status& status) = 0;                         // answered by OnDone
    virtual void Break() = 0;  // breaks the call off: leads to OnWriteDone(false) and OnCancel. No-op after the end.
  };

  struct Options {
    TimePoint deadline = TimePoint::max();
    std::string metadata_id;         // the caller's x-request-id, for requests without an id
    bool errors_end_stream = false;  // the first request that fails ends the call with its status
  };

  // `parts` outlives the stream.
  InferStream(FrontendParts* parts, Options options);
  ~InferStream();

  // Call once.
  void Start(std::shared_ptr<Transport> transport);
  // No more requests: ends with `status` when what runs has ended and is written. The first one counts, unless the
  // client had sent all before. Before Start, too.
  void End(const absl::Status& status);
  // To be called every few seconds: breaks the stream off if its client has left a message or the end unread for
  // `stalled_for`; ends it as UNAVAILABLE if it had no open request for `idle_for`.
  void Sweep(TimePoint now, std::chrono::seconds stalled_for, std::chrono::seconds idle_for);

  // Events of the transport.
  void OnRequest(const absl::StatusOr<inference::ModelInferRequest>& request);
  void OnRequestsEnd();  // the client sends no more
  void OnWriteDone(bool ok);
  void OnCancel();
  void OnDone();

 private:
  class Item;
  class TextItem;
  class ImageItem;
  struct Outgoing {
    std::shared_ptr<Item> item;
    inference::ModelStreamInferResponse message;
    bool last = false;  // of its request
  };
  enum class Action : uint8_t { kNothing, kRead, kWrite, kFinish };

  void Run(const absl::StatusOr<inference::ModelInferRequest>& request, absl::StatusOr<TextRequest> text);
  void Run(const absl::StatusOr<inference::ModelInferRequest>& request, absl::StatusOr<ImageRequest> images);
  static std::string IdOf(const absl::StatusOr<inference::ModelInferRequest>& request);
  TimePoint DeadlineOf(std::optional<std::chrono::microseconds> timeout) const;
  bool Open(const std::shared_ptr<Item>& item);
  void Started(const std::shared_ptr<Item>& item);
  void Push(Outgoing outgoing);
  void Fail(const std::shared_ptr<Item>& item, const absl::Status& status);
  void Written(const Outgoing& outgoing, bool ok);
  void DropAll();
  void Advance();
  bool TakesRequests() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Action Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FinalStatus() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  FrontendParts* const parts_;
  const Options options_;

  mutable Mutex mutex_;
  std::shared_ptr<Transport> transport_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Item>> open_ ABSL_GUARDED_BY(mutex_);  // requests that have not ended
  std::deque<Outgoing> queue_ ABSL_GUARDED_BY(mutex_);
  Outgoing writing_ ABSL_GUARDED_BY(mutex_);                            // item null: no write in flight
  TimePoint write_started_ ABSL_GUARDED_BY(mutex_) = TimePoint::max();  // of the write or the end in flight
  TimePoint idle_since_ ABSL_GUARDED_BY(mutex_) = std::chrono::steady_clock::now();  // counts while open_ is empty
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;                                     // a read is in flight
  bool read_call_ ABSL_GUARDED_BY(mutex_) = false;  // some thread is inside transport->Read: no Finish beside it
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool dropping_ ABSL_GUARDED_BY(mutex_) = false;  // nobody reads answers any more
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);  // not OK: no more requests
};

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_INFER_STREAM_H_
