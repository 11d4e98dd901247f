// switchyard bench: how fast is the server under a load?
#include <atomic>
#include <cmath>
#include <fstream>
#include <memory>
#include <ostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands/command.h"
#include "client/load/load_generator.h"
#include "client/load/plan.h"
#include "client/load/report.h"
#include "client/load/statistics.h"

namespace switchyard {
namespace {

constexpr int kProgressBar = 30;  // columns

struct BenchOptions {
  LoadShape shape;
  LoadOptions load;
  GoodputLimits limits;
  std::string request_rate = "inf";
  std::vector<std::string> goodput;  // "ttft:200"
  std::string dataset;
  std::string output_json;
  int num_warmups = 1;
  bool save_detailed = false;
  bool json = false;
};

// "inf" or a number above 0; nothing otherwise.
std::optional<double> ParseRate(const std::string& text) {
  double rate = 0;
  if (!absl::SimpleAtod(text, &rate) || !(rate > 0)) return std::nullopt;
  return rate;
}

// "ttft:200" sets limits->ttft to 0.2 s. False when it is not of that form.
bool ParseLimit(const std::string& text, GoodputLimits* limits) {
  const size_t colon = text.find(':');
  double milliseconds = 0;
  if (colon == std::string::npos || !absl::SimpleAtod(text.substr(colon + 1), &milliseconds)) return false;
  const std::string name = text.substr(0, colon);
  if (name != "ttft" && name != "tpot" && name != "e2el") return false;
  (name == "ttft" ? limits->ttft : name == "tpot" ? limits->tpot : limits->e2el) = 1e-3 * milliseconds;
  return true;
}

// The lines of a file that are not empty.
absl::StatusOr<std::vector<std::string>> ReadLines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  if (lines.empty()) return absl::InvalidArgumentError("--dataset " + path + " cannot be read or has no text");
  return lines;
}

class Bench {
 public:
  Bench(const CommandContext& context, const BenchOptions& options) : context_(context), options_(options) {}

  int Run() {
    const absl::Status status = Measure();
    ClearProgress();
    if (!status.ok()) return PrintError(context_, status);
    report_.summary = Summarize(report_.run.records, report_.run.duration, options_.limits);
    context_.console.out << (options_.json ? ReportToJson(report_, options_.save_detailed) : RenderReport(report_))
                         << std::flush;
    if (!WriteJson()) return kExitError;
    if (stop_.load()) return kExitInterrupted;
    return report_.summary.failed == 0 ? kExitOk : kExitError;
  }

 private:
  absl::Status Measure() {
    const auto client = Client::Create(context_.client);
    if (!client.ok()) return client.status();
    const auto model = (*client)->GetModel(context_.Call(kShortTimeout));
    if (!model.ok()) return model.status();
    FillReport(*model);
    const absl::StatusOr<PromptSource> source = ReadSource(*model);
    if (!source.ok()) return source.status();
    const auto plan = PlanRequests(options_.shape, *source);
    if (!plan.ok()) return plan.status();

    const InterruptScope scope(context_.console.interrupt, [this] { stop_.store(true); });
    if (absl::Status status = WarmUp(*source); !status.ok()) return status;
    auto run = RunLoad(
        *plan, report_.options, [this](const LoadProgress& now) { ShowProgress(now); }, &stop_);
    if (!run.ok()) return run.status();
    report_.run = *std::move(run);
    return absl::OkStatus();
  }

  void FillReport(const v1::Model& model) {
    report_.model = model.name();
    report_.address = context_.client.address;
    report_.date = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
    report_.shape = options_.shape;
    report_.limits = options_.limits;
    report_.options = options_.load;
    report_.options.client = context_.client;
    report_.options.request_timeout = context_.Call(absl::InfiniteDuration()).timeout;
  }

  absl::StatusOr<PromptSource> ReadSource(const v1::Model& model) const {
    PromptSource source;
    source.vocab_size = model.vocab_size();
    source.excluded_ids.assign(model.eos_token_ids().begin(), model.eos_token_ids().end());
    source.excluded_ids.push_back(model.bos_token_id());
    if (options_.dataset.empty()) return source;
    auto lines = ReadLines(options_.dataset);
    if (!lines.ok()) return lines.status();
    source.texts = *std::move(lines);
    return source;
  }

  // Requests like those of the test, of another seed, one after the other.
  absl::Status WarmUp(const PromptSource& source) const {
    if (options_.num_warmups <= 0) return absl::OkStatus();
    LoadShape shape = options_.shape;
    shape.num_prompts = options_.num_warmups;
    shape.request_rate = std::numeric_limits<double>::infinity();
    shape.seed += 1;
    LoadOptions load = report_.options;
    load.max_concurrency = 1;
    const auto plan = PlanRequests(shape, source);
    if (!plan.ok()) return plan.status();
    const auto run = RunLoad(*plan, load, nullptr, &stop_);
    if (!run.ok()) return run.status();
    for (const RequestRecord& record : run->records) {
      if (!record.status.ok()) return record.status;
    }
    return absl::OkStatus();
  }

  void ShowProgress(const LoadProgress& now) const {
    if (!context_.console.err_is_tty) return;
    const double done = static_cast<double>(now.ended) / options_.shape.num_prompts;
    context_.console.err << absl::StrFormat(
                                "\r|%s| %d/%d, %d running, %d failed, %.0f tokens/s, %.0f s\x1b[K",
                                Bar(done, kProgressBar), now.ended, options_.shape.num_prompts, now.running, now.failed,
                                static_cast<double>(now.output_tokens) / std::max(now.elapsed_seconds, 1e-3),
                                now.elapsed_seconds)
                         << std::flush;
  }

  void ClearProgress() const {
    if (context_.console.err_is_tty) context_.console.err << "\r\x1b[K" << std::flush;
  }

  bool WriteJson() const {
    if (options_.output_json.empty()) return true;
    std::ofstream file(options_.output_json);
    file << ReportToJson(report_, options_.save_detailed);
    file.close();
    if (!file) context_.console.err << "switchyard: cannot write " << options_.output_json << "\n";
    return static_cast<bool>(file);
  }

  const CommandContext& context_;
  const BenchOptions& options_;
  std::atomic<bool> stop_{false};  // flag, set by an interrupt
  LoadReport report_;
};

void DeclareLoad(CLI::App* command, BenchOptions* options) {
  command->add_option("--num-prompts", options->shape.num_prompts, "Requests to send")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Load");
  command
      ->add_option("--request-rate", options->request_rate, "Requests per second, at random times; inf = all at once")
      ->check([](const std::string& text) { return ParseRate(text) ? "" : text + " is not inf or a number above 0"; })
      ->capture_default_str()
      ->group("Load");
  command->add_option("--max-concurrency", options->load.max_concurrency, "Open requests at most; 0 = any number")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Load");
  command->add_option("--connections", options->load.num_connections, "TCP connections to share")
      ->check(CLI::Range(1, 64))
      ->capture_default_str()
      ->group("Load");
  command->add_option("--warmup", options->num_warmups, "Requests before the test, not counted")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Load");
  command->add_option("--seed", options->shape.seed, "Same seed, same prompts and send times")
      ->capture_default_str()
      ->group("Load");
}

void DeclareRequests(CLI::App* command, BenchOptions* options) {
  const auto add = [&](const std::string& name, auto& value, const std::string& description) {
    return command->add_option(name, value, description)->capture_default_str()->group("Requests");
  };
  add("--input-len", options->shape.input_len, "Tokens of a random prompt")->check(CLI::PositiveNumber);
  add("--output-len", options->shape.output_len, "New tokens at most; with --ignore-eos exactly")
      ->check(CLI::PositiveNumber);
  add("--random-range-ratio", options->shape.random_range_ratio, "Lengths vary by this part; below 1")
      ->check(CLI::Range(0.0, 0.999));
  add("--random-prefix-len", options->shape.random_prefix_len, "Tokens that all prompts begin with, in addition")
      ->check(CLI::NonNegativeNumber);
  add("--dataset", options->dataset, "File of prompts, one per line, instead of random tokens");
  add("--temperature", options->load.temperature, "0 = always the most likely token");
  command->add_flag("--ignore-eos", options->load.ignore_eos, "Go on after the end-of-sequence token")
      ->group("Requests");
}

void DeclareOutput(CLI::App* command, BenchOptions* options) {
  command->add_option("--goodput", options->goodput, "Limits in ms of a good request: ttft:200 tpot:50 e2el:2000")
      ->check([](const std::string& text) {
        GoodputLimits limits;
        return ParseLimit(text, &limits) ? "" : text + " is not ttft:MS, tpot:MS or e2el:MS";
      })
      ->group("Output");
  command->add_option("--output-json", options->output_json, "Write the result here, keys as `vllm bench serve`")
      ->group("Output");
  command->add_flag("--save-detailed", options->save_detailed, "Put every request into the JSON too")->group("Output");
  command->add_flag("--json", options->json, "Print JSON instead of the table")->group("Output");
}

int RunBench(const CommandContext& context, const BenchOptions& options) { return Bench(context, options).Run(); }

}  // namespace

void AddBenchCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command = app->add_subcommand("bench", "Measure throughput and latency under a load");
  auto options = std::make_shared<BenchOptions>();
  DeclareLoad(command, options.get());
  DeclareRequests(command, options.get());
  DeclareOutput(command, options.get());
  command->callback([context, options] {
    options->shape.request_rate = *ParseRate(options->request_rate);
    for (const std::string& limit : options->goodput) ParseLimit(limit, &options->limits);
    context->action = [=] { return RunBench(*context, *options); };
  });
}

}  // namespace switchyard
