// switchyard experts: the load of every expert, live.
#include <unistd.h>

#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands/command.h"
#include "client/view/expert_map.h"

namespace switchyard {
namespace {

struct ExpertsOptions {
  std::vector<int32_t> layers;
  double interval_seconds = 1;
  std::string metric = "tokens";
  int num_hottest = 5;
  bool once = false;
  bool total = false;
  bool json = false;
};

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + 1e-9 * duration.nanos();
}

// "1234 tokens/s, 40.1 steps/s, top 2 of 8 experts, last 1.0 s".
std::string Headline(const v1::ExpertLoad& load, const std::string& what) {
  const double seconds = std::max(Seconds(load.period()), 1e-9);
  return absl::StrFormat("%.1f tokens/s, %.1f steps/s, top %d of %d experts, %s %.1f s\n",
                         static_cast<double>(load.num_tokens()) / seconds,
                         static_cast<double>(load.num_steps()) / seconds, load.top_k(), load.num_experts(), what,
                         seconds);
}

// Keeps the frame inside the screen: a longer one would scroll and smear.
std::string ClipLines(const std::string& frame, int height) {
  std::string clipped;
  size_t begin = 0;
  for (int line = 1; begin < frame.size(); ++line) {
    const size_t end = frame.find('\n', begin);
    if (line == height) return clipped + "...\x1b[K";
    absl::StrAppend(&clipped, frame.substr(begin, end - begin), "\x1b[K\n");
    begin = end + 1;
  }
  return clipped;
}

// The alternate screen, without cursor, while it lives.
class FullScreen {
 public:
  FullScreen(std::ostream& out, bool on) : out_(out), on_(on) {
    if (on_) out_ << "\x1b[?1049h\x1b[?25l" << std::flush;
  }
  ~FullScreen() {
    if (on_) out_ << "\x1b[?25h\x1b[?1049l" << std::flush;
  }
  FullScreen(const FullScreen&) = delete;
  FullScreen& operator=(const FullScreen&) = delete;

  void Show(const std::string& frame, int height) {
    if (on_) out_ << "\x1b[H" << ClipLines(frame, height) << "\x1b[J" << std::flush;
    if (!on_) out_ << frame << std::endl;
  }

 private:
  std::ostream& out_;
  const bool on_;
};

class ExpertsCommand {
 public:
  ExpertsCommand(const CommandContext& context, const ExpertsOptions& options, std::unique_ptr<Client> client)
      : context_(context), options_(options), client_(std::move(client)) {}

  int Run() { return options_.once ? PrintOnce() : Watch(); }

 private:
  int PrintOnce() {
    v1::GetExpertLoadRequest request;
    *request.mutable_layers() = {options_.layers.begin(), options_.layers.end()};
    const auto load = client_->GetExpertLoad(request, context_.Call(kShortTimeout));
    if (!load.ok()) return PrintError(context_, load.status());
    if (options_.json) return PrintJson(context_, *load);
    context_.console.out << Frame(*load, *load, context_.console.terminal);
    return kExitOk;
  }

  int Watch() {
    v1::WatchExpertLoadRequest request;
    *request.mutable_layers() = {options_.layers.begin(), options_.layers.end()};
    const auto nanos = static_cast<int64_t>(options_.interval_seconds * 1e9);
    request.mutable_interval()->set_seconds(nanos / 1'000'000'000);
    request.mutable_interval()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
    const auto stream = client_->WatchExpertLoad(request, context_.Call(absl::InfiniteDuration()));
    absl::Status status;
    {
      const InterruptScope scope(context_.console.interrupt, [&] { stream->Cancel(); });
      FullScreen screen(context_.console.out, context_.console.terminal.is_tty && !options_.json);
      v1::ExpertLoad load;
      while (stream->Next(&load)) Show(load, &screen);
      status = stream->Finish();
    }
    const Interrupt* interrupt = context_.console.interrupt;
    if (interrupt != nullptr && interrupt->happened()) return kExitOk;
    return status.ok() ? static_cast<int>(kExitOk) : PrintError(context_, status);
  }

  void Show(const v1::ExpertLoad& load, FullScreen* screen) {
    if (options_.json) {
      PrintJson(context_, load);
      return;
    }
    // The window may have changed its size.
    const Terminal& terminal = context_.console.terminal;
    const Terminal now = terminal.is_tty ? DetectTerminal(STDOUT_FILENO) : terminal;
    Terminal sized = terminal;
    sized.width = now.width;
    sized.height = now.height;
    screen->Show(Frame(load, has_previous_ ? AddedSince(previous_, load) : load, sized), sized.height);
    previous_ = load;
    has_previous_ = true;
  }

  // Shows what was added, or, when nothing was, everything since the start.
  std::string Frame(const v1::ExpertLoad& total, const v1::ExpertLoad& added, const Terminal& terminal) const {
    const ExpertMapStyle style{.color = terminal.color,
                               .width = terminal.width,
                               .metric = options_.metric == "latency" ? ExpertMetric::kLatency : ExpertMetric::kTokens,
                               .num_hottest = options_.num_hottest};
    const bool show_total = options_.total || added.num_tokens() == 0 || added.num_tokens() == total.num_tokens();
    const v1::ExpertLoad& shown = show_total ? total : added;
    const std::string idle = added.num_tokens() == 0 ? "idle; " : "";
    return absl::StrCat("switchyard experts at ", context_.client.address, ": ", idle,
                        Headline(shown, show_total ? "since the start," : "last"),
                        options_.metric == "latency" ? "microseconds per row; half a block = the mean\n"
                                                     : "share of the layer's rows; half a block = even\n",
                        RenderExpertMap(shown, style));
  }

  const CommandContext& context_;
  const ExpertsOptions& options_;
  const std::unique_ptr<Client> client_;
  v1::ExpertLoad previous_;
  bool has_previous_ = false;
};

int RunExperts(const CommandContext& context, const ExpertsOptions& options) {
  auto client = Client::Create(context.client);
  if (!client.ok()) return PrintError(context, client.status());
  return ExpertsCommand(context, options, *std::move(client)).Run();
}

}  // namespace

void AddExpertsCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command = app->add_subcommand("experts", "Show the load and latency of every expert, live");
  auto options = std::make_shared<ExpertsOptions>();
  command->add_option("--interval", options->interval_seconds, "Seconds between two frames")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  command->add_option("--layers", options->layers, "These MoE layers only: 0,1,2")->delimiter(',');
  command->add_option("--metric", options->metric, "tokens (share of the rows) or latency (microseconds per row)")
      ->check(CLI::IsMember({"tokens", "latency"}))
      ->capture_default_str();
  command->add_option("--hottest", options->num_hottest, "Lines in the list of the hottest experts")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--once", options->once, "Print one snapshot since the start and end");
  command->add_flag("--total", options->total, "Always show everything since the start");
  command->add_flag("--json", options->json, "Print each snapshot as a line of JSON");
  command->callback([context, options] { context->action = [=] { return RunExperts(*context, *options); }; });
}

}  // namespace switchyard
