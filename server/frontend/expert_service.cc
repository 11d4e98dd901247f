#include "server/frontend/expert_service.h"

#include <grpcpp/alarm.h>

#include <chrono>
#include <cmath>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/frontend/errors.h"
#include "server/frontend/proto_time.h"
#include "server/frontend/raw_message.h"
#include "server/frontend/unary_call.h"
#include "server/frontend/watch_reactor.h"

namespace switchyard {
namespace {

constexpr double kMinInterval = 0.05;
constexpr double kMaxInterval = 3600.0;
constexpr size_t kMaxWatchers = 64;  // each costs a message per interval, whether or not anything changed

void SetBalance(const LayerBalance& balance, v1::LayerBalance* out) {
  out->set_window_tokens(balance.window_tokens);
  out->set_imbalance_ratio(balance.imbalance_ratio);
  out->set_active_experts(balance.active_experts);
  out->set_max_share(balance.max_share);
  out->set_entropy(balance.entropy);
  out->set_load_balance_loss(balance.load_balance_loss);
  out->set_router_z_loss(balance.router_z_loss);
}

// What `now` has more than `before`; `before` may be empty (everything is new).
void SetLoad(const ModelFacts& facts, const std::vector<int32_t>& positions, const ExpertLoadTotals& now,
             const ExpertLoadTotals& before, v1::ExpertLoad* out) {
  const auto since = [](const auto& totals, const auto& earlier, size_t i) {
    return earlier.empty() ? totals[i] : totals[i] - earlier[i];
  };
  SetTime(std::chrono::system_clock::now(), out->mutable_time());
  out->set_num_tokens(now.num_tokens - before.num_tokens);
  out->set_num_steps(now.num_steps - before.num_steps);
  out->set_num_experts(facts.num_experts);
  out->set_top_k(facts.top_k);
  const size_t experts = static_cast<size_t>(facts.num_experts);
  for (int32_t position : positions) {
    const size_t layer = static_cast<size_t>(position);
    v1::LayerExpertLoad* entry = out->add_layers();
    entry->set_layer(facts.moe_layers[layer]);
    entry->set_seconds(since(now.layer_seconds, before.layer_seconds, layer));
    for (size_t cell = layer * experts; cell < (layer + 1) * experts; ++cell) {
      entry->add_tokens_per_expert(since(now.tokens, before.tokens, cell));
      entry->add_seconds_per_expert(since(now.seconds, before.seconds, cell));
    }
    entry->set_dropped_tokens(since(now.dropped, before.dropped, layer));
    SetBalance(now.balance[layer], entry->mutable_balance());
  }
}

double SecondsSince(TimePoint start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

// Sends at once and then at each interval. A timer that fires while the previous message is still being written sends
// when that is done.
class ExpertService::Watcher final : public WatchReactor {
 public:
  explicit Watcher(FrontendParts* parts) : WatchReactor(parts->metrics), parts_(parts) {}

  // REQUIRES: before Start.
  void Configure(const ServedModel* model, std::vector<int32_t> positions, double interval, bool delta) {
    model_ = model;
    positions_ = std::move(positions);
    interval_ = std::chrono::microseconds(std::llround(interval * 1e6));
    delta_ = delta;
  }

  void Start() {
    Poke();
    SetTimer();
  }

 private:
  grpc::ByteBuffer Produce() override {
    v1::ExpertLoad load;
    const auto now = parts_->metrics->ExpertSnapshot();
    SetLoad(model_->facts, positions_, *now, before_ == nullptr ? ExpertLoadTotals() : *before_, &load);
    SetDuration(SecondsSince(period_start_), load.mutable_period());
    if (delta_) {
      before_ = now;
      period_start_ = std::chrono::steady_clock::now();
    }
    return SerializeMessage(load);
  }

  void SetTimer() {
    if (ended()) return;
    alarm_.Set(std::chrono::system_clock::now() + interval_,
               [weak = std::weak_ptr<WatchReactor>(shared_from_this())](bool expired) {
                 const auto self = std::static_pointer_cast<Watcher>(weak.lock());
                 if (self == nullptr || !expired) return;
                 self->Poke();
                 self->SetTimer();
               });
  }

  FrontendParts* const parts_;
  const ServedModel* model_ = nullptr;
  std::vector<int32_t> positions_;
  std::chrono::microseconds interval_{1'000'000};
  bool delta_ = false;
  std::shared_ptr<const ExpertLoadTotals> before_;  // null: nothing yet; written by Produce only
  TimePoint period_start_ = parts_->start;
  grpc::Alarm alarm_;
};

ExpertService::~ExpertService() = default;

grpc::ServerUnaryReactor* ExpertService::GetExpertLoad(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return AnswerUnary<v1::GetExpertLoadRequest, v1::ExpertLoad>(
      context, *request, response, parts_->metrics, [this](const v1::GetExpertLoadRequest& in, v1::ExpertLoad* out) {
        ASSIGN_OR_RETURN(const ServedModel* model, parts_->LoadedModel());
        RETURN_IF_ERROR(CheckModelName(in.model(), model->limits));
        ASSIGN_OR_RETURN(const auto positions, MoeLayerPositions("layers", in.layers(), model->facts.moe_layers));
        SetLoad(model->facts, positions, *parts_->metrics->ExpertSnapshot(), ExpertLoadTotals(), out);
        SetDuration(SecondsSince(parts_->start), out->mutable_period());
        return absl::OkStatus();
      });
}

absl::Status ExpertService::PrepareWatch(const grpc::ByteBuffer& bytes, Watcher* watcher) const {
  v1::WatchExpertLoadRequest in;
  RETURN_IF_ERROR(ParseMessage(bytes, &in));
  ASSIGN_OR_RETURN(const ServedModel* model, parts_->AdmittingModel());
  RETURN_IF_ERROR(CheckModelName(in.model(), model->limits));
  ASSIGN_OR_RETURN(auto positions, MoeLayerPositions("layers", in.layers(), model->facts.moe_layers));
  double interval = 1.0;
  if (in.has_interval()) interval = static_cast<double>(in.interval().seconds()) + 1e-9 * in.interval().nanos();
  if (!(interval >= kMinInterval && interval <= kMaxInterval)) {
    return InvalidRequest("interval", "interval is out of range; use 0.05 s to 3,600 s");
  }
  watcher->Configure(model, std::move(positions), interval, in.delta());
  return absl::OkStatus();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ExpertService::WatchExpertLoad(grpc::CallbackServerContext*,
                                                                           const grpc::ByteBuffer* request) {
  auto watcher = std::make_shared<Watcher>(parts_);
  watcher->Begin();
  absl::Status prepared = PrepareWatch(*request, watcher.get());
  if (prepared.ok() && !AddWatcher(watcher)) {
    prepared = Overloaded("this server has " + std::to_string(kMaxWatchers) + " open watches, its limit",
                          "TOO_MANY_WATCHES", 5.0);
  }
  if (prepared.ok()) {
    watcher->Start();
  } else {
    watcher->End(prepared);
  }
  return watcher.get();
}

bool ExpertService::AddWatcher(const std::shared_ptr<Watcher>& watcher) {
  MutexLock lock(&mutex_);
  std::erase_if(watchers_, [](const auto& weak) { return weak.expired(); });
  if (watchers_.size() >= kMaxWatchers) return false;
  watchers_.push_back(watcher);
  return true;
}

void ExpertService::EndWatches() {
  std::vector<std::weak_ptr<Watcher>> watchers;
  {
    MutexLock lock(&mutex_);
    watchers = watchers_;
  }
  for (const auto& weak : watchers) {
    if (auto watcher = weak.lock()) watcher->End(parts_->EndedByServer());
  }
}

}  // namespace switchyard
