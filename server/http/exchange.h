// One POST for text, from its body to the end of its answer: a GenerationCall per prompt, all of whose answers share
// one HTTP answer. Knows nothing of sockets.
//
//   Begin(body) -> ReadOpenAiRequest (long bodies: TextWorker) -> GenerationCall per prompt --Item, its transport-->
//   events or choices -> AnswerSink::Send
//
// Nothing is sent before all prompts are queued and something was generated: until then a failure has a status of its
// own, which the client may retry. Later it is an event of the stream. One prompt that fails ends the others.
//
// Threads: all methods, any thread. Calls and sink are called without the lock.
#ifndef SWITCHYARD_SERVER_HTTP_EXCHANGE_H_
#define SWITCHYARD_SERVER_HTTP_EXCHANGE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/mutex.h"
#include "server/frontend/frontend_parts.h"
#include "server/http/answer.h"
#include "server/http/openai_answer.h"
#include "server/http/openai_request.h"

namespace switchyard::http {

class Exchange final : public std::enable_shared_from_this<Exchange> {
 public:
  // `parts` outlives the exchange. `request_id` is a valid one.
  Exchange(FrontendParts* parts, Endpoint endpoint, std::string request_id, std::shared_ptr<AnswerSink> sink);
  ~Exchange();

  // Call once; may answer before it returns.
  void Begin(std::string body);

  // Events of the connection.
  void OnSent(bool ok);  // the part that was to be sent
  void OnGone();         // the client left: what runs for it is cancelled, nothing more is sent

 private:
  class Item;

  void Start(absl::StatusOr<OpenAiRequest> request);
  absl::Status Accept(const OpenAiRequest& request);
  bool Skips();
  void Started(const std::shared_ptr<Item>& item);
  void Admitted();
  void Add(const std::shared_ptr<Item>& item, const std::string& events, bool last);
  absl::Status Keep(const std::string& choices);
  void Ended(const std::shared_ptr<Item>& item, const absl::Status& status);
  void BreakOff(TimePoint since);
  void Advance();
  void Release();
  bool MayAnswer() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AllEnded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  AnswerPart NextPart() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  AnswerHead Head(std::string content_type) const;
  AnswerPart WholeAnswer() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  v1::Usage TotalUsage() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  FrontendParts* const parts_;
  const Endpoint endpoint_;
  const std::string request_id_;
  AnswerFacts facts_;  // set before there are items

  Mutex mutex_;
  std::shared_ptr<AnswerSink> sink_ ABSL_GUARDED_BY(mutex_);  // until the end
  std::vector<std::shared_ptr<Item>> items_ ABSL_GUARDED_BY(mutex_);
  size_t num_admitted_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t num_ended_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);                          // the first one
  std::string events_ ABSL_GUARDED_BY(mutex_);                            // to be sent next
  std::vector<std::shared_ptr<Item>> unsent_ ABSL_GUARDED_BY(mutex_);     // whose events these are
  std::vector<std::shared_ptr<Item>> sending_ ABSL_GUARDED_BY(mutex_);    // whose events are on their way
  TimePoint in_flight_since_ ABSL_GUARDED_BY(mutex_) = TimePoint::max();  // of the part on its way; max: none is
  size_t num_kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;                     // of all items' choices
  bool head_sent_ ABSL_GUARDED_BY(mutex_) = false;
  bool last_sent_ ABSL_GUARDED_BY(mutex_) = false;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;  // the body was read
};

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_EXCHANGE_H_
