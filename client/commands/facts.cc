// switchyard model, server, load: facts as lines of "name  value", or as JSON.
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/commands/command.h"

namespace switchyard {
namespace {

std::string Fact(const std::string& name, const std::string& value) {
  return absl::StrFormat("%-24s %s\n", name, MakePrintable(value));
}

// 1234567 as "1,234,567".
std::string Count(int64_t number) {
  std::string digits = absl::StrCat(number);
  const size_t first = number < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string OnOff(bool on) { return on ? "on" : "off"; }

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + 1e-9 * duration.nanos();
}

// {0, 1, 2, 5} as "0-2, 5".
template <class Numbers>
std::string Ranges(const Numbers& numbers) {
  std::vector<std::string> ranges;
  for (int i = 0; i < numbers.size();) {
    int end = i + 1;
    while (end < numbers.size() && numbers.Get(end) == numbers.Get(end - 1) + 1) ++end;
    ranges.push_back(end - i == 1 ? absl::StrCat(numbers.Get(i))
                                  : absl::StrCat(numbers.Get(i), "-", numbers.Get(end - 1)));
    i = end;
  }
  return absl::StrJoin(ranges, ", ");
}

std::string Render(const v1::Model& model) {
  return Fact("name", model.name()) + Fact("architecture", model.architecture()) + Fact("dtype", model.dtype()) +
         Fact("parameters", Count(model.num_parameters())) +
         Fact("active per token", Count(model.num_active_parameters())) +
         Fact("weight bytes", Count(model.weight_bytes())) + Fact("vocabulary", Count(model.vocab_size())) +
         Fact("context tokens", Count(model.max_model_len())) + Fact("layers", Count(model.num_layers())) +
         Fact("MoE layers", Ranges(model.moe_layers())) + Fact("experts per MoE layer", Count(model.num_experts())) +
         Fact("experts per token", Count(model.top_k())) +
         Fact("chat template", model.has_chat_template() ? "yes" : "no") +
         Fact("end of sequence", absl::StrJoin(model.eos_token_ids(), ", "));
}

std::string Render(const v1::Server& server) {
  const v1::ServerLimits& limits = server.limits();
  return Fact("version", server.version()) + Fact("backend", server.backend()) + Fact("model", server.model()) +
         Fact("uptime seconds", absl::StrFormat("%.1f", Seconds(server.uptime()))) +
         Fact("load seconds", absl::StrFormat("%.3f", Seconds(server.load_duration()))) +
         Fact("max_model_len", Count(limits.max_model_len())) + Fact("max_num_seqs", Count(limits.max_num_seqs())) +
         Fact("max_num_batched_tokens", Count(limits.max_num_batched_tokens())) +
         Fact("max_num_queued_reqs", Count(limits.max_num_queued_reqs())) +
         Fact("max_num_queued_tokens", Count(limits.max_num_queued_tokens())) +
         Fact("max_message_bytes", Count(limits.max_message_bytes())) +
         Fact("max_prompt_bytes", Count(limits.max_prompt_bytes())) +
         Fact("KV blocks", absl::StrCat(Count(limits.num_kv_blocks()), " of ", limits.block_size(), " tokens")) +
         Fact("prefix caching", OnOff(server.features().prefix_caching())) +
         Fact("chunked prefill", OnOff(server.features().chunked_prefill())) +
         Fact("priority scheduling", OnOff(server.features().priority_scheduling()));
}

std::string Render(const v1::Load& load) {
  return Fact("ready", load.ready() ? "yes" : "no") + Fact("open calls", Count(load.open_calls())) +
         Fact("waiting requests", Count(load.waiting_requests())) +
         Fact("running requests", Count(load.running_requests())) +
         Fact("waiting tokens", Count(load.waiting_tokens())) +
         Fact("KV blocks used", absl::StrCat(Count(load.kv_blocks_used()), " of ", Count(load.kv_blocks_total()),
                                             absl::StrFormat(" (%.1f%%)", 100 * load.kv_cache_usage()))) +
         Fact("prompt tokens", Count(static_cast<int64_t>(load.prompt_tokens_total()))) +
         Fact("generated tokens", Count(static_cast<int64_t>(load.generation_tokens_total()))) +
         Fact("preemptions", Count(static_cast<int64_t>(load.preemptions_total())));
}

template <class Facts>
void AddFactsCommand(CLI::App* app, CommandContext* context, const char* name, const char* description,
                     absl::StatusOr<Facts> (Client::*get)(const CallOptions&)) {
  CLI::App* command = app->add_subcommand(name, description);
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print JSON");
  const auto run = [=] {
    const auto client = Client::Create(context->client);
    if (!client.ok()) return PrintError(*context, client.status());
    const absl::StatusOr<Facts> facts = (client->get()->*get)(context->Call(kShortTimeout));
    if (!facts.ok()) return PrintError(*context, facts.status());
    if (*json) return PrintJson(*context, *facts);
    context->console.out << Render(*facts);
    return static_cast<int>(kExitOk);
  };
  command->callback([=] { context->action = run; });
}

}  // namespace

void AddModelCommand(CLI::App* app, CommandContext* context) {
  AddFactsCommand(app, context, "model", "Show the served model", &Client::GetModel);
}

void AddServerCommand(CLI::App* app, CommandContext* context) {
  AddFactsCommand(app, context, "server", "Show the server's version, backend and limits", &Client::GetServer);
}

void AddLoadCommand(CLI::App* app, CommandContext* context) {
  AddFactsCommand(app, context, "load", "Show how busy the server is", &Client::GetLoad);
}

}  // namespace switchyard
