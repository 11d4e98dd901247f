// switchyard-server: flags -> engine -> serving loop -> gRPC -> admin port, signals, drain. Nothing else.
//
// Exit codes: 0 asked to stop, 2 bad options or model, 3 not enough memory, 70 the engine failed at run time,
// 128 + n a second signal n during the drain.
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "engine/base/status_macros.h"
#include "engine/chat/chat_template.h"
#include "engine/config/model_config.h"
#include "engine/engine.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/vision/vision_config.h"
#include "server/byte_tokenizer.h"
#include "server/doors.h"
#include "server/frontend/step_observer.h"
#include "server/log.h"
#include "server/metrics/admin_server.h"
#include "server/metrics/serving_metrics.h"
#include "server/metrics/status_page.h"
#include "server/options.h"
#include "server/scheduler/request_queue.h"
#include "server/scheduler/serving_loop.h"

namespace switchyard {
namespace {

constexpr int kExitBadStart = 2;
constexpr int kExitNoMemory = 3;
constexpr int kExitEngineFailed = 70;
constexpr int kLoadedSignal = SIGUSR1;                // to ourselves: the loader is done
constexpr int kEngineDeadSignal = SIGUSR2;            // to ourselves: the probe found the engine dead
constexpr std::chrono::milliseconds kFlushTime{800};  // after the drain, for last messages to reach their clients

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// ---------------------------------------------------------------------------------------------------- the process

sigset_t HandledSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGTERM, SIGINT, kLoadedSignal, kEngineDeadSignal}) sigaddset(&set, signal);
  return set;
}

// Before any thread starts, so that all inherit it: signals come to WaitForSignal only.
void PrepareProcess() {
  const sigset_t set = HandledSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
}

int WaitForSignal() {
  const sigset_t set = HandledSignals();
  int signal = 0;
  while (sigwait(&set, &signal) != 0) {
  }
  return signal;
}

void LogSignal(int signal, const char* what) {
  Log(LogLevel::kInfo, what, {{"signal", signal == SIGINT ? "SIGINT" : "SIGTERM"}});
}

// From here on a signal ends the process at once.
void ExitOnNextSignal() {
  std::thread([] {
    int signal = WaitForSignal();
    while (signal != SIGTERM && signal != SIGINT) signal = WaitForSignal();
    LogSignal(signal, "second_signal");
    _exit(128 + signal);
  }).detach();
}

int Refuse(const absl::Status& status) {
  Log(LogLevel::kError, "cannot_start", {{"code", absl::StatusCodeToString(status.code())}});
  const bool no_memory = absl::IsResourceExhausted(status);
  std::fprintf(stderr, "switchyard-server: %s%s\n", std::string(status.message()).c_str(),
               no_memory ? "; lower --kv-cache-memory, --max-num-seqs or --max-num-batched-tokens" : "");
  return no_memory ? kExitNoMemory : kExitBadStart;
}

// ------------------------------------------------------------------------------------------------------ the model

struct LoadedModel {
  std::unique_ptr<Tokenizer> tokenizer;               // null: an image classifier
  std::unique_ptr<const ChatTemplate> chat_template;  // null: none
  std::unique_ptr<Engine> engine;
  double tokenizer_seconds = 0.0;
  double engine_seconds = 0.0;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const ModelOptions& options) {
  auto tokenizer = Tokenizer::Load(options.model + "/tokenizer.json");
  // Random weights need no tokenizer of their own.
  if (absl::IsNotFound(tokenizer.status()) && options.load_format == "dummy")
    return Tokenizer::Parse(ByteTokenizerJson());
  return tokenizer;
}

// A model whose template cannot be used still completes text; who asks it to chat is told.
std::unique_ptr<const ChatTemplate> LoadChatTemplate(const ModelOptions& options) {
  auto chat_template = ChatTemplate::Load(options.model);
  if (chat_template.ok()) return *std::move(chat_template);
  if (!absl::IsNotFound(chat_template.status())) {
    Log(LogLevel::kWarning, "chat_template_refused", {{"reason", std::string(chat_template.status().message())}});
  }
  return nullptr;
}

EngineOptions ToEngineOptions(const ServerOptions& options) {
  EngineOptions engine;
  engine.model_dir = options.model.model;
  engine.load_format = options.model.load_format == "dummy" ? LoadFormat::kDummy : LoadFormat::kSafetensors;
  engine.dtype = options.model.dtype;
  engine.quantization = options.model.quantization;
  engine.device = options.device.device;
  engine.seed = static_cast<uint64_t>(options.model.seed);
  engine.num_threads = options.device.num_threads;
  engine.cpu_isa = options.device.cpu_isa;
  engine.expert_gemm = options.device.expert_gemm;
  engine.expert_gemm_table = options.device.expert_gemm_table;
  engine.gpu_memory_utilization = options.device.gpu_memory_utilization;
  engine.max_model_len = options.model.max_model_len;
  engine.max_num_seqs = options.scheduling.max_num_seqs;
  engine.max_num_batched_tokens = options.scheduling.max_num_batched_tokens;
  engine.block_size = options.scheduling.block_size;
  engine.kv_cache_bytes = options.scheduling.kv_cache_memory;
  engine.expert_capacity = options.model.expert_capacity;
  return engine;
}

// A contradiction that only the model's config shows, found before its weights are read.
absl::Status CheckStepSize(const ServerOptions& options) {
  const SchedulingOptions& scheduling = options.scheduling;
  if (scheduling.enable_chunked_prefill) return absl::OkStatus();
  ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(options.model.model));
  const int64_t max_model_len =
      options.model.max_model_len > 0 ? options.model.max_model_len : config.max_position_embeddings;
  const int64_t needed = max_model_len + scheduling.max_num_seqs;
  if (scheduling.max_num_batched_tokens >= needed) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "--max-num-batched-tokens is " + std::to_string(scheduling.max_num_batched_tokens) +
      ", but with --no-enable-chunked-prefill a prompt of " + std::to_string(max_model_len) +
      " tokens and one token for each of --max-num-seqs " + std::to_string(scheduling.max_num_seqs) +
      " must fit into one step; use at least " + std::to_string(needed) + ", or lower --max-model-len");
}

absl::StatusOr<LoadedModel> LoadModel(const ServerOptions& options) {
  LoadedModel model;
  const auto start = Clock::now();
  EngineOptions engine = ToEngineOptions(options);
  if (!HoldsImageClassifier(options.model.model)) {
    RETURN_IF_ERROR(CheckStepSize(options));
    ASSIGN_OR_RETURN(model.tokenizer, LoadTokenizer(options.model));
    model.chat_template = LoadChatTemplate(options.model);
    engine.num_tokenizer_ids = model.tokenizer->vocab_size();
  }
  model.tokenizer_seconds = SecondsSince(start);
  const auto engine_start = Clock::now();
  ASSIGN_OR_RETURN(model.engine, CreateEngine(engine));
  model.engine_seconds = SecondsSince(engine_start);
  return model;
}

SchedulerOptions ToSchedulerOptions(const ServerOptions& options, const ModelFacts& facts) {
  SchedulerOptions scheduler;
  scheduler.max_num_seqs = options.scheduling.max_num_seqs;
  scheduler.max_num_batched_tokens = options.scheduling.max_num_batched_tokens;
  scheduler.block_size = facts.block_size;
  scheduler.num_kv_blocks = facts.num_kv_blocks;
  scheduler.max_model_len = facts.max_model_len;
  scheduler.priority_step = PriorityStep(options.grpc.max_request_seconds);
  const bool by_priority = options.scheduling.scheduling_policy == "priority";
  scheduler.policy = by_priority ? SchedulingPolicy::kPriority : SchedulingPolicy::kFcfs;
  const bool has_encoder = facts.num_encoder_layers > 0;
  scheduler.enable_prefix_caching = options.scheduling.enable_prefix_caching && !has_encoder;
  // An encoder's prompt cannot come in pieces, so it may be as long as a step beside decodes, too.
  if (has_encoder) scheduler.max_prefill_tokens_while_decoding = scheduler.max_num_batched_tokens;
  scheduler.enable_chunked_prefill = options.scheduling.enable_chunked_prefill;
  if (!facts.is_classifier()) return scheduler;
  // Whole images, as many per step as the engine has places for; none resembles another's beginning.
  scheduler.max_num_seqs = facts.num_kv_blocks;
  scheduler.max_num_batched_tokens = facts.num_kv_blocks * (facts.max_model_len + 1);
  scheduler.enable_prefix_caching = false;
  scheduler.enable_chunked_prefill = false;
  scheduler.max_preemptions = 0;  // they end with the step, so none needs room to grow
  return scheduler;
}

RequestLimits ToRequestLimits(const ModelOptions& options, const ModelFacts& facts, const SchedulerOptions& scheduler) {
  RequestLimits limits;
  limits.served_model_name = options.served_model_name;
  limits.vocab_size = facts.vocab_size;
  limits.max_model_len = scheduler.max_model_len;
  limits.eos_token_ids = facts.eos_token_ids;
  std::copy_if(facts.moe_layers.begin(), facts.moe_layers.end(), std::back_inserter(limits.moe_layers),
               [&facts](int32_t layer) { return layer >= facts.num_encoder_layers; });
  limits.decoder_start_token_id = facts.decoder_start_token_id;
  limits.defaults = facts.sampling_defaults;
  return limits;
}

// ---------------------------------------------------------------------------------------------------- the serving

AdminServer::Pages AdminPages(const ServingMetrics& metrics, const Frontend& frontend) {
  return {
      {"/", [] { return StatusPage(); }},
      {"/metrics",
       [&metrics] {
         return AdminPage{200, "text/plain; version=0.0.4; charset=utf-8", metrics.Scrape()};
       }},
      {"/livez",
       [&frontend] {
         return frontend.healthy() ? AdminPage{.body = "ok\n"} : AdminPage{503, "text/plain", "engine failed\n"};
       }},
      {"/readyz",
       [&frontend] {
         return frontend.serving() ? AdminPage{.body = "ok\n"} : AdminPage{503, "text/plain", "not serving\n"};
       }},
      {"/version",
       [] {
         return AdminPage{200, "application/json", "{\"version\":\"" + SoftwareVersion() + "\"}\n"};
       }},
  };
}

// True while the loop works or idles; otherwise wakes main, which ends the process.
std::function<bool()> EngineAlive(const ServingLoop& loop, double stall_timeout) {
  return [&loop, stall_timeout] {
    if (loop.Alive(std::chrono::duration<double>(stall_timeout))) return true;
    kill(getpid(), kEngineDeadSignal);
    return false;
  };
}

void LogServing(const ServerOptions& options, const ModelFacts& facts, const Doors& doors, const AdminServer& admin,
                const LoadedModel& model, double total_seconds) {
  Log(LogLevel::kInfo, "serving",
      {{"model", options.model.served_model_name},
       {"architecture", facts.architecture},
       {"backend", facts.backend},
       {"backend_reason", facts.backend_reason},
       {"dtype", DTypeName(facts.dtype)},
       {"expert_dtype", facts.expert_dtype},
       {"weight_bytes", facts.weight_bytes},
       {"parameters", facts.num_parameters},
       {"weights_nonfinite", facts.num_nonfinite_weights},
       {"experts", facts.num_experts},
       {"top_k", facts.top_k},
       {"max_model_len", facts.max_model_len},
       {"kv_blocks", facts.num_kv_blocks},
       {"block_size", facts.block_size},
       {"port", doors.frontend->port()},
       {"http_port", doors.http == nullptr ? -1 : doors.http->port()},
       {"admin_port", admin.port()},
       {"chat_template", model.chat_template != nullptr},
       {"tokenizer_seconds", model.tokenizer_seconds},
       {"engine_seconds", model.engine_seconds},
       {"start_seconds", total_seconds},
       {"version", SoftwareVersion()}});
}

// The loop may hang in the engine for ever, so nothing is waited for but the calls, and nothing is destroyed.
[[noreturn]] void StopAfterFailure(const ServingLoop& loop, Doors* doors, Clock::time_point deadline) {
  const std::string reason =
      loop.healthy() ? "the engine makes no progress" : std::string(loop.engine_failure().message());
  Log(LogLevel::kError, "engine_failed", {{"reason", reason}});
  doors->Shutdown(deadline);
  _exit(kExitEngineFailed);
}

// Returns when all is done well. Clients have until the limit to read what was generated for them.
void DrainAndStop(double shutdown_timeout, ServingLoop* loop, Doors* doors) {
  const auto start = Clock::now();
  const auto limit =
      start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(shutdown_timeout));
  doors->frontend->BeginDraining();
  ExitOnNextSignal();
  const bool ended = loop->Drain(limit);
  const auto deadline = std::max(Clock::now(), limit) + kFlushTime;
  if (!ended || !loop->healthy()) StopAfterFailure(*loop, doors, deadline);
  doors->Shutdown(deadline);
  Log(LogLevel::kInfo, "stopped", {{"drain_seconds", SecondsSince(start)}});
}

int Serve(const ServerOptions& options) {
  const auto start = Clock::now();
  // The frontend uses all of these until it is gone.
  absl::StatusOr<LoadedModel> model = absl::UnknownError("not loaded");
  RequestQueue queue(options.scheduling.max_num_queued_reqs, options.scheduling.max_num_queued_tokens);
  ServingMetrics metrics(options.model.served_model_name, SoftwareVersion());
  absl::StatusOr<Doors> doors = OpenDoors(options, &metrics);
  if (!doors.ok()) return Refuse(doors.status());
  Frontend* const frontend = doors->frontend.get();
  auto admin = AdminServer::Listen(options.admin.admin_host, options.admin.admin_port, AdminPages(metrics, *frontend));
  if (!admin.ok()) return Refuse(admin.status());

  std::thread loader([&] {
    model = LoadModel(options);
    kill(getpid(), kLoadedSignal);
  });
  int signal = WaitForSignal();
  if (signal == SIGTERM || signal == SIGINT) {  // nothing was admitted yet, and loading cannot be interrupted
    LogSignal(signal, "stopped_while_loading");
    _exit(0);
  }
  loader.join();
  if (!model.ok()) return Refuse(model.status());

  const ModelFacts& facts = model->engine->facts();
  const SchedulerOptions scheduler = ToSchedulerOptions(options, facts);
  const absl::Status valid = ValidateSchedulerOptions(scheduler);
  if (!valid.ok()) return Refuse(valid);
  metrics.SetModel(facts, options.admin.metrics_expert_detail);
  metrics.SetStartSeconds("tokenizer", model->tokenizer_seconds);
  metrics.SetStartSeconds("engine", model->engine_seconds);
  metrics.SetStartSeconds("total", SecondsSince(start));
  StepObserver observer(&metrics, frontend);
  ServingLoop loop(model->engine.get(), &queue, scheduler, &observer);
  loop.Start();
  frontend->BeginServing({facts, ToRequestLimits(options.model, facts, scheduler), scheduler, model->tokenizer.get(),
                             &queue, model->chat_template.get()},
                            EngineAlive(loop, options.lifecycle.stall_timeout));
  LogServing(options, facts, *doors, **admin, *model, SecondsSince(start));

  do {
    signal = WaitForSignal();
    if (signal == kEngineDeadSignal && !frontend->healthy()) {
      StopAfterFailure(loop, &*doors, Clock::now() + kFlushTime);
    }
  } while (signal != SIGTERM && signal != SIGINT);
  LogSignal(signal, "draining");
  DrainAndStop(options.lifecycle.shutdown_timeout, &loop, &*doors);
  return 0;
}

LogLevel ToLogLevel(const std::string& name) {
  return name == "debug"     ? LogLevel::kDebug
         : name == "warning" ? LogLevel::kWarning
         : name == "error"   ? LogLevel::kError
                             : LogLevel::kInfo;
}

int Main(int argc, char** argv) {
  const ParsedOptions parsed = ParseOptions(ProcessSources(argc, argv));
  if (!parsed.text.empty()) {
    std::fputs(parsed.text.c_str(), stdout);
    return 0;
  }
  for (const std::string& problem : parsed.problems) std::fprintf(stderr, "switchyard-server: %s\n", problem.c_str());
  if (!parsed.problems.empty()) return kExitBadStart;
  SetLogLevel(ToLogLevel(parsed.options.lifecycle.log_level));
  PrepareProcess();
  return Serve(parsed.options);
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) { return switchyard::Main(argc, argv); }
