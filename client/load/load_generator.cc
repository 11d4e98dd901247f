#include "client/load/load_generator.h"

#include <grpc/support/time.h>
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <unordered_set>
#include <utility>

#include "client/channel.h"
#include "switchyard/v1/inference_service.grpc.pb.h"

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kProgressSeconds = 0.1;

double ProcessCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

v1::GenerateRequest ToRequest(const PlannedRequest& planned, const LoadOptions& options) {
  v1::GenerateRequest request;
  if (planned.text.empty()) {
    *request.mutable_token_ids()->mutable_ids() = {planned.token_ids.begin(), planned.token_ids.end()};
  } else {
    request.set_text(planned.text);
  }
  request.set_max_tokens(planned.output_len);
  request.set_temperature(options.temperature);
  request.set_seed(planned.seed);
  request.set_ignore_eos(options.ignore_eos);
  return request;
}

// One open request; its address is the tag of its only outstanding operation.
struct Call {
  enum class Waiting { kStart, kMessage, kStatus };

  size_t record = 0;
  Waiting waiting = Waiting::kStart;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateStreamResponse>> reader;
  v1::GenerateStreamResponse message;
  grpc::Status status;
};

class Generator {
 public:
  Generator(const std::vector<PlannedRequest>& plan, const LoadOptions& options,
            const std::function<void(const LoadProgress&)>& on_progress, const std::atomic<bool>* stop)
      : plan_(plan), options_(options), on_progress_(on_progress), stop_(stop) {}

  ~Generator() {
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  absl::Status Connect() {
    for (int i = 0; i < std::max(options_.num_connections, 1); ++i) {
      ClientOptions client = options_.client;
      client.own_connection = options_.num_connections > 1;
      absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = CreateChannel(client);
      if (!channel.ok()) return channel.status();
      // A handshake is not part of a request's latency. If it fails, the requests say so.
      (*channel)->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(2));
      stubs_.push_back(v1::InferenceService::NewStub(*channel));
    }
    return absl::OkStatus();
  }

  LoadRun Run() {
    const double cpu_before = ProcessCpuSeconds();
    start_ = Clock::now();
    while (!Finished()) {
      SendDueRequests();
      WaitForEvent();
      StopIfAsked();
      ReportProgress();
    }
    run_.duration = Now();
    run_.cpu_seconds = ProcessCpuSeconds() - cpu_before;
    return std::move(run_);
  }

 private:
  double Now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  bool Finished() const { return open_.empty() && next_ == plan_.size(); }

  bool MayOpenAnother() const {
    return options_.max_concurrency <= 0 || open_.size() < static_cast<size_t>(options_.max_concurrency);
  }

  void SendDueRequests() {
    while (next_ < plan_.size() && MayOpenAnother() && plan_[next_].send_seconds <= Now()) Send(plan_[next_++]);
  }

  void Send(const PlannedRequest& planned) {
    auto* call = new Call;  // deleted when its status has come
    call->record = run_.records.size();
    PrepareContext(options_.client, {.timeout = options_.request_timeout}, &call->context);
    const v1::GenerateRequest request = ToRequest(planned, options_);
    RequestRecord& record = run_.records.emplace_back();
    record.scheduled = planned.send_seconds;
    // Random prompts have known lengths; for texts the server tells.
    record.prompt_tokens = static_cast<int64_t>(planned.token_ids.size());
    record.gaps.reserve(static_cast<size_t>(planned.output_len));
    record.sent = Now();
    const auto& stub = stubs_[call->record % stubs_.size()];
    call->reader = stub->PrepareAsyncGenerateStream(&call->context, request, &queue_);
    call->reader->StartCall(call);
    open_.insert(call);
    run_.peak_concurrency = std::max(run_.peak_concurrency, static_cast<int64_t>(open_.size()));
  }

  void WaitForEvent() {
    double until = Now() + kProgressSeconds;
    if (next_ < plan_.size() && MayOpenAnother()) until = std::min(until, plan_[next_].send_seconds);
    const double seconds = std::max(until - Now(), 0.0);
    const gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                               gpr_time_from_nanos(static_cast<int64_t>(seconds * 1e9), GPR_TIMESPAN));
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok, deadline) == grpc::CompletionQueue::GOT_EVENT) {
      OnEvent(static_cast<Call*>(tag), ok);
    }
  }

  // `ok` is false when the call has ended; the status then tells how.
  void OnEvent(Call* call, bool ok) {
    switch (call->waiting) {
      case Call::Waiting::kMessage:
        if (ok) OnMessage(call);
        [[fallthrough]];
      case Call::Waiting::kStart:
        if (ok) {
          call->waiting = Call::Waiting::kMessage;
          call->reader->Read(&call->message, call);
        } else {
          call->waiting = Call::Waiting::kStatus;
          call->reader->Finish(&call->status, call);
        }
        break;
      case Call::Waiting::kStatus:
        OnEnd(call);
        break;
    }
  }

  void OnMessage(Call* call) {
    RequestRecord& record = run_.records[call->record];
    for (const v1::ChoiceDelta& delta : call->message.choices()) {
      AddTokens(Now(), delta.token_ids_size(), &record);
      progress_.output_tokens += delta.token_ids_size();
    }
    if (call->message.has_prompt()) record.prompt_tokens = call->message.prompt().prompt_tokens();
  }

  void OnEnd(Call* call) {
    RequestRecord& record = run_.records[call->record];
    record.ended = Now();
    record.status = ToAbslStatus(call->status);
    ++progress_.ended;
    progress_.failed += record.status.ok() ? 0 : 1;
    open_.erase(call);
    delete call;
  }

  void StopIfAsked() {
    if (stopped_ || stop_ == nullptr || !stop_->load(std::memory_order_relaxed)) return;
    stopped_ = true;
    next_ = plan_.size();
    for (Call* call : open_) call->context.TryCancel();
  }

  void ReportProgress() {
    const double now = Now();
    if (!on_progress_ || now < next_report_) return;
    next_report_ = now + kProgressSeconds;
    progress_.elapsed_seconds = now;
    progress_.running = static_cast<int64_t>(open_.size());
    on_progress_(progress_);
  }

  const std::vector<PlannedRequest>& plan_;
  const LoadOptions& options_;
  const std::function<void(const LoadProgress&)>& on_progress_;
  const std::atomic<bool>* const stop_;  // a flag only: nothing else is read through it

  grpc::CompletionQueue queue_;
  std::vector<std::unique_ptr<v1::InferenceService::Stub>> stubs_;
  Clock::time_point start_;
  size_t next_ = 0;  // in plan_
  std::unordered_set<Call*> open_;
  LoadRun run_;
  LoadProgress progress_;
  double next_report_ = 0;
  bool stopped_ = false;
};

}  // namespace

absl::StatusOr<LoadRun> RunLoad(const std::vector<PlannedRequest>& plan, const LoadOptions& options,
                                const std::function<void(const LoadProgress&)>& on_progress,
                                const std::atomic<bool>* stop) {
  Generator generator(plan, options, on_progress, stop);
  if (absl::Status status = generator.Connect(); !status.ok()) return status;
  return generator.Run();
}

}  // namespace switchyard
