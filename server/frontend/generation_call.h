// One request for text, from the parsed message to its one status: a call of Generate or GenerateStream, or a request
// of another protocol that was turned into the same message. Knows no gRPC types: what it says to the client goes
// through a CallTransport, so that tests drive it with events in any order.
//
//   Start -> validate -> render a chat (TextWorker) -> tokenize (long texts: TextWorker) -> n Requests into the
//   RequestQueue -> headers serving loop -> TokenStream -> Announce -> StreamWriter -> WritePending -> transport
//
// Nothing is sent before all choices are queued: a refusal without headers is one that gRPC's clients may retry.
//
// Threads: all methods, any thread. `mutex_` orders reading the demand, polling the WriteSequencer, and cancelling; the
// transport is called without it.
#ifndef SWITCHYARD_SERVER_FRONTEND_GENERATION_CALL_H_
#define SWITCHYARD_SERVER_FRONTEND_GENERATION_CALL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/mutex.h"
#include "server/frontend/frontend_parts.h"
#include "server/frontend/open_calls.h"
#include "server/frontend/token_stream.h"
#include "server/frontend/write_sequencer.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

// The client's side of a call. One of SendRequestId, Write, WriteAndFinish, Respond, Finish at a time; after the last
// three, none.
class CallTransport {
 public:
  virtual ~CallTransport() = default;
  // Before any output, at most once.
  virtual void SendRequestId(const std::string& request_id) = 0;
  // Of streaming calls; answered by GenerationCall::OnWriteDone.
  virtual void Write(const v1::GenerateStreamResponse& message) = 0;
  // Of streaming calls; with status OK.
  virtual void WriteAndFinish(const v1::GenerateStreamResponse& message) = 0;
  // Of calls that answer once; with status OK.
  virtual void Respond(const v1::GenerateResponse& response) = 0;
  virtual void Finish(const absl::Status& status) = 0;
  // Breaks off a call whose client has read nothing since `since`, as far as the call knows: leads to
  // OnWriteDone(false) and OnCancel. No-op after the end.
  virtual void Break(TimePoint since) = 0;
};

class GenerationCall final : public OpenCall,
                             public StreamListener,
                             public StreamWriter::Stream,
                             public std::enable_shared_from_this<GenerationCall> {
 public:
  // `client_deadline`: TimePoint::max() for none. `parts` outlives the call.
  GenerationCall(FrontendParts* parts, bool streaming, TimePoint client_deadline);
  ~GenerationCall() override;

  // `metadata_id`: the caller's x-request-id, or "". Call once; may end in transport->Finish before it returns.
  void Start(std::shared_ptr<CallTransport> transport, v1::GenerateRequest request, const std::string& metadata_id);
  // Instead of Start, for a message that is no request: ends the call at once.
  void Refuse(std::shared_ptr<CallTransport> transport, const absl::Status& status);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void Abort() override;
  void EndUnavailable() override;
  void BreakIfStalled(TimePoint now, std::chrono::seconds stalled_for) override;

  void OnPending() override;
  void OnEnded() override;
  void WritePending() override;

 private:
  void PostChat(const ServedModel& model, v1::ChatPrompt chat, GenerationSpec spec);
  void PostText(const ServedModel& model, std::string text, GenerationSpec spec);
  void PostPrompt(size_t num_bytes, TextWorker::Job job);
  bool HasEnded() const;
  void AdmitChat(const ServedModel& model, const v1::ChatPrompt& chat, GenerationSpec spec);
  void AdmitText(const ServedModel& model, const std::string& text, GenerationSpec spec);
  void Admit(const ServedModel& model, std::vector<int32_t> prompt, GenerationSpec spec);
  absl::Status Enqueue(const ServedModel& model, std::vector<int32_t> prompt, const GenerationSpec& spec);
  std::shared_ptr<TokenStream> MakeStream(const ServedModel& model, size_t num_prompt_tokens,
                                          const GenerationSpec& spec, uint64_t seed);
  void Fail(const absl::Status& status);
  void EndWith(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsOver() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CancelRequests();
  void LogEnd(const absl::Status& status, const TokenStream* stream) const;
  WriteDemand Demand() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FinalStatus() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  FrontendParts* const parts_;
  const bool streaming_;
  const TimePoint arrival_;
  const TimePoint deadline_;
  std::string request_id_;  // set in Start, before anybody else sees the call

  mutable Mutex mutex_;
  std::shared_ptr<CallTransport> transport_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<TokenStream> stream_ ABSL_GUARDED_BY(mutex_);  // from just before the requests are queued
  RequestQueue* queue_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::vector<uint64_t> queued_ids_ ABSL_GUARDED_BY(mutex_);
  bool admitted_ ABSL_GUARDED_BY(mutex_) = false;  // all requests are queued: the client may hear of it
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);   // a refusal, or an end that does not come from the loop
  WriteSequencer sequencer_ ABSL_GUARDED_BY(mutex_);
  // Of the write or the end in flight, max: of none. A client that does not read holds up the last message and the
  // status just as any other.
  TimePoint write_started_ ABSL_GUARDED_BY(mutex_) = TimePoint::max();
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_GENERATION_CALL_H_
